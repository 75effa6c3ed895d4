//! Going on with a ghostd that was started again.
//!
//! ```text
//! connected --- lost ---> away --- connects ---> connected: Resume, then what may have been lost
//!                          |  no ghost lives any more: ghostd has not left them to another one
//!                          |  or the next one does not know them: what it was given was of no use to it
//!                          +--> all that ran is lost, as with its node
//! ```
//! Invariant: what ghostd is to know follows from what is kept here: how far each stream has come, the input that not all have taken, which
//! ranks are over, which ghosts are dead.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ghost_proto::client::{Ack, ClientToMaster, Noted, Resume, ResumedOutput, ResumedRank};
use ghost_proto::frame::Data;
use ghost_proto::instance::Instance;

use super::input_ring::input;
use super::session::{Failure, Session, offer_memory};
use crate::connection::{Connection, ConnectionError};

/// Pauses between two attempts: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long ghosts may take to die after the last ghostd.
const DYING: Duration = Duration::from_millis(500);
/// How long output is waited for that no ghost stands for any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the connection leads.
pub(super) struct Home {
    pub instance: Instance,
    pub launch: u64,
    /// ghostd has the feature.
    pub resumes: bool,
    pub away: Option<Away>,
}

pub(super) struct Away {
    since: Instant,
    next: Instant,
    pause: Duration,
    why: String,
}

impl Session {
    pub(super) fn is_away(&self) -> bool {
        self.home.away.is_some()
    }

    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.home.away.as_ref().map(|away| away.next)
    }

    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        if self.is_away() {
            return Ok(true);
        }
        match self.connection.flush() {
            Ok(all_out) => Ok(all_out),
            Err(why) => self.lost(why).map(|()| true),
        }
    }

    pub(super) fn fill(&mut self) -> Result<(), Failure> {
        match self.connection.fill() {
            Ok(()) => Ok(()),
            Err(why) => {
                // What has come before the end counts.
                if self.home.resumes {
                    self.handle_frames()?;
                }
                self.lost(why)
            }
        }
    }

    fn lost(&mut self, why: ConnectionError) -> Result<(), Failure> {
        let lost = matches!(why, ConnectionError::Lost(_) | ConnectionError::Closed);
        if !lost || !self.home.resumes {
            return Err(why.into());
        }
        if self.incomplete > 0 && !self.is_away() {
            let now = Instant::now();
            self.home.away = Some(Away { since: now, next: now, pause: PAUSES.0, why: why.to_string() });
        }
        Ok(())
    }

    /// Tries to connect, when it is time.
    pub(super) fn come_back(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(away) = &mut self.home.away else { return Ok(()) };
        if now < away.next {
            return Ok(());
        }
        let long = now.saturating_duration_since(away.since);
        if self.flock.all_dead() && long > if self.flock.is_empty() { PATIENCE } else { DYING } {
            let why = std::mem::take(&mut away.why);
            self.lose(&why);
            return Ok(());
        }
        away.pause = (away.pause * 2).min(PAUSES.1);
        away.next = now + away.pause;
        // Nobody listens: not yet.
        let Ok(mut connection) = Connection::open(&self.home.instance, "bpsh") else { return Ok(()) };
        connection.set_nonblocking()?;
        offer_memory(&mut connection);
        self.home.away = None;
        self.connection = connection;
        self.resume();
        Ok(())
    }

    fn resume(&mut self) {
        let ranks = self.ranks.iter().enumerate().map(|(rank, state)| {
            let outputs = state.receivers.iter().zip(state.done).map(|(receiver, done)| ResumedOutput {
                received: receiver.received(),
                consumed: receiver.consumed(),
                done,
            });
            let taken = self.broadcast.taken(rank);
            ResumedRank {
                node: state.node,
                over: state.outcome.is_some(),
                reads: taken.is_some(),
                outputs: outputs.collect(),
                taken: taken.unwrap_or(0),
            }
        });
        let ranks = ranks.collect();
        for state in &mut self.ranks {
            state.rings = [None, None];
        }
        let ended = self.broadcast.ended();
        let (stdin, kept) = self.broadcast.kept();
        let stdio = self.program.stdio.clone();
        let message = Resume { launch: self.home.launch, stdio, stdin, ranks, sent: self.broadcast.sent() };
        self.connection.queue(ClientToMaster::Resume(message));
        let mut offset = stdin;
        for bytes in kept {
            let length = bytes.len() as u64;
            self.connection.queue_data(input(offset, bytes));
            offset += length;
        }
        if let Some(ring) = &mut self.input_ring {
            ring.forget();
            ring.copies(self.broadcast.placed()).for_each(|data| self.connection.queue_data(data));
        }
        if let Some(offset) = ended {
            self.connection.queue_data(Data { eof: true, ..input(offset, Bytes::new()) });
        }
        self.tell_size_anew();
        let dead = self.flock.dead();
        self.report(dead);
    }

    /// What has been written is acknowledged, however little it is: for a while nothing else will be.
    pub(super) fn acknowledge_all(&mut self) {
        for (rank, state) in self.ranks.iter_mut().enumerate() {
            for (fd, (receiver, done)) in (1..).zip(state.receivers.iter_mut().zip(state.done)) {
                if let Some(offset) = receiver.ack_due(true).filter(|_| !done) {
                    let rank = u32::try_from(rank).unwrap_or(u32::MAX);
                    self.connection.queue(ClientToMaster::Ack(Ack { rank, fd, offset }));
                }
            }
        }
    }

    /// A rank's end is known here: it need not be told again. Unless all is over: then the connection's end says it.
    pub(super) fn note(&mut self, rank: u32) {
        if self.home.resumes && self.incomplete > 0 {
            self.connection.queue(ClientToMaster::Noted(Noted { rank }));
        }
    }
}
