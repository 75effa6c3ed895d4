//! What an administrator does with the packages: install, upgrade, remove, purge, by dpkg itself, and with the tarball by its script.
//! On the master of the test cluster, which has a root of its own and no systemd; with one: the virtual machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use acceptance::{Cluster, Ended, Member};

/// dpkg writes a lot, and waits for disks.
const LONG: Duration = Duration::from_secs(120);
const PACKAGES: [&str; 3] = ["ghostproc-tools", "ghostproc", "ghostproc-node"];

/// Builds the packages under a revision, unless that has been done, and says where they are.
fn built(revision: &str) -> Vec<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, Vec<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut all = BUILT.lock().expect("no test has failed while it built");
    all.entry(revision.to_owned()).or_insert_with(|| build(revision)).clone()
}

fn build(revision: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let output = root.join("target/dist-trial");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["xtask", "dist", "--quick", "--profile", "cluster", "--revision", revision, "--output"]).arg(&output);
    let made = command.current_dir(root).output().expect("cargo");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = String::from_utf8(made.stdout).expect("paths");
    made.lines().map(PathBuf::from).collect()
}

/// Puts them where the member sees them, and gives their names.
fn provide(member: &Member, revision: &str) -> Vec<String> {
    let copied = built(revision).into_iter().map(|path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        fs::copy(&path, member.path(&format!("/root/{name}")))
            .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        name
    });
    copied.collect()
}

/// A shell's line on the member, which must succeed. Its standard error is in the message if it does not.
#[track_caller]
fn sh(member: &Member, line: &str) -> String {
    let line = format!("cd /root\n{line}");
    let run = member.command("sh").args(["-ec", &line]).env("DEBIAN_FRONTEND", "noninteractive").limit(LONG).run();
    run.expect(Ended::Exited(0)).text()
}

fn state(member: &Member, package: &str) -> String {
    let words = ["-W", "-f", "${db:Status-Abbrev} ${Version}", package];
    member.command("dpkg-query").args(words).run().text().trim().to_owned()
}

#[track_caller]
fn files(member: &Member, there: bool, paths: &[&str]) {
    for path in paths {
        let found = member.path(path);
        assert_eq!(found.exists() || found.is_symlink(), there, "{path}");
    }
}

const PROGRAMS: [&str; 6] = [
    "/usr/sbin/ghostd",
    "/usr/sbin/nodeagent",
    "/usr/libexec/ghostproc/ghost-holder",
    "/usr/bin/bpsh",
    "/usr/share/man/man8/ghostd.8.gz",
    "/usr/share/bash-completion/completions/bpsh",
];
const UNITS: [&str; 2] = [
    "/etc/systemd/system/multi-user.target.wants/ghostd.service",
    "/etc/systemd/system/multi-user.target.wants/nodeagent.service",
];
/// What the cluster's own ghostd has made.
const KEYS: [&str; 3] =
    ["/etc/ghostproc/ghostd.toml", "/var/lib/ghostproc/ca-key.pem", "/var/lib/ghostproc/master-key.pem"];
const NODES_KEY: &str = "/var/lib/ghostproc/node/key.pem";

#[test]
fn packages_are_installed_upgraded_removed_and_purged() {
    let cluster = Cluster::attach();
    let master = cluster.master();
    files(master, true, &KEYS);
    sh(master, &format!("mkdir -p /var/lib/ghostproc/node && echo key > {NODES_KEY}"));

    let first = provide(master, "1");
    assert_eq!(first.iter().filter(|name| name.ends_with("-1_amd64.deb")).count(), 3, "{first:?}");
    sh(master, "dpkg -i *-1_amd64.deb");
    for package in PACKAGES {
        assert_eq!(state(master, package), concat!("ii  ", env!("CARGO_PKG_VERSION"), "-1"));
    }
    files(master, true, &PROGRAMS);
    files(master, true, &UNITS);
    let capability = "getcap /usr/bin/bpsh";
    assert!(sh(master, capability).contains("cap_checkpoint_restore=ep"));
    // What was installed works, as a user, beside the holder's directory.
    assert_eq!(sh(master, "/usr/bin/bpsh 0 echo here").trim(), "here");
    sh(master, "/usr/sbin/ghostd check && dpkg --verify ghostproc ghostproc-node ghostproc-tools");

    // An upgrade, while something runs.
    let configuration = fs::read(master.path(KEYS[0])).expect("the configuration");
    let mut running = master.command("/usr/bin/bpsh").args(["0", "sh", "-c", "echo on; exec sleep 1000"]).start();
    assert_eq!(running.lines(1, LONG), ["on"]);
    provide(master, "2");
    sh(master, "dpkg -i *-2_amd64.deb");
    for package in PACKAGES {
        assert_eq!(state(master, package), concat!("ii  ", env!("CARGO_PKG_VERSION"), "-2"));
    }
    assert!(sh(master, capability).contains("cap_checkpoint_restore=ep"), "an upgrade keeps it");
    assert_eq!(fs::read(master.path(KEYS[0])).expect("the configuration"), configuration);
    files(master, true, &UNITS);
    assert_eq!(running.ended(), None, "an upgrade ends no remote process");
    running.kill();

    sh(master, "dpkg -r ghostproc ghostproc-node ghostproc-tools");
    for package in PACKAGES {
        assert_eq!(state(master, package), concat!("rc  ", env!("CARGO_PKG_VERSION"), "-2"));
    }
    files(master, false, &PROGRAMS);
    files(master, true, &KEYS);
    files(master, true, &[NODES_KEY]);

    // A machine that is no master any more may still be a node.
    sh(master, "dpkg -P ghostproc");
    files(master, false, &KEYS);
    files(master, false, &["/var/log/ghostproc", UNITS[0]]);
    files(master, true, &[NODES_KEY]);
    sh(master, "dpkg -P ghostproc-node ghostproc-tools");
    files(master, false, &[NODES_KEY, "/etc/ghostproc", "/var/lib/ghostproc", UNITS[1]]);
    for package in PACKAGES {
        let state = state(master, package);
        assert!(state.is_empty() || state.starts_with("un"), "{package}: {state}");
    }
    // Nothing of theirs is left but what dpkg itself keeps of any package.
    let left = sh(
        master,
        "find /usr /etc /var/lib/systemd /lib/systemd -path /usr/src -prune -o -name '*ghost[dp]*' -print | sort",
    );
    assert_eq!(left.trim(), "");
}

#[test]
fn the_tarball_is_installed_and_removed_by_its_script() {
    let cluster = Cluster::attach();
    let node = cluster.node(0);
    let made = provide(node, "1");
    let tarball = made.iter().find(|name| name.ends_with(".tar.gz")).expect("a tarball");
    sh(node, &format!("tar xzf {tarball}"));
    let script = |words: &str| format!("./{}/install.sh {words}", tarball.trim_end_matches(".tar.gz"));
    // In an odd place, so that nothing is found by chance.
    const PREFIX: &str = "/opt/gp";
    sh(node, &script("--role master --role node --prefix /opt/gp --no-systemd"));
    files(
        node,
        true,
        &["/opt/gp/sbin/ghostd", "/opt/gp/libexec/ghostproc/ghost-holder", "/opt/gp/share/man/man1/bpsh.1"],
    );
    files(node, true, &["/opt/gp/share/zsh/site-functions/_bpsh"]);
    assert!(sh(node, "getcap /opt/gp/bin/bpsh").contains("cap_checkpoint_restore=ep"));
    assert!(sh(node, "/opt/gp/sbin/nodeagent --version").starts_with("nodeagent "));
    // Over itself.
    sh(node, &script("upgrade --role master --role node --prefix /opt/gp --no-systemd"));
    assert!(sh(node, "getcap /opt/gp/bin/bpsh").contains("cap_checkpoint_restore=ep"));
    sh(node, &script("uninstall --role master --prefix /opt/gp"));
    files(node, false, &["/opt/gp/sbin/ghostd"]);
    files(node, true, &["/opt/gp/sbin/nodeagent", "/opt/gp/bin/bpsh"]);
    sh(node, &script("uninstall --role node --prefix /opt/gp"));
    files(node, false, &[PREFIX]);

    // For another root: with units, which name the programs' place.
    sh(node, &script("--role node --destdir image --prefix /usr/local"));
    let unit = sh(node, "cat image/usr/local/lib/systemd/system/nodeagent.service");
    assert!(unit.contains("ExecStart=/usr/local/sbin/nodeagent\n"), "{unit}");
    for (words, why) in [
        ("", "--role"),
        ("--role slave", "no role `slave`"),
        ("--role node --prefix here", "absolute"),
        ("--role node --prefix", "needs a value"),
        ("--role node --purge", "uninstall"),
        ("--role node --quick", "`--quick` is not understood"),
    ] {
        let run = node.command("sh").args(["-c", &format!("cd /root; {}", script(words))]).run();
        assert!(run.error_text().starts_with("install.sh: ") && run.error_text().contains(why), "{words}: {run:?}");
        run.expect(Ended::Exited(1));
    }
}
