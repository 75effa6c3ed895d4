//! `bpf(2)` for task-storage maps, which aya creates but has no type for.
//!
//! Invariant: a [`TaskStorage`] is known to be of that map type and of the given value size, so that the kernel reads and
//! writes exactly the bytes handed in.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_MAP_TYPE_TASK_STORAGE: u32 = 29;
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// The part of `union bpf_attr` for `BPF_MAP_*_ELEM`.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The first fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// A map of type `BPF_MAP_TYPE_TASK_STORAGE`. Its key, in user space, is a pidfd of the task's thread-group leader.
#[derive(Debug)]
pub struct TaskStorage {
    map: OwnedFd,
    value_size: usize,
}

impl TaskStorage {
    /// Takes over a map descriptor.
    ///
    /// # Errors
    /// `EINVAL` if the map is not a task storage with values of `value_size` bytes; what `bpf(2)` says otherwise.
    pub fn new(map: OwnedFd, value_size: usize) -> io::Result<Self> {
        let mut info = MapInfo::default();
        let attr = InfoAttr {
            bpf_fd: map.as_raw_fd().cast_unsigned(),
            info_len: u32::try_from(size_of::<MapInfo>()).map_err(io::Error::other)?,
            info: (&raw mut info) as u64,
        };
        // SAFETY: the attribute is of the layout of this command, and `info` is writable for `info_len` bytes.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }?;
        if info.map_type != BPF_MAP_TYPE_TASK_STORAGE || info.key_size != 4 || info.value_size as usize != value_size {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self { map, value_size })
    }

    /// Gives the task a value.
    ///
    /// # Errors
    /// `EEXIST` if it has one, `ENOENT` if it has been reaped, `EINVAL` if `value` has another length than the map's
    /// values, `EBADF` if `task` is no pidfd, `ENOMEM`.
    pub fn insert(&self, task: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
        self.update(task, value, BPF_NOEXIST)
    }

    /// Gives the task a value, or another one. What the kernel's programs do to the old one meanwhile is lost.
    ///
    /// # Errors
    /// As [`Self::insert`], but for `EEXIST`.
    pub fn replace(&self, task: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
        self.update(task, value, BPF_ANY)
    }

    fn update(&self, task: BorrowedFd<'_>, value: &[u8], flags: u64) -> io::Result<()> {
        if value.len() != self.value_size {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let key = task.as_raw_fd();
        let attr = self.element(&key, value.as_ptr() as u64, flags);
        // SAFETY: the key is 4 and the value `value_size` bytes, as the map's are (`new`); the kernel only reads them.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attr) }
    }

    /// A copy of the task's value; none if it has none, or has been reaped.
    ///
    /// # Errors
    /// `EBADF` if `task` is no pidfd.
    pub fn get(&self, task: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_size];
        let key = task.as_raw_fd();
        let attr = self.element(&key, value.as_mut_ptr() as u64, 0);
        // SAFETY: the kernel reads 4 bytes of key and writes `value_size` bytes of value, as the map's are (`new`).
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &attr) } {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the task's value away; not an error if there is none.
    ///
    /// # Errors
    /// `EBADF` if `task` is no pidfd.
    pub fn remove(&self, task: BorrowedFd<'_>) -> io::Result<()> {
        let key = task.as_raw_fd();
        let attr = self.element(&key, 0, 0);
        // SAFETY: the kernel reads 4 bytes of key.
        match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attr) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    fn element(&self, key: &i32, value: u64, flags: u64) -> ElementAttr {
        ElementAttr {
            map_fd: self.map.as_raw_fd().cast_unsigned(),
            pad: 0,
            key: std::ptr::from_ref(key) as u64,
            value,
            flags,
        }
    }
}

impl AsFd for TaskStorage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// The part of `union bpf_attr` for `BPF_LINK_GET_FD_BY_ID`.
#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// A descriptor of the link with this id: as long as there is one, its program stays attached.
///
/// # Errors
/// ENOENT: there is no such link. EPERM without CAP_SYS_ADMIN.
pub fn link_of(id: u32) -> io::Result<OwnedFd> {
    let attr = IdAttr { id, next_id: 0, open_flags: 0 };
    // SAFETY: the attribute is of the layout of this command, which reads it only.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_GET_FD_BY_ID, &raw const attr, size_of::<IdAttr>()) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the command returns a new descriptor, which is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attr` is what `command` expects, and what it points to is valid for the access that `command` makes.
unsafe fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<()> {
    // SAFETY: as this function's; the kernel takes the bytes beyond the given size as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_descriptor_is_refused() {
        let file = std::fs::File::open("/dev/null").expect("/dev/null");
        let error = TaskStorage::new(file.into(), 8).expect_err("not a map");
        assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::EPERM)), "{error}");
    }
}
