//! `ghostd init`: a new cluster's keys and configuration.
//!
//! Invariant: without `--force` nothing that is there is changed; a half-made cluster is seen as one that is there.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use ghost_trust::{Ca, pem_file};

use crate::config::{Config, PORT};
use crate::files::{Files, private_directory, replace};

/// Makes the CA, the master's certificate and the configuration file. Gives lines for the user: what there is now, and what
/// to do next.
///
/// # Errors
/// Something is already there and `force` is not given; or a file cannot be written (not root?).
pub fn run(files: &Files, listen: Option<SocketAddr>, force: bool) -> Result<Vec<String>> {
    let listen = listen.unwrap_or(Config::default().listen);
    let keys = [files.ca(), files.ca_key(), files.master(), files.master_key(), files.members()];
    if !force && let Some(there) = keys.iter().chain([&files.config]).find(|path| path.exists()) {
        bail!(
            "{} is already there, nothing was changed; `ghostd init --force` makes a new cluster in its place, \
             after which every node has to join again",
            there.display()
        );
    }
    let ca = Ca::create().context("the CA cannot be made")?;
    let master = ca.issue_master().context("the master's certificate cannot be made")?;
    private_directory(&files.state)?;
    // The members of a former cluster have no place in the new one.
    match fs::remove_file(files.members()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("{} cannot be removed", files.members().display()));
        }
        _ => {}
    }
    replace(&files.ca_key(), ca.key_pem().as_bytes(), 0o600)?;
    replace(&files.ca(), pem_file::write_certificate(ca.certificate()).as_bytes(), 0o600)?;
    replace(&files.master_key(), pem_file::write_key(&master.key).as_bytes(), 0o600)?;
    replace(&files.master(), pem_file::write_certificate(&master.certificate).as_bytes(), 0o600)?;
    if let Some(directory) = files.config.parent() {
        fs::create_dir_all(directory).with_context(|| format!("directory {}", directory.display()))?;
    }
    replace(&files.config, template(listen).as_bytes(), 0o644)?;
    Ok(vec![
        format!("cluster {} has been made: keys in {}", ca.cluster(), files.state.display()),
        format!("configuration: {}", files.config.display()),
        "next: start ghostd, make a token with `bpctl token`, and on each node: `nodeagent join THIS_HOST < TOKEN_FILE`"
            .to_owned(),
    ])
}

/// The configuration file with every key: what differs from the default is set, the others are comments.
fn template(listen: SocketAddr) -> String {
    let defaults = Config::default();
    let (lease, margin) = (defaults.lease.as_secs(), defaults.margin.as_secs());
    let days = defaults.certificate_term.as_secs() / (24 * 3600);
    let comment = if listen == defaults.listen { "# " } else { "" };
    let node_up = defaults.node_up_limit.as_secs();
    let log = defaults.log;
    let mode = defaults.socket_mode;
    format!(
        r#"# Configuration of ghostd, the master of a ghostproc cluster. The values in comments are the defaults.
# An unknown key is an error. A running ghostd reads this file again at SIGHUP, and says in its log what has changed; a mistake
# changes nothing.

# Where nodes connect to; [::]:{PORT} for IPv6 and IPv4.
{comment}listen = "{listen}"

# A node that has not heard from the master for this long kills its cluster processes (1 to 40 s).
# lease_seconds = {lease}
# The master waits so much longer before it declares them dead. Together less than 60 s.
# margin_seconds = {margin}

# What is logged: error, warn, info, debug or trace; also by part, as in "info,ghostd::membership=debug".
# log = "{log}"

# Permission bits of the socket that the commands use; 0o666: every local user may use the cluster.
# socket_mode = 0o{mode:o}

# Whether /proc shows a remote process's own figures in place of its ghost's: "on" or "off".
# view = "on"

# How long a node's certificate is valid.
# certificate_days = {days}

# Nodes that exist whether they have joined or not; until then they show as down.
# nodes = "0-63"

# What is run (as root, with the node's number as its argument) for a node that has come; until it has ended with status 0 the node is
# root's alone. Its output is kept in /var/log/INSTANCE/node_up/NUMBER.log.
# node_up = "/etc/ghostproc/node_up"
# node_up_seconds = {node_up}

# Where a Prometheus server may ask for ghostd's figures, by HTTP without encryption; without it only `bpctl metrics` tells them.
# metrics_listen = "127.0.0.1:9223"

# Who may start programs on a node: owner, group and mode as of a file, the execute bits count.
# [[node]]
# nodes = "0-63"
# owner = "root"
# group = "root"
# mode = 0o111

# The number that a joining node gets if it does not ask for one: the first rule that fits, else the next free number.
# {{}} stands for digits; n7 becomes node 7.
# [[join]]
# hostname = "n{{}}"
# add = 0
# The first address of the range becomes node `first`.
# [[join]]
# addresses = "10.0.0.10-10.0.0.73"
# first = 0
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn files(root: &std::path::Path) -> Files {
        Files { config: root.join("etc/ghostd.toml"), state: root.join("lib") }
    }

    #[test]
    fn what_it_makes_can_be_used_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        run(&files, Some("10.0.0.1:77".parse().unwrap()), false).unwrap();
        assert_eq!(Config::load(&files.config).unwrap().listen.to_string(), "10.0.0.1:77");
        let ca = files.load_ca().unwrap();
        let master = files.load_master().unwrap();
        assert_eq!(&master.ca, ca.certificate());
        ghost_trust::tls::server_config(&master).unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&files.state), 0o700);
        for file in fs::read_dir(&files.state).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn nothing_is_overwritten_without_force() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        run(&files, None, false).unwrap();
        let before = files.load_ca().unwrap().fingerprint();
        let error = run(&files, None, false).expect_err("a cluster was overwritten").to_string();
        assert!(error.contains("--force"), "{error}");
        // A part of a cluster is protected too.
        fs::remove_file(&files.config).unwrap();
        assert!(run(&files, None, false).is_err());
        assert_eq!(files.load_ca().unwrap().fingerprint(), before);
        fs::write(files.members(), "old members").unwrap();
        run(&files, None, true).unwrap();
        assert_ne!(files.load_ca().unwrap().fingerprint(), before);
        assert!(!files.members().exists(), "the old cluster's members are in the new one");
    }

    /// Every key of the template is one that the file may have, with its default.
    #[test]
    fn the_comments_of_the_template_are_true() {
        let text = template(Config::default().listen);
        assert_eq!(Config::parse(&text, "t".as_ref()).unwrap(), Config::default());
        let is_setting =
            |line: &&str| line.starts_with("[[") || line.split_once(" = ").is_some_and(|(k, _)| !k.contains(' '));
        let bare = |line: &str| line.trim_start_matches("# ").to_owned();
        let settings: Vec<String> = text.lines().map(bare).filter(|line| is_setting(&line.as_str())).collect();
        let config = Config::parse(&settings.join("\n"), "t".as_ref()).unwrap();
        let expected = Config {
            nodes: config.nodes.clone(),
            permissions: config.permissions.clone(),
            node_up: config.node_up.clone(),
            metrics_listen: config.metrics_listen,
            join: config.join.clone(),
            ..Config::default()
        };
        assert_eq!(config, expected);
        assert_eq!((config.nodes.len(), config.permissions.len(), config.join.len()), (64, 1, 2));
        assert!(config.node_up.is_some());
    }
}
