//! The kernel programs that report what is sent to ghosts, and how ghosts end: loading them and reading their records.
//! (Those that follow the processes of a namespace are another object: [`tree`].)
//!
//! ```text
//! let mut programs = Programs::load()?;                  // needs root and /sys/kernel/btf/vmlinux
//! programs.attach_ghost(pidfd, ghost, false)?;           // from now on its signals are reported, under this id
//! // programs.event_fd() polls readable (epoll, also edge-triggered) when there are new records; then until None:
//! while let Some(event) = programs.next_event() {
//!     match event {
//!         Event::Signal(record) => …                     // ghost_abi::SignalRecord says who, at whom, with what value
//!         Event::Exit(record) => …                       // the ghost's task has ended
//!         Event::Dropped => …                            // read state() of every ghost, compare dropped_since()
//!     }
//! }
//! programs.state(pidfd)?;                                // Option<GhostState>: killed(), exited(), dropped counts
//! ```
//!
//! Invariants:
//! * What a local process in the ghost's place would receive is reported exactly once, in order for each ghost, or counted
//!   in that ghost's state; `Event::Dropped` follows whenever something was counted.
//! * The record of a signal is in the ring before the system call that sent it returns, and before the kernel tells the
//!   FUSE server of the interrupt that it caused.
//! * Two loads know nothing of each other: a ghost is a ghost only to the load that attached it. Everything is freed by the
//!   kernel when the value is dropped or its process dies, and nobody has copies of its [`Programs::descriptors`].
//! * The ghost that a ghost makes ([`Programs::expect_ghost`]) is one before it runs for the first time.
//! * PIDs are those of the PID namespace in which [`Programs::load`] was called. Signals that the loading process sends are
//!   not reported.
//!
//! A group signal (`kill(-pgid)`, Ctrl-C) yields one record per ghost of the group, all with the same
//! [`SignalRecord::call`]: whoever mirrors groups sends it once per call id and node.

mod btf;
mod layout;
pub mod tree;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Array, Map, MapData, RingBuf};
use aya::programs::BtfTracePoint;
use aya::programs::links::FdLink;
use aya::{Btf, Ebpf, EbpfLoader};
use ghost_abi::{
    COUNTER_DROPPED, COUNTER_SEQUENCE, EXPECTING_SIZE, Expecting, GHOST_QUOTA, GHOST_STATE_SIZE, Record, names,
};
pub use ghost_abi::{ExitRecord, GhostState, Scope, SignalFlags, SignalRecord};
use ghost_sys::bpf::TaskStorage;
use nix::libc::EPERM;

/// The committed object; `cargo xtask ebpf` builds it from `ghost-ebpf/`.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ghost-ebpf/ghost.bpf.o"));

/// Programs of the object; each bears the name of its tracepoint.
const PROGRAMS: [&str; 4] = ["signal_generate", "signal_deliver", "sched_process_exit", "sched_process_fork"];

const MAPS: [&str; 5] = [names::GHOSTS, names::EXPECTING, names::EVENTS, names::DRAINED, names::COUNTERS];

/// Maps that only the programs use, which would keep them alone. With a descriptor it can be seen whose they are (`map_id` in
/// `/proc/PID/fdinfo`; a link's names its program, but nothing names a program's maps).
const MAPS_OF_PROGRAMS: [&str; 3] = [".rodata", "NEWBORN", "LAST_CALL"];

/// Why the kernel programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No type information.
    #[error(
        "cannot read {}: the kernel must be built with CONFIG_DEBUG_INFO_BTF, and /sys be mounted",
        layout::KERNEL_BTF
    )]
    NoBtf(#[source] io::Error),
    /// A structure is not as expected.
    #[error("the running kernel's type information has no usable {0}: this kernel is not supported")]
    Layout(&'static str),
    /// `/proc` is not there.
    #[error("cannot read {path}: /proc must be mounted")]
    Namespace { path: String, source: io::Error },
    /// `setns(2)` says no.
    #[error("the PID namespace is not the caller's own or one below it, or CAP_SYS_ADMIN is missing")]
    Enter(#[source] io::Error),
    /// `bpf(2)` says `EPERM`.
    #[error("not permitted to load kernel programs: root, or CAP_BPF and CAP_PERFMON, is needed")]
    NotPermitted(#[source] Box<dyn Error + Send + Sync>),
    /// The kernel refuses the object or one of its maps.
    #[error("the kernel does not accept the object of the kernel programs (6.1 or newer is needed)")]
    Object(#[source] Box<dyn Error + Send + Sync>),
    /// The kernel refuses a program.
    #[error("the kernel does not accept the program {name} (6.1 or newer with CONFIG_BPF_EVENTS is needed)")]
    Program { name: &'static str, source: Box<dyn Error + Send + Sync> },
    /// The object is not of this version.
    #[error("the object of the kernel programs has no {0}: build it anew with `cargo xtask ebpf`")]
    Foreign(&'static str),
}

/// What [`Programs::next_event`] yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A signal for a ghost or its launcher.
    Signal(SignalRecord),
    /// The end of a ghost's or launcher's task.
    Exit(ExitRecord),
    /// Records were dropped since the last such event: [`Programs::state`] of each ghost tells which signals.
    Dropped,
}

/// The loaded and attached programs with their maps.
pub struct Programs {
    ghosts: TaskStorage,
    expecting: TaskStorage,
    events: RingBuf<MapData>,
    drained: Array<MapData, u64>,
    counters: Array<MapData, u64>,
    window: Window,
    reported_drops: u64,
    /// Whose signals are not reported: this process's, and up to a number those of the one before.
    own_pid: u32,
    before: Option<(u32, u64)>,
    /// Of all maps and links: they keep the programs attached.
    descriptors: Vec<(&'static str, OwnedFd)>,
}

/// When to open a new window for the ghosts' quotas ([`GHOST_QUOTA`]): after all records of the window before have been
/// read. Fewer records than half a quota leave every ghost enough, and no system call is spent on them.
#[derive(Default)]
struct Window {
    number: u64,
    /// Sequence number given last when the window was opened.
    opened_at: u64,
    /// Records read in this window.
    read: u32,
    /// Records read since the ring was seen empty.
    read_since_empty: u32,
}

impl Programs {
    /// Loads and attaches the programs for the calling process.
    ///
    /// # Errors
    /// [`LoadError`] names what is missing.
    pub fn load() -> Result<Self, LoadError> {
        Self::load_object(OBJECT)
    }

    /// As [`Self::load`], from another build of the same version of the object.
    ///
    /// # Errors
    /// [`LoadError`] names what is missing.
    pub fn load_object(object: &[u8]) -> Result<Self, LoadError> {
        let programs = Self::load_all(object);
        give_back_type_information();
        programs
    }

    fn load_all(object: &[u8]) -> Result<Self, LoadError> {
        let (mut ebpf, btf) = open_object(object, layout::configuration()?.to_words().as_slice())?;
        // Before the maps are taken out: the programs refer to them by descriptor until they are loaded.
        let mut links = Vec::new();
        for name in PROGRAMS {
            links.push(attach(&mut ebpf, &btf, name)?);
        }
        let mut descriptors = BTreeMap::new();
        for name in MAPS.into_iter().chain(MAPS_OF_PROGRAMS) {
            let map = match take(&mut ebpf, name)? {
                Map::Unsupported(map) | Map::RingBuf(map) | Map::Array(map) | Map::PerCpuArray(map) => {
                    map.fd().as_fd().try_clone_to_owned()
                }
                _ => return Err(LoadError::Foreign(name)),
            };
            descriptors.insert(name.to_owned(), map.map_err(|error| refused(error, LoadError::Object))?);
        }
        for (name, link) in PROGRAMS.into_iter().zip(links) {
            descriptors.insert(name.to_owned(), link);
        }
        Self::over(&mut descriptors)
    }

    /// Over maps and links that exist.
    fn over(descriptors: &mut BTreeMap<String, OwnedFd>) -> Result<Self, LoadError> {
        let mut next = |name: &'static str| descriptors.remove(name).ok_or(LoadError::Foreign(name));
        let mut own = Vec::new();
        let mut copy = |name: &'static str| -> Result<OwnedFd, LoadError> {
            let fd = next(name)?;
            own.push((name, fd.try_clone().map_err(|error| refused(error, LoadError::Object))?));
            Ok(fd)
        };
        let ghosts = TaskStorage::new(copy(names::GHOSTS)?, GHOST_STATE_SIZE);
        let ghosts = ghosts.map_err(|error| refused(error, LoadError::Object))?;
        let expecting = TaskStorage::new(copy(names::EXPECTING)?, EXPECTING_SIZE);
        let expecting = expecting.map_err(|error| refused(error, LoadError::Object))?;
        let object = |error: aya::maps::MapError| refused(error, LoadError::Object);
        let mut map = |name| MapData::from_fd(copy(name)?).and_then(Map::from_map_data).map_err(object);
        let events = RingBuf::try_from(map(names::EVENTS)?).map_err(object)?;
        let drained = Array::try_from(map(names::DRAINED)?).map_err(object)?;
        let counters = Array::try_from(map(names::COUNTERS)?).map_err(object)?;
        for name in PROGRAMS {
            own.push((name, next(name)?));
        }
        for name in MAPS_OF_PROGRAMS {
            // A predecessor may not have kept them.
            own.extend(next(name).ok().map(|fd| (name, fd)));
        }
        let window = Window::default();
        let own_pid = std::process::id();
        Ok(Self {
            ghosts,
            expecting,
            events,
            drained,
            counters,
            window,
            reported_drops: 0,
            own_pid,
            before: None,
            descriptors: own,
        })
    }

    /// Descriptors, by name, with which [`Self::take_over`] goes on when this process is gone.
    ///
    /// # Errors
    /// EMFILE.
    pub fn descriptors(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        self.descriptors.iter().map(|(name, fd)| Ok(((*name).to_owned(), fd.try_clone()?))).collect()
    }

    /// Goes on with another process's programs and maps, as its [`Self::descriptors`] gave them; `before` is its PID. Records that it has not read
    /// are read next.
    ///
    /// # Errors
    /// [`LoadError::Foreign`] if one is missing, [`LoadError::Object`] if one is of another kind.
    pub fn take_over(descriptors: &mut BTreeMap<String, OwnedFd>, before: u32) -> Result<Self, LoadError> {
        let mut programs = Self::over(descriptors)?;
        programs.window.number = programs.drained.get(&0, 0).unwrap_or(0);
        // How much of it is used up nobody knows: another is opened when what is there now has been read.
        programs.window.read = GHOST_QUOTA / 2;
        programs.window.opened_at = programs.counter(COUNTER_SEQUENCE);
        programs.reported_drops = programs.dropped();
        programs.before = Some((before, programs.counter(COUNTER_SEQUENCE)));
        Ok(programs)
    }

    /// As [`Self::attach_ghost`], with a tag that [`Self::state`] gives back.
    ///
    /// # Errors
    /// The same.
    pub fn attach_tagged(&self, pidfd: BorrowedFd<'_>, ghost: u64, tag: u32) -> io::Result<()> {
        self.ghosts.insert(pidfd, &GhostState::tagged(ghost, false, tag).to_bytes())
    }

    /// Makes the process behind `pidfd` a ghost known as `ghost`, or the launcher of ghosts.
    ///
    /// # Errors
    /// `EEXIST` if it already is one, `ENOENT` if it has been reaped, `EBADF`, `ENOMEM`.
    pub fn attach_ghost(&self, pidfd: BorrowedFd<'_>, ghost: u64, launcher: bool) -> io::Result<()> {
        self.ghosts.insert(pidfd, &GhostState::new(ghost, launcher).to_bytes())
    }

    /// The next child of the process behind `pidfd` is a ghost from its fork on, as [`Self::attach_tagged`] would make it one; or, if
    /// `generations` is more than 1, that of its child, and so on. Of several announcements the last counts.
    ///
    /// # Errors
    /// `ENOENT` if it has been reaped, `EBADF`, `ENOMEM`.
    pub fn expect_ghost(&self, pidfd: BorrowedFd<'_>, ghost: u64, tag: u32, generations: u32) -> io::Result<()> {
        self.expecting.replace(pidfd, &Expecting { ghost, generations, tag }.to_bytes())
    }

    /// Takes back [`Self::expect_ghost`]. False if it had no effect any more: the ghost has been made, or its maker has been
    /// reaped, or made something else.
    ///
    /// # Errors
    /// `EBADF` if `pidfd` is no pidfd.
    pub fn forget_expected(&self, pidfd: BorrowedFd<'_>, ghost: u64) -> io::Result<bool> {
        let expected = self.expecting.get(pidfd)?;
        let there = expected.is_some_and(|bytes| bytes.starts_with(&ghost.to_ne_bytes()));
        if there {
            self.expecting.remove(pidfd)?;
        }
        Ok(there)
    }

    /// What the kernel programs know of the process; none if it is no ghost, or has been reaped.
    ///
    /// # Errors
    /// `EBADF` if `pidfd` is no pidfd.
    pub fn state(&self, pidfd: BorrowedFd<'_>) -> io::Result<Option<GhostState>> {
        let Some(bytes) = self.ghosts.get(pidfd)? else { return Ok(None) };
        GhostState::from_bytes(&bytes).map(Some).map_err(io::Error::other)
    }

    /// Makes the process an ordinary one again; nothing happens if it is no ghost. The kernel does this by itself when the
    /// task is freed.
    ///
    /// # Errors
    /// `EBADF` if `pidfd` is no pidfd.
    pub fn detach(&self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        self.ghosts.remove(pidfd)
    }

    /// Polls readable while there are records. To be read with [`Self::next_event`] only.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next event, without waiting; none if there is none now.
    pub fn next_event(&mut self) -> Option<Event> {
        self.next_event_noted(|_| ())
    }

    /// The same. `note` sees the record of a signal before it is taken out of the ring: who dies at any moment leaves it there, or has
    /// noted it.
    pub fn next_event_noted(&mut self, mut note: impl FnMut(&SignalRecord)) -> Option<Event> {
        loop {
            let Some(entry) = self.events.next() else { return self.at_empty() };
            let record = Record::from_bytes(&entry);
            let own = matches!(&record, Ok(Record::Signal(record)) if is_own(self.own_pid, self.before, record));
            if let Ok(Record::Signal(record)) = &record
                && !own
            {
                note(record);
            }
            drop(entry);
            self.window.read += 1;
            self.window.read_since_empty += 1;
            let (event, seq) = match record {
                Ok(Record::Signal(_)) if own => continue,
                Ok(Record::Signal(record)) => (Event::Signal(record), record.seq),
                Ok(Record::Exit(record)) => (Event::Exit(record), record.seq),
                Err(error) => {
                    tracing::error!("kernel programs: {error}");
                    continue;
                }
            };
            if self.window.read >= GHOST_QUOTA / 2 && seq > self.window.opened_at {
                self.open_window();
            }
            return Some(event);
        }
    }

    /// Records dropped since loading: the ring was full, or a ghost had used up its quota.
    pub fn dropped(&self) -> u64 {
        self.counter(COUNTER_DROPPED)
    }

    /// The ring is empty. A drop needs a ring or a quota that was used up, thus records read since the last time.
    fn at_empty(&mut self) -> Option<Event> {
        if self.window.read >= GHOST_QUOTA / 2 {
            self.open_window();
        }
        if self.window.read_since_empty == 0 {
            return None;
        }
        self.window.read_since_empty = 0;
        let dropped = self.dropped();
        if dropped == self.reported_drops {
            return None;
        }
        self.reported_drops = dropped;
        Some(Event::Dropped)
    }

    fn open_window(&mut self) {
        self.window.number += 1;
        self.window.opened_at = self.counter(COUNTER_SEQUENCE);
        self.window.read = 0;
        if let Err(error) = self.drained.set(0, self.window.number, 0) {
            tracing::error!("kernel programs: cannot open a new quota window: {error}");
        }
    }

    fn counter(&self, index: u32) -> u64 {
        self.counters.get(&index, 0).unwrap_or_else(|error| {
            tracing::error!("kernel programs: cannot read counter {index}: {error}");
            0
        })
    }
}

/// Whether this process sent the signal, or the one before it.
fn is_own(own: u32, before: Option<(u32, u64)>, record: &SignalRecord) -> bool {
    if record.has(SignalFlags::KERNEL) || record.has(SignalFlags::DELIVERED) {
        return false;
    }
    let Ok(sender) = u32::try_from(record.sender_pid) else { return false };
    sender == own || before.is_some_and(|(pid, last)| sender == pid && record.seq <= last)
}

/// Takes an object apart, writes the configuration into it and makes its maps. The kernel's type information comes along.
fn open_object(object: &[u8], configuration: &[u32]) -> Result<(Ebpf, Btf), LoadError> {
    let btf = Btf::from_sys_fs().map_err(|error| LoadError::NoBtf(io::Error::other(error)))?;
    let ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .allow_unsupported_maps()
        .override_global(names::CONFIG, configuration, true)
        .load(object)
        .map_err(|error| refused(error, LoadError::Object))?;
    Ok((ebpf, btf))
}

/// The kernel's type information takes tens of megabytes while it is looked at, in daemons that need little else.
fn give_back_type_information() {
    ghost_sys::heap::give_back();
}

/// Loads a program and attaches it to the tracepoint whose name it bears; gives a descriptor that keeps it there.
fn attach(ebpf: &mut Ebpf, btf: &Btf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Foreign(name))?;
    let attach = |program: &mut BtfTracePoint| -> Result<OwnedFd, Box<dyn Error + Send + Sync>> {
        program.load(name, btf)?;
        let link = program.attach()?;
        let link = FdLink::from(program.take_link(link)?);
        Ok(ghost_sys::bpf::link_of(link.info()?.id())?)
    };
    let program = <&mut BtfTracePoint>::try_from(program)
        .map_err(|source| LoadError::Program { name, source: Box::new(source) })?;
    attach(program).map_err(|source| match is_lack_of_rights(&*source) {
        true => LoadError::NotPermitted(source),
        false => LoadError::Program { name, source },
    })
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Foreign(name))
}

/// Tells a lack of rights from a refusal for other reasons.
fn refused<E: Error + Send + Sync + 'static>(
    error: E,
    otherwise: impl FnOnce(Box<dyn Error + Send + Sync>) -> LoadError,
) -> LoadError {
    if is_lack_of_rights(&error) {
        return LoadError::NotPermitted(Box::from(error.to_string()));
    }
    otherwise(Box::new(error))
}

fn is_lack_of_rights(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // EPERM alone: EACCES is how the verifier refuses a program.
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(EPERM)) {
            return true;
        }
        cause = error.source();
    }
    false
}
