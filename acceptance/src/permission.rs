//! With whose rights a process runs, as the kernel says it.

use std::collections::BTreeSet;
use std::fs;

use crate::User;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Real, effective, saved, filesystem.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: BTreeSet<u32>,
    /// Bits of capabilities(7).
    pub effective: u64,
    pub permitted: u64,
    pub ambient: u64,
}

impl Rights {
    /// What a program started by this user has: nothing but his identity.
    pub fn of_user(user: &User) -> Self {
        let capabilities = if user.uid == 0 { u64::MAX } else { 0 };
        Self {
            uids: [user.uid; 4],
            gids: [user.gid; 4],
            groups: user.groups.iter().copied().collect(),
            effective: capabilities,
            permitted: capabilities,
            ambient: 0,
        }
    }

    /// Of a process by the host's number; None when it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let list = |name: &str| -> Vec<u32> {
            line(name).unwrap_or_default().split_whitespace().filter_map(|text| text.parse().ok()).collect()
        };
        let mask = |name: &str| u64::from_str_radix(line(name)?.trim(), 16).ok();
        Some(Self {
            uids: list("Uid").try_into().ok()?,
            gids: list("Gid").try_into().ok()?,
            groups: list("Groups").into_iter().collect(),
            effective: mask("CapEff")?,
            permitted: mask("CapPrm")?,
            ambient: mask("CapAmb")?,
        })
    }

    /// What a process has other than it should, one line each. Root may lack capabilities: a container's root does.
    pub fn wrong(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut say = |what: &str, have: String, wanted: String| {
            if have != wanted {
                found.push(format!("{what}: {have} instead of {wanted}"));
            }
        };
        say("uids", format!("{:?}", self.uids), format!("{:?}", wanted.uids));
        say("gids", format!("{:?}", self.gids), format!("{:?}", wanted.gids));
        say("groups", format!("{:?}", self.groups), format!("{:?}", wanted.groups));
        let beyond = |have: u64, may: u64| format!("{:x}", have & !may);
        say("capabilities in effect", beyond(self.effective, wanted.effective), "0".into());
        say("capabilities permitted", beyond(self.permitted, wanted.permitted), "0".into());
        say("capabilities ambient", beyond(self.ambient, wanted.ambient), "0".into());
        found
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Cluster, eventually};

    /// Rights of a `sleep` started by these words as root.
    fn rights_of(words: &[&str]) -> Rights {
        let cluster = Cluster::attach();
        let running = cluster.command(words[0]).args(&words[1..]).start();
        eventually("sleep runs", Duration::from_secs(20), || {
            (cluster.snapshot().get(running.pid())?.name == "sleep").then_some(())
        });
        Rights::of(running.pid()).expect("it runs")
    }

    const AS_USER: [&str; 3] = ["setpriv", "--reuid=1000", "--regid=1000"];

    #[test]
    fn a_users_program_has_the_users_rights() {
        let rights = rights_of(&[AS_USER.as_slice(), &["--groups=1000,2000,3000", "sleep", "50"]].concat());
        assert_eq!(rights.wrong(&Rights::of_user(&User::ordinary())), [""; 0]);
    }

    #[test]
    fn planted_a_group_too_much_is_seen() {
        let rights = rights_of(&[AS_USER.as_slice(), &["--groups=0,1000,2000,3000", "sleep", "50"]].concat());
        let wrong = rights.wrong(&Rights::of_user(&User::ordinary()));
        assert_eq!(wrong, ["groups: {0, 1000, 2000, 3000} instead of {1000, 2000, 3000}"]);
    }

    #[test]
    fn planted_a_real_uid_left_behind_is_seen() {
        let words = ["setpriv", "--euid=1000", "--regid=1000", "--groups=1000,2000,3000", "sleep", "50"];
        let wrong = rights_of(&words).wrong(&Rights::of_user(&User::ordinary()));
        assert!(wrong.iter().any(|line| line.starts_with("uids: [0, 1000, 1000, 1000]")), "{wrong:?}");
    }

    #[test]
    fn planted_a_capability_left_behind_is_seen() {
        let caps = ["--inh-caps=-all,+kill", "--ambient-caps=+kill", "--groups=1000,2000,3000", "sleep", "50"];
        let wrong = rights_of(&[AS_USER.as_slice(), &caps].concat()).wrong(&Rights::of_user(&User::ordinary()));
        assert!(wrong.contains(&"capabilities ambient: 20 instead of 0".to_owned()), "{wrong:?}");
    }
}
