//! The receiving end: frames become files.
//!
//! Invariant: below the target only single names are used, each looked up in the directory that has been entered, and none through
//! a symbolic link. Every entry of the archive is either made or failed, and told so; a failure does not end the rest.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, geteuid};

use super::archive::{Attributes, Frame, Time};
use super::place::{self, NewFile, PlaceError};
use super::shown;

/// What the user has asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub target: PathBuf,
    /// The target is a directory, and it is an error if it is not.
    pub into: bool,
    /// Keep modes, times and, as root, owners.
    pub preserve: bool,
    /// Everything is on the disk before it has its name.
    pub sync: bool,
}

/// What has become of the entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    pub made: u64,
    pub failed: u64,
}

#[derive(Debug)]
pub struct Receiver {
    wanted: Wanted,
    base: OwnedFd,
    /// The name that the one thing at the top gets, if not its own.
    name: Option<Vec<u8>>,
    /// The directories that have been entered.
    levels: Vec<Level>,
    /// Within one that could not be entered: how many have begun.
    skipped: usize,
    file: Option<Open>,
    /// A file that failed has begun and not ended.
    lost: bool,
    umask: u32,
    count: Count,
    failures: Vec<String>,
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    /// It was not there before.
    new: bool,
    attributes: Attributes,
}

#[derive(Debug)]
struct Open {
    new: NewFile,
    name: Vec<u8>,
    attributes: Attributes,
    position: u64,
    /// The last bytes are a hole.
    hole: bool,
}

impl Receiver {
    /// Looks at the target.
    ///
    /// # Errors
    /// It is no directory and has to be, or the directory that it is to be in cannot be opened: what to say.
    pub fn begin(wanted: Wanted) -> Result<Receiver, String> {
        let why = |path: &Path, errno: Errno| format!("{}: {}", shown(path.as_os_str().as_bytes()), errno.desc());
        let bytes = wanted.target.as_os_str().as_bytes();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let (base, name) = match openat(AT_FDCWD, &wanted.target, flags, Mode::empty()) {
            Ok(base) => (base, None),
            Err(Errno::ENOENT | Errno::ENOTDIR) if !wanted.into && !bytes.ends_with(b"/") && !bytes.is_empty() => {
                let name = wanted.target.file_name().map(|name| name.as_bytes().to_vec());
                let parent = wanted.target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                let base = openat(AT_FDCWD, parent, flags, Mode::empty()).map_err(|errno| why(parent, errno))?;
                (base, Some(name.ok_or_else(|| why(&wanted.target, Errno::ENOENT))?))
            }
            Err(errno) => return Err(why(&wanted.target, errno)),
        };
        Ok(Receiver {
            wanted,
            base,
            name,
            levels: Vec::new(),
            skipped: 0,
            file: None,
            lost: false,
            umask: ghost_sys::inherit::umask(),
            count: Count::default(),
            failures: Vec::new(),
        })
    }

    pub fn count(&self) -> Count {
        self.count
    }

    /// What has failed since the last call.
    pub fn failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failures)
    }

    /// Does what a frame says. What goes wrong is noted.
    pub fn take(&mut self, frame: &Frame<'_>) {
        if self.skipped > 0 {
            match frame {
                Frame::Directory { .. } => self.skipped += 1,
                Frame::Leave => {
                    self.skipped -= 1;
                    self.count.failed += 1;
                }
                Frame::File { .. } | Frame::Link { .. } => self.count.failed += 1,
                Frame::Data(_) | Frame::Hole(_) | Frame::FileEnd { .. } | Frame::Failed(_) | Frame::End => {}
            }
            return;
        }
        match *frame {
            Frame::Directory { name, attributes } => match self.enter(name, attributes) {
                Ok(level) => self.levels.push(level),
                Err(error) => {
                    self.skipped = 1;
                    self.tell(name, &error);
                }
            },
            Frame::Leave => {
                let Some(level) = self.levels.pop() else { return };
                match self.leave(&level) {
                    Ok(()) => self.count.made += 1,
                    Err(errno) => self.fail_at(&level.path, &errno.into()),
                }
            }
            Frame::File { name, attributes, .. } => {
                let name = self.own_name(name);
                match self.create(&name, attributes) {
                    Ok(open) => self.file = Some(open),
                    Err(error) => {
                        self.lost = true;
                        self.fail(&name, &error);
                    }
                }
            }
            Frame::Data(bytes) => self.write(bytes),
            Frame::Hole(length) => {
                if let Some(open) = &mut self.file {
                    open.position += length;
                    open.hole = true;
                }
            }
            Frame::FileEnd { .. } => self.finish(),
            Frame::Failed(_) => {
                // Who sent it has told why.
                if let Some(open) = self.file.take() {
                    open.new.discard(self.directory());
                    self.count.failed += 1;
                }
                self.lost = false;
            }
            Frame::Link { name, attributes, target } => {
                let name = self.own_name(name);
                match self.link(&name, attributes, target) {
                    Ok(()) => self.count.made += 1,
                    Err(error) => self.fail(&name, &error),
                }
            }
            Frame::End => {}
        }
    }

    fn directory(&self) -> &OwnedFd {
        self.levels.last().map_or(&self.base, |level| &level.directory)
    }

    /// The name that something gets here.
    fn own_name(&self, name: &[u8]) -> Vec<u8> {
        match &self.name {
            Some(own) if self.levels.is_empty() => own.clone(),
            _ => name.to_vec(),
        }
    }

    fn path_of(&self, name: &[u8]) -> PathBuf {
        let name = Path::new(std::ffi::OsStr::from_bytes(name));
        match (self.levels.last(), &self.name) {
            (Some(level), _) => level.path.join(name),
            (None, Some(_)) => self.wanted.target.clone(),
            (None, None) if name.as_os_str().is_empty() => self.wanted.target.clone(),
            (None, None) => self.wanted.target.join(name),
        }
    }

    fn fail(&mut self, name: &[u8], error: &PlaceError) {
        self.fail_at(&self.path_of(name), error);
    }

    fn fail_at(&mut self, path: &Path, error: &PlaceError) {
        self.count.failed += 1;
        self.failures.push(format!("{}: {error}", shown(path.as_os_str().as_bytes())));
    }

    /// Of a directory: it counts when it is left.
    fn tell(&mut self, name: &[u8], error: &PlaceError) {
        self.fail(name, error);
        self.count.failed -= 1;
    }

    fn mode(&self, attributes: &Attributes) -> Mode {
        // With -p it gets its mode when it is complete.
        Mode::from_bits_truncate(if self.wanted.preserve { 0o600 } else { attributes.mode & 0o777 })
    }

    fn enter(&self, name: &[u8], attributes: Attributes) -> Result<Level, PlaceError> {
        let path = self.path_of(name);
        let name = self.own_name(name);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if name.is_empty() {
            let directory = openat(&self.base, ".", flags, Mode::empty())?;
            return Ok(Level { directory, path, new: false, attributes });
        }
        let mode = self.mode(&attributes) | Mode::S_IRWXU;
        let new = match mkdirat(self.directory(), name.as_slice(), mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        let directory = openat(self.directory(), name.as_slice(), flags, Mode::empty())?;
        Ok(Level { directory, path, new, attributes })
    }

    fn leave(&self, level: &Level) -> Result<(), Errno> {
        let Level { directory, attributes, new, .. } = level;
        if self.wanted.preserve {
            let (owner, mode) = kept(attributes);
            if let Some((uid, gid)) = owner {
                fchownat(directory, ".", Some(uid), Some(gid), AtFlags::empty())?;
            }
            fchmodat(directory, ".", mode, FchmodatFlags::FollowSymlink)?;
            let times = [attributes.accessed, attributes.modified].map(time);
            utimensat(directory, ".", &times[0], &times[1], UtimensatFlags::FollowSymlink)?;
        } else if *new && attributes.mode & 0o700 != 0o700 {
            let mode = Mode::from_bits_truncate(attributes.mode & 0o777 & !self.umask);
            fchmodat(directory, ".", mode, FchmodatFlags::FollowSymlink)?;
        }
        if self.wanted.sync {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            nix::unistd::fsync(openat(directory, ".", flags, Mode::empty())?)?;
        }
        Ok(())
    }

    fn create(&self, name: &[u8], attributes: Attributes) -> Result<Open, PlaceError> {
        place::check(self.directory(), name)?;
        let new = NewFile::create(self.directory(), self.mode(&attributes))?;
        Ok(Open { new, name: name.to_vec(), attributes, position: 0, hole: false })
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(open) = &mut self.file else { return };
        match open.new.file.write_all_at(bytes, open.position) {
            Ok(()) => {
                open.position += bytes.len() as u64;
                open.hole = false;
            }
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                self.lose(errno);
            }
        }
    }

    /// The file that is open has failed; the rest of it goes nowhere.
    fn lose(&mut self, errno: Errno) {
        let Some(open) = self.file.take() else { return };
        let name = open.name.clone();
        open.new.discard(self.directory());
        self.lost = true;
        self.fail(&name, &errno.into());
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.lost) {
            return;
        }
        let Some(open) = self.file.take() else { return };
        let name = open.name.clone();
        match self.complete(&open) {
            Ok(()) => match open.new.put(self.directory(), &name) {
                Ok(()) => self.count.made += 1,
                Err(errno) => self.fail(&name, &errno.into()),
            },
            Err(errno) => {
                open.new.discard(self.directory());
                self.fail(&name, &errno.into());
            }
        }
    }

    fn complete(&self, open: &Open) -> Result<(), Errno> {
        let file = &open.new.file;
        if open.hole {
            nix::unistd::ftruncate(file, i64::try_from(open.position).map_err(|_| Errno::EFBIG)?)?;
        }
        if self.wanted.preserve {
            let (owner, mode) = kept(&open.attributes);
            if let Some((uid, gid)) = owner {
                fchown(file, Some(uid), Some(gid))?;
            }
            fchmod(file, mode)?;
            let times = [open.attributes.accessed, open.attributes.modified].map(time);
            futimens(file, &times[0], &times[1])?;
        }
        if self.wanted.sync { nix::unistd::fsync(file) } else { Ok(()) }
    }

    fn link(&self, name: &[u8], attributes: Attributes, target: &[u8]) -> Result<(), PlaceError> {
        let directory = self.directory();
        place::check(directory, name)?;
        place::link(directory, name, target, |name| {
            if self.wanted.preserve {
                // A link's own owner and times are of no consequence.
                if let (Some((uid, gid)), _) = kept(&attributes) {
                    let _ = fchownat(directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW);
                }
                let times = [attributes.accessed, attributes.modified].map(time);
                let _ = utimensat(directory, name, &times[0], &times[1], UtimensatFlags::NoFollowSymlink);
            }
        })?;
        Ok(())
    }
}

/// Owner and mode that `-p` keeps: who cannot give away what is his makes nothing that acts as somebody else.
fn kept(attributes: &Attributes) -> (Option<(Uid, Gid)>, Mode) {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    if geteuid().is_root() {
        return (Some((uid, gid)), Mode::from_bits_truncate(attributes.mode));
    }
    (None, Mode::from_bits_truncate(attributes.mode & 0o1777))
}

fn time(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, i64::from(time.nanoseconds))
}

#[cfg(test)]
mod tests;
