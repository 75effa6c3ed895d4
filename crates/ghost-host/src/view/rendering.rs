//! What a reader gets: the node's words as the ghost's.
//!
//! Invariant: content stays as it is between two answers about a file's attributes, so that its size is the one that readers
//! were told (fs/fuse/file.c reads no further).

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::asking::DESCRIPTORS;
use super::figures::Ghost;
use super::files::{ATTRIBUTES, CHILDREN, FILES, File, NAMESPACES, Place, Source};
use super::paths::Paths;
use super::stat::{Thread, family, name, of_ghost, statm};
use super::status;

/// The largest file of this host that is passed through, in bytes.
const LARGEST_OWN: u64 = 64 * 1024;
/// More than a line of `stat` can have: 52 numbers and a name.
const LARGEST_STAT: usize = 2048;

/// How long the ghost's own `stat` is good: somebody who looks at one file looks at the next at once.
const MOMENT: Duration = Duration::from_millis(100);

/// A file as readers know it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub content: Bytes,
    /// Nanoseconds since 1970; another one means other content.
    pub time_ns: u64,
}

impl Rendered {
    pub(super) fn new(content: Bytes) -> Rendered {
        Rendered { content, time_ns: now_ns() }
    }

    /// Takes over what is different.
    pub(super) fn update(&mut self, content: Bytes) {
        if content != self.content {
            // Never the same time again, whatever the clock does.
            *self = Rendered { content, time_ns: now_ns().max(self.time_ns + 1) };
        }
    }
}

pub(super) fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64)
}

/// What has to be heard of from the node, as named in a sample, before this place can be shown as it is now.
pub(super) fn needed(place: Place) -> Option<String> {
    let of_file = |file: &File, thread: bool| match file.source {
        Source::Own => None,
        Source::Comm if thread => Some("task/*/stat".to_owned()),
        Source::Comm => Some("stat".to_owned()),
        _ if thread && file.of_thread => Some(format!("task/*/{}", file.name)),
        _ => Some(file.name.to_owned()),
    };
    match place {
        Place::File(index) => of_file(FILES.get(usize::from(index))?, false),
        Place::TaskFile(_, index) => of_file(FILES.get(usize::from(index))?, true),
        // Whoever looks at a file comes by here: see `server`.
        Place::Ghost => Some("stat".to_owned()),
        Place::Tasks => Some("task/*/stat".to_owned()),
        Place::Descriptors | Place::Descriptor(_) | Place::DescriptorInfos => Some(DESCRIPTORS.to_owned()),
        _ => None,
    }
}

/// The content of a file; an errno if there is none.
pub(super) fn content(ghost: &Ghost, place: Place, paths: &Paths) -> Result<Bytes, i32> {
    match place {
        Place::File(index) => file(ghost, index, None, paths),
        // The first thread has what the process has where it was not read for itself.
        Place::TaskFile(tid, index) => file(ghost, index, Some(tid), paths),
        Place::Attribute(index) => {
            let name = ATTRIBUTES.get(usize::from(index)).ok_or(libc::ENOENT)?;
            own(ghost, &format!("attr/{name}"), paths)
        }
        _ => Err(libc::EINVAL),
    }
}

fn file(ghost: &Ghost, index: u8, tid: Option<u32>, paths: &Paths) -> Result<Bytes, i32> {
    let file = FILES.get(usize::from(index)).ok_or(libc::ENOENT)?;
    let other = tid.filter(|tid| *tid != ghost.show.pid);
    let raw = |name: &str| -> Result<Option<Bytes>, i32> {
        if let Some(tid) = tid
            && file.of_thread
            && let Some(content) = ghost.thread_file(tid, name)
        {
            return Ok(Some(content.clone()));
        }
        if other.is_some() && file.of_thread {
            return Err(libc::ESRCH);
        }
        ghost.file(name).cloned().transpose()
    };
    let rewritten = match file.source {
        // Which of the process's threads it was that forked one is not known here.
        Source::Own if file.name == CHILDREN && other.is_some() => return Ok(Bytes::new()),
        Source::Own if file.name == CHILDREN => {
            return own(ghost, &format!("task/{}/{CHILDREN}", ghost.show.pid), paths);
        }
        Source::Own => return own(ghost, file.name, paths),
        Source::Node | Source::NodeLink => return raw(file.name)?.map_or(Ok(Bytes::new()), Ok),
        Source::Statm => raw("statm")?.map(|there| statm(&there, ghost.pages)),
        Source::Comm => raw("stat")?.and_then(|line| name(&line)),
        Source::Stat => match raw("stat")? {
            Some(there) => {
                let own = own_stat(ghost, paths)?;
                let first = ghost.file("stat").and_then(|first| first.clone().ok()).unwrap_or_default();
                let thread = other.map(|tid| Thread { tid, first: &first });
                of_ghost(&there, &own, thread, ghost.pages)
            }
            None => None,
        },
        Source::Status => match raw("status")? {
            Some(there) => Some(status::of_ghost(&there, &own_status(ghost, paths)?, other)),
            None => None,
        },
    };
    // As long as the node has said nothing, the ghost is shown as it is.
    rewritten.map_or_else(|| own(ghost, file.name, paths), |content| Ok(content.into()))
}

/// What of the ghost's own `stat` goes into what is shown, and may change.
pub(super) fn own_family(ghost: &Ghost, paths: &Paths) -> Option<Vec<u8>> {
    family(&own_stat(ghost, paths).ok()?)
}

/// The ghost's `stat`, not older than a moment.
fn own_stat(ghost: &Ghost, paths: &Paths) -> Result<Bytes, i32> {
    let now = Instant::now();
    let mut own = ghost.own.borrow_mut();
    if let Some((at, line)) = &own.stat
        && now.saturating_duration_since(*at) < MOMENT
    {
        return Ok(line.clone());
    }
    let file = match own.file.take() {
        Some(file) => file,
        None => fs::File::open(paths.of_process(ghost.show.pid, "stat")).map_err(errno)?,
    };
    // fs/proc/array.c `do_task_stat`: it comes whole, and anew at each read from its begin.
    let mut line = [0; LARGEST_STAT];
    let length = file.read_at(&mut line, 0).map_err(errno)?;
    let line = Bytes::copy_from_slice(line.get(..length).unwrap_or_default());
    own.file = Some(file).filter(|file| file.as_raw_fd() < most_kept_open());
    own.stat = Some((now, line.clone()));
    Ok(line)
}

/// Descriptors beyond this one are closed at once: half of what this process may have.
fn most_kept_open() -> RawFd {
    static MOST: OnceLock<RawFd> = OnceLock::new();
    *MOST.get_or_init(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
        let most = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { 1024 };
        RawFd::try_from(most / 2).unwrap_or(RawFd::MAX)
    })
}

fn errno(why: std::io::Error) -> i32 {
    why.raw_os_error().unwrap_or(libc::EIO)
}

/// The ghost's `status`. A ghost keeps its users, groups and rights; its parent, group and session are in `stat`, too, which
/// costs less: as long as these are the same, so is what is used of `status`.
fn own_status(ghost: &Ghost, paths: &Paths) -> Result<Bytes, i32> {
    let standing = family(&own_stat(ghost, paths)?).ok_or(libc::EIO)?;
    if let Some((known, text)) = &ghost.own.borrow().status
        && *known == standing
    {
        return Ok(text.clone());
    }
    let text = own(ghost, "status", paths)?;
    ghost.own.borrow_mut().status = Some((standing, text.clone()));
    Ok(text)
}

/// A file of the ghost as the kernel shows it. None of those that are read here waits for anything.
fn own(ghost: &Ghost, name: &str, paths: &Paths) -> Result<Bytes, i32> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut content = Vec::new();
        fs::File::open(paths.of_process(ghost.show.pid, name))?.take(LARGEST_OWN).read_to_end(&mut content)?;
        Ok(content)
    };
    read().map(Bytes::from).map_err(errno)
}

/// The target of a symbolic link.
pub(super) fn target(ghost: &Ghost, place: Place, paths: &Paths) -> Result<Vec<u8>, i32> {
    let of_node = |target: &[u8]| {
        let mut text = format!("node{}:", ghost.show.node).into_bytes();
        text.extend_from_slice(target);
        text
    };
    match place {
        Place::File(index) | Place::TaskFile(_, index) => {
            let file = FILES.get(usize::from(index)).filter(|file| file.source == Source::NodeLink);
            let file = file.ok_or(libc::EINVAL)?;
            match ghost.file(file.name) {
                Some(Ok(target)) => Ok(of_node(target)),
                Some(Err(errno)) => Err(*errno),
                None => Err(libc::ENOENT),
            }
        }
        Place::Descriptor(fd) => {
            let found = ghost.descriptors().into_iter().find(|descriptor| descriptor.number == fd);
            found.map(|descriptor| of_node(&descriptor.target)).ok_or(libc::ENOENT)
        }
        Place::Namespace(index) => {
            let name = NAMESPACES.get(usize::from(index)).ok_or(libc::ENOENT)?;
            Ok(paths.of_process(ghost.show.pid, &format!("ns/{name}")).into_os_string().into_encoded_bytes())
        }
        _ => Err(libc::EINVAL),
    }
}

/// Whether only the user whose process it is may read this link (the modes of links mean nothing).
pub(super) fn is_private_link(place: Place) -> bool {
    matches!(place, Place::File(_) | Place::TaskFile(..) | Place::Descriptor(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::view::{FileFigures, ProcessFigures};
    use ghost_proto::view_port::Show;
    use std::path::Path;
    use std::time::Instant;

    fn place(name: &str) -> Place {
        Place::Ghost.child(name).expect("a file")
    }

    /// This process as a ghost, in a directory that has a `proc`.
    fn ghost(directory: &Path) -> (Ghost, Paths) {
        std::os::unix::fs::symlink("/proc", directory.join("proc")).expect("symlink");
        let show = Show { proc: 1, pid: std::process::id(), start: 1, uid: 0, gid: 0, node: 3 };
        (Ghost::new(show, 4096), Paths::new(directory))
    }

    #[test]
    fn a_ghost_of_which_nothing_is_known_is_shown_as_it_is() {
        let directory = tempfile::tempdir().expect("directory");
        let (mut ghost, paths) = ghost(directory.path());
        let own = fs::read("/proc/self/cgroup").expect("own");
        assert_eq!(content(&ghost, place("cgroup"), &paths), Ok(own.into()));
        let status = content(&ghost, place("status"), &paths).expect("own");
        assert!(status.starts_with(b"Name:"));
        assert_eq!(content(&ghost, place("maps"), &paths), Ok(Bytes::new()));
        assert_eq!(target(&ghost, place("exe"), &paths), Err(libc::ENOENT));

        let file = |errno, text: &'static str| FileFigures { errno, content: Bytes::from_static(text.as_bytes()) };
        let files = vec![file(0, "a\0b\0"), file(0, "/bin/x"), file(libc::EACCES as u32, "")];
        let process = ProcessFigures { proc: 1, files, ..ProcessFigures::default() };
        ghost.take(process, 1, &["cmdline", "exe", "cwd"].map(str::to_owned), 4096, Instant::now());
        assert_eq!(content(&ghost, place("cmdline"), &paths), Ok(Bytes::from_static(b"a\0b\0")));
        assert_eq!(target(&ghost, place("exe"), &paths), Ok(b"node3:/bin/x".to_vec()));
        assert_eq!(target(&ghost, place("cwd"), &paths), Err(libc::EACCES));
    }

    #[test]
    fn other_content_has_another_time() {
        let mut rendered = Rendered::new(Bytes::from_static(b"a"));
        let first = rendered.time_ns;
        rendered.update(Bytes::from_static(b"a"));
        assert_eq!(rendered.time_ns, first);
        rendered.update(Bytes::from_static(b"b"));
        assert!(rendered.time_ns > first);
    }
}
