//! Which BPF objects exist on this kernel, as the kernel itself lists them: for checkers that look for what was left
//! behind.
//!
//! Ids are given out in ascending order and come again only after 2^31 others (kernel/bpf/syscall.c,
//! bpf_prog_alloc_id(): idr_alloc_cyclic()), so that an id names one object for as long as any test runs.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Program,
    Map,
    Link,
}

/// The ids of all objects of one kind, ascending, on the whole kernel.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN (kernel/bpf/syscall.c, bpf_obj_get_next_id()).
pub fn ids(kind: Kind) -> io::Result<Vec<u32>> {
    // include/uapi/linux/bpf.h, enum bpf_cmd: BPF_*_GET_NEXT_ID
    let command = match kind {
        Kind::Program => 11,
        Kind::Map => 12,
        Kind::Link => 31,
    };
    let mut found = Vec::new();
    loop {
        let mut attributes = NextId { start: found.last().copied().unwrap_or(0), next: 0, flags: 0 };
        match bpf(command, &mut attributes) {
            Ok(_) => found.push(attributes.next),
            Err(why) if why.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(why) => return Err(why),
        }
    }
}

/// A map of one element: the smallest object there is, for those who test a checker by planting one.
///
/// # Errors
/// EPERM without CAP_BPF.
pub fn plant_map() -> io::Result<OwnedFd> {
    const MAP_CREATE: libc::c_int = 0;
    const ARRAY: u32 = 2;
    let fd = bpf(MAP_CREATE, &mut MapCreate { kind: ARRAY, key_size: 4, value_size: 4, max_entries: 1, flags: 0 })?;
    // SAFETY: BPF_MAP_CREATE returns a new descriptor, which is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The `*_GET_NEXT_ID` part of union bpf_attr.
#[repr(C)]
struct NextId {
    start: u32,
    next: u32,
    flags: u32,
}

/// The first members of the `BPF_MAP_CREATE` part of union bpf_attr.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a writable prefix of union bpf_attr, whose size is passed; the kernel takes the rest as
    // zero (kernel/bpf/syscall.c, __sys_bpf()) and both structures hold plain integers only.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_listed_while_it_exists() {
        if !nix::unistd::Uid::effective().is_root() {
            println!("Skipped(needs root): BPF objects cannot be listed");
            return;
        }
        let before = ids(Kind::Map).expect("ids");
        let map = plant_map().expect("map");
        let with = ids(Kind::Map).expect("ids");
        let new: Vec<u32> = with.iter().copied().filter(|id| !before.contains(id)).collect();
        assert!(!new.is_empty());
        assert!(with.is_sorted());
        let id = own_map_id(&map);
        assert!(new.contains(&id));
        drop(map);
        // Freed by a work item (kernel/bpf/syscall.c, bpf_map_put()); the id goes at once.
        assert!(!ids(Kind::Map).expect("ids").contains(&id));
    }

    fn own_map_id(map: &OwnedFd) -> u32 {
        use std::os::fd::AsRawFd;
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).expect("fdinfo");
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:")).expect("map_id");
        id.trim().parse().expect("number")
    }
}
