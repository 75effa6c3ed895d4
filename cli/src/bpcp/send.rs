//! The sending end: files become frames.
//!
//! Invariant: what the user has named is followed, nothing below it is: directories are read through descriptors, one name at a time,
//! so that who changes a tree meanwhile cannot lead the reader out of it. What cannot be read is told by [`Frame::Failed`], and
//! the rest goes on.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Whence, lseek};

use super::archive::{Attributes, Frame, MAX_DATA, MAX_DEPTH, MAX_TARGET, Time};
use super::pieces::Pieces;
use super::shown;

/// Where frames go.
pub trait Sink {
    /// # Errors
    /// Nobody takes frames any more: there is no use in going on.
    fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()>;

    /// Data in one of [`Pieces`]: it may be lent to a pipe.
    ///
    /// # Errors
    /// As above.
    fn lasting(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frame(&Frame::Data(bytes))
    }
}

/// Walks what is to be sent.
pub struct Sender<'a, S> {
    sink: &'a mut S,
    recursive: bool,
    pieces: Pieces,
}

/// Where something is.
#[derive(Clone, Copy)]
struct At<'a> {
    directory: Option<&'a OwnedFd>,
    /// In the directory, or what the user has named.
    name: &'a OsStr,
    /// For people.
    path: &'a Path,
    depth: usize,
}

impl<'a, S: Sink> Sender<'a, S> {
    pub fn new(sink: &'a mut S, recursive: bool) -> Sender<'a, S> {
        Sender { sink, recursive, pieces: Pieces::new() }
    }

    /// Sends a file, or a directory with all that is in it, under the last name of its path; what is called `.`, `..` or `/` is the
    /// target itself.
    ///
    /// # Errors
    /// The sink's.
    pub fn send(&mut self, path: &Path) -> io::Result<()> {
        let last = path.components().next_back();
        let name = match last {
            Some(std::path::Component::Normal(name)) if !ends_in_dot(path) => name,
            _ => OsStr::new(""),
        };
        let at = At { directory: None, name: path.as_os_str(), path, depth: 0 };
        self.entry(at, name)
    }

    fn entry(&mut self, at: At<'_>, name: &OsStr) -> io::Result<()> {
        match self.look(at, name.as_bytes()) {
            Ok(done) => done,
            Err(reason) => self.fail(at, &reason),
        }
    }

    fn fail(&mut self, at: At<'_>, reason: &str) -> io::Result<()> {
        let text = format!("{}: {reason}", shown(at.path.as_os_str().as_bytes()));
        self.sink.frame(&Frame::Failed(text.as_bytes()))
    }

    /// The outer result is why it cannot be sent.
    fn look(&mut self, at: At<'_>, name: &[u8]) -> Result<io::Result<()>, String> {
        let followed = at.directory.is_none();
        let flags = if followed { AtFlags::empty() } else { AtFlags::AT_SYMLINK_NOFOLLOW };
        let stat = match at.directory {
            Some(directory) => fstatat(directory, at.name, flags),
            None => fstatat(AT_FDCWD, at.name, flags),
        };
        let stat = stat.map_err(why)?;
        match kind(&stat) {
            SFlag::S_IFREG => {
                let (file, stat) = open(at, OFlag::O_NONBLOCK | OFlag::O_NOCTTY).map_err(why)?;
                if kind(&stat) != SFlag::S_IFREG {
                    return Err("is not what it was a moment ago".to_owned());
                }
                Ok(self.file(at, name, &File::from(file), &stat))
            }
            SFlag::S_IFDIR if !self.recursive => Err("is a directory, not copied without -r".to_owned()),
            SFlag::S_IFDIR if at.depth >= MAX_DEPTH => Err(format!("lies more than {MAX_DEPTH} directories deep")),
            SFlag::S_IFDIR => {
                let (directory, stat) = open(at, OFlag::O_DIRECTORY).map_err(why)?;
                let names = names(&directory).map_err(why)?;
                Ok(self.directory(at, name, &directory, &stat, names))
            }
            SFlag::S_IFLNK => {
                let directory = at.directory.ok_or("is not what it was a moment ago")?;
                let target = readlinkat(directory, at.name).map_err(why)?;
                if target.len() > MAX_TARGET {
                    return Err(why(Errno::ENAMETOOLONG));
                }
                let frame = Frame::Link { name, attributes: attributes(&stat), target: target.as_bytes() };
                Ok(self.sink.frame(&frame))
            }
            SFlag::S_IFIFO => Err("is a named pipe, not copied".to_owned()),
            SFlag::S_IFSOCK => Err("is a socket, not copied".to_owned()),
            _ => Err("is a device, not copied".to_owned()),
        }
    }

    fn directory(
        &mut self,
        at: At<'_>,
        name: &[u8],
        directory: &OwnedFd,
        stat: &FileStat,
        names: Vec<OsString>,
    ) -> io::Result<()> {
        self.sink.frame(&Frame::Directory { name, attributes: attributes(stat) })?;
        for inner in names {
            let path = at.path.join(&inner);
            let at = At { directory: Some(directory), name: &inner, path: &path, depth: at.depth + 1 };
            self.entry(at, &inner)?;
        }
        self.sink.frame(&Frame::Leave)
    }

    fn file(&mut self, at: At<'_>, name: &[u8], file: &File, stat: &FileStat) -> io::Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.sink.frame(&Frame::File { name, attributes: attributes(stat), size })?;
        match self.content(file, size) {
            Ok((size, checksum)) => self.sink.frame(&Frame::FileEnd { size, checksum }),
            Err(Content::Sink(error)) => Err(error),
            Err(Content::Read(error)) => self.fail(at, &crate::connection::plain(&error)),
        }
    }

    /// Sends data and holes; not what is appended meanwhile. A file without a size (in /proc) is read to its end.
    fn content(&mut self, file: &File, size: u64) -> Result<(u64, u32), Content> {
        let end = if size > 0 { size } else { u64::MAX };
        let mut checksum = crc32fast::Hasher::new();
        let (mut position, mut data_end) = (0, 0);
        while position < end {
            if position >= data_end {
                let (begin, to) = if size > 0 { extent(file, position, end) } else { (0, end) };
                if begin > position {
                    self.sink.frame(&Frame::Hole(begin - position)).map_err(Content::Sink)?;
                    position = begin;
                }
                data_end = to;
                if position >= end {
                    break;
                }
            }
            let most = usize::try_from(data_end - position).unwrap_or(usize::MAX).min(MAX_DATA);
            let n = match file.read_at(&mut self.pieces.room()[..most], position) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Content::Read(error)),
            };
            let bytes = self.pieces.filled(n);
            checksum.update(bytes);
            self.sink.lasting(bytes).map_err(Content::Sink)?;
            position += n as u64;
        }
        Ok((position, checksum.finalize()))
    }
}

enum Content {
    Read(io::Error),
    Sink(io::Error),
}

/// The next data at or behind a position: from where to where. Where nobody knows of holes all is data.
fn extent(file: &File, position: u64, end: u64) -> (u64, u64) {
    let at = |position: u64, whence| {
        let found = i64::try_from(position).map_err(|_| Errno::EOVERFLOW).and_then(|at| lseek(file, at, whence));
        found.map(|at| u64::try_from(at).unwrap_or(0))
    };
    match at(position, Whence::SeekData) {
        Ok(begin) if begin < end => match at(begin, Whence::SeekHole) {
            Ok(to) if to > begin => (begin, to.min(end)),
            _ => (begin, end),
        },
        // lseek(2): nothing but a hole up to the end.
        Ok(_) | Err(Errno::ENXIO) => (end, end),
        Err(_) => (position, end),
    }
}

fn ends_in_dot(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
    bytes == b"." || bytes.ends_with(b"/.")
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn why(errno: Errno) -> String {
    errno.desc().to_owned()
}

fn open(at: At<'_>, flags: OFlag) -> Result<(OwnedFd, FileStat), Errno> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let fd = match at.directory {
        Some(directory) => openat(directory, at.name, flags | OFlag::O_NOFOLLOW, Mode::empty()),
        None => openat(AT_FDCWD, at.name, flags, Mode::empty()),
    }?;
    let stat = fstat(&fd)?;
    Ok((fd, stat))
}

/// In order, so that the same tree makes the same archive.
fn names(directory: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

fn attributes(stat: &FileStat) -> Attributes {
    let time = |seconds, nanoseconds| Time { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) };
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        accessed: time(stat.st_atime, stat.st_atime_nsec),
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
