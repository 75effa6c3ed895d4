//! What newer kernels have that helps, and what is lacking without it: one table for the daemons' start, for `bpctl doctor`, and
//! for the README, which has the same lines.
//!
//! A kernel that has more than its release says (distributions take things over) is believed where asking it is easy.

use std::io::ErrorKind;

use ghost_sys::nowait;
use ghost_sys::pidfd::{self, SignalInfo, Target};

use crate::requirements::{Role, parse_release};

/// One line of the table.
pub struct Feature {
    /// The first release that has it.
    pub since: (u32, u32),
    /// What it is, for people.
    pub name: &'static str,
    pub roles: &'static [Role],
    /// What is lacking without it.
    pub lost: &'static str,
    /// Whether this kernel has it, where it can be asked.
    probe: fn() -> Option<bool>,
}

/// The table, by release.
pub const FEATURES: &[Feature] = &[
    // fs/pipe.c, create_pipe_files(): FMODE_NOWAIT.
    Feature {
        since: (6, 4),
        name: "reads and writes of pipes that never wait (RWF_NOWAIT)",
        roles: &[Role::Master],
        lost: "bpsh goes by poll(2): where several programs write to the pipe that is its output, it may wait for that pipe's reader",
        probe: knows_nowait,
    },
    // net/core/sock.c, sk_getsockopt().
    Feature {
        since: (6, 5),
        name: "the process behind a connection (SO_PEERPIDFD)",
        roles: &[Role::Master],
        lost: "a command is looked up by its number just after it has connected; user and groups are the kernel's word all the same",
        probe: || None,
    },
    // fs/fuse/dev.c, fuse_resend().
    Feature {
        since: (6, 9),
        name: "FUSE requests that come again (FUSE_NOTIFY_RESEND)",
        roles: &[Role::Master],
        lost: "a restart, crash or upgrade of ghostd ends all remote processes (cleanly: `N: lost`, SIGKILL's status), and `bpctl handover` is refused",
        probe: || None,
    },
    // kernel/signal.c, do_pidfd_send_signal().
    Feature {
        since: (6, 9),
        name: "signals to groups and threads by descriptor (PIDFD_SIGNAL_PROCESS_GROUP)",
        roles: &[Role::Node],
        lost: "who gets a signal as a member of a group is not told its sender and value; tgkill(2) of a ghost reaches the process as a whole",
        probe: knows_group_signals,
    },
    // fs/pidfs.c, pidfd_info().
    Feature {
        since: (6, 13),
        name: "who a process is, by descriptor (PIDFD_GET_INFO)",
        roles: &[Role::Master],
        lost: "nothing; ghosts are looked up in /proc, which takes some microseconds more each",
        probe: || None,
    },
    // kernel/pid_namespace.c, create_pid_namespace(): pid_max.
    Feature {
        since: (6, 14),
        name: "a limit of process numbers for each PID namespace (kernel.pid_max)",
        roles: &[Role::Node],
        lost: "where kernel.pid_max of the node is below 4194304, what programs fork has other numbers there than here",
        probe: || None,
    },
];

impl Feature {
    /// Whether a kernel lacks it: what it has answered counts before its release; an unknown release is an old one.
    pub fn is_lacking(&self, release: Option<&str>, probed: Option<bool>) -> bool {
        let old = release.and_then(parse_release).is_none_or(|version| version < self.since);
        !probed.unwrap_or(!old)
    }

    /// Whether the running kernel lacks it.
    pub fn is_lacking_here(&self, release: Option<&str>) -> bool {
        self.is_lacking(release, (self.probe)())
    }

    /// The line of the README.
    pub fn row(&self) -> String {
        let who = |role: &Role| if *role == Role::Master { "master" } else { "node" };
        let who: Vec<&str> = self.roles.iter().map(who).collect();
        let (major, minor) = self.since;
        format!("| {major}.{minor} | {} | {} | {} |", who.join(", "), self.name, self.lost)
    }
}

fn knows_nowait() -> Option<bool> {
    let (reader, _writer) = std::io::pipe().ok()?;
    match nowait::read_buf(&reader, &mut &mut [0; 1][..], 1) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(true),
        Err(error) if error.kind() == ErrorKind::Unsupported => Some(false),
        _ => None,
    }
}

/// Signal 0 to this process's number as a group's: there may be none, and it reaches nobody. A flag that is not known is
/// refused before anything else.
fn knows_group_signals() -> Option<bool> {
    let own = pidfd::open(std::process::id()).ok()?;
    let info = SignalInfo { signal: 0, code: -1, pid: 0, uid: 0, value: 0 };
    match pidfd::send(&own, info, Target::Group) {
        Err(error) => Some(error.kind() != ErrorKind::InvalidInput),
        Ok(()) => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn lacks(release: Option<&str>) -> Vec<(u32, u32)> {
        FEATURES.iter().filter(|feature| feature.is_lacking(release, None)).map(|feature| feature.since).collect()
    }

    #[test]
    fn a_kernel_lacks_what_came_after_it() {
        assert_eq!(lacks(Some("6.1.0-28-amd64")).len(), FEATURES.len());
        assert_eq!(lacks(Some("6.8.0-45-generic")), [(6, 9), (6, 9), (6, 13), (6, 14)]);
        assert_eq!(lacks(Some("6.12.57+deb13-cloud-amd64")), [(6, 13), (6, 14)]);
        assert_eq!(lacks(Some("7.0.0")), []);
        assert_eq!(lacks(None).len(), FEATURES.len());
        assert!(FEATURES.is_sorted_by_key(|feature| feature.since));
    }

    #[test]
    fn what_the_kernel_answers_counts_before_its_release() {
        for feature in FEATURES {
            assert!(!feature.is_lacking(Some("6.1.0"), Some(true)));
            assert!(feature.is_lacking(Some("7.0.0"), Some(false)));
        }
    }

    #[test]
    fn this_kernel_has_what_its_release_says() {
        let release = crate::requirements::kernel_release();
        let version = release.as_deref().and_then(parse_release).unwrap();
        for feature in FEATURES.iter().filter(|feature| feature.since <= version) {
            assert!(!feature.is_lacking_here(release.as_deref()), "{}", feature.name);
        }
    }

    #[test]
    fn the_readme_has_the_same_table() {
        let readme = include_str!("../../../README.md");
        let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| 6.")).collect();
        assert_eq!(rows, FEATURES.iter().map(Feature::row).collect::<Vec<_>>());
    }
}
