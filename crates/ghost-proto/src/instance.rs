//! The instance's name: it stands in every path, so that several clusters share a host.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The environment variable that names the instance when no option does.
pub const ENVIRONMENT: &str = "GHOSTPROC_INSTANCE";
/// The instance when nobody names one.
pub const DEFAULT: &str = "ghostproc";
/// Longest name, in bytes: it is part of socket paths, which the kernel limits to 107 bytes, and of cgroup and pin names.
pub const MAX: usize = 32;

/// An instance's name: 1 to 32 characters of `a-z 0-9 - _`, the first of them a letter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance(String);

/// The text cannot be an instance's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be an instance's name: 1 to 32 characters of a-z, 0-9, - and _, beginning with a letter")]
pub struct BadInstance(pub String);

impl Instance {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `/etc/NAME`: configuration.
    pub fn etc(&self) -> PathBuf {
        PathBuf::from("/etc").join(&self.0)
    }

    /// `/run/NAME`: sockets; gone after a reboot.
    pub fn run(&self) -> PathBuf {
        PathBuf::from("/run").join(&self.0)
    }

    /// `/var/lib/NAME`: keys and membership.
    pub fn state(&self) -> PathBuf {
        PathBuf::from("/var/lib").join(&self.0)
    }

    /// `/var/log/NAME`: what programs have said that run for the cluster.
    pub fn log(&self) -> PathBuf {
        PathBuf::from("/var/log").join(&self.0)
    }

    /// ghostd's socket for the commands.
    pub fn ghostd_socket(&self) -> PathBuf {
        self.run().join("ghostd.sock")
    }

    /// The holder's socket for commands that run as cluster processes on its node. A machine can be master and node.
    pub fn node_socket(&self) -> PathBuf {
        self.run().join("node.sock")
    }

    /// The holder's socket for nodeagent.
    pub fn holder_socket(&self) -> PathBuf {
        self.run().join("holder.sock")
    }
}

impl Default for Instance {
    fn default() -> Instance {
        Instance(DEFAULT.to_owned())
    }
}

impl FromStr for Instance {
    type Err = BadInstance;

    fn from_str(text: &str) -> Result<Instance, BadInstance> {
        let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if letters && first && text.len() <= MAX {
            Ok(Instance(text.to_owned()))
        } else {
            Err(BadInstance(text.to_owned()))
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_its_directory() {
        for good in ["ghostproc", "a", "test-7_b"] {
            assert_eq!(good.parse::<Instance>().unwrap().run(), PathBuf::from(format!("/run/{good}")));
        }
        let long = "a".repeat(33);
        for bad in ["", ".", "..", "../x", "a/b", "a.b", "A", "-a", "7", "a b", "a\n", "é", long.as_str()] {
            assert!(bad.parse::<Instance>().is_err(), "{bad:?}");
        }
    }
}
