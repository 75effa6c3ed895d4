//! What a child of this process would inherit, read from this process (signals: [`crate::quiet::inherited`]).

/// A resource limit: RLIMIT_* number, soft, hard; `u64::MAX` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// All resource limits that this kernel has.
pub fn limits() -> Vec<Limit> {
    // RLIM_NLIMITS is 16 in include/uapi/asm-generic/resource.h; a number that the kernel does not know is EINVAL.
    (0..16)
        .filter_map(|resource| {
            let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: prlimit64 writes one rlimit64; nothing is set.
            let result = unsafe { libc::prlimit64(0, resource, std::ptr::null(), &raw mut limit) };
            (result == 0).then_some(Limit { resource, soft: limit.rlim_cur, hard: limit.rlim_max })
        })
        .collect()
}

/// Raises this process's soft limit of descriptors to the hard one; whatever comes of it.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one rlimit64 is written, then read.
    unsafe {
        if libc::prlimit64(0, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::prlimit64(0, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut());
        }
    }
}

/// How many descriptors this process may have; `u64::MAX` is unlimited.
pub fn descriptor_limit() -> u64 {
    limits().into_iter().find(|limit| limit.resource == libc::RLIMIT_NOFILE).map_or(0, |limit| limit.soft)
}

/// Nice value, -20 to 19.
pub fn nice() -> i32 {
    // SAFETY: no memory is passed. The raw call gives 20 - nice, so that no valid value looks like an error.
    let result = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    20 - (result as i32).clamp(1, 40)
}

/// Scheduling policy and real-time priority as in sched(7): what a child would get. Deadline scheduling is not inherited
/// (kernel/sched/core.c `sched_fork`) and counts as the normal policy.
pub fn scheduling() -> (u32, u32) {
    // SAFETY: sched_getparam writes one sched_param.
    unsafe {
        let policy = libc::sched_getscheduler(0);
        if policy < 0 || policy & libc::SCHED_RESET_ON_FORK != 0 || policy == libc::SCHED_DEADLINE {
            return (0, 0);
        }
        let mut parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_getparam(0, &raw mut parameters);
        (policy as u32, parameters.sched_priority.max(0) as u32)
    }
}

/// umask(2). The call can only set: it is set back at once, which other threads could notice.
pub fn umask() -> u32 {
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::S_IRWXG | nix::sys::stat::Mode::S_IRWXO);
    nix::sys::stat::umask(mask);
    mask.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_the_kernel_shows() {
        let limits = limits();
        assert_eq!(limits.len(), 16);
        let text = std::fs::read_to_string("/proc/self/limits").expect("limits");
        let row = text.lines().find(|line| line.starts_with("Max open files")).expect("row");
        let mut fields = row["Max open files".len()..].split_whitespace();
        let number = |field: Option<&str>| field.and_then(|f| f.parse().ok()).unwrap_or(u64::MAX);
        let open_files = limits[libc::RLIMIT_NOFILE as usize];
        assert_eq!((open_files.soft, open_files.hard), (number(fields.next()), number(fields.next())));

        let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
        let fields: Vec<&str> = stat[stat.rfind(')').expect("comm") + 2..].split(' ').collect();
        assert_eq!(nice().to_string(), fields[16]);
        assert_eq!(scheduling(), (fields[38].parse().expect("policy"), fields[37].parse().expect("priority")));

        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let row = status.lines().find_map(|line| line.strip_prefix("Umask:\t")).expect("umask");
        assert_eq!(umask(), u32::from_str_radix(row, 8).expect("octal"));
    }
}
