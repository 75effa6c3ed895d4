//! Programs that the daemons start and nobody else does: where an installation has them.
//!
//! ```text
//! /usr/sbin/ghostd     /usr/sbin/nodeagent
//! /usr/libexec/ghostproc/ghost-view, ghost-holder
//! ```
//! Built or unpacked by hand they stand beside the daemon.

use std::env;
use std::path::{Path, PathBuf};

/// Below the prefix of the installation.
const INSTALLED: &str = "libexec/ghostproc";

/// Beside this program, else where an installation has it, else wherever PATH has it.
pub fn path(name: &str) -> PathBuf {
    let own = env::current_exe().ok();
    own.as_deref().and_then(Path::parent).and_then(|directory| find(directory, name)).unwrap_or_else(|| name.into())
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let installed = directory.parent().map(|prefix| prefix.join(INSTALLED).join(name));
    [Some(directory.join(name)), installed].into_iter().flatten().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn beside_goes_before_installed() {
        let top = tempfile::tempdir().expect("directory");
        let (sbin, libexec) = (top.path().join("sbin"), top.path().join("libexec/ghostproc"));
        fs::create_dir_all(&sbin).expect("sbin");
        fs::create_dir_all(&libexec).expect("libexec");
        assert_eq!(find(&sbin, "ghost-view"), None);
        fs::write(libexec.join("ghost-view"), "installed").expect("file");
        let found = |name| fs::read_to_string(find(&sbin, name).expect("found")).expect("read");
        assert_eq!(found("ghost-view"), "installed");
        fs::write(sbin.join("ghost-view"), "beside").expect("file");
        assert_eq!(found("ghost-view"), "beside");
    }
}
