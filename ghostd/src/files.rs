//! Where the master keeps its configuration, keys and membership.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ghost_proto::instance::Instance;
use ghost_trust::{Ca, MasterIdentity, pem_file};

/// The master's files.
#[derive(Clone, Debug)]
pub struct Files {
    /// `/etc/INSTANCE/ghostd.toml`
    pub config: PathBuf,
    /// `/var/lib/INSTANCE`: for root only.
    pub state: PathBuf,
}

impl Files {
    /// The files of an instance on this host.
    pub fn of(instance: &Instance) -> Files {
        Files { config: instance.etc().join("ghostd.toml"), state: instance.state() }
    }

    pub fn ca(&self) -> PathBuf {
        self.state.join("ca.pem")
    }

    pub fn ca_key(&self) -> PathBuf {
        self.state.join("ca-key.pem")
    }

    pub fn master(&self) -> PathBuf {
        self.state.join("master.pem")
    }

    pub fn master_key(&self) -> PathBuf {
        self.state.join("master-key.pem")
    }

    /// Nodes and tokens.
    pub fn members(&self) -> PathBuf {
        self.state.join("nodes.toml")
    }

    /// The cluster's CA.
    ///
    /// # Errors
    /// `ghostd init` has not been run, or a file is damaged.
    pub fn load_ca(&self) -> Result<Ca> {
        let (certificate, key) = (read(&self.ca())?, read(&self.ca_key())?);
        Ca::load(&certificate, &key).with_context(|| format!("{} and {}", self.ca().display(), self.ca_key().display()))
    }

    /// The master's own certificate and key.
    ///
    /// # Errors
    /// `ghostd init` has not been run, or a file is damaged.
    pub fn load_master(&self) -> Result<MasterIdentity> {
        let text = |path: PathBuf| read(&path).map(|text| (path, text));
        let (path, pem) = text(self.master())?;
        let certificate = pem_file::read_certificate(&pem).with_context(|| path.display().to_string())?;
        let (path, pem) = text(self.master_key())?;
        let key = pem_file::read_key(&pem).with_context(|| path.display().to_string())?;
        let (path, pem) = text(self.ca())?;
        let ca = pem_file::read_certificate(&pem).with_context(|| path.display().to_string())?;
        Ok(MasterIdentity { certificate, key, ca })
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read; `ghostd init` makes the cluster's keys", path.display()))
}

/// Makes a directory that only root can enter; takes other people's rights away from one that is there.
pub(crate) fn private_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("directory {}", path.display()))
}

/// Puts `content` in place of a file such that after a crash there is the old content or the new one, whole.
///
/// # Errors
/// One of the steps failed; the old content is still in place, except that a failure of the very last one (fsync of the
/// directory) leaves it open which of the two survives a loss of power.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
    let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?.to_string_lossy();
    let fresh = directory.join(format!(".{name}.new"));
    let write = || -> std::io::Result<()> {
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Made anew with its final mode: at no time can others read what only root may.
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        fs::File::open(directory)?.sync_all()
    };
    write()
        .inspect_err(|_| {
            // What has been written of it is of no use, and takes room on a disk that may be full.
            let _ = fs::remove_file(&fresh);
        })
        .with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.toml");
        replace(&path, b"one", 0o600).unwrap();
        // A leftover of a crash, readable by all and longer.
        fs::write(dir.path().join(".nodes.toml.new"), "left over from a crash").unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.toml");
        replace(&path, b"one", 0o600).unwrap();
        // Something in the way that cannot be removed as a file.
        fs::create_dir(dir.path().join(".nodes.toml.new")).unwrap();
        assert!(replace(&path, b"two", 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
