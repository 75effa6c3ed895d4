//! Something new under a name in a directory: whole, or not at all.
//!
//! Invariant: under its name stands either what stood there before or the whole of what is new. A file has no name at all until it
//! is complete (O_TMPFILE, open(2)); a process that is killed leaves nothing behind. Where the file system has no such files
//! it has a name that begins with `.bpcp-` until then. Nothing follows a symbolic link.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

/// Why something is not put in place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{}", .0.desc())]
    System(#[from] Errno),
    #[error("neither a file nor a link; left as it is")]
    Special,
    #[error("a link into /proc, such as /dev/stdout; left as it is")]
    Magic,
}

/// A file that is being written.
#[derive(Debug)]
pub struct NewFile {
    pub file: File,
    /// Where it stands meanwhile, if it has a name.
    temporary: Option<Vec<u8>>,
}

fn leads_into_proc(directory: &OwnedFd, name: &[u8]) -> bool {
    readlinkat(directory, name).is_ok_and(|target| target.as_encoded_bytes().starts_with(b"/proc/"))
}

/// Whether something can take the place of what stands under the name.
///
/// # Errors
/// EISDIR, [`PlaceError::Special`], [`PlaceError::Magic`].
pub fn check(directory: &OwnedFd, name: &[u8]) -> Result<(), PlaceError> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Ok(()),
            // The host's /dev/stdout and the like: whoever writes there means where it leads, and nobody else could do without it.
            SFlag::S_IFLNK if leads_into_proc(directory, name) => Err(PlaceError::Magic),
            SFlag::S_IFLNK => Ok(()),
            SFlag::S_IFDIR => Err(Errno::EISDIR.into()),
            _ => Err(PlaceError::Special),
        },
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl NewFile {
    /// # Errors
    /// Those of open(2).
    pub fn create(directory: &OwnedFd, mode: Mode) -> Result<NewFile, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        match openat(directory, ".", flags | OFlag::O_TMPFILE, mode) {
            Ok(file) => return Ok(NewFile { file: File::from(file), temporary: None }),
            // open(2): the file system has none; or the kernel's flag is not known to who serves it.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOSYS) => {}
            Err(errno) => return Err(errno),
        }
        NewFile::named(directory, mode)
    }

    fn named(directory: &OwnedFd, mode: Mode) -> Result<NewFile, Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let (file, name) = free_name(|name| openat(directory, name, flags, mode))?;
        Ok(NewFile { file: File::from(file), temporary: Some(name) })
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// Those of link(2) and rename(2); nothing is left of it then.
    pub fn put(self, directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let temporary = match &self.temporary {
            Some(temporary) => temporary.clone(),
            None => match self.link(directory, name) {
                Err(Errno::EEXIST) => free_name(|name| self.link(directory, name))?.1,
                done => return done,
            },
        };
        replace(directory, &temporary, name)
    }

    fn link(&self, directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match linkat(AT_FDCWD, path.as_str(), directory, name, AtFlags::AT_SYMLINK_FOLLOW) {
            // Without /proc: for who may (open(2), AT_EMPTY_PATH).
            Err(Errno::ENOENT) => linkat(self.file.as_fd(), "", directory, name, AtFlags::AT_EMPTY_PATH),
            done => done,
        }
    }

    /// Leaves nothing of it.
    pub fn discard(self, directory: &OwnedFd) {
        if let Some(name) = &self.temporary {
            // Nothing can be done about it; the reason why it is discarded has been told.
            let _ = unlinkat(directory, name.as_slice(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// A symbolic link; `ready` gets it under the name that it has before its own, if it needs one.
///
/// # Errors
/// Those of symlink(2) and rename(2).
pub fn link(directory: &OwnedFd, name: &[u8], target: &[u8], ready: impl Fn(&[u8])) -> Result<(), Errno> {
    match symlinkat(target, directory, name) {
        Ok(()) => {
            ready(name);
            Ok(())
        }
        Err(Errno::EEXIST) => {
            let ((), temporary) = free_name(|name| symlinkat(target, directory, name))?;
            ready(&temporary);
            replace(directory, &temporary, name)
        }
        Err(errno) => Err(errno),
    }
}

fn replace(directory: &OwnedFd, temporary: &[u8], name: &[u8]) -> Result<(), Errno> {
    renameat(directory, temporary, directory, name).inspect_err(|_| {
        // The first error is the one that counts.
        let _ = unlinkat(directory, temporary, UnlinkatFlags::NoRemoveDir);
    })
}

/// Does it under a name that nobody has.
fn free_name<T>(make: impl Fn(&[u8]) -> Result<T, Errno>) -> Result<(T, Vec<u8>), Errno> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..100 {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Processes with the same number can meet in a directory that hosts share.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
        let name = format!(".bpcp-{}-{count}-{now:x}", std::process::id()).into_bytes();
        match make(&name) {
            Err(Errno::EEXIST) => {}
            done => return done.map(|made| (made, name)),
        }
    }
    Err(Errno::EEXIST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn open(path: &std::path::Path) -> OwnedFd {
        openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).expect("directory")
    }

    fn names(path: &std::path::Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole() {
        for named in [false, true] {
            let directory = tempfile::tempdir().expect("directory");
            let fd = open(directory.path());
            let victim = directory.path().join("victim");
            std::fs::write(&victim, "mine").expect("write");
            symlink(&victim, directory.path().join("f")).expect("link");
            for text in ["first", "second"] {
                let make = if named { NewFile::named } else { NewFile::create };
                let mut new = make(&fd, Mode::S_IRUSR | Mode::S_IWUSR).expect("create");
                new.file.write_all(text.as_bytes()).expect("write");
                assert_ne!(std::fs::read_to_string(directory.path().join("f")).expect("before"), text);
                new.put(&fd, b"f").expect("put");
                assert_eq!(std::fs::read_to_string(directory.path().join("f")).expect("read"), text);
            }
            assert_eq!(std::fs::read_to_string(&victim).expect("read"), "mine", "the link is replaced, not followed");
            NewFile::named(&fd, Mode::S_IRUSR).expect("create").discard(&fd);
            link(&fd, b"f", b"to", |_| {}).expect("link");
            link(&fd, b"l", b"to", |_| {}).expect("link");
            assert_eq!(names(directory.path()), ["f", "l", "victim"]);
        }
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let fd = open(directory.path());
        std::fs::create_dir(directory.path().join("d")).expect("directory");
        nix::unistd::mkfifo(&directory.path().join("p"), Mode::S_IRUSR).expect("pipe");
        assert!(matches!(check(&fd, b"d"), Err(PlaceError::System(Errno::EISDIR))));
        symlink("/proc/self/fd/1", directory.path().join("stdout")).expect("link");
        symlink("elsewhere", directory.path().join("l")).expect("link");
        assert!(matches!(check(&fd, b"p"), Err(PlaceError::Special)));
        assert!(matches!(check(&fd, b"stdout"), Err(PlaceError::Magic)));
        assert!(check(&fd, b"l").is_ok());
        assert!(check(&fd, b"none").is_ok());
    }
}
