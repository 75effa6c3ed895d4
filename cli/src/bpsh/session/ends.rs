//! What becomes of ranks: started or not, how they end, and what is said of it.

use std::time::Instant;

use bytes::Bytes;
use ghost_proto::client::{
    Ack, ClientToMaster, Ended, MasterToClient, NoGhost, Obstacle, SignalRanks, StartFailed, StartStage, Started,
    Terminate,
};
use ghost_proto::status::WaitStatus;

use super::super::halt::Halt;
use super::super::outcome::{NOT_RUN, Outcome, describe, not_started};
use super::super::report::{self, Event, NotRun, Place, fold_lines};
use super::super::winding_down::{Step, WindingDown};
use super::{CHILDREN_TICK, Failure, RankState, Session};
use crate::connection::Incoming;
use crate::duration;

/// The kinds of not being started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unreachable,
    Forbidden,
    NotStarted,
}

impl Session {
    pub(in crate::bpsh) fn handle_frames(&mut self) -> Result<(), Failure> {
        while let Some(incoming) = self.connection.next_frame()? {
            match incoming {
                Incoming::Data(data) => self.data(data)?,
                Incoming::Placed(placed, descriptor) => self.placed(&placed, descriptor)?,
                Incoming::Message(message) => self.message(message)?,
            }
        }
        Ok(())
    }

    fn message(&mut self, message: MasterToClient) -> Result<(), Failure> {
        match message {
            MasterToClient::Started(started) => self.started(&started),
            MasterToClient::StartFailed(failure) => {
                self.start_failed(&failure);
                self.note(failure.rank);
            }
            MasterToClient::Ended(ended) => {
                self.ended(&ended);
                self.note(ended.rank);
            }
            MasterToClient::Ack(Ack { rank, offset, .. }) => self.broadcast.acknowledge(rank as usize, offset),
            MasterToClient::StdinGone(gone) => self.broadcast.leave(gone.rank as usize),
            // It has been launched: what is refused is to go on with it.
            MasterToClient::Refused(refused) => self.lose(&refused.text),
            MasterToClient::Reap(reap) => {
                self.flock.foster(reap.pid.cast_signed());
                self.look_at_children.get_or_insert_with(|| Instant::now() + CHILDREN_TICK);
            }
            MasterToClient::RankStopped(stopped) => {
                let signal = u8::try_from(stopped.signal).unwrap_or(nix::libc::SIGSTOP as u8);
                if let Some(signal) = self.flock.told(stopped.rank as usize, Some(signal)) {
                    self.stop(signal);
                }
            }
            MasterToClient::RankContinued(continued) => {
                self.flock.told(continued.rank as usize, None);
            }
            MasterToClient::Serve(serve) => self.serve(&serve),
            MasterToClient::Hello(_)
            | MasterToClient::Reached(_)
            | MasterToClient::Resumed(_)
            | MasterToClient::Launched(_)
            | MasterToClient::Nodes(_)
            | MasterToClient::Processes(_)
            | MasterToClient::Changed(_)
            | MasterToClient::Metrics(_)
            | MasterToClient::Admin(_) => {}
        }
        Ok(())
    }

    fn started(&mut self, started: &Started) {
        let rank = started.rank as usize;
        let Some(state) = self.ranks.get_mut(rank) else { return };
        // There it has the number that it has on its node, as a rule.
        let elsewhere = if self.flock.is_elsewhere() { started.pid.cast_signed() } else { 0 };
        let pid = self.flock.pid(rank).unwrap_or(elsewhere);
        (state.started, state.ghost) = (true, Some(pid));
        self.output.event(&Event::Started { place: state.place(rank), pid, node_pid: started.pid });
        if started.cwd_errno != 0 {
            let directory = String::from_utf8_lossy(&self.program.cwd);
            let reason = describe(i32::try_from(started.cwd_errno).unwrap_or(0));
            let reason = format!("{directory}: {reason}; running in /");
            if self.tells_events {
                self.output.event(&Event::Warning { place: state.place(rank), reason: &reason });
            } else {
                self.output.message(&format!("{}: warning: {reason}", state.node));
            }
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let rank = ended.rank as usize;
        let Some(state) = self.ranks.get_mut(rank).filter(|state| state.outcome.is_none()) else { return };
        let status = WaitStatus::from_raw(ended.status).unwrap_or(WaitStatus::KILLED);
        state.usage = ended.usage.clone();
        if ended.lost {
            return self.lose_rank(rank, "the node, or what holds its processes, is gone for good; they are dead");
        }
        let outcome = state.early.unwrap_or(Outcome::Ended(status));
        self.settle(rank, outcome);
    }

    /// A rank has gone with its node, or with the ghostd that knew of it.
    fn lose_rank(&mut self, rank: usize, why: &str) {
        let Some(state) = self.ranks.get_mut(rank).filter(|state| state.outcome.is_none()) else { return };
        // Its outputs have no end but this.
        state.done = [true; 2];
        let outcome = state.early.unwrap_or(Outcome::Lost);
        if !self.tells_events {
            let text = format!("{}: lost: {why}", state.node);
            self.output.message(&text);
        }
        self.settle(rank, outcome);
    }

    /// Nobody knows of what was launched any more, so nobody lets it run: the nodes end what no master knows.
    pub(in crate::bpsh) fn lose(&mut self, why: &str) {
        self.home.away = None;
        self.flock.kill();
        for rank in 0..self.ranks.len() {
            self.lose_rank(rank, &format!("{why}; its processes are dead"));
        }
    }

    fn start_failed(&mut self, failure: &StartFailed) {
        let text = |bytes: Option<&Bytes>| String::from_utf8_lossy(bytes.map_or(&[], Bytes::as_ref)).into_owned();
        let files = [0, 1, 2].map(|fd| text(self.program.file(fd)));
        let [input, output, error] = &files;
        let (program, directory) = (text(self.program.argv.first()), text(Some(&self.program.cwd)));
        let (reason, code) = not_started(failure, &program, &directory, [input, output, error]);
        let kind = if failure.stage() == StartStage::Reach { Kind::Unreachable } else { Kind::NotStarted };
        self.not_started(failure.rank as usize, kind, &reason, code);
    }

    fn not_started(&mut self, rank: usize, kind: Kind, reason: &str, code: u8) {
        let Some(state) = self.ranks.get(rank).filter(|state| state.outcome.is_none()) else { return };
        if !self.tells_events {
            let text = format!("{}: {reason}", state.node);
            self.output.message(&text);
        }
        self.never_ran(rank, kind, reason, code);
    }

    /// The same, without a word but the event.
    fn never_ran(&mut self, rank: usize, kind: Kind, reason: &str, code: u8) {
        let Some(state) = self.ranks.get_mut(rank).filter(|state| state.outcome.is_none()) else { return };
        state.done = [true; 2];
        let not_run = NotRun { place: state.place(rank), reason, code };
        self.output.event(&match kind {
            Kind::Unreachable => Event::Unreachable(not_run),
            Kind::Forbidden => Event::Forbidden(not_run),
            Kind::NotStarted => Event::NotStarted(not_run),
        });
        self.settle(rank, Outcome::NotStarted(code));
    }

    /// Those that ghostd says cannot be started; equal reasons share a line.
    pub(super) fn refused(&mut self, refused: Vec<(usize, Obstacle, String)>) {
        let node = |rank: &usize| self.ranks.get(*rank).map_or(-1, |state| state.node);
        let told: Vec<(usize, Kind, String)> = refused
            .into_iter()
            .map(|(rank, obstacle, reason)| {
                let kind = match obstacle {
                    Obstacle::Unreachable => Kind::Unreachable,
                    Obstacle::Forbidden => Kind::Forbidden,
                    Obstacle::Unknown | Obstacle::Other => Kind::NotStarted,
                };
                (rank, kind, report::obstacle(obstacle, &reason))
            })
            .collect();
        if !self.tells_events {
            let lines = fold_lines(told.iter().map(|(rank, _, text)| (node(rank), text.clone())));
            lines.iter().for_each(|line| self.output.message(line));
        }
        for (rank, kind, text) in told {
            self.never_ran(rank, kind, &text, NOT_RUN);
        }
    }

    /// There is no ghost for a rank, and none to come.
    pub(super) fn no_ghost(&mut self, rank: u32, errno: i32) {
        self.connection.queue(ClientToMaster::NoGhost(NoGhost { rank, errno: errno.unsigned_abs() }));
        let reason = format!("not started: cannot make a ghost here: {}; see `ulimit -u`", describe(errno));
        self.not_started(rank as usize, Kind::NotStarted, &reason, NOT_RUN);
    }

    /// A rank's outcome is known: its ghost may go, and another may begin.
    fn settle(&mut self, rank: usize, outcome: Outcome) {
        let state = &mut self.ranks[rank];
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        self.order.push(rank);
        self.running -= 1;
        match outcome.code() {
            Some(0) => self.count.succeeded += 1,
            Some(_) => self.count.failed += 1,
            None => {}
        }
        self.broadcast.leave(rank);
        if let Some(signal) = self.flock.release(rank) {
            self.stop(signal);
        }
        self.check_complete(rank);
        match self.halt.and_then(|rule| rule.decide(self.count)) {
            Some(Halt::Now) => self.end_early(Outcome::Halted),
            Some(Halt::Soon) => self.begin_no_more(Outcome::Halted),
            None => self.vacancies = self.vacancies.saturating_add(1),
        }
    }

    pub(super) fn check_complete(&mut self, rank: usize) {
        let state = &mut self.ranks[rank];
        if let Some(outcome) = state.outcome
            && !state.complete
            && state.done == [true; 2]
        {
            state.complete = true;
            self.incomplete -= 1;
            let told = matches!(outcome, Outcome::TimedOut | Outcome::Lost | Outcome::NotStarted(_));
            self.output.finish(rank, outcome.remark(), told);
            if let Some(event) = Event::end(self.ranks[rank].place(rank), outcome, self.ranks[rank].usage.as_ref()) {
                self.output.event(&event);
            }
        }
    }

    /// Those that wait for their turn have no turn any more.
    pub(super) fn begin_no_more(&mut self, outcome: Outcome) {
        for rank in std::mem::take(&mut self.waiting) {
            let errno = nix::libc::ECANCELED.unsigned_abs();
            self.connection.queue(ClientToMaster::NoGhost(NoGhost { rank, errno }));
            if let Some(state) = self.ranks.get_mut(rank as usize) {
                state.done = [true; 2];
                self.settle(rank as usize, outcome);
            }
        }
    }

    /// Has ghostd send a signal to ranks, all of them without `rank`, where this process has no ghosts that it could be sent to.
    pub(super) fn signal_ranks(&mut self, rank: Option<u32>, signal: i32) {
        let signal = signal.unsigned_abs();
        self.connection.queue(ClientToMaster::SignalRanks(SignalRanks { rank, signal }));
    }

    /// Everything that has not ended is ended, and counts as this.
    fn end_early(&mut self, outcome: Outcome) {
        if self.winding_down.is_some() {
            return;
        }
        self.winding_down = Some(WindingDown::begin(Instant::now()));
        for state in self.ranks.iter_mut().filter(|state| !state.complete) {
            state.early = Some(outcome);
            // It has ended, but something that it has left behind holds its output.
            if outcome == Outcome::TimedOut && state.outcome.is_some() {
                state.outcome = Some(outcome);
            }
        }
        self.begin_no_more(outcome);
    }

    /// Does what time asks for.
    pub(super) fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if let Some(deadline) = self.deadline.take_if(|deadline| now >= deadline.at)
            && self.winding_down.is_none()
        {
            if !self.tells_events {
                let text = format!("timed out after {}", duration::shown(deadline.after));
                let late = self.ranks.iter().filter(|state| !state.complete);
                let lines = fold_lines(late.map(|state| (state.node, text.clone())));
                lines.iter().for_each(|line| self.output.message(line));
            }
            self.end_early(Outcome::TimedOut);
        }
        let running = self.running;
        let Some(step) = self.winding_down.as_mut().and_then(|down| down.due(now, running)) else { return };
        if step == Step::Kill {
            self.connection.queue(ClientToMaster::Terminate(Terminate {}));
        }
        for rank in 0..self.ranks.len() {
            let ended = self.ranks[rank].outcome.is_some();
            match step {
                Step::Ask if !ended && self.flock.is_elsewhere() => {
                    self.signal_ranks(u32::try_from(rank).ok(), nix::libc::SIGTERM);
                }
                Step::Ask if !ended => self.flock.signal(rank, nix::libc::SIGTERM),
                Step::Ask | Step::Kill => {}
                Step::Leave => {
                    self.ranks[rank].done = [true; 2];
                    self.settle(rank, self.ranks[rank].early.unwrap_or(Outcome::Halted));
                    self.check_complete(rank);
                }
            }
        }
    }
}

impl RankState {
    pub(super) fn place(&self, rank: usize) -> Place<'_> {
        Place { rank, node: self.node, name: &self.name }
    }
}
