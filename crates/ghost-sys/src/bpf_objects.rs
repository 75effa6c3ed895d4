//! Which BPF objects exist on this kernel, as the kernel itself lists them: for checkers that look for what was left
//! behind.
//!
//! Ids are given out in ascending order and come again only after 2^31 others (kernel/bpf/syscall.c,
//! bpf_prog_alloc_id(): idr_alloc_cyclic()), so that an id names one object for as long as any test runs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

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

/// The ids of the maps that a program uses, descriptors of them or not.
///
/// # Errors
/// ENOENT: there is no such program (any more). EPERM without CAP_SYS_ADMIN.
pub fn maps_of(program: u32) -> io::Result<Vec<u32>> {
    const PROG_GET_FD_BY_ID: libc::c_int = 13;
    const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    const MOST: usize = 64;
    let fd = bpf(PROG_GET_FD_BY_ID, &mut NextId { start: program, next: 0, flags: 0 })?;
    // SAFETY: BPF_PROG_GET_FD_BY_ID returns a new descriptor, which is ours alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let mut ids = [0u32; MOST];
    let mut info = ProgramInfo { nr_map_ids: MOST as u32, map_ids: ids.as_mut_ptr() as u64, ..ProgramInfo::default() };
    let mut attributes = GetInfo {
        fd: fd.as_raw_fd().cast_unsigned(),
        length: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(ids[..(info.nr_map_ids as usize).min(MOST)].to_vec())
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

/// The `BPF_OBJ_GET_INFO_BY_FD` part of union bpf_attr.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// The first members of struct bpf_prog_info. Of the arrays only `map_ids` is asked for: the lengths of the others stay 0
/// (kernel/bpf/syscall.c, bpf_prog_get_info_by_fd()).
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
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
    // zero (kernel/bpf/syscall.c, __sys_bpf()) and all these structures hold plain integers only; addresses among them are of
    // writable memory of the length that stands beside them.
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
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).expect("fdinfo");
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:")).expect("map_id");
        id.trim().parse().expect("number")
    }
}
