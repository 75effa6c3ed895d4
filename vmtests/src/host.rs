//! What the machine that emulates the others must have left. Too little of it would show itself as something else, later.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

/// A root file system while it is made (its tree and its image), or what the machines write and the packages.
const DISK: u64 = 4 << 30;
/// Of the three machines, which do not use all of theirs.
const MEMORY: u64 = 3 << 30;

/// Says what is missing, if so.
pub fn is_large_enough(directory: &Path) -> Result<()> {
    let disk = statvfs(directory).with_context(|| directory.display().to_string())?;
    let free = disk.blocks_available() * disk.fragment_size();
    ensure!(free >= DISK, "{}: {} MiB are free; virtual machines need {}", directory.display(), free >> 20, DISK >> 20);
    let said = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let free = available(&said).context("/proc/meminfo without MemAvailable")?;
    ensure!(free >= MEMORY, "{} MiB of memory are free; virtual machines need {}", free >> 20, MEMORY >> 20);
    Ok(())
}

/// Bytes of what proc_meminfo(5) calls MemAvailable.
fn available(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_in_bytes() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   20480 kB\n"), Some(20 << 20));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
