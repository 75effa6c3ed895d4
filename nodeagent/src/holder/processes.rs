//! What /proc tells of the processes in the namespace.
//!
//! Everything read here may be out of date at once; callers say why that is no harm.

use std::collections::HashMap;
use std::fs;

/// The part of `/proc/PID/stat` that says where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub ppid: u32,
    pub pgid: u32,
    pub sid: u32,
}

/// Of one process, `None` if it is gone.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The letter of its state (proc_pid_stat(5)), `None` if it is gone.
pub fn state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.get(text.rfind(')')? + 1..)?.trim_start().chars().next()
}

/// Real and saved user of a process (its thread-group leader), `None` if it is gone.
pub fn users(pid: u32) -> Option<[u32; 2]> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut ids = text.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace();
    let real = ids.next()?.parse().ok()?;
    let saved = ids.nth(1)?.parse().ok()?;
    Some([real, saved])
}

/// All processes that this /proc shows.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Those of `processes` that are among `roots` or descend from one of them by parents that are all alive.
pub fn descendants(roots: &[u32], processes: &[u32]) -> Vec<u32> {
    let parents = processes.iter().filter_map(|&pid| Some((pid, stat(pid)?.ppid))).collect();
    below(roots, &parents)
}

fn below(roots: &[u32], parents: &HashMap<u32, u32>) -> Vec<u32> {
    let belongs = |&pid: &u32| {
        let mut at = pid;
        // As many steps as there are processes end every chain, also one that was read while it changed.
        for _ in 0..=parents.len() {
            if roots.contains(&at) {
                return true;
            }
            match parents.get(&at) {
                Some(&parent) if parent != at => at = parent,
                _ => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(belongs).collect()
}

/// The name in parentheses may hold anything, parentheses and blanks included: it ends with the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace().skip(1);
    let mut next = || fields.next()?.parse().ok();
    Some(Stat { ppid: next()?, pgid: next()?, sid: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_the_fields() {
        assert_eq!(parse_stat("12 (a) S 1 2 3) R 7 8 9 0"), Some(Stat { ppid: 7, pgid: 8, sid: 9 }));
        assert_eq!(parse_stat("12 (a"), None);
        let own = stat(std::process::id()).expect("this process");
        assert_eq!(own.ppid, std::os::unix::process::parent_id());
        assert_eq!(users(std::process::id()), Some([nix::unistd::getuid().as_raw(); 2]));
    }

    #[test]
    fn only_unbroken_chains_belong() {
        let parents = HashMap::from([(10, 1), (11, 10), (12, 11), (20, 1), (21, 20), (30, 31), (31, 30)]);
        let mut found = below(&[10], &parents);
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12]);
        assert!(below(&[99], &parents).is_empty());
    }
}
