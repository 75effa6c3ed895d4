//! The kernel programs that follow the processes of one PID namespace: loading them and reading their records.
//!
//! ```text
//! let mut programs = TreePrograms::load()?;              // follows the caller's own PID namespace; needs root
//! // programs.event_fd() polls readable (epoll, also edge-triggered) when there are new records; then until None:
//! while let Some(event) = programs.next_event() {
//!     match event {
//!         Event::Record(Record::Fork(process)) => …      // ghost_abi::tree says what each record means
//!         Event::Record(Record::Exit(exit)) => …
//!         Event::Record(_) => …
//!         Event::Dropped => …                            // programs.list()? and compare
//!     }
//! }
//! // now and then (a second is often enough) while programs.awaits_reaping():
//! for reaped in programs.overdue()? { … }                // as if it had come as an event
//! ```
//!
//! Invariants:
//! * Every process that is in the namespace, or in one below it, and is forked while the programs are loaded is reported, with
//!   its end, exactly once; or `Event::Dropped` follows. Nothing that a process can do takes it out of the namespace.
//! * That it was reaped is told exactly once too, by an event or by [`TreePrograms::overdue`].
//! * The record of a fork is in the ring before the child runs, that of an exit before the parent can wait for it.
//! * Two loads know nothing of each other. Everything is freed by the kernel when the value is dropped or its process dies.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use aya::maps::{Array, HashMap as KernelMap, MapData, MapError, RingBuf};
use aya::programs::raw_trace_point::RawTracePoint;
use aya::programs::{Iter, ProgramError, RawTracePointRunOptions, TestRun};
use aya::{Btf, Ebpf};
pub use ghost_abi::tree::{Change, Changed, Exit, Process, Reaped, Record};
use ghost_abi::tree::{Kind, Namespace};
use ghost_abi::{COUNTER_DROPPED, COUNTER_SEQUENCE, names};
use nix::libc::ENOENT;
use nix::sched::{CloneFlags, setns};

use super::{LoadError, attach, give_back_type_information, layout, open_object, refused, take};

/// The committed object; `cargo xtask ebpf` builds it from `ghost-ebpf/`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ghost-ebpf/tree.bpf.o"));

/// Programs of the object that are attached; each bears the name of its tracepoint. That of forks after those of what
/// comes later in a life: whose beginning is told, its end is.
const PROGRAMS: [&str; 6] = [
    "sched_process_free",
    "sched_process_exit",
    "sched_process_exec",
    "sched_process_fork",
    "signal_generate",
    "signal_deliver",
];
const CHOOSE_NAMESPACE: &str = "choose_namespace";
const LIST: &str = "list_processes";

/// Words of [`Namespace`].
type NamespaceWords = [u64; size_of::<Namespace>() / 8];

/// What [`TreePrograms::next_event`] yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Record(Record),
    /// Records were dropped since the last such event: [`TreePrograms::list`] tells what is.
    Dropped,
}

/// The loaded and attached programs with their maps.
pub struct TreePrograms {
    events: RingBuf<MapData>,
    counters: Array<MapData, u64>,
    members: KernelMap<MapData, u64, u64>,
    /// Processes that have ended and are not known to have been reaped.
    ended: HashMap<u64, Ended>,
    reported_drops: u64,
    /// Records read since the ring was seen empty.
    read_since_empty: bool,
    /// Holds programs and their links.
    ebpf: Ebpf,
    /// Keep the programs attached.
    _links: Vec<OwnedFd>,
    /// Keeps the namespace, whose address the programs compare with, from being freed.
    _namespace: File,
}

/// A process that has ended.
struct Ended {
    pid: i32,
    /// [`TreePrograms::overdue`] has seen it before.
    known: bool,
}

impl TreePrograms {
    /// Follows the PID namespace of the calling process.
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
        Self::load_for(object, open("/proc/thread-self/ns/pid")?)
    }

    /// Follows another PID namespace, which is below the caller's: `namespace` is an open `/proc/PID/ns/pid`.
    ///
    /// # Errors
    /// [`LoadError`] names what is missing; [`LoadError::Enter`] if `namespace` is something else.
    pub fn load_namespace(namespace: File) -> Result<Self, LoadError> {
        Self::load_for(OBJECT, namespace)
    }

    fn load_for(object: &[u8], namespace: File) -> Result<Self, LoadError> {
        let programs = Self::load_all(object, namespace);
        give_back_type_information();
        programs
    }

    fn load_all(object: &[u8], namespace: File) -> Result<Self, LoadError> {
        let (mut ebpf, btf) = open_object(object, layout::tree_configuration()?.to_words().as_slice())?;
        choose(&mut ebpf, &namespace)?;
        let links = PROGRAMS.into_iter().map(|name| attach(&mut ebpf, &btf, name)).collect::<Result<_, _>>()?;
        load_list(&mut ebpf, &btf)
            .map_err(|error| refused(error, |source| LoadError::Program { name: LIST, source }))?;
        let events = RingBuf::try_from(take(&mut ebpf, names::EVENTS)?);
        let events = events.map_err(|error| refused(error, LoadError::Object))?;
        let counters = Array::try_from(take(&mut ebpf, names::COUNTERS)?);
        let counters = counters.map_err(|error| refused(error, LoadError::Object))?;
        let members = KernelMap::try_from(take(&mut ebpf, names::MEMBERS)?);
        let members = members.map_err(|error| refused(error, LoadError::Object))?;
        Ok(Self {
            events,
            counters,
            members,
            ended: HashMap::new(),
            reported_drops: 0,
            read_since_empty: false,
            ebpf,
            _links: links,
            _namespace: namespace,
        })
    }

    /// Polls readable while there are records. To be read with [`Self::next_event`] only.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The next event, without waiting; none if there is none now.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let Some(entry) = self.events.next() else { return self.at_empty() };
            let record = Record::from_bytes(&entry);
            drop(entry);
            self.read_since_empty = true;
            match record {
                Ok(record) => {
                    self.remember(&record);
                    return Some(Event::Record(record));
                }
                Err(error) => tracing::error!("kernel programs: {error}"),
            }
        }
    }

    /// Some processes have ended of which nothing says yet that they were reaped.
    pub fn awaits_reaping(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Processes that ended before this was called last, are not there any more, and have no record that says so. It reads
    /// the list of all; costs nothing while nobody is awaited.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn overdue(&mut self) -> io::Result<Vec<Reaped>> {
        if self.ended.is_empty() {
            return Ok(Vec::new());
        }
        let present: HashSet<u64> = self.list()?.iter().map(|process| process.key).collect();
        let mut overdue = Vec::new();
        for (&key, ended) in &mut self.ended {
            if present.contains(&key) || !std::mem::replace(&mut ended.known, true) {
                continue;
            }
            match self.members.remove(&key) {
                Ok(()) => overdue.push(Reaped { kind: Kind::Reaped as u32, pid: ended.pid, seq: 0, key }),
                // Its record is in the ring, or was dropped.
                Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(ENOENT) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        for reaped in &overdue {
            self.ended.remove(&reaped.key);
        }
        Ok(overdue)
    }

    fn remember(&mut self, record: &Record) {
        match record {
            Record::Exit(exit) => {
                self.ended.insert(exit.key, Ended { pid: exit.pid, known: false });
            }
            Record::Reaped(reaped) => {
                self.ended.remove(&reaped.key);
            }
            Record::Fork(_) | Record::Exec(_) | Record::Changed(_) => {}
        }
    }

    /// What could not be told since loading: the ring was full, or more processes than
    /// [`ghost_abi::tree::MEMBERS`] lived at a time.
    pub fn dropped(&self) -> u64 {
        self.counter(COUNTER_DROPPED)
    }

    /// Records since loading, dropped ones included; the number of the last one.
    pub fn records(&self) -> u64 {
        self.counter(COUNTER_SEQUENCE)
    }

    /// The processes of the namespace now, zombies included, in the order of their numbers as the caller sees them. Their
    /// ends will be reported, also of those that were forked before the programs were loaded.
    ///
    /// The list is no snapshot: whoever forks or ends meanwhile may stand in it or not, and has records in the ring. So a
    /// fork that is already known and an end that is not are to be ignored.
    ///
    /// # Errors
    /// `ENOMEM`, `EMFILE`.
    pub fn list(&mut self) -> io::Result<Vec<Process>> {
        let program = self.ebpf.program_mut(LIST).ok_or_else(|| io::Error::other(LoadError::Foreign(LIST)))?;
        let iterator = <&mut Iter>::try_from(program).map_err(io::Error::other)?;
        let link = iterator.attach().and_then(|link| iterator.take_link(link)).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        link.into_file().map_err(io::Error::other)?.read_to_end(&mut bytes)?;
        let entries = bytes.chunks(Process::SIZE).map(|entry| Process::listed(entry).map_err(io::Error::other));
        let list: Vec<Process> = entries.collect::<io::Result<_>>()?;
        for process in list.iter().filter(|process| process.flags & Process::ENDED != 0) {
            self.ended.entry(process.key).or_insert(Ended { pid: process.pid, known: false });
        }
        Ok(list)
    }

    /// The ring is empty. A drop needs a ring that was full, or comes with the record of a fork.
    fn at_empty(&mut self) -> Option<Event> {
        if !std::mem::take(&mut self.read_since_empty) {
            return None;
        }
        let dropped = self.dropped();
        if dropped == self.reported_drops {
            return None;
        }
        self.reported_drops = dropped;
        // Records of reaping may be among them, which would be awaited for ever; `list` finds what is still there.
        self.ended.clear();
        Some(Event::Dropped)
    }

    fn counter(&self, index: u32) -> u64 {
        self.counters.get(&index, 0).unwrap_or_else(|error| {
            tracing::error!("kernel programs: cannot read counter {index}: {error}");
            0
        })
    }
}

fn open(path: &str) -> Result<File, LoadError> {
    File::open(path).map_err(|source| LoadError::Namespace { path: path.to_owned(), source })
}

/// Has the programs follow `namespace`, for which this thread's next child would be in it for a moment
/// (kernel/pid_namespace.c, `pidns_install()`).
fn choose(ebpf: &mut Ebpf, namespace: &File) -> Result<(), LoadError> {
    let program_error = |error| refused(error, |source| LoadError::Program { name: CHOOSE_NAMESPACE, source });
    let program = ebpf.program_mut(CHOOSE_NAMESPACE).ok_or(LoadError::Foreign(CHOOSE_NAMESPACE))?;
    let program = <&mut RawTracePoint>::try_from(program).map_err(program_error)?;
    program.load().map_err(program_error)?;
    let before = open("/proc/thread-self/ns/pid_for_children")?;
    setns(namespace, CloneFlags::CLONE_NEWPID).map_err(|error| LoadError::Enter(error.into()))?;
    let outcome = program.test_run(RawTracePointRunOptions::new());
    setns(&before, CloneFlags::CLONE_NEWPID).map_err(|error| LoadError::Enter(error.into()))?;
    outcome.map_err(program_error)?;
    let map = ebpf.map(names::NAMESPACE).ok_or(LoadError::Foreign(names::NAMESPACE))?;
    let map = Array::<_, NamespaceWords>::try_from(map).map_err(|error| refused(error, LoadError::Object))?;
    let [address, _, inode] = map.get(&0, 0).map_err(|error| refused(error, LoadError::Object))?;
    let wanted = namespace.metadata().map_err(LoadError::Enter)?.ino();
    if address == 0 || inode != wanted { Err(LoadError::Layout("task_struct.nsproxy")) } else { Ok(()) }
}

fn load_list(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
    match ebpf.program_mut(LIST) {
        Some(program) => <&mut Iter>::try_from(program)?.load("task", btf),
        None => Ok(()),
    }
}
