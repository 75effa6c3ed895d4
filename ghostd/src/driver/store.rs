//! What outlasts ghostd: descriptors that the service manager keeps (sd_notify(3), FDSTORE=1), and notes in memory that one of
//! them names.
//!
//! ```text
//! pin                                  the ghosts' reads
//! GHOSTS EVENTS DRAINED COUNTERS …     which task is which ghost; records of signals not read yet
//! signal_generate …                    the kernel programs, attached
//! notes                                generation, PID, epoch of each node, and whether it is prepared
//! signals                              records of signals that no node has confirmed
//! unix, tcp                            listening: who connects meanwhile waits
//! ```
//! Invariants:
//! - Nothing here is on a disk: what it speaks of ends with this host's run, as it does.
//! - A note is one write(2) of less than a page, whole or not there (mm/shmem.c copies page by page); the last one counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use ghost_abi::{Record, SIGNAL_RECORD_SIZE, SignalRecord};
use ghost_proto::ids::NodeNumber;
use nix::sys::memfd::{MFdFlags, memfd_create};
use sd_notify::NotifyState;

use crate::core::Stage;

/// Bytes of notes, or of records, beyond which they are written anew.
const LARGE: u64 = 256 * 1024;

pub(super) const PIN: &str = "pin";
pub(super) const UNIX: &str = "unix";
pub(super) const TCP: &str = "tcp";
/// Every name but those of the kernel programs.
pub(super) const ALL: [&str; 5] = [PIN, UNIX, TCP, NOTES, SIGNALS];
const NOTES: &str = "notes";
const SIGNALS: &str = "signals";

/// What the service manager has kept, by name.
///
/// # Errors
/// It names descriptors that are not there.
pub(super) fn inherited() -> Result<BTreeMap<String, OwnedFd>> {
    let mut kept = BTreeMap::new();
    let Ok(descriptors) = sd_notify::listen_fds_with_names() else { return Ok(kept) };
    for (number, name) in descriptors {
        let fd = ghost_sys::descriptors::inherited(number)
            .with_context(|| format!("descriptor {number} ({name}) from the service manager"))?;
        kept.insert(name, fd);
    }
    Ok(kept)
}

/// Gives a descriptor to the service manager. Without one, or one that keeps nothing, a restart ends everything.
pub(super) fn keep(name: &str, fd: BorrowedFd<'_>) {
    // FDPOLL=0: it is not for the service manager to say which of them is of no use any more.
    if let Err(error) = ghost_sys::notify::send_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), fd) {
        tracing::debug!(name, "the service manager does not keep a descriptor: {error}");
    }
}

pub(super) fn forget(name: &str) {
    let name = format!("FDNAME={name}");
    let _ = sd_notify::notify(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&name)]);
}

/// A node in the notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotedNode {
    pub epoch: u64,
    pub holder: u64,
}

/// What there is to know besides what the kernel, the nodes and the commands know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// Counts the ghostds that have followed one another: names and numbers of each are its own.
    pub generation: u64,
    pub pid: u32,
    /// Records dropped by the kernel programs that have been seen to.
    pub dropped: u64,
    pub nodes: BTreeMap<NodeNumber, NotedNode>,
    /// Of nodes that are not simply up.
    pub stages: BTreeMap<NodeNumber, Stage>,
}

impl Noted {
    fn read(text: &str) -> Noted {
        let mut noted = Noted::default();
        // Behind the last end of line there may be half of one.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            if let Some((node, stage)) = line.strip_prefix("stage ").and_then(|rest| rest.split_once(' ')) {
                if let (Ok(node), Some(stage)) = (node.parse(), Stage::from_note(stage)) {
                    noted.put_stage(NodeNumber(node), &stage);
                }
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            match (words[0], number(1), number(2), number(3)) {
                ("ghostd", Some(generation), Some(pid), _) => {
                    (noted.generation, noted.pid) = (generation, u32::try_from(pid).unwrap_or(0));
                }
                ("dropped", Some(dropped), ..) => noted.dropped = dropped,
                ("node", Some(node), Some(epoch), Some(holder)) => {
                    let node = NodeNumber(i32::try_from(node).unwrap_or(-1));
                    // A new life of the node.
                    noted.stages.remove(&node);
                    if epoch == 0 {
                        noted.nodes.remove(&node);
                    } else {
                        noted.nodes.insert(node, NotedNode { epoch, holder });
                    }
                }
                _ => {}
            }
        }
        noted
    }

    fn put_stage(&mut self, node: NodeNumber, stage: &Stage) {
        self.stages.remove(&node);
        if *stage != Stage::Up {
            self.stages.insert(node, stage.clone());
        }
    }

    fn lines(&self) -> String {
        let mut text = format!("ghostd {} {}\ndropped {}\n", self.generation, self.pid, self.dropped);
        for (node, NotedNode { epoch, holder }) in &self.nodes {
            text += &format!("node {node} {epoch} {holder}\n");
        }
        for (node, stage) in &self.stages {
            text += &format!("stage {node} {}\n", stage.to_note());
        }
        text
    }
}

/// The two memory files.
#[derive(Debug)]
pub(super) struct Store {
    noted: Noted,
    notes: File,
    notes_end: u64,
    signals: File,
    signals_end: u64,
    /// The least number by which one of the records is known to a node.
    oldest: u64,
}

/// A memory file of a predecessor, or a new one that is given to the service manager.
fn memory(kept: &mut BTreeMap<String, OwnedFd>, name: &'static str) -> Result<File> {
    if let Some(fd) = kept.remove(name) {
        return Ok(fd.into());
    }
    let fd = memfd_create(c"ghostproc-notes", MFdFlags::MFD_CLOEXEC).context("memory for notes")?;
    keep(name, fd.as_fd());
    Ok(fd.into())
}

impl Store {
    /// Over what was kept, if anything was. Gives what the predecessor has noted as well.
    ///
    /// # Errors
    /// No memory.
    pub fn open(kept: &mut BTreeMap<String, OwnedFd>) -> Result<(Store, Noted)> {
        let (notes, signals) = (memory(kept, NOTES)?, memory(kept, SIGNALS)?);
        let before = Noted::read(&String::from_utf8_lossy(&contents(&notes)?));
        let noted = Noted { generation: before.generation + 1, pid: std::process::id(), ..before.clone() };
        let (notes_end, signals_end) = (notes.metadata()?.len(), signals.metadata()?.len());
        let mut store = Store { noted, notes, notes_end, signals, signals_end, oldest: u64::MAX };
        store.oldest = store.signals()?.iter().map(number).min().unwrap_or(u64::MAX);
        store.note(&format!("ghostd {} {}\n", store.noted.generation, store.noted.pid));
        Ok((store, before))
    }

    /// Its memory files, by the names under which [`Store::open`] finds them.
    pub fn descriptors(&self) -> [(&'static str, BorrowedFd<'_>); 2] {
        [(NOTES, self.notes.as_fd()), (SIGNALS, self.signals.as_fd())]
    }

    pub fn generation(&self) -> u64 {
        self.noted.generation
    }

    /// The epoch under which a node is believed, 0: none.
    pub fn note_node(&mut self, node: NodeNumber, epoch: u64, holder: u64) {
        self.noted.nodes.remove(&node);
        self.noted.stages.remove(&node);
        if epoch != 0 {
            self.noted.nodes.insert(node, NotedNode { epoch, holder });
        }
        self.note(&format!("node {node} {epoch} {holder}\n"));
    }

    /// How far a node is, in the epoch that was noted last.
    pub fn note_stage(&mut self, node: NodeNumber, stage: &Stage) {
        self.noted.put_stage(node, stage);
        self.note(&format!("stage {node} {}\n", stage.to_note()));
    }

    pub fn note_dropped(&mut self, dropped: u64) {
        self.noted.dropped = dropped;
        self.note(&format!("dropped {dropped}\n"));
    }

    fn note(&mut self, line: &str) {
        if self.notes_end > LARGE {
            let all = self.noted.lines();
            // Behind what is there first: at no time is there nothing.
            if let Err(error) = write_anew(&self.notes, self.notes_end, all.as_bytes()) {
                return tracing::error!("a note is not kept: {error}");
            }
            self.notes_end = all.len() as u64;
        }
        match self.notes.write_all_at(line.as_bytes(), self.notes_end) {
            Ok(()) => self.notes_end += line.len() as u64,
            Err(error) => tracing::error!("a note is not kept: {error}"),
        }
    }

    /// A record is about to be acted on.
    pub fn signal(&mut self, record: &SignalRecord) {
        match self.signals.write_all_at(&record.to_bytes(), self.signals_end) {
            Ok(()) => {
                self.signals_end += SIGNAL_RECORD_SIZE as u64;
                self.oldest = self.oldest.min(number(record));
            }
            Err(error) => tracing::error!("a signal is not kept: {error}"),
        }
    }

    pub fn has_signals(&self) -> bool {
        self.signals_end > 0
    }

    /// Of the records only these are wanted still: named by their own numbers or by those of their calls. Nodes have forgotten, or will,
    /// what they did about those below `settled`: what is not wanted of them must not be sent again by another ghostd.
    pub fn settle(&mut self, open: &BTreeSet<u64>, settled: u64) {
        if !open.is_empty() && self.signals_end < LARGE && self.oldest >= settled {
            return;
        }
        let (mut kept, mut oldest) = (Vec::new(), u64::MAX);
        if !open.is_empty() {
            for record in self.signals().unwrap_or_default() {
                if open.contains(&record.seq) || record.call != 0 && open.contains(&record.call) {
                    kept.extend_from_slice(&record.to_bytes());
                    oldest = oldest.min(number(&record));
                }
            }
        }
        match write_anew(&self.signals, self.signals_end, &kept) {
            Ok(()) => (self.signals_end, self.oldest) = (kept.len() as u64, oldest),
            Err(error) => tracing::error!("signals are not kept: {error}"),
        }
    }

    /// The records that are kept, each once.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn signals(&self) -> io::Result<Vec<SignalRecord>> {
        let bytes = contents(&self.signals)?;
        let mut records = BTreeMap::new();
        for bytes in bytes.chunks_exact(SIGNAL_RECORD_SIZE) {
            if let Ok(Record::Signal(record)) = Record::from_bytes(bytes) {
                records.insert(record.seq, record);
            }
        }
        Ok(records.into_values().collect())
    }
}

/// What nodes may know a record's signal by.
fn number(record: &SignalRecord) -> u64 {
    if record.call == 0 { record.seq } else { record.seq.min(record.call) }
}

/// Replaces a file's contents; whoever reads it at any moment between finds the old, both, or the new.
fn write_anew(file: &File, end: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, end)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

fn contents(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, call: u64) -> SignalRecord {
        SignalRecord {
            kind: 1,
            flags: 0,
            ghost: 1,
            seq,
            call,
            value: 0,
            sig: 10,
            scope: 0,
            si_code: 0,
            sender_pid: 1,
            sender_uid: 0,
            sender_euid: 0,
            pgid: 0,
        }
    }

    #[test]
    fn what_is_noted_of_a_node_holds_for_its_epoch() {
        let (mut store, _) = Store::open(&mut BTreeMap::new()).unwrap();
        let failed = Stage::Error("node_up ended with status 1, see the log".to_owned());
        for (node, stage) in [(0, Stage::Boot), (1, failed.clone()), (2, Stage::Boot), (3, Stage::Boot)] {
            store.note_node(NodeNumber(node), 7, 8);
            store.note_stage(NodeNumber(node), &stage);
        }
        store.note_stage(NodeNumber(2), &Stage::Up);
        store.note_node(NodeNumber(3), 9, 8);
        let wanted = BTreeMap::from([(NodeNumber(0), Stage::Boot), (NodeNumber(1), failed)]);
        let read = |store: &Store| Noted::read(&String::from_utf8(contents(&store.notes).unwrap()).unwrap());
        assert_eq!(read(&store).stages, wanted);
        assert_eq!(Noted::read(&store.noted.lines()).stages, wanted, "written anew");
        assert_eq!(read(&store).nodes, store.noted.nodes);
    }

    fn numbers(store: &Store) -> Vec<u64> {
        store.signals().unwrap().iter().map(|record| record.seq).collect()
    }

    #[test]
    fn a_record_is_kept_while_it_is_open_and_as_long_as_nodes_know_what_they_did_about_it() {
        let (mut store, before) = Store::open(&mut BTreeMap::new()).unwrap();
        assert_eq!((before.generation, numbers(&store)), (0, vec![]));
        for (seq, call) in [(5_000, 0), (5_001, 0), (5_002, 0), (5_010, 5_003)] {
            store.signal(&record(seq, call));
        }
        let open = BTreeSet::from([5_001, 5_003]);
        store.settle(&open, 5_000);
        assert_eq!(numbers(&store), [5_000, 5_001, 5_002, 5_010], "there is time");
        store.settle(&open, 5_001);
        assert_eq!(numbers(&store), [5_001, 5_010], "5000 would be delivered again");
        store.signal(&record(5_020, 0));
        store.settle(&BTreeSet::from([5_003]), 5_001);
        assert_eq!(numbers(&store), [5_001, 5_010, 5_020]);
        store.settle(&BTreeSet::from([5_003]), 5_002);
        assert_eq!(numbers(&store), [5_010]);
        store.settle(&BTreeSet::new(), 0);
        assert!(!store.has_signals());
    }
}
