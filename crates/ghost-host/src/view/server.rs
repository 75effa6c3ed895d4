//! The server of the view's file system: one thread, everything from memory.
//!
//! ```text
//!  a reader's GETATTR ── fresh ──▶ answered, believed until what is known is a second old
//!          │
//!          └─ too old ──▶ Look to ghostd; waits ──▶ Figures: answered with them
//!                                     └──▶ too late: answered with what there is
//! ```
//! The kernel keeps content in its page cache and asks for nothing but attributes once they have expired: with OPEN and
//! OPENDIR not implemented (FUSE_NO_OPEN_SUPPORT), reading a file that is known costs no request at all.
//!
//! Of the files that every `ps` reads, the attributes are believed for longer; it is the ghost's directory whose attributes
//! expire after a second, and which is asked for on the way to any file (fs/fuse/dir.c `fuse_permission`). Before that is
//! answered, those files that have changed are made to be asked for again. So a look at a ghost that does nothing costs one
//! request; who keeps a file open and reads it again and again is answered from what is known for [`KEPT`].

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ghost_proto::view_port::{
    GhostdToServer, GuardToServer, Look, NodeFigures, NodePart, ServerToGhostd, ServerToGuard,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::asking::{Asking, REMEMBERED};
use super::figures::Ghost;
use super::files::{Asked, Place};
use super::rendering::{Rendered, content, is_private_link, needed, now_ns, own_family, target};
use super::serving::Opening;
use super::snapshots::Snapshots;
use super::{FRESH, Paths, Port};
use crate::fuse::{self, Attr, Body, Request, Validity};

/// How long attributes are believed that a late node leaves old.
const STALE_VALID: Duration = Duration::from_millis(200);
/// How long attributes of files are believed that come with samples, unless something changes.
const KEPT: Duration = Duration::from_secs(5);
/// The same where nobody keeps the file open to read it again and again.
const LONG_KEPT: Duration = Duration::from_secs(60);
/// How long the name of a thread or a descriptor is believed.
const NAME_VALID: Duration = Duration::from_millis(1000);

/// A reader that waits for a node.
#[derive(Debug)]
struct Waiting {
    unique: u64,
    /// The reader, or one of its threads.
    pid: u32,
    interrupted: bool,
    ghost: u32,
    place: Place,
    needed: String,
    until: Instant,
    what: Wanted,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Attributes,
    Target { uid: u32 },
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    pub(super) device: std::fs::File,
    pub(super) ghostd: Port,
    guard: Port,
    pub(super) paths: Paths,
    page_size: u64,
    pub(super) ghosts: HashMap<u32, Ghost>,
    /// Directories by process.
    numbers: HashMap<u64, u32>,
    asking: Asking,
    waiting: Vec<Waiting>,
    pub(super) snapshots: Snapshots,
    pub(super) openings: Vec<Opening>,
    /// Nodes that have let somebody wait for a part of a file in vain, and have said nothing since.
    pub(super) late: HashSet<i32>,
}

/// Serves until the guard is gone or the file system is unmounted.
///
/// # Errors
/// The connection to the kernel fails.
pub fn run(device: OwnedFd, ghostd: Port, guard: Port, paths: Paths) -> io::Result<()> {
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let mut server = Server {
        device: device.into(),
        ghostd,
        guard,
        paths,
        page_size: page_size.unsigned_abs(),
        ghosts: HashMap::new(),
        numbers: HashMap::new(),
        asking: Asking::default(),
        waiting: Vec::new(),
        snapshots: Snapshots::new(now_ns(), Instant::now()),
        openings: Vec::new(),
        late: HashSet::new(),
    };
    let mut buffer = vec![0; fuse::READ_BUFFER];
    let mut ghostd_there = true;
    loop {
        let ready = server.wait(ghostd_there)?;
        if ready.guard {
            match server.listen_to_guard() {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        if ready.ghostd {
            // Without ghostd old figures are shown; the guard ends us when it has ended.
            ghostd_there = server.take_figures().is_ok();
        }
        if ready.device {
            // One request each time: a reader that has its answer needs a moment until it asks again.
            match server.device.read(&mut buffer) {
                Ok(length) => server.serve(buffer.get(..length).unwrap_or_default())?,
                Err(why) if matches!(why.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENOENT)) => {}
                Err(why) if why.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        if !server.waiting.is_empty() {
            server.end_waiting(|waiting, now| waiting.until <= now);
        }
        server.look_after_snapshots();
    }
}

/// Who has something to say.
struct Ready {
    device: bool,
    guard: bool,
    ghostd: bool,
}

impl Server {
    fn wait(&self, ghostd_there: bool) -> io::Result<Ready> {
        let mut fds =
            [self.device.as_fd(), self.guard.as_fd(), self.ghostd.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let fds = fds.get_mut(..if ghostd_there { 3 } else { 2 }).unwrap_or_default();
        let next = self.waiting.iter().map(|waiting| waiting.until).min();
        let next = next.into_iter().chain(self.next_of_snapshots()).min();
        let timeout = next.map_or(PollTimeout::NONE, |until| {
            // Rounded up, or the last fraction of a millisecond would be spent spinning.
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(why) => return Err(why.into()),
        }
        let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        Ok(Ready { device: ready(0), guard: ready(1), ghostd: ready(2) })
    }

    fn listen_to_guard(&mut self) -> io::Result<()> {
        while let Some(message) = self.guard.receive()? {
            match message {
                GuardToServer::Serve(serve) => {
                    if let Some(show) = serve.show {
                        self.numbers.insert(show.proc, serve.number);
                        self.asking.ghost_comes(show.node);
                        if let Some(other) = self.ghosts.insert(serve.number, Ghost::new(show, self.page_size)) {
                            self.asking.ghost_goes(other.show.node);
                        }
                    }
                }
                GuardToServer::Drop(drop) => {
                    self.end_waiting(|waiting, _| waiting.ghost == drop.number);
                    self.snapshots.forget_ghost(drop.number);
                    if let Some(ghost) = self.ghosts.remove(&drop.number) {
                        self.asking.ghost_goes(ghost.show.node);
                        if self.numbers.get(&ghost.show.proc) == Some(&drop.number) {
                            self.numbers.remove(&ghost.show.proc);
                        }
                    }
                }
                // A guard that does not listen sees us as silent, which is as it should be.
                GuardToServer::Ping(ping) => drop(self.guard.send(ServerToGuard::Pong(ping))),
            }
        }
        Ok(())
    }

    fn take_figures(&mut self) -> io::Result<()> {
        while let Some(message) = self.ghostd.receive()? {
            let (node, figures) = match message {
                GhostdToServer::Figures(NodeFigures { node, figures: Some(figures) }) => (node, figures),
                GhostdToServer::Part(NodePart { node, part: Some(part) }) => {
                    self.take_part(node, part);
                    continue;
                }
                GhostdToServer::Figures(_) | GhostdToServer::Part(_) => continue,
            };
            let now = Instant::now();
            self.late.remove(&node);
            let procs: Vec<u64> = figures.processes.iter().map(|process| process.proc).collect();
            self.asking.answered(node, &figures.files, procs.into_iter(), figures.last);
            for process in figures.processes {
                let ghost = self.numbers.get(&process.proc).and_then(|number| self.ghosts.get_mut(number));
                if let Some(ghost) = ghost.filter(|ghost| ghost.show.node == node) {
                    ghost.take(process, figures.seq, &figures.files, figures.page_size, now);
                }
            }
            let ghosts = &self.ghosts;
            let answered: Vec<u64> = self
                .waiting
                .iter()
                .filter(|waiting| {
                    let Some(ghost) = ghosts.get(&waiting.ghost) else { return true };
                    // One that is not there any more is in no answer.
                    let over = figures.last && figures.files.contains(&waiting.needed);
                    ghost.show.node == node && (over || is_fresh(ghost, &waiting.needed, now).is_some())
                })
                .map(|waiting| waiting.unique)
                .collect();
            if !answered.is_empty() {
                self.end_waiting(|waiting, _| answered.contains(&waiting.unique));
            }
        }
        Ok(())
    }

    /// Has those files asked for again that are not what readers have been told. What they have been told stays until then.
    fn tell_changes(&mut self, number: u32) {
        let Some(ghost) = self.ghosts.get_mut(&number) else { return };
        let family = own_family(ghost, &self.paths).unwrap_or_default();
        if !std::mem::take(&mut ghost.changed) && ghost.family == family {
            return;
        }
        ghost.family = family;
        for (&node, told) in &ghost.rendered {
            if let Some((_, place)) = Place::of_node(node).filter(|(_, place)| kept(*place).is_some())
                && content(ghost, place, &self.paths).unwrap_or_default() != told.content
            {
                // ENOENT: the kernel knows nothing of it any more.
                let _ = (&self.device).write(&fuse::forget_attributes(node));
            }
        }
    }

    /// Answers those that wait and for whom `is_over` says so, with what there is.
    fn end_waiting(&mut self, is_over: impl Fn(&Waiting, Instant) -> bool) {
        let now = Instant::now();
        let (over, left): (Vec<Waiting>, Vec<Waiting>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| is_over(waiting, now));
        self.waiting = left;
        for Waiting { unique, ghost, place, needed, until, what, .. } in over {
            if until <= now
                && let Some(ghost) = self.ghosts.get(&ghost)
            {
                self.asking.in_vain(ghost.show.node, &needed);
            }
            let answered = match what {
                Wanted::Attributes => self.tell_attributes(unique, ghost, place),
                Wanted::Target { uid } => self.tell_target(unique, ghost, place, uid),
            };
            // ENOENT: the reader was killed meanwhile.
            drop(answered);
        }
    }

    pub(super) fn mark_interrupted(&mut self, target: u64) {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.unique == target) {
            waiting.interrupted = true;
        }
    }

    pub(super) fn no_one_interrupted(&self) -> bool {
        !self.waiting.iter().any(|waiting| waiting.interrupted)
    }

    /// Answers those that are being killed while they wait.
    pub(super) fn end_killed(&mut self) {
        let killed = |waiting: &Waiting| waiting.interrupted && self.is_killed(waiting.pid);
        let killed: Vec<u64> = self.waiting.iter().filter(|waiting| killed(waiting)).map(|it| it.unique).collect();
        if killed.is_empty() {
            return;
        }
        self.waiting.retain(|waiting| !killed.contains(&waiting.unique));
        for unique in killed {
            // ENOENT: the reader is gone.
            let _ = self.fail(unique, libc::EINTR);
        }
    }

    fn serve(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(request) = Request::parse(bytes) else { return Ok(()) };
        let answered = self.answer(&request);
        match answered {
            // The reader is gone.
            Err(why) if why.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> io::Result<()> {
        let unique = request.unique;
        match request.body {
            Body::Init { minor, max_readahead } => {
                let flags = fuse::ASYNC_READ
                    | fuse::AUTO_INVAL_DATA
                    | fuse::NO_OPEN_SUPPORT
                    | fuse::NO_OPENDIR_SUPPORT
                    | fuse::PARALLEL_DIROPS;
                return self.reply(unique, &fuse::init_reply(minor, max_readahead, flags));
            }
            Body::Forget { lookups } => {
                self.forget(request.node, lookups);
                return Ok(());
            }
            Body::BatchForget(nodes) => {
                nodes.each().for_each(|(node, lookups)| self.forget(node, lookups));
                return Ok(());
            }
            Body::Interrupt { target } => return self.interrupted(target),
            // What is shown is a picture: nothing that is done to it reaches the process.
            Body::Change => return self.fail(unique, libc::EROFS),
            Body::Open | Body::Release | Body::Other => return self.fail(unique, libc::ENOSYS),
            _ => {}
        }
        let Some((number, place)) = Place::of_node(request.node) else { return self.fail(unique, libc::ENOENT) };
        if let Place::Snapshot(snapshot) = place {
            return match request.body {
                Body::GetAttr => self.open_snapshot(request, number, snapshot),
                Body::Read { offset, size } => self.read_snapshot(unique, snapshot, offset, size),
                _ => self.fail(unique, libc::ENOSYS),
            };
        }
        match request.body {
            Body::Lookup { name } => self.look_up(unique, number, place, name),
            Body::GetAttr => match self.must_wait(request, number, place) {
                Some((until, needed)) => {
                    self.waiting.push(Waiting {
                        unique,
                        pid: request.pid,
                        interrupted: false,
                        ghost: number,
                        place,
                        needed,
                        until,
                        what: Wanted::Attributes,
                    });
                    Ok(())
                }
                None => self.tell_attributes(unique, number, place),
            },
            Body::ReadLink => match self.must_wait(request, number, place) {
                Some((until, needed)) => {
                    let what = Wanted::Target { uid: request.uid };
                    let (pid, interrupted) = (request.pid, false);
                    self.waiting.push(Waiting { unique, pid, interrupted, ghost: number, place, needed, until, what });
                    Ok(())
                }
                None => self.tell_target(unique, number, place, request.uid),
            },
            Body::Read { offset, size } => self.read(unique, number, place, request.node, offset, size),
            Body::ReadDir { offset, size } => self.list(unique, number, place, offset, size),
            _ => self.fail(unique, libc::ENOSYS),
        }
    }

    /// Asks for what is too old; until when a reader waits for it.
    fn must_wait(&mut self, request: &Request<'_>, number: u32, place: Place) -> Option<(Instant, String)> {
        let ghost = self.ghosts.get(&number)?;
        let needed = needed(place)?;
        let now = Instant::now();
        if is_fresh(ghost, &needed, now).is_some() {
            return None;
        }
        let advice = self.asking.look(ghost.show.node, ghost.show.proc, &needed, now);
        for question in advice.questions {
            let look = Look { node: question.node, files: question.files, proc: question.proc };
            let this = question.node == ghost.show.node;
            if self.ghostd.send(ServerToGhostd::Look(look)).is_err() && this {
                // ghostd is behind or gone: nothing will come.
                return None;
            }
        }
        // The host's init must not wait for anything that hangs on this cluster.
        let until = advice.wait_until.filter(|_| request.pid != 1)?;
        Some((until, needed))
    }

    fn look_up(&mut self, unique: u64, number: u32, directory: Place, name: &[u8]) -> io::Result<()> {
        let Ok(name) = std::str::from_utf8(name) else { return self.fail(unique, libc::ENOENT) };
        if directory == Place::Root {
            let number = name.parse().unwrap_or(0);
            if !self.ghosts.contains_key(&number) {
                // The guard may have spoken of it just now.
                self.listen_to_guard()?;
            }
            let Some(attr) = self.attributes(number, Place::Ghost) else { return self.fail(unique, libc::ENOENT) };
            return self.reply(unique, &fuse::entry_reply(&attr, Validity::NONE, Validity::NONE));
        }
        let Some(ghost) = self.ghosts.get(&number) else { return self.fail(unique, libc::ENOENT) };
        let Some(place) = directory.child(name) else {
            return self.reply(unique, &fuse::no_entry_reply(Validity::FOR_EVER));
        };
        let (exists, validity) = match place {
            Place::Task(tid) => (ghost.has_thread(tid), NAME_VALID.into()),
            Place::Descriptor(fd) | Place::DescriptorInfo(fd) => {
                (ghost.descriptors().iter().any(|there| there.number == fd), NAME_VALID.into())
            }
            _ => (true, Validity::FOR_EVER),
        };
        if let Some((of, file)) = place.of_snapshot().filter(|_| exists) {
            return self.name_snapshot(unique, number, of, &file);
        }
        match self.attributes(number, place) {
            // Its attributes are asked for when it is used: only then somebody looks.
            Some(attr) if exists => self.reply(unique, &fuse::entry_reply(&attr, validity, Validity::NONE)),
            _ => self.fail(unique, libc::ENOENT),
        }
    }

    fn tell_attributes(&mut self, unique: u64, number: u32, place: Place) -> io::Result<()> {
        if place == Place::Ghost {
            self.tell_changes(number);
        }
        self.render(number, place);
        let Some(attr) = self.attributes(number, place) else { return self.fail(unique, libc::ENOENT) };
        let validity = match (self.ghosts.get(&number), needed(place), place) {
            (Some(ghost), Some(needed), place) => match kept(place).filter(|_| ghost.heard(&needed).is_some()) {
                Some(validity) => validity.into(),
                None => is_fresh(ghost, &needed, Instant::now()).unwrap_or(STALE_VALID).into(),
            },
            (_, None, Place::File(_) | Place::TaskFile(..) | Place::Attribute(_)) => FRESH.into(),
            _ => Validity::FOR_EVER,
        };
        self.reply(unique, &fuse::attr_reply(&attr, validity))
    }

    /// Brings what readers are told of a file up to date.
    fn render(&mut self, number: u32, place: Place) {
        let (Some(node), Some(ghost)) = (place.node(number), self.ghosts.get_mut(&number)) else { return };
        let fresh = match place {
            Place::File(_) | Place::TaskFile(..) if fuse::S_IFLNK & place.mode() == fuse::S_IFLNK => return,
            Place::File(_) | Place::TaskFile(..) | Place::Attribute(_) => {
                content(ghost, place, &self.paths).unwrap_or_default()
            }
            // Other names give the directory another time, so that its listing is asked for again.
            Place::Tasks => ghost.threads().iter().flat_map(|tid| tid.to_ne_bytes()).collect(),
            Place::Descriptors | Place::DescriptorInfos => {
                ghost.descriptors().iter().flat_map(|descriptor| descriptor.number.to_ne_bytes()).collect()
            }
            _ => return,
        };
        match ghost.rendered.get_mut(&node) {
            Some(rendered) => rendered.update(fresh),
            None => drop(ghost.rendered.insert(node, Rendered::new(fresh))),
        }
    }

    fn attributes(&self, number: u32, place: Place) -> Option<Attr> {
        if place == Place::Root {
            let mode = place.mode();
            return Some(Attr { node: fuse::ROOT, mode, links: 2, ..Attr::default() });
        }
        let ghost = self.ghosts.get(&number)?;
        let node = place.node(number)?;
        let mode = place.mode();
        let rendered = ghost.rendered.get(&node);
        // What everybody may read belongs to the ghost's user, as the kernel has it; what is private to whom it is private to.
        let own = matches!(place, Place::Namespaces | Place::Namespace(_)) || mode & 0o044 != 0;
        let (uid, gid) = if own { (ghost.show.uid, ghost.show.gid) } else { ghost.private_owner() };
        let is_file = mode & 0o170_000 == fuse::S_IFREG;
        // As fs/proc/fd.c has them: a link of 64 bytes with the rights of its descriptor, a directory of so many.
        let (size, mode) = match place {
            Place::Descriptor(fd) => {
                let open = ghost.descriptors().into_iter().find(|descriptor| descriptor.number == fd);
                (64, open.map_or(mode, |open| fuse::S_IFLNK | open.mode))
            }
            Place::Descriptors => (ghost.descriptors().len() as u64, mode),
            _ => (rendered.filter(|_| is_file).map_or(0, |rendered| rendered.content.len() as u64), mode),
        };
        Some(Attr {
            node,
            size,
            time_ns: rendered.map_or(ghost.since_ns, |rendered| rendered.time_ns),
            mode,
            links: match place {
                Place::Tasks => 2 + ghost.threads().len() as u32,
                _ if mode & 0o170_000 == fuse::S_IFDIR => 2,
                _ => 1,
            },
            uid,
            gid,
        })
    }

    fn tell_target(&self, unique: u64, number: u32, place: Place, uid: u32) -> io::Result<()> {
        let Some(ghost) = self.ghosts.get(&number) else { return self.fail(unique, libc::ENOENT) };
        if is_private_link(place) && uid != 0 && uid != ghost.private_owner().0 {
            return self.fail(unique, libc::EACCES);
        }
        match target(ghost, place, &self.paths) {
            Ok(target) => self.reply(unique, &target),
            Err(errno) => self.fail(unique, errno),
        }
    }

    fn read(&mut self, unique: u64, number: u32, place: Place, node: u64, offset: u64, size: u32) -> io::Result<()> {
        let known = |ghosts: &HashMap<u32, Ghost>| -> Option<Bytes> {
            Some(ghosts.get(&number)?.rendered.get(&node)?.content.clone())
        };
        let content = match known(&self.ghosts) {
            Some(content) => content,
            None => {
                self.render(number, place);
                let Some(content) = known(&self.ghosts) else { return self.fail(unique, libc::ESRCH) };
                content
            }
        };
        let begin = usize::try_from(offset).map_or(content.len(), |offset| offset.min(content.len()));
        let end = content.len().min(begin.saturating_add(size as usize));
        self.reply(unique, content.get(begin..end).unwrap_or_default())
    }

    fn list(&mut self, unique: u64, number: u32, place: Place, offset: u64, size: u32) -> io::Result<()> {
        let Some(ghost) = self.ghosts.get(&number) else {
            let nothing = if place == Place::Root { self.reply(unique, &[]) } else { self.fail(unique, libc::ENOENT) };
            return nothing;
        };
        let names: Vec<(String, Place)> = match place {
            Place::Tasks => ghost.threads().into_iter().map(|tid| (tid.to_string(), Place::Task(tid))).collect(),
            Place::Descriptors | Place::DescriptorInfos => {
                let of = if place == Place::Descriptors { Place::Descriptor } else { Place::DescriptorInfo };
                let numbers = ghost.descriptors().into_iter().map(|descriptor| descriptor.number);
                numbers.map(|number| (number.to_string(), of(number))).collect()
            }
            _ => place.children(),
        };
        let dots = [(".", place), ("..", Place::Ghost)].map(|(name, place)| (name.to_owned(), place));
        let entries: Vec<(String, Place)> = dots.into_iter().chain(names).collect();
        let entries =
            entries.iter().map(|(name, place)| (name.as_bytes(), place.node(number).unwrap_or(0), place.mode()));
        let reply = fuse::directory_reply(entries, offset, size);
        self.reply(unique, &reply)
    }

    pub(super) fn reply(&self, unique: u64, body: &[u8]) -> io::Result<()> {
        let header = fuse::out_header(unique, 0, body.len());
        (&self.device).write_vectored(&[IoSlice::new(&header), IoSlice::new(body)]).map(drop)
    }

    pub(super) fn fail(&self, unique: u64, errno: i32) -> io::Result<()> {
        (&self.device).write(&fuse::out_header(unique, -errno, 0)).map(drop)
    }
}

/// How long attributes of files are believed that come with samples, unless something changes; `None` of others. What is only
/// asked for as long as somebody looks at it must be asked for longer than it is believed.
fn kept(place: Place) -> Option<Duration> {
    const { assert!(KEPT.as_secs() < REMEMBERED.as_secs()) };
    match place.asked()? {
        Asked::Always if needed(place).as_deref() == Some("stat") => Some(KEPT),
        Asked::Always => Some(LONG_KEPT),
        Asked::Together => Some(KEPT),
        Asked::Alone => None,
    }
}

/// How long a file may still be believed; `None`: it is too old, or was never heard of.
fn is_fresh(ghost: &Ghost, needed: &str, now: Instant) -> Option<Duration> {
    let left = (ghost.heard(needed)? + FRESH).saturating_duration_since(now);
    (!left.is_zero()).then_some(left)
}
