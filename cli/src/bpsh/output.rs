//! Output of the ranks, on its way to this process's standard output and error.
//!
//! ```text
//!            +- its turn, or unsorted -------------+
//! stream --> |                                     +--> layout --> sink 0: stdout
//!            +- sorted, others first -> spill -----+            \-> sink 1: stderr
//!            \- gather: until nobody can write the same; events of --json: lines on sink 0
//! ```
//! Invariant: memory is bounded by the streams' windows. A byte is acknowledged when it has been written, lies in a spill
//! file, or in a line buffer, which has a bound of its own.

mod below;
mod content;
mod events;
mod gather;
mod layout;
mod sink;
mod spill;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use bytes::Bytes;

use super::flags::{Form, Style};
use super::report::Event;
use below::Below;
pub use content::Content;
use events::Events;
use gather::Gather;
pub use layout::{Channel, Credit};
use layout::{Layout, Piece};
use sink::Sink;
use spill::Spill;

/// Bytes on the way out beyond which nothing is taken back from a spill.
const REPLAY: usize = 512 * 1024;
/// Memory for output whose turn has not come, all ranks together, and the most for one of them, in bytes.
const SPILL_MEMORY: usize = 8 * 1024 * 1024;
const SPILL_MEMORY_EACH: usize = 64 * 1024;

/// An output that cannot be written any more.
#[derive(Debug)]
pub struct Broken {
    pub channel: Channel,
    pub error: io::Error,
}

#[derive(Debug)]
pub struct Output<F> {
    layout: Layout,
    sinks: [Sink<F>; 2],
    /// Sorted output: the order of turns.
    turns: Option<Turns>,
    gather: Option<Gather>,
    events: Option<(Events, Instant)>,
    pieces: Vec<Piece>,
    credits: Vec<Credit>,
    /// There may be a line below it.
    below: Option<Below>,
}

#[derive(Debug)]
struct Turns {
    /// Ranks in the order of their nodes.
    order: Vec<usize>,
    /// Index of the turn of each rank.
    turn_of: Vec<usize>,
    now: usize,
    complete: Vec<bool>,
    spills: Vec<Spill>,
}

impl Turns {
    fn new(nodes: &[i32]) -> Turns {
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|rank| nodes[*rank]);
        let mut turn_of = vec![0; nodes.len()];
        for (turn, rank) in order.iter().enumerate() {
            turn_of[*rank] = turn;
        }
        let limit = SPILL_MEMORY_EACH.min(SPILL_MEMORY / nodes.len().max(1));
        let spills = nodes.iter().map(|_| Spill::new(limit)).collect();
        Turns { order, turn_of, now: 0, complete: vec![false; nodes.len()], spills }
    }
}

impl<F: AsFd> Output<F> {
    /// For ranks on these nodes, which have these names.
    pub fn new(style: Style, named: Vec<(i32, String)>, stdout: F, stderr: F) -> Output<F> {
        let nodes: Vec<i32> = named.iter().map(|(node, _)| *node).collect();
        let gather = match style.form {
            Form::Gathered { colour } => Some(Gather::new(nodes.clone(), style.sorted, colour)),
            Form::Streams | Form::Events => None,
        };
        Output {
            sinks: [Sink::new(stdout), Sink::new(stderr)],
            turns: (style.sorted && gather.is_none()).then(|| Turns::new(&nodes)),
            gather,
            events: (style.form == Form::Events).then(|| (Events::new(named), Instant::now())),
            layout: Layout::new(style, nodes),
            pieces: Vec::new(),
            credits: Vec::new(),
            below: None,
        }
    }

    /// There may be a line below it, on the terminal that is standard error; `terminals`: which outputs are shown there.
    pub fn allow_below(&mut self, terminals: [bool; 2]) {
        self.below = Some(Below::new(terminals));
    }

    /// How often something was shown there.
    pub fn shown(&self) -> u64 {
        self.below.as_ref().map_or(0, Below::pieces)
    }

    /// Draws the line, or takes it away.
    pub fn below(&mut self, text: Option<String>) {
        if let Some(below) = &mut self.below {
            below.draw(text);
        }
    }

    /// Takes a piece of a rank's stream.
    pub fn push(&mut self, rank: usize, channel: Channel, content: impl Into<Content>) {
        let content: Content = content.into();
        if let Some(gather) = &mut self.gather {
            // Nobody waits for it: it is kept here.
            self.credits.push(Credit { rank, channel, bytes: content.len() });
            return gather.push(rank, channel, content.into_bytes());
        }
        if let Some((events, start)) = &mut self.events {
            let credit = Some(Credit { rank, channel, bytes: content.len() });
            let line = events.output(rank, channel, content.into_bytes(), start.elapsed().as_secs_f64());
            let content = Bytes::from(line.unwrap_or_default()).into();
            self.pieces.push(Piece { channel: 0, content, credit });
            return self.distribute();
        }
        if let Some(turns) = &mut self.turns {
            let Some(spill) = turns.spills.get_mut(rank) else { return };
            if turns.turn_of[rank] != turns.now || !spill.is_empty() {
                let length = content.len();
                if spill.push(channel, content.into_bytes()) {
                    self.credits.push(Credit { rank, channel, bytes: length });
                }
                return;
            }
        }
        if self.layout.is_plain() {
            self.layout.pass(rank, channel, content, &mut self.pieces);
        } else {
            self.layout.push(rank, channel, content.into_bytes(), false, &mut self.pieces);
        }
        self.distribute();
    }

    /// A rank is complete: nothing more comes from it. The remark says how it ended, if there is something to say; `told`: that
    /// has been said already.
    pub fn finish(&mut self, rank: usize, remark: String, told: bool) {
        if let Some(gather) = &mut self.gather {
            return gather.finish(rank, remark, told);
        }
        if let Some((events, start)) = &mut self.events {
            let lines = events.finish(rank, start.elapsed().as_secs_f64());
            self.pieces.push(Piece { channel: 0, content: Bytes::from(lines).into(), credit: None });
            return self.distribute();
        }
        match &mut self.turns {
            Some(turns) => {
                if let Some(complete) = turns.complete.get_mut(rank) {
                    *complete = true;
                }
            }
            None => self.layout.finish(rank, &mut self.pieces),
        }
        self.distribute();
    }

    /// Tells an event, if events are told.
    pub fn event(&mut self, event: &Event<'_>) {
        let Some((_, start)) = &self.events else { return };
        let line = Bytes::from(event.line(start.elapsed().as_secs_f64()));
        self.pieces.push(Piece { channel: 0, content: line.into(), credit: None });
        self.distribute();
    }

    /// A line of bpsh's own, to standard error.
    pub fn message(&mut self, text: &str) {
        if super::raw::is_raw() {
            self.layout.message(&(text.replace('\n', "\r\n") + "\r"), &mut self.pieces);
        } else {
            self.layout.message(text, &mut self.pieces);
        }
        self.distribute();
    }

    /// Writes what goes without waiting; gives what has been acknowledged since the last call, and what broke.
    pub fn write(&mut self, broken: &mut Vec<Broken>) -> Vec<Credit> {
        loop {
            for (channel, sink) in self.sinks.iter_mut().enumerate() {
                sink.write(&mut self.credits);
                broken.extend(sink.take_error().map(|error| Broken { channel, error }));
            }
            if !self.replay(broken) {
                return std::mem::take(&mut self.credits);
            }
        }
    }

    /// Takes a piece back from the spill of the rank whose turn it is, or passes the turn on; whether it did any.
    fn replay(&mut self, broken: &mut Vec<Broken>) -> bool {
        if let Some(gather) = &mut self.gather {
            if self.sinks.iter().map(Sink::queued).sum::<usize>() > REPLAY {
                return false;
            }
            let Some((channel, bytes)) = gather.next() else { return false };
            self.pieces.push(Piece { channel, content: bytes.into(), credit: None });
            self.distribute();
            return true;
        }
        let Some(turns) = &mut self.turns else { return false };
        let Some(rank) = turns.order.get(turns.now).copied() else { return false };
        if self.sinks.iter().map(Sink::queued).sum::<usize>() > REPLAY {
            return false;
        }
        match turns.spills[rank].pop() {
            Ok(Some(kept)) => {
                self.layout.push(rank, kept.channel, kept.bytes, kept.credited, &mut self.pieces);
            }
            Ok(None) if turns.complete[rank] => {
                turns.now += 1;
                self.layout.finish(rank, &mut self.pieces);
            }
            Ok(None) => return false,
            Err(error) => {
                turns.spills[rank] = Spill::new(0);
                broken.push(Broken { channel: 0, error });
            }
        }
        self.distribute();
        true
    }

    fn distribute(&mut self) {
        for piece in self.pieces.drain(..) {
            // What is known of the order between the two is kept, for someone who sees both on a terminal.
            if !piece.content.is_empty() {
                self.sinks[1 - piece.channel].write(&mut self.credits);
            }
            if let Some(below) = &mut self.below {
                let before = below.comes(piece.channel, &piece.content);
                if !before.is_empty() {
                    let content = Bytes::from_static(before.as_bytes()).into();
                    self.sinks[piece.channel].push(Piece { channel: piece.channel, content, credit: None });
                }
            }
            self.sinks[piece.channel].push(piece);
        }
    }

    /// Everything is out: all turns are over and nothing waits.
    pub fn is_drained(&self) -> bool {
        self.is_shown()
            && self.gather.as_ref().is_none_or(Gather::is_empty)
            && self.turns.as_ref().is_none_or(|turns| turns.now == turns.order.len())
    }

    /// What was to be written has been.
    pub fn is_shown(&self) -> bool {
        self.sinks.iter().all(Sink::is_empty)
    }

    /// The outputs that poll(2) is to watch for room.
    pub fn waiting(&self) -> impl Iterator<Item = (Channel, BorrowedFd<'_>)> {
        self.sinks.iter().enumerate().filter(|(_, sink)| sink.wants_room()).map(|(channel, sink)| (channel, sink.fd()))
    }

    /// poll(2) has something to tell about an output.
    pub fn room(&mut self, channel: Channel) {
        self.sinks[channel].room();
    }
}

#[cfg(test)]
mod tests;
