//! Memory of a process, as the kernel counts it, in KiB.

use std::fs;

/// Resident now. None when it is gone or a zombie.
pub fn resident_kib(pid: u32) -> Option<u64> {
    row(pid, "VmRSS:")
}

/// The most that was resident since its start or the last [`forget_peak`].
pub fn peak_kib(pid: u32) -> Option<u64> {
    row(pid, "VmHWM:")
}

/// From now on the peak is counted anew (proc_pid_clear_refs(5)).
#[track_caller]
pub fn forget_peak(pid: u32) {
    if let Err(why) = fs::write(format!("/proc/{pid}/clear_refs"), "5") {
        panic!("process {pid}: its peak memory cannot be reset: {why}");
    }
}

fn row(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_memory_is_seen_and_the_peak_remembered() {
        let own = std::process::id();
        forget_peak(own);
        let before = resident_kib(own).expect("our own");
        let mut block = vec![0u8; 64 << 20];
        block.chunks_mut(4096).for_each(|page| page[0] = std::hint::black_box(1));
        assert!(resident_kib(own).expect("our own") >= before + 60_000);
        drop(std::hint::black_box(block));
        assert!(peak_kib(own).expect("our own") >= before + 60_000);
        forget_peak(own);
        assert!(peak_kib(own).expect("our own") < before + 30_000);
    }
}
