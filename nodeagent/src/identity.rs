//! Who this node is: its certificate and key, its master, as `nodeagent join` wrote them to `/var/lib/INSTANCE/node/`.
//!
//! ```text
//! key.pem         private key, made here, never sent
//! cert.pem        this node's certificate
//! ca.pem          the cluster's CA
//! identity.toml   master and cluster
//! ```
//! Invariant: the directory appears, or is exchanged, as a whole: there is never a key with another one's certificate.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ghost_proto::instance::Instance;
use ghost_trust::{NodeIdentity, pem_file};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use crate::master_address::MasterAddress;

/// This node's place in a cluster.
#[derive(Debug)]
pub struct Identity {
    pub tls: NodeIdentity,
    pub master: MasterAddress,
    /// The cluster's name, for messages.
    pub cluster: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    master: String,
    cluster: String,
}

/// The directory that holds the identity.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store of an instance on this host.
    pub fn of(instance: &Instance) -> Store {
        Store::at(instance.state().join("node"))
    }

    /// A store in a directory of this name, which need not exist.
    pub fn at(directory: PathBuf) -> Store {
        Store { directory }
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Whether this machine has joined.
    pub fn exists(&self) -> bool {
        self.directory.join("identity.toml").exists()
    }

    /// Reads the identity, and checks that its parts belong together.
    ///
    /// # Errors
    /// The machine has not joined, or a file is damaged.
    pub fn load(&self) -> Result<Identity> {
        let read = |name: &str| {
            let path = self.directory.join(name);
            let text = fs::read_to_string(&path).with_context(|| {
                format!(
                    "{} cannot be read; `nodeagent join MASTER < TOKEN_FILE` makes this host a node",
                    path.display()
                )
            })?;
            anyhow::Ok((path, text))
        };
        let (path, text) = read("identity.toml")?;
        let stored: Stored = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let master = stored.master.parse().with_context(|| path.display().to_string())?;
        let (path, text) = read("cert.pem")?;
        let certificate = pem_file::read_certificate(&text).with_context(|| path.display().to_string())?;
        let (path, text) = read("ca.pem")?;
        let ca = pem_file::read_certificate(&text).with_context(|| path.display().to_string())?;
        let (path, text) = read("key.pem")?;
        let key = pem_file::read_key(&text).with_context(|| path.display().to_string())?;
        let tls = NodeIdentity::new(certificate, key, ca).with_context(|| {
            format!("{}: the files do not make an identity; join again with --force", self.directory.display())
        })?;
        Ok(Identity { tls, master, cluster: stored.cluster })
    }

    /// Prepares to save: finds out before the token is spent whether that will be possible.
    ///
    /// # Errors
    /// The directory cannot be made (not root?).
    pub fn prepare(&self) -> Result<Prepared<'_>> {
        let name = self.directory.file_name().context("the identity's directory has no name")?.to_string_lossy();
        let parent = self.directory.parent().context("the identity's directory has no parent")?;
        let fresh = parent.join(format!(".{name}.new"));
        let make = || -> std::io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            match fs::remove_dir_all(&fresh) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fs::DirBuilder::new().mode(0o700).create(&fresh)
        };
        make().with_context(|| format!("{} cannot be made; are you root?", fresh.display()))?;
        Ok(Prepared { store: self, parent: parent.to_owned(), fresh })
    }
}

/// A new, empty directory beside the present one.
#[derive(Debug)]
pub struct Prepared<'a> {
    store: &'a Store,
    parent: PathBuf,
    fresh: PathBuf,
}

impl Prepared<'_> {
    /// Puts the identity in place of the present one.
    ///
    /// # Errors
    /// It cannot be written; the present one is still there.
    pub fn save(self, identity: &Identity) -> Result<()> {
        let stored = Stored { master: identity.master.to_string(), cluster: identity.cluster.clone() };
        let about = toml::to_string(&stored).context("the identity cannot be written as TOML")?;
        let write = |name: &str, content: &str| -> std::io::Result<()> {
            let path = self.fresh.join(name);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()
        };
        let save = || -> std::io::Result<()> {
            write("key.pem", &pem_file::write_key(identity.tls.key()))?;
            write("cert.pem", &pem_file::write_certificate(identity.tls.certificate()))?;
            write("ca.pem", &pem_file::write_certificate(identity.tls.ca()))?;
            write("identity.toml", &about)?;
            fs::File::open(&self.fresh)?.sync_all()?;
            let directory = &self.store.directory;
            if directory.exists() {
                renameat2(AT_FDCWD, &self.fresh, AT_FDCWD, directory, RenameFlags::RENAME_EXCHANGE)?;
            } else {
                fs::rename(&self.fresh, directory)?;
            }
            fs::File::open(&self.parent)?.sync_all()
        };
        // What is left at the old name (after an exchange the former identity) goes when this is dropped.
        save().with_context(|| format!("{} cannot be written", self.store.directory.display()))
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        // Nothing depends on it: the next one begins with the same removal, and reports why if it fails.
        let _ = fs::remove_dir_all(&self.fresh);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use ghost_proto::ids::NodeNumber;
    use ghost_trust::Ca;
    use ghost_trust::ca::request_certificate;

    use super::*;

    #[test]
    fn files_of_two_clusters_are_refused_and_the_reason_is_told_once() {
        let [ours, another] = [(); 2].map(|()| Ca::create().expect("a CA"));
        let (request, key) = request_certificate().expect("a request");
        let issued = ours.issue_node(&request, NodeNumber(3), SystemTime::now(), Duration::from_secs(60));
        let tls = NodeIdentity::new(issued.expect("signed").certificate, key, ours.certificate().clone());
        let identity = Identity {
            tls: tls.expect("its own CA"),
            master: "head".parse().expect("an address"),
            cluster: ours.cluster().to_string(),
        };
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::at(directory.path().join("node"));
        store.prepare().expect("made").save(&identity).expect("written");
        assert_eq!(store.load().expect("an identity").cluster, identity.cluster);
        let ca = store.path().join("ca.pem");
        fs::write(ca, pem_file::write_certificate(another.certificate())).expect("written");
        let told = format!("{:#}", store.load().expect_err("another cluster's CA"));
        let parts: Vec<&str> = told.split(": ").collect();
        let twice = (1..parts.len()).any(|at| parts[..at].contains(&parts[at]));
        assert!(told.contains("join again with --force") && !twice, "{told}");
    }
}
