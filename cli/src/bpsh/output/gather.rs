//! Equal output is shown once (`--gather`), while programs run: a group of ranks is shown as soon as nobody who still runs can
//! join it.
//!
//! ```text
//! ---------------
//! 0-2,5 (4)
//! ---------------
//! the output of each of them
//! ```
//! Ranks are alike if they have written the same to both outputs and ended alike. What is equal is kept once: outputs are cut
//! into blocks, which form a tree whose branches are where outputs differ. A rank that runs stands at a block of the tree, with
//! the bytes behind it; it can join a group only as long as it stands on the group's way from the root.
//!
//! Invariant: each watched rank is looked at only when it has written or ended; one that has left a group's way never comes back.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use ghost_proto::nodeset::fold_set;

use super::layout::Channel;

/// Bytes of a block.
const BLOCK: usize = 16 * 1024;
/// Blocks in memory before a file takes them, in bytes.
const MEMORY: usize = 32 * 1024 * 1024;
const DASHES: &str = "---------------";

/// Index of a block in the tree; 0 is the root, before the first byte.
type BlockId = usize;

#[derive(Debug)]
struct Block {
    parent: BlockId,
    depth: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Bytes),
    File { offset: u64, length: usize },
}

/// Where a rank stands on one of its outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Standing {
    block: BlockId,
    tail: BytesMut,
}

/// What makes ranks alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    standings: [Standing; 2],
    remark: String,
}

#[derive(Debug)]
struct Group {
    key: Key,
    ranks: Vec<usize>,
    told: bool,
    /// Who might still join, the last of them being watched.
    candidates: Vec<usize>,
}

/// Something that is to be shown.
#[derive(Debug)]
enum Step {
    Text(Channel, Bytes),
    Block(Channel, BlockId),
}

#[derive(Debug)]
pub struct Gather {
    /// Node of each rank.
    nodes: Vec<i32>,
    /// Where each rank that runs stands.
    running: Vec<Option<[Standing; 2]>>,
    blocks: Vec<Block>,
    /// Blocks by their parent and a hash of their bytes.
    children: HashMap<(BlockId, u64), Vec<BlockId>>,
    in_memory: usize,
    file: Option<(File, u64)>,
    groups: HashMap<u64, Group>,
    by_key: HashMap<Key, u64>,
    next_group: u64,
    /// Groups that watch a rank.
    watchers: Vec<Vec<u64>>,
    /// Groups are shown at the end only, in the order of their nodes.
    sorted: bool,
    colour: bool,
    show: VecDeque<Step>,
}

impl Gather {
    pub fn new(nodes: Vec<i32>, sorted: bool, colour: bool) -> Gather {
        let ranks = nodes.len();
        Gather {
            nodes,
            running: vec![Some([Standing::default(), Standing::default()]); ranks],
            blocks: vec![Block { parent: 0, depth: 0, place: Place::Memory(Bytes::new()) }],
            children: HashMap::new(),
            in_memory: 0,
            file: None,
            groups: HashMap::new(),
            by_key: HashMap::new(),
            next_group: 0,
            watchers: vec![Vec::new(); ranks],
            sorted,
            colour,
            show: VecDeque::new(),
        }
    }

    /// Takes a piece of a rank's stream.
    pub fn push(&mut self, rank: usize, channel: Channel, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let Some(Some(standings)) = self.running.get_mut(rank) else { return };
            let standing = &mut standings[channel];
            let piece = bytes.split_to(bytes.len().min(BLOCK - standing.tail.len()));
            standing.tail.extend_from_slice(&piece);
            if standing.tail.len() == BLOCK {
                let (parent, block) = (standing.block, standing.tail.split().freeze());
                let block = self.block(parent, block);
                if let Some(Some(standings)) = self.running.get_mut(rank) {
                    standings[channel].block = block;
                }
            }
        }
        self.look_again(rank);
    }

    /// A rank is over; the remark says how, if there is something to say. `told`: without output there is nothing to show.
    pub fn finish(&mut self, rank: usize, remark: String, told: bool) {
        let Some(standings) = self.running.get_mut(rank).and_then(Option::take) else { return };
        let key = Key { standings, remark };
        let known = self.by_key.get(&key).and_then(|id| self.groups.get_mut(id));
        match known {
            Some(group) => group.ranks.push(rank),
            None => {
                let candidates = (0..self.running.len()).filter(|rank| self.running[*rank].is_some()).collect();
                let id = self.next_group;
                self.next_group += 1;
                self.by_key.insert(key.clone(), id);
                self.groups.insert(id, Group { key, ranks: vec![rank], told, candidates });
                self.settle(id);
            }
        }
        self.look_again(rank);
        if self.sorted && self.running.iter().all(Option::is_none) {
            let node = |group: &Group| group.ranks.iter().map(|rank| self.nodes[*rank]).min();
            let mut ids: Vec<(Option<i32>, u64)> = self.groups.iter().map(|(id, group)| (node(group), *id)).collect();
            ids.sort_unstable();
            ids.into_iter().for_each(|(_, id)| self.print(id));
        }
    }

    /// The next thing that is to be written.
    pub fn next(&mut self) -> Option<(Channel, Bytes)> {
        Some(match self.show.pop_front()? {
            Step::Text(channel, bytes) => (channel, bytes),
            Step::Block(channel, block) => (channel, self.bytes(block)),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.show.is_empty()
    }

    /// Those who watched a rank look whether it can still join them.
    fn look_again(&mut self, rank: usize) {
        for id in std::mem::take(&mut self.watchers[rank]) {
            self.settle(id);
        }
    }

    /// Finds somebody whom a group has to wait for, or shows it.
    fn settle(&mut self, id: u64) {
        while let Some(group) = self.groups.get(&id) {
            match group.candidates.last().copied() {
                Some(rank) if self.can_join(rank, &group.key) => {
                    self.watchers[rank].push(id);
                    return;
                }
                Some(_) => {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.candidates.pop();
                    }
                }
                None if self.sorted => return,
                None => self.print(id),
            }
        }
    }

    fn can_join(&self, rank: usize, key: &Key) -> bool {
        let Some(standings) = &self.running[rank] else { return false };
        standings.iter().zip(&key.standings).all(|(standing, goal)| self.is_on_the_way(standing, goal))
    }

    fn is_on_the_way(&self, standing: &Standing, goal: &Standing) -> bool {
        if standing.block == goal.block {
            return goal.tail.starts_with(&standing.tail);
        }
        let depth = self.blocks[standing.block].depth;
        if self.blocks[goal.block].depth <= depth {
            return false;
        }
        let mut next = goal.block;
        while self.blocks[next].depth > depth + 1 {
            next = self.blocks[next].parent;
        }
        self.blocks[next].parent == standing.block
            && (standing.tail.is_empty() || self.bytes(next).starts_with(&standing.tail))
    }

    /// The block behind `parent` with these bytes.
    fn block(&mut self, parent: BlockId, bytes: Bytes) -> BlockId {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let hash = hasher.finish();
        let alike = self.children.get(&(parent, hash)).into_iter().flatten();
        if let Some(known) = alike.copied().find(|block| self.bytes(*block) == bytes) {
            return known;
        }
        let place = self.keep(bytes);
        let block = self.blocks.len();
        self.blocks.push(Block { parent, depth: self.blocks[parent].depth + 1, place });
        self.children.entry((parent, hash)).or_default().push(block);
        block
    }

    fn keep(&mut self, bytes: Bytes) -> Place {
        if self.in_memory >= MEMORY {
            if self.file.is_none() {
                self.file = tempfile::tempfile().ok().map(|file| (file, 0));
            }
            // A full disk costs memory, not output.
            if let Some((file, end)) = &mut self.file
                && file.write_all(&bytes).is_ok()
            {
                let offset = *end;
                *end += bytes.len() as u64;
                return Place::File { offset, length: bytes.len() };
            }
        }
        self.in_memory += bytes.len();
        Place::Memory(bytes)
    }

    fn bytes(&self, block: BlockId) -> Bytes {
        match &self.blocks[block].place {
            Place::Memory(bytes) => bytes.clone(),
            Place::File { offset, length } => {
                let mut bytes = vec![0; *length];
                if let Some((file, _)) = &self.file {
                    // Our own file, written before: nothing but a broken disk can fail here.
                    let _ = file.read_exact_at(&mut bytes, *offset);
                }
                Bytes::from(bytes)
            }
        }
    }

    fn print(&mut self, id: u64) {
        let Some(Group { key, ranks, told, .. }) = self.groups.remove(&id) else { return };
        self.by_key.remove(&key);
        let nodes = fold_set(ranks.iter().map(|rank| self.nodes[*rank]));
        let title = match (ranks.len(), key.remark.is_empty()) {
            (1, true) => nodes,
            (1, false) => format!("{nodes}: {}", key.remark),
            (many, true) => format!("{nodes} ({many})"),
            (many, false) => format!("{nodes} ({many}): {}", key.remark),
        };
        let title = if self.colour { format!("\x1b[36m{title}\x1b[0m") } else { title };
        let header = Bytes::from(format!("{DASHES}\n{title}\n{DASHES}\n"));
        let mut said = false;
        for (channel, Standing { block, tail }) in key.standings.into_iter().enumerate() {
            if block == 0 && tail.is_empty() {
                continue;
            }
            said = true;
            self.show.push_back(Step::Text(channel, header.clone()));
            let mut way = Vec::new();
            let mut at = block;
            while at != 0 {
                way.push(at);
                at = self.blocks[at].parent;
            }
            self.show.extend(way.into_iter().rev().map(|block| Step::Block(channel, block)));
            let last = if tail.is_empty() { self.bytes(block).last().copied() } else { tail.last().copied() };
            self.show.push_back(Step::Text(channel, tail.freeze()));
            if last != Some(b'\n') {
                self.show.push_back(Step::Text(channel, Bytes::from_static(b"\n")));
            }
        }
        if !said && !told && !key.remark.is_empty() {
            self.show.push_back(Step::Text(1, header));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gather(nodes: &[i32]) -> Gather {
        Gather::new(nodes.to_vec(), false, false)
    }

    fn push(gather: &mut Gather, rank: usize, text: &str) {
        gather.push(rank, 0, Bytes::copy_from_slice(text.as_bytes()));
    }

    fn shown(gather: &mut Gather) -> [String; 2] {
        let mut text = [String::new(), String::new()];
        while let Some((channel, bytes)) = gather.next() {
            text[channel].push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }

    fn header(title: &str) -> String {
        format!("{DASHES}\n{title}\n{DASHES}\n")
    }

    #[test]
    fn a_group_is_shown_when_nobody_can_join_it() {
        let mut g = gather(&[0, 1, 2, 5]);
        push(&mut g, 0, "six\n");
        push(&mut g, 3, "six");
        g.finish(0, String::new(), false);
        // 1 and 2 have written nothing yet, 5 half of it.
        assert_eq!(shown(&mut g)[0], "");
        push(&mut g, 1, "seven\n");
        push(&mut g, 3, "\n");
        g.finish(3, String::new(), false);
        assert_eq!(shown(&mut g)[0], "");
        push(&mut g, 2, "si");
        assert_eq!(shown(&mut g)[0], "");
        push(&mut g, 2, "lence\n");
        assert_eq!(shown(&mut g)[0], header("0,5 (2)") + "six\n");
        g.finish(1, String::new(), false);
        assert_eq!(shown(&mut g)[0], header("1") + "seven\n");
        g.finish(2, "failed, exit 3".into(), false);
        assert_eq!(shown(&mut g)[0], header("2: failed, exit 3") + "silence\n");
    }

    #[test]
    fn ends_and_both_outputs_make_the_difference() {
        let mut g = gather(&[0, 1, 2, 3]);
        for rank in 0..4 {
            push(&mut g, rank, "a");
        }
        g.push(2, 1, Bytes::from_static(b"error\n"));
        g.finish(0, String::new(), false);
        g.finish(1, "failed, exit 1".into(), false);
        g.finish(2, String::new(), false);
        g.finish(3, String::new(), false);
        let [out, err] = shown(&mut g);
        assert!(
            out.contains(&(header("0,3 (2)") + "a\n")) && out.contains(&(header("1: failed, exit 1") + "a\n")),
            "{out}"
        );
        assert_eq!(err, header("2") + "error\n");
    }

    #[test]
    fn silence_is_shown_only_if_there_is_a_remark() {
        let mut g = gather(&[0, 1, 2]);
        g.finish(0, String::new(), false);
        g.finish(1, "lost".into(), false);
        g.finish(2, "lost".into(), false);
        assert_eq!(shown(&mut g), [String::new(), header("1-2 (2): lost")]);
    }

    #[test]
    fn sorted_groups_come_at_the_end_in_order() {
        let mut g = Gather::new(vec![7, 3, 4], true, false);
        push(&mut g, 0, "x\n");
        g.finish(0, String::new(), false);
        push(&mut g, 2, "y\n");
        push(&mut g, 1, "y\n");
        g.finish(2, String::new(), false);
        assert_eq!(shown(&mut g)[0], "");
        g.finish(1, String::new(), false);
        assert_eq!(shown(&mut g)[0], header("3-4 (2)") + "y\n" + &header("7") + "x\n");
    }

    #[test]
    fn much_equal_output_is_kept_once() {
        let mut g = gather(&(0..50).collect::<Vec<_>>());
        let text = "0123456789abcde\n".repeat(10_000);
        for rank in 0..50 {
            for piece in text.as_bytes().chunks(1000 + rank) {
                g.push(rank, 0, Bytes::copy_from_slice(piece));
            }
        }
        assert_eq!(g.in_memory, text.len() / BLOCK * BLOCK);
        (0..50).for_each(|rank| g.finish(rank, String::new(), false));
        assert_eq!(shown(&mut g)[0], header("0-49 (50)") + &text);
    }

    #[test]
    fn beyond_the_memory_a_file_takes_it() {
        let mut g = gather(&[0, 1]);
        g.in_memory = MEMORY;
        let text: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        push(&mut g, 0, &text);
        push(&mut g, 1, &text);
        assert!(g.file.is_some() && g.in_memory == MEMORY);
        g.finish(0, String::new(), false);
        g.finish(1, String::new(), false);
        assert_eq!(shown(&mut g)[0], header("0-1 (2)") + &text);
    }

    proptest! {
        /// However outputs come and whoever ends when: everything is shown once, each group has all who are alike, and nothing
        /// waits when all have ended.
        #[test]
        fn groups_are_the_classes_of_equal_output(
            texts in prop::collection::vec((0usize..4, 0usize..3), 1..8),
            steps in prop::collection::vec((0usize..8, 1usize..30_000), 0..60),
        ) {
            // Outputs that differ late, beyond a block.
            let text = |kind: usize| "same\n".repeat(8000) + &format!("{}\n", "x".repeat(kind));
            let nodes: Vec<i32> = (0..).take(texts.len()).collect();
            let mut g = gather(&nodes);
            let mut done = vec![0usize; texts.len()];
            let mut out = String::new();
            let all: Vec<String> = texts.iter().map(|(kind, _)| text(*kind)).collect();
            let rest = (0..texts.len()).map(|rank| (rank, usize::MAX));
            for (rank, length) in steps.into_iter().map(|(rank, length)| (rank % texts.len(), length)).chain(rest) {
                let from = done[rank];
                let to = from.saturating_add(length).min(all[rank].len());
                if from < all[rank].len() {
                    done[rank] = to;
                    push(&mut g, rank, &all[rank][from..to]);
                    if to == all[rank].len() {
                        let code = texts[rank].1;
                        g.finish(rank, if code == 0 { String::new() } else { format!("failed, exit {code}") }, false);
                    }
                }
                out.push_str(&shown(&mut g)[0]);
            }
            let mut classes: Vec<((usize, usize), Vec<i32>)> = Vec::new();
            for (rank, alike) in (0..).zip(&texts) {
                match classes.iter_mut().find(|(class, _)| class == alike) {
                    Some((_, members)) => members.push(rank),
                    None => classes.push((*alike, vec![rank])),
                }
            }
            prop_assert_eq!(out.matches(DASHES).count(), 2 * classes.len());
            for ((kind, code), members) in classes {
                let count = if members.len() > 1 { format!(" ({})", members.len()) } else { String::new() };
                let remark = if code > 0 { format!(": failed, exit {code}") } else { String::new() };
                let expected = header(&format!("{}{count}{remark}", fold_set(members))) + &text(kind);
                prop_assert!(out.contains(&expected), "{}", kind);
            }
            prop_assert!(g.is_empty() && g.groups.is_empty());
        }
    }
}
