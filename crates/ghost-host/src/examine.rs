//! What `bpctl doctor` says of a host: what is required, and what makes it less than it could be, each with the way out.

use std::fs;
use std::path::Path;

use ghost_proto::examine::{Finding, Gravity};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;

use crate::features::{FEATURES, Feature};
use crate::requirements::{self, REQUIREMENTS, Requirement, Role};

/// Descriptors below which large launches fail.
const DESCRIPTORS: u64 = 65_536;
/// Process ids that a cluster should be able to choose from.
const PIDS: u64 = 1 << 20;
/// Free memory for files in /run, in bytes.
const RUN_SPACE: u64 = 16 << 20;

/// Looks at this host with the eyes of the daemon that runs here.
pub fn examine(role: Role) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        REQUIREMENTS.iter().filter_map(|requirement| required(requirement, role)).collect();
    let release = requirements::kernel_release();
    let features = FEATURES.iter().filter(|feature| feature.roles.contains(&role));
    findings.extend(features.map(|feature| has(feature, feature.is_lacking_here(release.as_deref()))));
    if role == Role::Master {
        findings.push(keeper(std::env::var_os("NOTIFY_SOCKET").is_some(), std::env::var_os("FDSTORE").is_some()));
    }
    if role == Role::Node {
        findings.push(chosen_numbers(Path::new("/proc/sys/kernel/ns_last_pid").exists()));
    }
    findings.push(descriptors(getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard)));
    findings.push(pids(read_number("/proc/sys/kernel/pid_max")));
    if let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") {
        findings.push(proc_of(&mounts));
    }
    let free = statvfs(Path::new("/run")).ok().map(|space| space.blocks_available() * space.fragment_size());
    findings.push(room(free));
    findings
}

fn required(requirement: &Requirement, role: Role) -> Option<Finding> {
    let without = requirement.without.iter().find(|(who, _)| *who == role).map(|(_, lacking)| lacking);
    if without.is_none() && !requirement.roles.contains(&role) {
        return None;
    }
    Some(match ((requirement.check)(), without) {
        (Ok(()), _) => fine(requirement.name, String::new()),
        (Err(found), Some(lacking)) => less(requirement.name, format!("{lacking}: {found}")),
        (Err(found), None) => Finding {
            gravity: Gravity::Broken.into(),
            what: requirement.name.to_owned(),
            found: format!("{found} (it is needed: {})", requirement.purpose),
        },
    })
}

fn fine(what: &str, found: String) -> Finding {
    Finding { gravity: Gravity::Fine.into(), what: what.to_owned(), found }
}

fn less(what: &str, found: String) -> Finding {
    Finding { gravity: Gravity::Less.into(), what: what.to_owned(), found }
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Says in the log what makes this host less than it could be: at a daemon's start.
pub fn announce(role: Role) {
    for finding in examine(role).into_iter().filter(|finding| finding.gravity() != Gravity::Fine) {
        tracing::warn!("{}: {}", finding.what, finding.found);
    }
}

fn has(feature: &Feature, lacking: bool) -> Finding {
    let (major, minor) = feature.since;
    if lacking {
        less(feature.name, format!("{}; boot Linux {major}.{minor} or later", feature.lost))
    } else {
        fine(feature.name, String::new())
    }
}

/// What programs fork gets numbers that are free on the master: kernel/pid_namespace.c, `pid_ns_ctl_table`.
fn chosen_numbers(there: bool) -> Finding {
    const WHAT: &str = "a choice of process numbers (CONFIG_CHECKPOINT_RESTORE)";
    if there {
        fine(WHAT, String::new())
    } else {
        let found = "there is no kernel.ns_last_pid: what programs fork has other numbers there than here; boot a distribution's kernel";
        less(WHAT, found.to_owned())
    }
}

fn keeper(notifies: bool, keeps: bool) -> Finding {
    const WHAT: &str = "the service manager keeps ghostd's descriptors";
    if keeps {
        fine(WHAT, String::new())
    } else if notifies {
        fine(WHAT, "if its unit has FileDescriptorStoreMax= (systemd says so from release 254 on)".to_owned())
    } else {
        let found = "there is none: a ghostd that is killed takes with it what runs; run it as a systemd service";
        less(WHAT, found.to_owned())
    }
}

fn descriptors(hard: Option<u64>) -> Finding {
    const WHAT: &str = "descriptors for the daemon";
    match hard {
        Some(hard) if hard >= DESCRIPTORS => fine(WHAT, hard.to_string()),
        Some(hard) => less(
            WHAT,
            format!("at most {hard}: large launches are refused; set LimitNOFILE={DESCRIPTORS} or more in its unit"),
        ),
        None => less(WHAT, "the limit cannot be read".to_owned()),
    }
}

fn pids(highest: Option<u64>) -> Finding {
    const WHAT: &str = "process ids";
    match highest {
        Some(highest) if highest >= PIDS => fine(WHAT, format!("up to {highest}")),
        Some(highest) => less(
            WHAT,
            format!(
                "up to {highest}: processes of several nodes collide more often, and then have other numbers there than here; \
                 `sysctl kernel.pid_max=4194304`"
            ),
        ),
        None => less(WHAT, "/proc/sys/kernel/pid_max cannot be read; mount proc on /proc".to_owned()),
    }
}

/// With hidepid users do not see each other's processes, ghosts included (proc(5)).
fn proc_of(mountinfo: &str) -> Finding {
    const WHAT: &str = "/proc shows all processes";
    let proc = mountinfo.lines().find(|line| line.split(' ').nth(4) == Some("/proc"));
    let hidden = proc.is_some_and(|line| {
        line.split([' ', ',']).any(|word| word.strip_prefix("hidepid=").is_some_and(|how| how != "0" && how != "off"))
    });
    if hidden {
        less(
            WHAT,
            "it is mounted with hidepid: users see their own ghosts alone; `mount -o remount,hidepid=0 /proc`".into(),
        )
    } else {
        fine(WHAT, String::new())
    }
}

fn room(free: Option<u64>) -> Finding {
    const WHAT: &str = "room in /run";
    match free {
        Some(free) if free >= RUN_SPACE => fine(WHAT, format!("{} MiB", free >> 20)),
        Some(free) => {
            less(WHAT, format!("{} MiB are left: sockets and notes may not fit; delete what fills it", free >> 20))
        }
        None => less(WHAT, "it cannot be looked at; mount a tmpfs there".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(finding: &Finding, gravity: Gravity, part: &str) {
        assert_eq!(finding.gravity(), gravity, "{finding:?}");
        assert!(finding.found.contains(part), "{finding:?}");
    }

    #[test]
    fn what_is_less_is_said_with_the_way_out() {
        for feature in FEATURES {
            is(&has(feature, true), Gravity::Less, "boot Linux 6.");
            is(&has(feature, false), Gravity::Fine, "");
        }
        is(&chosen_numbers(false), Gravity::Less, "ns_last_pid");
        is(&chosen_numbers(true), Gravity::Fine, "");
        is(&keeper(true, true), Gravity::Fine, "");
        is(&keeper(true, false), Gravity::Fine, "FileDescriptorStoreMax=");
        is(&keeper(false, false), Gravity::Less, "systemd service");
        is(&descriptors(Some(1024)), Gravity::Less, "LimitNOFILE=");
        is(&descriptors(Some(1 << 20)), Gravity::Fine, "1048576");
        is(&pids(Some(32_768)), Gravity::Less, "kernel.pid_max");
        is(&pids(Some(1 << 22)), Gravity::Fine, "4194304");
        is(&room(Some(1 << 20)), Gravity::Less, "1 MiB");
        is(&room(Some(1 << 30)), Gravity::Fine, "1024 MiB");
        let mount =
            |options: &str| format!("21 1 0:5 / /sys rw - sysfs s rw\n22 1 0:6 / /proc rw - proc proc rw{options}\n");
        is(&proc_of(&mount(",hidepid=invisible")), Gravity::Less, "hidepid=0");
        is(&proc_of(&mount(",hidepid=2")), Gravity::Less, "remount");
        is(&proc_of(&mount("")), Gravity::Fine, "");
        is(&proc_of(&mount(",hidepid=off")), Gravity::Fine, "");
    }

    #[test]
    fn what_a_role_can_do_without_is_less_and_what_it_cannot_is_broken() {
        let absent = || Err("there is none; make one".to_owned());
        let requirement = Requirement {
            name: "x",
            purpose: "y",
            roles: &[Role::Master],
            without: &[(Role::Node, "z is lacking")],
            check: absent,
        };
        let finding = |role| required(&requirement, role).unwrap();
        is(&finding(Role::Master), Gravity::Broken, "there is none; make one (it is needed: y)");
        is(&finding(Role::Node), Gravity::Less, "z is lacking: there is none; make one");
        let masters = Requirement { without: &[], ..requirement };
        assert_eq!(required(&masters, Role::Node), None);
    }

    #[test]
    fn every_requirement_of_a_role_is_looked_at() {
        for role in [Role::Master, Role::Node] {
            let findings = examine(role);
            for requirement in REQUIREMENTS.iter().filter(|requirement| requirement.roles.contains(&role)) {
                assert!(findings.iter().any(|finding| finding.what == requirement.name), "{}", requirement.name);
            }
        }
    }
}
