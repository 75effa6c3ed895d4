//! What the root file systems are made of.

use std::hash::{DefaultHasher, Hash, Hasher};

use clap::ValueEnum;

/// A Debian release, which decides the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Release {
    /// Debian 13, Linux 6.12
    Trixie,
    /// Debian 12, Linux 6.1
    Bookworm,
}

impl Release {
    pub fn suite(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Bookworm => "bookworm",
        }
    }
}

/// Beside Debian's smallest set. udev, or systemd waits 90 s for devices; libpam-systemd, for logins as they are;
/// libcap2-bin is what the packages depend on: the machines have no mirror to fetch it from.
pub const PACKAGES: &[&str] = &[
    "dbus",
    "iproute2",
    "kmod",
    "libcap2-bin",
    "libpam-systemd",
    "login",
    "procps",
    "psmisc",
    "systemd",
    "systemd-sysv",
    "udev",
];

/// Depends on the release's newest kernel.
pub const KERNEL: &str = "linux-image-cloud-amd64";

/// Machines of which a test knows nothing need no timers and no terminals.
pub const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-pcrphase.service",
];

/// A machine of the tests.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    pub name: &'static str,
    pub address: &'static str,
    pub mac: &'static str,
}

/// The master first, then the nodes by their numbers. The addresses are those of the README.
pub const SEATS: [Seat; 3] = [
    Seat { name: "master", address: "10.0.0.1", mac: "52:54:00:00:00:01" },
    Seat { name: "n0", address: "10.0.0.10", mac: "52:54:00:00:00:10" },
    Seat { name: "n1", address: "10.0.0.11", mac: "52:54:00:00:00:11" },
];

/// The user who is on all machines.
pub const USER: &str = "alice";

/// Files that are written into the root, with their contents.
pub fn files() -> Vec<(String, String)> {
    let mut files = vec![
        // A valid one, or the first start is one that asks; the kernel's command line gives each machine its own.
        ("/etc/machine-id".to_owned(), "0123456789abcdef0123456789abcdef\n".to_owned()),
        ("/etc/fstab".to_owned(), String::new()),
        // No mirror is within reach.
        ("/etc/apt/sources.list".to_owned(), String::new()),
        ("/etc/systemd/system/vmtests-agent.service".to_owned(), AGENT.to_owned()),
        // Starts of daemons on a machine that is emulated on a busy one take their time.
        ("/etc/systemd/system.conf.d/vmtests.conf".to_owned(), "[Manager]\nDefaultTimeoutStartSec=600\n".to_owned()),
    ];
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for Seat { name, address, mac } in SEATS {
        hosts += &format!("{address} {name}\n");
        files.push((
            format!("/etc/systemd/network/10-{name}.network"),
            format!(
                "[Match]\nMACAddress={mac}\n[Network]\nAddress={address}/24\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n"
            ),
        ));
    }
    files.push(("/etc/hosts".to_owned(), hosts));
    files
}

/// The disk with the programs under test is the second one.
const AGENT: &str = "[Unit]
Description=The test runner's hands in this machine
StartLimitIntervalSec=0

[Service]
ExecStartPre=/bin/mkdir -p /run/vmtests
ExecStart=/bin/sh -c '{ mountpoint -q /run/vmtests || mount -o ro /dev/vda /run/vmtests; } && exec /run/vmtests/vm-agent /dev/virtio-ports/vmtests'
Restart=always
RestartSec=500ms
KillMode=process
TasksMax=infinity

[Install]
WantedBy=multi-user.target
";

/// Changes with everything above.
pub fn hash(release: Release) -> u64 {
    let mut hasher = DefaultHasher::new();
    (release.suite(), PACKAGES, KERNEL, MASKED, USER, files()).hash(&mut hasher);
    // What is done with it.
    include_str!("build.rs").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_releases_have_roots_of_their_own() {
        assert_ne!(hash(Release::Trixie), hash(Release::Bookworm));
    }
}
