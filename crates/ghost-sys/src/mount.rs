//! The mount table as the kernel tells it (`/proc/PID/mountinfo`, proc(5)).
//!
//! Invariant: a line that does not parse is an error, never skipped, so that a count of mounts can be trusted.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mounted filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount, unique among those that exist.
    pub id: u32,
    /// Number of the mount it hangs on.
    pub parent: u32,
    /// Which filesystem: its device numbers, as `0:57`.
    pub device: String,
    /// What of the filesystem is mounted.
    pub root: PathBuf,
    /// Where, relative to the reader's root directory.
    pub point: PathBuf,
    /// Options of this mount, e.g. `rw,nosuid`.
    pub options: String,
    /// e.g. `ext4`, `fuse.ghostproc`.
    pub kind: String,
    /// e.g. `/dev/vda`.
    pub source: OsString,
}

/// The mounts in the mount namespace of `pid` that are reachable from its root directory, in the kernel's order: what
/// is mounted on a point last comes last.
///
/// # Errors
/// Those of reading the file, and InvalidData with the line that was not understood.
pub fn mounts_of(pid: u32) -> io::Result<Vec<Mount>> {
    read(Path::new(&format!("/proc/{pid}/mountinfo")))
}

/// The caller's own mounts.
///
/// # Errors
/// As [`mounts_of`].
pub fn mounts() -> io::Result<Vec<Mount>> {
    read(Path::new("/proc/thread-self/mountinfo"))
}

/// Where the cgroup2 filesystem is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` where the old hierarchies are
/// in use as well.
///
/// # Errors
/// NotFound when it is nowhere.
pub fn cgroup2() -> io::Result<PathBuf> {
    let found = mounts()?.into_iter().rev().find(|mount| mount.kind == "cgroup2");
    match found {
        Some(mount) => Ok(mount.point),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup2 filesystem is mounted; `mount -t cgroup2 none /sys/fs/cgroup` mounts it",
        )),
    }
}

fn read(path: &Path) -> io::Result<Vec<Mount>> {
    let text = std::fs::read(path)?;
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: not understood: {line}", path.display()))
            })
        })
        .collect()
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let root = unescape(fields.next()?).into();
    let point = unescape(fields.next()?).into();
    let options = String::from_utf8(fields.next()?.to_vec()).ok()?;
    // Optional fields (propagation) end with a hyphen of its own.
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = unescape(fields.next()?);
    Some(Mount { id, parent, device, root, point, options, kind, source })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Blank, tab, newline and backslash stand as `\ooo` (fs/proc_namespace.c, mangle()).
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                let value = digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                plain.push(value as u8);
                rest = &tail[3..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

/// Whether `path` is `top` or below it, by whole components.
pub fn is_below(path: &Path, top: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"/") && path.starts_with(top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let line =
            br"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 shared:7 - ext3 /dev/ro\134ot rw,errors=continue";
        let mount = parse(line).expect("parses");
        assert_eq!(mount.id, 36);
        assert_eq!(mount.parent, 35);
        assert_eq!(mount.device, "98:0");
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.point, Path::new("/mnt two"));
        assert_eq!(mount.options, "rw,noatime");
        assert_eq!(mount.kind, "ext3");
        assert_eq!(mount.source, r"/dev/ro\ot");
    }

    #[test]
    fn a_line_without_the_separator_is_refused() {
        assert_eq!(parse(b"36 35 98:0 / / rw shared:7 ext3 /dev/root rw"), None);
    }

    #[test]
    fn the_kernels_own_table_parses_and_has_a_root() {
        let mounts = mounts().expect("mountinfo");
        assert!(mounts.iter().any(|mount| mount.point == Path::new("/")));
    }
}
