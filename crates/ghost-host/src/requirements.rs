//! What the kernel must offer: one table for the daemons' start, for the test cluster and for `bpctl doctor`.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Who needs a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds ghosts: runs ghostd.
    Master,
    /// Runs programs: nodeagent and the holder.
    Node,
}

/// One line of the table.
pub struct Requirement {
    /// What is needed, for people.
    pub name: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    pub roles: &'static [Role],
    /// Who can do without, and what is lacking then.
    pub without: &'static [(Role, &'static str)],
    pub(crate) check: fn() -> Result<(), String>,
}

/// A requirement that is not met.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    pub name: &'static str,
    pub purpose: &'static str,
    /// What was found, and the way out.
    pub found: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing ({}): {}", self.name, self.purpose, self.found)
    }
}

/// Oldest kernel that is worked with.
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// A node without kernel programs runs what it is given, and cannot tell of more.
const UNSEEN: &[(Role, &str)] = &[(Role::Node, "what programs of this node fork has no ghosts")];

/// The table.
pub const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        name: "Linux 6.1 or later",
        purpose: "task storage, clone3 with a chosen PID, pidfds",
        roles: &[Role::Master, Role::Node],
        without: &[],
        check: kernel_version,
    },
    Requirement {
        name: "root",
        purpose: "mounts, namespaces and kernel programs",
        roles: &[Role::Master, Role::Node],
        without: &[],
        check: root,
    },
    Requirement {
        name: "BTF of the kernel (CONFIG_DEBUG_INFO_BTF)",
        purpose: "the kernel programs find their way by it",
        roles: &[Role::Master],
        without: UNSEEN,
        check: || present("/sys/kernel/btf/vmlinux", "use a distribution kernel, or mount sysfs on /sys"),
    },
    Requirement {
        name: "the right to load kernel programs (CAP_BPF and CAP_PERFMON)",
        purpose: "signals to ghosts are seen by them",
        roles: &[Role::Master],
        without: UNSEEN,
        check: || capabilities(&[(39, "CAP_BPF"), (38, "CAP_PERFMON")]),
    },
    Requirement {
        name: "FUSE (/dev/fuse)",
        purpose: "ghosts sleep on it",
        roles: &[Role::Master],
        without: &[],
        check: fuse,
    },
    Requirement {
        name: "no time limit on FUSE requests (fs.fuse.default_request_timeout and max_request_timeout = 0)",
        purpose: "the kernel would abort the sleep of every ghost",
        roles: &[Role::Master],
        without: &[],
        check: no_fuse_timeout,
    },
    Requirement {
        name: "cgroup v2",
        purpose: "what a launch started is found and ended by its cgroup",
        roles: &[Role::Node],
        without: &[],
        check: cgroup2,
    },
    Requirement {
        name: "the rights to make namespaces and choose PIDs (CAP_SYS_ADMIN)",
        purpose: "the cluster's processes have a PID namespace of their own",
        roles: &[Role::Node],
        without: &[],
        check: || capabilities(&[(21, "CAP_SYS_ADMIN")]),
    },
];

/// The running kernel's release, as `uname -r` has it.
pub fn kernel_release() -> Option<String> {
    Some(nix::sys::utsname::uname().ok()?.release().to_string_lossy().into_owned())
}

/// What is missing here for a role.
pub fn missing(role: Role) -> Vec<Missing> {
    REQUIREMENTS
        .iter()
        .filter(|requirement| requirement.roles.contains(&role))
        .filter_map(|requirement| {
            let found = (requirement.check)().err()?;
            Some(Missing { name: requirement.name, purpose: requirement.purpose, found })
        })
        .collect()
}

fn kernel_version() -> Result<(), String> {
    new_enough(&kernel_release().ok_or("its release cannot be read")?)
}

fn new_enough(release: &str) -> Result<(), String> {
    match parse_release(release) {
        Some(version) if version >= OLDEST_KERNEL => Ok(()),
        _ => Err(format!("this is Linux {release}; boot a newer kernel")),
    }
}

/// This host has what a role needs.
///
/// # Errors
/// It has not: what is missing and the way out, line by line, for people.
pub fn fit(role: Role) -> Result<(), String> {
    let lines: Vec<String> = missing(role).iter().map(ToString::to_string).collect();
    let who = if role == Role::Master { "master" } else { "node" };
    if lines.is_empty() { Ok(()) } else { Err(format!("this host cannot be a {who}:\n  {}", lines.join("\n  "))) }
}

pub(crate) fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("this user is not root; start it as root".into()) }
}

fn present(path: &str, way_out: &str) -> Result<(), String> {
    if Path::new(path).exists() { Ok(()) } else { Err(format!("there is no {path}; {way_out}")) }
}

fn capabilities(wanted: &[(u32, &str)]) -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let effective = effective_capabilities(&status).ok_or("/proc/self/status has no CapEff line")?;
    // CAP_SYS_ADMIN (21) stands in for CAP_BPF and CAP_PERFMON, see capabilities(7).
    let lacking: Vec<&str> = wanted
        .iter()
        .filter(|(number, _)| effective & (1 << number) == 0 && effective & (1 << 21) == 0)
        .map(|(_, name)| *name)
        .collect();
    if lacking.is_empty() {
        Ok(())
    } else {
        Err(format!("this process lacks {}; run it as root outside a restricted container", lacking.join(" and ")))
    }
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

fn fuse() -> Result<(), String> {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("there is no /dev/fuse; load the module with `modprobe fuse`".into())
        }
        Err(error) => Err(format!("/dev/fuse cannot be opened: {error}")),
    }
}

fn no_fuse_timeout() -> Result<(), String> {
    for name in ["default_request_timeout", "max_request_timeout"] {
        // Before Linux 6.14 there is no such limit.
        if let Ok(text) = fs::read_to_string(format!("/proc/sys/fs/fuse/{name}"))
            && text.trim() != "0"
        {
            return Err(format!("fs.fuse.{name} is {}; set it with `sysctl fs.fuse.{name}=0`", text.trim()));
        }
    }
    Ok(())
}

fn cgroup2() -> Result<(), String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    if mounts.lines().any(|line| line.contains(" - cgroup2 ")) {
        Ok(())
    } else {
        Err("no cgroup2 file system is mounted; `mount -t cgroup2 none /sys/fs/cgroup`".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        assert_eq!(parse_release("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(parse_release("6.12.57+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(parse_release("6.18.44"), Some((6, 18)));
        assert_eq!(parse_release("unknown"), None);
    }

    #[test]
    fn an_older_kernel_is_refused_with_the_reason() {
        for release in ["5.15.0-91-generic", "4.18.0-553.el8_10.x86_64", "6.0.19", "unknown"] {
            assert_eq!(new_enough(release), Err(format!("this is Linux {release}; boot a newer kernel")));
        }
        for release in ["6.1.0-28-amd64", "6.12.57", "7.0.0-rc1"] {
            assert_eq!(new_enough(release), Ok(()));
        }
    }

    #[test]
    fn capabilities_are_read_from_the_status_file() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        let text =
            Missing { name: "FUSE", purpose: "ghosts sleep on it", found: "there is no /dev/fuse".into() }.to_string();
        assert_eq!(text, "FUSE is missing (ghosts sleep on it): there is no /dev/fuse");
    }
}
