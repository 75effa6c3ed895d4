//! What is known of a ghost's process: the node's last words about each file, and when they came.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::time::Instant;

use bytes::Bytes;
use ghost_proto::view::{FileFigures, ProcessFigures};
use ghost_proto::view_port::Show;

use super::asking::{DESCRIPTORS, OF_THREADS};
use super::rendering::{Rendered, now_ns};
use super::stat::PageRatio;

/// A file as the node gave it: content, or an errno.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub content: Result<Bytes, i32>,
    pub at: Instant,
}

/// The ghost's own `stat` and `status`, which are needed again and again within a moment.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// `stat`, kept open: reading it again costs a third of opening it each time.
    pub file: Option<File>,
    pub stat: Option<(Instant, Bytes)>,
    /// With the part of `stat` that it agreed with.
    pub status: Option<(Vec<u8>, Bytes)>,
}

/// Content by name.
type Files = HashMap<String, Bytes>;

/// An open descriptor, as the node has it in `fd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub number: u32,
    /// For what it is open: permission bits of its owner.
    pub mode: u32,
    pub target: Bytes,
}

/// A ghost that is shown.
#[derive(Debug)]
pub(super) struct Ghost {
    pub show: Show,
    /// Since when, in nanoseconds since 1970.
    pub since_ns: u64,
    /// Who may see what is private to the process there; `None` before the node has said anything.
    pub owner: Option<u32>,
    pub pages: PageRatio,
    files: HashMap<String, Figure>,
    /// By the number under which they are shown, the first thread under the ghost's.
    threads: BTreeMap<u32, Files>,
    /// Those of an answer that has not come whole, with its number.
    gathered: (u64, BTreeMap<u32, Files>),
    /// When the threads' files were read.
    threads_at: HashMap<String, Instant>,
    /// The ghost's own files, as long as they are good.
    pub own: RefCell<Own>,
    /// What readers have been told the files are, by node id.
    pub rendered: HashMap<u64, Rendered>,
    /// Something of what comes with every sample is not what it was when readers were last told of changes.
    pub changed: bool,
    /// Parent, group, session and terminal of the ghost when readers were last told of changes.
    pub family: Vec<u8>,
}

impl Ghost {
    pub(super) fn new(show: Show, page_size: u64) -> Ghost {
        Ghost {
            show,
            since_ns: now_ns(),
            owner: None,
            pages: PageRatio { there: page_size, here: page_size },
            files: HashMap::new(),
            threads: BTreeMap::new(),
            gathered: Default::default(),
            threads_at: HashMap::new(),
            own: RefCell::default(),
            rendered: HashMap::new(),
            changed: false,
            family: Vec::new(),
        }
    }

    /// Takes what the node said in answer `seq`; `files` are the names as they were asked for.
    pub(super) fn take(&mut self, process: ProcessFigures, seq: u64, files: &[String], page_size: u32, now: Instant) {
        self.owner = Some(process.owner);
        self.pages.there = u64::from(page_size);
        let (of_threads, own): (Vec<&String>, Vec<&String>) =
            files.iter().partition(|name| name.starts_with(OF_THREADS));
        for (name, file) in own.into_iter().zip(process.files) {
            self.changed |= self.take_file(name, content_of(file), now);
        }
        if of_threads.is_empty() {
            return;
        }
        let names: Vec<&str> = of_threads.iter().filter_map(|name| name.strip_prefix(OF_THREADS)).collect();
        if self.gathered.0 != seq {
            self.gathered = (seq, BTreeMap::new());
        }
        for thread in process.threads {
            let tid = if thread.tid == 0 { self.show.pid } else { thread.tid };
            let known = || self.threads.get(&tid).cloned().unwrap_or_default();
            let known = self.gathered.1.entry(tid).or_insert_with(known);
            for (name, file) in names.iter().zip(thread.files) {
                if let Ok(content) = content_of(file) {
                    known.insert((*name).to_owned(), content);
                }
            }
        }
        if !process.more {
            self.threads = std::mem::take(&mut self.gathered.1);
            for name in of_threads {
                self.threads_at.insert(name.clone(), now);
            }
        }
    }

    /// Whether the file is another one than before.
    fn take_file(&mut self, name: &str, content: Result<Bytes, i32>, now: Instant) -> bool {
        // A copy of its own: the message that it came in is a hundred times as large.
        let own = |content: Result<Bytes, i32>| content.map(|content| Bytes::copy_from_slice(&content));
        match self.files.get_mut(name) {
            Some(known) => {
                known.at = now;
                let other = known.content != content;
                if other {
                    known.content = own(content);
                }
                other
            }
            None => {
                self.files.insert(name.to_owned(), Figure { content: own(content), at: now });
                true
            }
        }
    }

    /// When a file, named as in a sample, was last heard of.
    pub(super) fn heard(&self, name: &str) -> Option<Instant> {
        if name.starts_with(OF_THREADS) {
            return self.threads_at.get(name).copied();
        }
        self.files.get(name).map(|figure| figure.at)
    }

    pub(super) fn file(&self, name: &str) -> Option<&Result<Bytes, i32>> {
        self.files.get(name).map(|figure| &figure.content)
    }

    pub(super) fn thread_file(&self, tid: u32, name: &str) -> Option<&Bytes> {
        self.threads.get(&tid)?.get(name)
    }

    /// The threads as they are shown: always at least the first one.
    pub(super) fn threads(&self) -> Vec<u32> {
        let others = self.threads.keys().copied().filter(|tid| *tid != self.show.pid);
        std::iter::once(self.show.pid).chain(others).collect()
    }

    pub(super) fn has_thread(&self, tid: u32) -> bool {
        tid == self.show.pid || self.threads.contains_key(&tid)
    }

    /// Open descriptors, in order.
    pub(super) fn descriptors(&self) -> Vec<Descriptor> {
        let Some(Ok(listing)) = self.file(DESCRIPTORS) else { return Vec::new() };
        let mut words = listing.split(|&b| b == 0);
        let mut found = Vec::new();
        while let (Some(fd), Some(target)) = (words.next(), words.next()) {
            let parse = || {
                let (number, mode) = std::str::from_utf8(fd).ok()?.split_once(':')?;
                let mode = u32::from_str_radix(mode, 8).ok()? & 0o700;
                Some(Descriptor { number: number.parse().ok()?, mode, target: Bytes::copy_from_slice(target) })
            };
            found.extend(parse());
        }
        found
    }

    /// User and group that own what is private: the ghost's, or root's if the process there is not that user's any more (it
    /// may have executed a set-user-ID program).
    pub(super) fn private_owner(&self) -> (u32, u32) {
        match self.owner {
            Some(owner) if owner == self.show.uid => (self.show.uid, self.show.gid),
            _ => (0, 0),
        }
    }
}

fn content_of(file: FileFigures) -> Result<Bytes, i32> {
    if file.errno == 0 { Ok(file.content) } else { Err(file.errno.cast_signed()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::view::ThreadFigures;

    fn file(text: &'static str) -> FileFigures {
        FileFigures { errno: 0, content: Bytes::from_static(text.as_bytes()) }
    }

    fn ghost() -> Ghost {
        Ghost::new(Show { proc: 1, pid: 500, start: 1, uid: 1000, gid: 100, node: 3 }, 4096)
    }

    #[test]
    fn figures_find_their_files_and_threads() {
        let (mut ghost, now) = (ghost(), Instant::now());
        assert_eq!(ghost.threads(), [500]);
        let names = ["stat", "task/*/stat", "fd"].map(str::to_owned);
        let thread = |tid, text| ThreadFigures { tid, files: vec![file(text)] };
        let process = ProcessFigures {
            proc: 1,
            owner: 1000,
            files: vec![file("line"), file("0:500\0/dev/null\x007:300\0pipe:[4]\0")],
            threads: vec![thread(0, "first"), thread(77, "second")],
            more: false,
        };
        ghost.take(process, 1, &names, 4096, now);
        assert_eq!(ghost.file("stat"), Some(&Ok(Bytes::from_static(b"line"))));
        assert_eq!(
            (ghost.heard("stat"), ghost.heard("task/*/stat"), ghost.heard("maps")),
            (Some(now), Some(now), None)
        );
        assert_eq!((ghost.threads(), ghost.has_thread(77), ghost.has_thread(78)), (vec![500, 77], true, false));
        assert_eq!(ghost.thread_file(500, "stat"), Some(&Bytes::from_static(b"first")));
        let descriptors = ghost.descriptors();
        let second = Descriptor { number: 7, mode: 0o300, target: Bytes::from_static(b"pipe:[4]") };
        assert_eq!((descriptors.len(), &descriptors[1]), (2, &second));
    }

    #[test]
    fn threads_in_pieces_are_shown_when_all_are_there() {
        let (mut ghost, now) = (ghost(), Instant::now());
        let names = ["stat", "task/*/stat"].map(str::to_owned);
        let mut piece = |seq, files: Vec<FileFigures>, threads: &[u32], more| {
            let thread = |&tid: &u32| ThreadFigures { tid, files: vec![file("line")] };
            let threads = threads.iter().map(thread).collect();
            ghost.take(ProcessFigures { proc: 1, owner: 1000, files, threads, more }, seq, &names, 4096, now);
            assert_eq!(ghost.file("stat"), Some(&Ok(Bytes::from_static(b"line"))));
            (ghost.threads(), ghost.heard("task/*/stat").is_some())
        };
        assert_eq!(piece(1, vec![file("line")], &[0, 77], true), (vec![500], false));
        assert_eq!(piece(1, Vec::new(), &[78], false), (vec![500, 77, 78], true));
        // The end of this answer is lost.
        assert_eq!(piece(2, vec![file("line")], &[0, 79], true), (vec![500, 77, 78], true));
        assert_eq!(piece(3, vec![file("line")], &[0, 80], false), (vec![500, 80], true));
    }

    #[test]
    fn what_is_private_is_roots_until_the_node_has_said_whose_it_is() {
        let mut ghost = ghost();
        assert_eq!(ghost.private_owner(), (0, 0));
        let of = |owner| ProcessFigures { proc: 1, owner, ..ProcessFigures::default() };
        ghost.take(of(1000), 1, &[], 4096, Instant::now());
        assert_eq!(ghost.private_owner(), (1000, 100));
        ghost.take(of(0), 2, &[], 4096, Instant::now());
        assert_eq!(ghost.private_owner(), (0, 0));
    }
}
