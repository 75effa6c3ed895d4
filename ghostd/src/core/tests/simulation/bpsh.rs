//! A command that launches, streams and waits, as bpsh does; and one that is killed at any moment.

use std::time::Duration;

use ghost_abi::{Scope, SignalFlags, SignalRecord};
use ghost_proto::client::{self, ClientToMaster, MasterToClient};
use ghost_proto::frame::{ALL_RANKS, Data};
use ghost_proto::ids::LaunchId;
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::status::WaitStatus;
use ghost_proto::stream::Receiver;

use super::super::super::{ClientId, Event, User};
use super::ghosts::{CONT, Ghost, KILL, Place, Record, STOP};
use super::plants::Plant;
use super::random::{content, stream_name};
use super::world::{Happening, World};

/// How long ghosts may take to die after the last ghostd.
const DYING: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Rank {
    ghost: Option<u32>,
    node: i32,
    /// `Ended` or `StartFailed` has come, and says this.
    outcome: Option<Outcome>,
    planned: bool,
    /// Nothing more comes, or is wanted; the end has come.
    done: [bool; 2],
    eof: [bool; 2],
    closed: [bool; 2],
    receivers: [Receiver; 2],
    taken: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ended {
        status: i32,
    },
    Lost,
    NotStarted,
    /// It has no ghost: that is its own word.
    NoGhost,
}

impl Outcome {
    /// Its outputs come to their ends by themselves.
    fn has_output(self) -> bool {
        matches!(self, Outcome::Ended { .. })
    }
}

pub struct Command {
    /// Its connection.
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
    /// Since when it has no connection.
    pub away: Option<Duration>,
    /// It needs no connection any more, or is dead.
    pub gone: bool,
    /// Its process is dead, and has been waited for.
    pub exited: bool,
    pub reaped: bool,
}

impl Command {
    /// How many ranks it has.
    pub fn width(&self) -> usize {
        self.ranks.len()
    }
}

impl World {
    pub fn new_command(&mut self, index: usize) -> Command {
        let count = 1 + self.random.below(4);
        // Node 3 is not for everybody; it and node 2 may be down.
        let nodes: Vec<String> = (0..count).map(|_| self.random.below(4).to_string()).collect();
        let mut stream = |chance| if self.random.percent(chance) { Stdio::Stream } else { Stdio::Null };
        let stdio = [stream(60), stream(90), stream(60)];
        Command {
            id: ClientId(0),
            file: 0,
            launch: 0,
            pid: 5_000_000 + index as u32,
            nodes: nodes.join(","),
            stdio,
            ranks: Vec::new(),
            window: 0,
            input_sent: 0,
            input_total: self.random.below(300_000),
            input_ended: false,
            lazy: self.random.percent(30),
            joined: false,
            away: None,
            gone: false,
            exited: false,
            reaped: false,
        }
    }

    pub fn start_command(&mut self, index: usize) {
        if self.clients[index].gone {
            return;
        }
        if self.down {
            // Nobody listens yet: it waits.
            let delay = self.random.micros(100_000);
            return self.after(delay, Happening::StartCommand(index));
        }
        self.clients[index].joined = true;
        self.connect_command(index);
        let command = &self.clients[index];
        let program = ProgramSpec {
            argv: vec!["sim".into()],
            stdio: command.stdio.iter().map(|&s| s as i32).collect(),
            ..ProgramSpec::default()
        };
        let nodes = command.nodes.clone();
        self.client_says(
            index,
            ClientToMaster::Launch(client::Launch { nodes, program: Some(program), ..Default::default() }),
        );
    }

    fn connect_command(&mut self, index: usize) {
        let socket = self.new_socket(index);
        let command = &mut self.clients[index];
        command.id = ClientId(socket);
        command.away = None;
        let user = User { pid: command.pid, uid: 1000, gid: 1000, groups: vec![1000] };
        let event = Event::ClientJoined { client: command.id, user };
        self.feed(event);
        let features = vec![client::RESUME.to_owned()];
        self.client_says(index, ClientToMaster::Hello(client::Hello { version: 1, features, ..Default::default() }));
    }

    pub fn master_hears_client(&mut self, socket: u64, message: ClientToMaster) {
        let client = ClientId(socket);
        match message {
            ClientToMaster::Resume(message) => {
                let Some(index) = self.sockets.get(&socket).map(|socket| socket.index) else { return };
                let launch = Some(self.clients[index].launch).filter(|launch| *launch != 0).map(LaunchId);
                self.feed(Event::Resume { client, launch, message });
            }
            message => self.feed(Event::ClientSaid { client, message }),
        }
    }

    /// ghostd is gone.
    pub fn connection_lost(&mut self, socket: u64) {
        let Some(index) = self.sockets.get(&socket).map(|socket| socket.index) else { return };
        let now = self.now;
        let command = &mut self.clients[index];
        if command.id.0 != socket || command.gone {
            return;
        }
        command.away = Some(now);
        if command.ranks.is_empty() {
            // Its launch has not been answered: it fails.
            return self.leave(index);
        }
        let delay = self.random.micros(100_000);
        self.after(delay, Happening::ComeBack(index));
    }

    pub fn come_back(&mut self, index: usize) {
        let command = &self.clients[index];
        let Some(since) = command.away.filter(|_| !command.gone) else { return };
        if self.down {
            let dead = |ghost: &u32| self.ghosts.get(ghost).is_none_or(|ghost| ghost.place == Place::Dead);
            let mut waited_for =
                command.ranks.iter().filter(|rank| rank.outcome.is_none()).filter_map(|rank| rank.ghost);
            if waited_for.all(|ghost| dead(&ghost)) && self.now - since > DYING {
                // Its ghosts have not been left to another ghostd.
                return self.leave(index);
            }
            let delay = self.random.micros(100_000);
            return self.after(delay, Happening::ComeBack(index));
        }
        self.tally.resumed += 1;
        self.connect_command(index);
        let command = &self.clients[index];
        let ranks = command.ranks.iter().map(|rank| {
            let outputs = rank.receivers.iter().zip(rank.done).map(|(receiver, done)| client::ResumedOutput {
                received: receiver.received(),
                consumed: receiver.consumed(),
                done,
            });
            client::ResumedRank {
                node: rank.node,
                over: rank.outcome.is_some(),
                reads: rank.taken.is_some(),
                outputs: outputs.collect(),
                taken: rank.taken.unwrap_or(0),
            }
        });
        let ranks = ranks.collect();
        let stdio = command.stdio.iter().map(|&s| s as i32).collect();
        let sent = command.input_sent;
        let stdin = command.ranks.iter().filter_map(|rank| rank.taken).min().unwrap_or(sent);
        let (name, ended) = (stream_name(command.launch, 0), command.input_ended);
        let message = client::Resume { launch: command.launch, stdio, stdin, ranks, sent };
        self.client_says(index, ClientToMaster::Resume(message));
        let mut offset = stdin;
        while offset < sent {
            let bytes = content(name, offset, (sent - offset).min(60_000) as usize);
            let length = bytes.len() as u64;
            self.client_sends(index, Data { id: ALL_RANKS, offset, fd: 0, eof: false, bytes });
            offset += length;
        }
        if ended {
            let end = Data { id: ALL_RANKS, offset: sent, fd: 0, eof: true, bytes: Default::default() };
            self.client_sends(index, end);
        }
        for (rank, state) in (0u32..)
            .zip(&self.clients[index].ranks)
            .map(|(rank, state)| (rank, state.ghost.filter(|_| state.outcome.is_none())))
            .collect::<Vec<_>>()
        {
            let dead = state.and_then(|pid| self.ghosts.get(&pid)).filter(|ghost| ghost.place == Place::Dead);
            if let Some(status) = dead.and_then(|ghost| ghost.status) {
                self.client_says(index, ClientToMaster::GhostDied(client::GhostDied { rank, status: status.to_raw() }));
            }
        }
    }

    pub fn client_hears(&mut self, index: usize, message: MasterToClient) {
        if self.clients[index].gone {
            return;
        }
        match message {
            MasterToClient::Launched(launched) => self.launched(index, &launched),
            MasterToClient::Refused(refused) => {
                assert!(self.ending, "the command did nothing wrong: {}", refused.text);
                self.leave(index);
            }
            MasterToClient::Ended(_) | MasterToClient::StartFailed(_) if self.goes_wrong(Plant::StatusLost) => {}
            MasterToClient::StartFailed(failed) => self.outcome(index, failed.rank, Outcome::NotStarted),
            MasterToClient::Ended(ended) => {
                assert!(WaitStatus::from_raw(ended.status).is_some());
                let status = ended.status;
                self.outcome(index, ended.rank, if ended.lost { Outcome::Lost } else { Outcome::Ended { status } });
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
            MasterToClient::Reap(reap) => self.foster(reap.pid),
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
                node: plan.node,
                outcome: (!plan.reason.is_empty()).then_some(Outcome::NotStarted),
                planned: plan.reason.is_empty(),
                eof: [false; 2],
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
                self.clients[index].ranks[rank].outcome = Some(Outcome::NoGhost);
                self.clients[index].ranks[rank].taken = None;
                continue;
            }
            let ghost = self.bear_ghost(index, rank as u32);
            self.clients[index].ranks[rank].ghost = Some(ghost);
        }
        self.send_input(index);
        self.check_complete(index);
    }

    fn outcome(&mut self, index: usize, rank: u32, outcome: Outcome) {
        let state = &mut self.clients[index].ranks[rank as usize];
        if let Some(before) = state.outcome {
            // What a ghostd before has told is told again, if it does not know that this has come.
            if before != Outcome::NoGhost {
                assert!(self.generation > 0, "1: rank {rank} of command {index} has ended twice");
                assert_eq!(before, outcome, "1: rank {rank} of command {index} has ended in two ways");
            }
            return;
        }
        self.tally.outcomes += 1;
        state.outcome = Some(outcome);
        state.taken = None;
        if !outcome.has_output() {
            state.done = [true; 2];
        }
        if let Some(ghost) = state.ghost {
            self.reap(ghost);
        }
        self.send_input(index);
        self.check_complete(index);
        self.client_says(index, ClientToMaster::Noted(client::Noted { rank }));
        if outcome != Outcome::Lost && self.goes_wrong(Plant::StatusChanged) {
            self.outcome(index, rank, Outcome::Lost);
        }
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
        if !data.bytes.is_empty() && self.goes_wrong(Plant::OutputLost) {
            return;
        }
        if !data.bytes.is_empty() && self.goes_wrong(Plant::OutputDoubled) {
            self.client_receives(index, data);
        }
        let launch = self.clients[index].launch;
        let rank = data.id as usize;
        let proc = self.proc_of(launch, rank as u32);
        let channel = usize::from(data.fd) - 1;
        let state = &mut self.clients[index].ranks[rank];
        let receiver = &mut state.receivers[channel];
        if state.closed[channel] || state.outcome.is_some_and(|outcome| !outcome.has_output()) {
            return;
        }
        assert!(!state.done[channel], "4: output after its end: command {index} rank {rank}: {data:?}");
        assert_eq!(data.offset, receiver.received(), "4: output of command {index} rank {rank} once and in order");
        assert_eq!(receiver.receive(data.offset, data.bytes.len()), Ok(0), "4: output within the window");
        if let Some(proc) = proc {
            let expected = content(stream_name(proc, data.fd), data.offset, data.bytes.len());
            assert_eq!(data.bytes, expected, "4: output is what was written");
            self.tally.output += data.bytes.len() as u64;
        }
        if data.eof {
            state.done[channel] = true;
            state.eof[channel] = true;
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
        let state = &mut self.clients[index].ranks[rank];
        let receiver = &mut state.receivers[channel];
        receiver.consume((receiver.received() - receiver.consumed()) as usize);
        if lazy && state.done[channel] {
            return;
        }
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
        let command = &self.clients[index];
        for (rank, state) in (0u32..).zip(&command.ranks) {
            let proc = self.proc_of(command.launch, rank);
            if let (Some(Outcome::Ended { .. }), Some(proc)) = (state.outcome, proc) {
                for channel in (0..2).filter(|channel| state.eof[*channel]) {
                    let (written, received) = (self.truth[&proc].written[channel], state.receivers[channel].received());
                    // A stop ends what it does not reach, right after a takeover as well.
                    let given_up = self.was_lost(proc) || self.ending && self.generation > 0;
                    assert!(
                        received == written || given_up,
                        "4: {written} bytes were written by process {proc}, {received} have come"
                    );
                }
            }
        }
        if command.ranks.iter().all(|r| r.outcome.is_some() && r.done == [true; 2]) {
            self.leave(index);
        }
    }

    /// bpsh exits: its ghosts, should some be left, are orphans.
    fn leave(&mut self, index: usize) {
        if self.clients[index].exited {
            return;
        }
        self.client_closes(index);
        self.launcher_exits(index);
        let command = &mut self.clients[index];
        command.exited = true;
        let (pid, ghost) = (command.pid, command.launch);
        if ghost != 0 {
            self.push_record(pid, Record::Exit { ghost, launcher: true });
        }
        // Who has started it waits for it, usually at once.
        let delay = if self.random.percent(80) { self.random.delay() } else { Duration::from_secs(100) };
        self.after(delay, Happening::LauncherReaped(index));
    }

    pub fn kill_command(&mut self, index: usize) {
        if !self.clients[index].gone {
            self.leave(index);
        }
    }

    fn launcher_exits(&mut self, index: usize) {
        let ghosts: Vec<u32> = self.clients[index].ranks.iter().filter_map(|r| r.ghost).collect();
        self.orphan_children(self.clients[index].pid);
        for pid in ghosts {
            // Stopped before its first read it is known to the user alone, who must continue it.
            if self.ghosts.get(&pid).is_some_and(|g| g.process.is_none()) {
                self.signal_ghost(pid, CONT, Scope::Process, 0);
            }
        }
    }

    /// A child that a ghost has made beside itself has ended.
    fn foster(&mut self, pid: u32) {
        if let Some(ghost) = self.ghosts.get_mut(&pid) {
            ghost.awaited = true;
            ghost.reaped |= ghost.place == Place::Dead;
        }
    }

    /// What users do to ghosts.
    pub fn disturb(&mut self, index: usize) {
        let gone = self.clients[index].gone;
        let known = |(pid, ghost): (&u32, &Ghost)| {
            (ghost.client == index && !ghost.reaped && (!gone || ghost.process.is_some())).then_some(*pid)
        };
        let ghosts: Vec<u32> = self.ghosts.iter().filter_map(known).collect();
        if ghosts.is_empty() {
            return;
        }
        let one = self.random.one_of(&ghosts);
        let signal = self.random.one_of(&[KILL, STOP, CONT, STOP, CONT, 15, 10, 20, 40, 40]);
        let signal = if self.chances.endless { self.random.one_of(&[40, 40, 40, 10, STOP, CONT]) } else { signal };
        match self.random.below(if self.chances.endless { 6 } else { 10 }) {
            0..6 => self.signal_ghost(one, signal, Scope::Process, 0),
            6 | 7 => {
                // The whole group, and sometimes one more right behind.
                let then = self.random.one_of(&[signal, CONT, KILL]);
                // The number of the call is that of its first record.
                let (call, pgid) = (self.next_record(), self.ghosts[&one].pgid);
                for ghost in ghosts.iter().filter(|ghost| self.ghosts[ghost].pgid == pgid).copied().collect::<Vec<_>>()
                {
                    self.signal_ghost(ghost, signal, Scope::Group, call);
                }
                self.signal_ghost(one, then, Scope::Process, 0);
                if pgid == self.clients[index].pid {
                    self.signal_launcher(index, signal, Scope::Group);
                }
            }
            8 => self.signal_launcher(index, 15, Scope::Process),
            _ => {
                self.signal_ghost(one, STOP, Scope::Process, 0);
                let delay = self.random.micros(2_000);
                self.after(delay, Happening::Signal { pid: one, signal: CONT });
            }
        }
    }

    /// Of what bpsh is sent itself only these concern the core.
    fn signal_launcher(&mut self, index: usize, signal: u16, scope: Scope) {
        let seq = self.next_record();
        let command = &self.clients[index];
        if command.gone || command.launch == 0 {
            return;
        }
        let record = SignalRecord {
            kind: 1,
            flags: SignalFlags::LAUNCHER,
            ghost: command.launch,
            seq,
            call: 0,
            value: seq,
            sig: signal,
            scope: scope as u16,
            si_code: 0,
            sender_pid: 1,
            sender_uid: 1000,
            sender_euid: 1000,
            pgid: 0,
        };
        let pid = command.pid;
        self.push_record(pid, Record::Signal(record));
    }

    pub fn kill_ghosts(&mut self, index: usize) {
        for pid in self.ghosts.keys().copied().collect::<Vec<_>>() {
            if self.ghosts[&pid].client == index {
                self.signal_ghost(pid, KILL, Scope::Process, 0);
            }
        }
    }

    /// What a command that was not killed has seen at the end.
    pub fn check_command(&self, index: usize) {
        let command = &self.clients[index];
        assert!(command.gone || !command.joined, "1: command {index} has not ended: {:?}", command.ranks);
    }
}
