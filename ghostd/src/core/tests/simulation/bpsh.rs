//! A command that launches, streams and waits, as bpsh does; and one that is killed at any moment.

use ghost_abi::Scope;
use ghost_proto::client::{self, ClientToMaster, MasterToClient};
use ghost_proto::frame::{ALL_RANKS, Data};
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::status::WaitStatus;
use ghost_proto::stream::Receiver;

use super::super::super::{ClientId, Event, User};
use super::ghosts::{CONT, KILL, Place, STOP};
use super::random::{content, stream_name};
use super::world::{Happening, World};

#[derive(Debug)]
struct Rank {
    ghost: Option<u32>,
    /// `Ended` (and whether lost) or `StartFailed` has come.
    outcome: Option<bool>,
    planned: bool,
    done: [bool; 2],
    closed: [bool; 2],
    receivers: [Receiver; 2],
    taken: Option<u64>,
}

pub struct Command {
    pub id: ClientId,
    pub file: u64,
    pub launch: u64,
    pub pid: u32,
    nodes: String,
    stdio: [Stdio; 3],
    ranks: Vec<Rank>,
    window: u64,
    input_sent: u64,
    input_total: u64,
    input_ended: bool,
    /// Acknowledges at once, or in pieces.
    lazy: bool,
    pub joined: bool,
    pub gone: bool,
    refused: bool,
}

impl World {
    pub fn new_command(&mut self, index: usize) -> Command {
        let count = 1 + self.random.below(4);
        // Node 3 is not for everybody; it and node 2 may be down.
        let nodes: Vec<String> = (0..count).map(|_| self.random.below(4).to_string()).collect();
        let mut stream = |chance| if self.random.percent(chance) { Stdio::Stream } else { Stdio::Null };
        let stdio = [stream(60), stream(90), stream(60)];
        Command {
            id: ClientId(index as u64 + 1),
            file: 0,
            launch: 0,
            pid: 1_000_000 + index as u32,
            nodes: nodes.join(","),
            stdio,
            ranks: Vec::new(),
            window: 0,
            input_sent: 0,
            input_total: self.random.below(300_000),
            input_ended: false,
            lazy: self.random.percent(30),
            joined: false,
            gone: false,
            refused: false,
        }
    }

    pub fn start_command(&mut self, index: usize) {
        let command = &mut self.clients[index];
        command.joined = true;
        let user = User { pid: command.pid, uid: 1000, gid: 1000, groups: vec![1000] };
        let event = Event::ClientJoined { client: command.id, user };
        let program = ProgramSpec {
            argv: vec!["sim".into()],
            stdio: command.stdio.iter().map(|&s| s as i32).collect(),
            ..ProgramSpec::default()
        };
        let nodes = command.nodes.clone();
        self.feed(event);
        self.client_says(index, ClientToMaster::Hello(client::Hello { version: 1, ..Default::default() }));
        self.client_says(index, ClientToMaster::Launch(client::Launch { nodes, program: Some(program) }));
    }

    pub fn client_hears(&mut self, index: usize, message: MasterToClient) {
        if self.clients[index].gone {
            return;
        }
        match message {
            MasterToClient::Launched(launched) => self.launched(index, &launched),
            MasterToClient::Refused(refused) => {
                assert!(self.ending, "the command did nothing wrong: {}", refused.text);
                self.clients[index].refused = true;
                self.leave(index);
            }
            MasterToClient::StartFailed(failed) => self.outcome(index, failed.rank, true),
            MasterToClient::Ended(ended) => {
                assert!(WaitStatus::from_raw(ended.status).is_some());
                self.outcome(index, ended.rank, ended.lost);
            }
            MasterToClient::Ack(ack) => {
                let command = &mut self.clients[index];
                let sent = command.input_sent;
                if let Some(taken) = &mut command.ranks[ack.rank as usize].taken {
                    assert!(ack.offset <= sent, "4: input was acknowledged that was not sent");
                    *taken = ack.offset.max(*taken);
                }
                self.send_input(index);
            }
            MasterToClient::StdinGone(gone) => {
                self.clients[index].ranks[gone.rank as usize].taken = None;
                self.send_input(index);
            }
            _ => {}
        }
    }

    fn launched(&mut self, index: usize, launched: &client::Launched) {
        let input = self.clients[index].stdio[0] == Stdio::Stream;
        let done = [1, 2].map(|fd| self.clients[index].stdio[fd] == Stdio::Null);
        let receiver = Receiver::new(launched.window);
        self.clients[index].window = u64::from(launched.window);
        let plans = launched.ranks.iter();
        self.clients[index].ranks = plans
            .map(|plan| Rank {
                ghost: None,
                outcome: (!plan.reason.is_empty()).then_some(true),
                planned: plan.reason.is_empty(),
                done: if plan.reason.is_empty() { done } else { [true; 2] },
                closed: [false; 2],
                receivers: [receiver; 2],
                taken: (input && plan.reason.is_empty()).then_some(0),
            })
            .collect();
        for rank in 0..self.clients[index].ranks.len() {
            if !self.clients[index].ranks[rank].planned {
                continue;
            }
            if self.random.percent(3) {
                self.client_says(index, ClientToMaster::NoGhost(client::NoGhost { rank: rank as u32, errno: 11 }));
                self.clients[index].ranks[rank].done = [true; 2];
                self.clients[index].ranks[rank].closed = [true; 2];
                continue;
            }
            let ghost = self.bear_ghost(index, rank as u32);
            self.clients[index].ranks[rank].ghost = Some(ghost);
        }
        self.send_input(index);
        self.check_complete(index);
    }

    fn outcome(&mut self, index: usize, rank: u32, without_output: bool) {
        let state = &mut self.clients[index].ranks[rank as usize];
        self.tally.outcomes += 1;
        assert!(state.outcome.is_none(), "1: rank {rank} of command {index} has ended twice");
        state.outcome = Some(without_output);
        state.taken = None;
        if without_output {
            state.done = [true; 2];
        }
        if let Some(ghost) = state.ghost {
            self.reap(ghost);
        }
        self.send_input(index);
        self.check_complete(index);
    }

    fn reap(&mut self, pid: u32) {
        if let Some(ghost) = self.ghosts.get_mut(&pid)
            && ghost.place == Place::Dead
        {
            ghost.reaped = true;
        }
    }

    /// SIGCHLD of a ghost that is dead.
    pub fn ghost_seen_dead(&mut self, index: usize, rank: u32, status: WaitStatus) {
        let state = &self.clients[index].ranks[rank as usize];
        let ghost = state.ghost;
        if self.clients[index].gone || state.outcome.is_some() {
            if let Some(ghost) = ghost {
                self.reap(ghost);
            }
            return;
        }
        let died = client::GhostDied { rank, status: status.to_raw() };
        self.client_says(index, ClientToMaster::GhostDied(died));
    }

    pub fn client_receives(&mut self, index: usize, data: &Data) {
        if self.clients[index].gone {
            return;
        }
        let launch = self.clients[index].launch;
        let rank = data.id as usize;
        let proc = self.proc_of(launch, rank as u32);
        let channel = usize::from(data.fd) - 1;
        let state = &mut self.clients[index].ranks[rank];
        let receiver = &mut state.receivers[channel];
        if state.closed[channel] || state.outcome == Some(true) {
            return;
        }
        assert!(!state.done[channel], "4: output after its end: command {index} rank {rank}");
        assert_eq!(data.offset, receiver.received(), "4: output of command {index} rank {rank} once and in order");
        assert_eq!(receiver.receive(data.offset, data.bytes.len()), Ok(0), "4: output within the window");
        if let Some(proc) = proc {
            let expected = content(stream_name(proc, data.fd), data.offset, data.bytes.len());
            assert_eq!(data.bytes, expected, "4: output is what was written");
            self.tally.output += data.bytes.len() as u64;
        }
        if data.eof {
            state.done[channel] = true;
            let received = receiver.received();
            if let (Some(false), Some(proc)) = (state.outcome, proc) {
                let written = self.truth[&proc].written[channel];
                assert!(
                    received == written || self.was_lost(proc),
                    "4: {written} bytes were written by process {proc}, {received} have come"
                );
            }
            self.check_complete(index);
        }
        let delay = if self.clients[index].lazy { self.random.micros(200_000) } else { self.random.delay() };
        self.after(delay, Happening::Written { client: index, rank, channel });
    }

    /// bpsh has written out what it got.
    pub fn written(&mut self, index: usize, rank: usize, channel: usize) {
        if self.clients[index].gone {
            return;
        }
        let lazy = self.clients[index].lazy;
        let receiver = &mut self.clients[index].ranks[rank].receivers[channel];
        receiver.consume((receiver.received() - receiver.consumed()) as usize);
        if let Some(offset) = receiver.ack_due(!lazy) {
            let ack = client::Ack { rank: rank as u32, fd: channel as u32 + 1, offset };
            self.client_says(index, ClientToMaster::Ack(ack));
        }
    }

    /// The reader of an output is gone.
    pub fn close_output(&mut self, index: usize) {
        let channel = self.random.below(2) as usize;
        for rank in 0..self.clients[index].ranks.len() {
            let state = &mut self.clients[index].ranks[rank];
            if !std::mem::replace(&mut state.done[channel], true) {
                state.closed[channel] = true;
                let close = client::CloseStream { rank: rank as u32, fd: channel as u32 + 1 };
                self.client_says(index, ClientToMaster::CloseStream(close));
            }
        }
        self.check_complete(index);
    }

    fn send_input(&mut self, index: usize) {
        loop {
            let piece = 1 + self.random.below(60_000);
            let command = &mut self.clients[index];
            let slowest = command.ranks.iter().filter_map(|r| r.taken).min();
            let Some(slowest) = slowest else { return };
            if command.input_ended {
                return;
            }
            let room = (slowest + command.window).saturating_sub(command.input_sent);
            let n = piece.min(room).min(command.input_total - command.input_sent);
            let offset = command.input_sent;
            command.input_sent += n;
            let eof = command.input_sent == command.input_total;
            if n == 0 && !eof {
                return;
            }
            command.input_ended = eof;
            let bytes = content(stream_name(command.launch, 0), offset, n as usize);
            self.client_sends(index, Data { id: ALL_RANKS, offset, fd: 0, eof, bytes });
        }
    }

    fn check_complete(&mut self, index: usize) {
        let ranks = &self.clients[index].ranks;
        if ranks.iter().all(|r| r.outcome.is_some() && r.done == [true; 2]) {
            self.leave(index);
        }
    }

    /// bpsh exits: its ghosts, should some be left, are orphans.
    fn leave(&mut self, index: usize) {
        self.client_closes(index);
        self.launcher_exits(index);
    }

    pub fn kill_command(&mut self, index: usize) {
        if !self.clients[index].gone {
            self.leave(index);
        }
    }

    fn launcher_exits(&mut self, index: usize) {
        let ghosts: Vec<u32> = self.clients[index].ranks.iter().filter_map(|r| r.ghost).collect();
        for pid in ghosts {
            self.reap(pid);
            // Stopped before its first read it is known to the user alone, who must continue it.
            if self.ghosts.get(&pid).is_some_and(|g| g.process.is_none()) {
                self.signal_ghost(pid, CONT, Scope::Process, 0);
            }
        }
    }

    /// What users do to ghosts.
    pub fn disturb(&mut self, index: usize) {
        let gone = self.clients[index].gone;
        let mut ghosts: Vec<u32> = self.clients[index].ranks.iter().filter_map(|r| r.ghost).collect();
        ghosts.retain(|pid| !gone || self.ghosts.get(pid).is_some_and(|g| g.process.is_some()));
        if ghosts.is_empty() {
            return;
        }
        let one = self.random.one_of(&ghosts);
        let signal = self.random.one_of(&[KILL, STOP, CONT, STOP, CONT, 15, 10, 20]);
        match self.random.below(10) {
            0..6 => self.signal_ghost(one, signal, Scope::Process, 0),
            6 | 7 => {
                // The whole group, and sometimes one more right behind.
                let then = self.random.one_of(&[signal, CONT, KILL]);
                for ghost in &ghosts {
                    self.signal_ghost(*ghost, signal, Scope::Group, 1);
                }
                self.signal_ghost(one, then, Scope::Process, 0);
                self.signal_launcher(index, signal, Scope::Group);
            }
            8 => self.signal_launcher(index, 15, Scope::Process),
            _ => {
                self.signal_ghost(one, STOP, Scope::Process, 0);
                let delay = self.random.micros(2_000);
                self.after(delay, Happening::Signal { pid: one, signal: CONT });
            }
        }
    }

    pub fn kill_ghosts(&mut self, index: usize) {
        for rank in 0..self.clients[index].ranks.len() {
            if let Some(ghost) = self.clients[index].ranks[rank].ghost {
                self.signal_ghost(ghost, KILL, Scope::Process, 0);
            }
        }
    }

    /// What a command that was not killed has seen at the end.
    pub fn check_command(&self, index: usize) {
        let command = &self.clients[index];
        assert!(command.gone || !command.joined, "1: command {index} has not ended: {:?}", command.ranks);
    }
}
