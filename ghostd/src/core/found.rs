//! What a ghostd finds that comes after another one: ghosts, launchers and nodes. Each knows its part.
//!
//! ```text
//! kernel   which task is the ghost of which process of which node, who is killed; which task launched
//! nodes    which processes they hold, of which launch, how far each has come, what they have said and say again
//! commands which of their ranks have ended, how far their streams have come
//! ```
//! A process that is found is taken to run until its node has come back with its list. One that is not there was never
//! begun, or is forgotten because its command has noted its end. A launch whose command has not come back yet is `absent`: its
//! output waits here, within the window that the node keeps to.
//!
//! Invariants:
//! - What a node or a command says is held against what the kernel says: a launch is the command's whose task the kernel
//!   has under it, a process is in the launch and on the node that its ghost's task says; where there is no ghost any more, node and
//!   command must agree.
//! - Nothing is started anew.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ghost_proto::client::{self, MasterToClient, StartStage};
use ghost_proto::frame::Data;
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::node::{self, HeldProcess, MasterToNode};
use ghost_proto::standin::Origin;
use ghost_proto::status::WaitStatus;
use ghost_proto::tree::is_forked;
use ghost_sys::ghost::Answer;

use super::launches::window;
use super::node_life::Stage;
use super::signals::Forward;
use super::types::{Fork, Ghost, Instant, Launch, Making, Node, Output, Parent, Process, Remote, Stdin, User};
use super::{Action, ClientId, Core};

/// Nobody: the client of a launch that has none, the process of a ghost that was made by none.
const NOBODY: ClientId = ClientId(0);
/// Stacks that may have been given to ghosts that are not known yet.
const UNKNOWN_PLACES: u32 = 1024;
/// How long launches and questions wait for nodes that are on their way back: as a rule they are there within a moment.
const GATHERING: Duration = Duration::from_secs(3);
/// Ranks that a command may come back with.
const MOST_RANKS: usize = 65_536;

/// What a ghostd before has left, as the kernel and its notes tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub ghosts: Vec<FoundGhost>,
    pub launchers: Vec<FoundLauncher>,
    /// Number, epoch, holder.
    pub nodes: Vec<(NodeNumber, u64, u64)>,
    /// What was noted of some of them; the others are up.
    pub stages: Vec<(NodeNumber, Stage)>,
}

/// A task that is a ghost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundGhost {
    pub process: ProcId,
    /// As [`Action::Adopt`] gave it.
    pub tag: u32,
    pub pid: u32,
    pub ppid: u32,
    pub pgid: u32,
    pub killed: bool,
    pub exited: bool,
}

/// A task that launched ghosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLauncher {
    pub launch: LaunchId,
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// It is dead, and nobody has waited for it yet.
    pub exited: bool,
    /// It, and who is above it.
    pub origin: Option<Origin>,
}

/// What a ghost's task remembers besides its process: the node, and where its stack lies.
pub(super) fn tag_of(node: NodeNumber, place: Option<u32>) -> u32 {
    let place = place.map_or(0, |place| place + 1);
    (node.0.cast_unsigned() & 0xffff) | place << 16
}

fn tagged(tag: u32) -> (NodeNumber, Option<u32>) {
    (NodeNumber((tag & 0xffff).cast_signed()), (tag >> 16).checked_sub(1))
}

impl Core {
    pub(super) fn found(&mut self, found: Found) {
        let now = self.now;
        self.gathers_until = now + GATHERING;
        for (number, epoch, holder) in found.nodes {
            let address = std::net::Ipv4Addr::UNSPECIFIED.into();
            self.nodes.insert(number, Node { epoch, holder, ..Node::new(address, now) });
        }
        for (number, stage) in found.stages {
            if let Some(node) = self.nodes.get_mut(&number) {
                node.stage = stage;
            }
        }
        let mut launch_of: HashMap<u32, LaunchId> = HashMap::new();
        // Of a dead one the end may have been told already: its launch is its nodes' word, and to be ended.
        for launcher in found.launchers.iter().filter(|launcher| !launcher.exited) {
            launch_of.insert(launcher.pid, launcher.launch);
            let user = User { pid: launcher.pid, uid: launcher.uid, gid: launcher.gid, groups: Vec::new() };
            let launch = Launch { origin: launcher.origin.clone(), ..self.absent_launch(user) };
            self.launches.insert(launcher.launch, launch);
        }
        let parents: HashMap<u32, u32> = found.ghosts.iter().map(|ghost| (ghost.pid, ghost.ppid)).collect();
        let by_pid: HashMap<u32, ProcId> = found.ghosts.iter().map(|ghost| (ghost.pid, ghost.process)).collect();
        // Of several for one process, made because the first kept them waiting, one counts: who lives. The others are refused.
        let living = found.ghosts.iter().filter(|ghost| !ghost.exited);
        let mut seen = BTreeSet::new();
        let one_each: Vec<&FoundGhost> = living
            .chain(found.ghosts.iter().filter(|ghost| ghost.exited))
            .filter(|ghost| seen.insert(ghost.process))
            .collect();
        for ghost in &one_each {
            // As many steps as there are ghosts end every chain.
            let mut at = ghost.ppid;
            for _ in 0..parents.len() {
                match parents.get(&at) {
                    Some(parent) => at = *parent,
                    None => break,
                }
            }
            let launch = launch_of.get(&at).copied().unwrap_or_default();
            self.found_ghost(ghost, launch, by_pid.get(&ghost.ppid).copied());
        }
        for launch in self.launches.values_mut() {
            launch.places.skip(UNKNOWN_PLACES);
        }
        // Numbers say nothing of who came first.
        for ghost in &one_each {
            let fork = self.processes.get(&ghost.process).and_then(|process| process.fork.as_ref());
            if let Some(Parent::Ghost(parent)) = fork.map(|fork| fork.parent)
                && let Some(parent) = self.processes.get_mut(&parent)
            {
                parent.made.insert(ghost.process);
            }
        }
        // A node that is not believed in any epoch was lost, and some of its ghosts have not been told yet.
        let unknown: BTreeSet<NodeNumber> =
            self.processes.values().map(|process| process.node).filter(|node| !self.nodes.contains_key(node)).collect();
        for node in unknown {
            self.lose_processes(node);
        }
        for ghost in one_each.into_iter().filter(|ghost| ghost.exited) {
            self.ghost_exited(ghost.process.0, false, ghost.pid);
        }
    }

    /// The nodes that the ghostd before had are not all here yet, and not enough time has passed to take those that lack for away: who asks for
    /// nodes now would be told what is not true.
    pub fn is_gathering(&self, now: Instant) -> bool {
        now < self.gathers_until && self.nodes.values().any(|node| node.link.is_none())
    }

    fn absent_launch(&self, user: User) -> Launch {
        // Ghosts of earlier times read as numbers below these.
        let generation = u32::try_from(self.settings.first_id >> 40).unwrap_or(0);
        Launch {
            origin: None,
            via: None,
            host: None,
            client: NOBODY,
            user,
            program: ProgramSpec::default(),
            plain: false,
            asked: None,
            file: None,
            ranks: Vec::new(),
            forked: Default::default(),
            next_rank: (generation % 1024).wrapping_add(1) << 20,
            lacks_maker: false,
            places: Default::default(),
            roots: Default::default(),
            plans: Vec::new(),
            window: window(1),
            // How much it was, the command will say.
            stdin: Stdin { before: u64::MAX, ..Stdin::default() },
            launcher_stopped: false,
            resumes: true,
            absent: true,
            ended: false,
        }
    }

    fn found_ghost(&mut self, found: &FoundGhost, launch_id: LaunchId, maker: Option<ProcId>) {
        let (node, place) = tagged(found.tag);
        let id = found.process;
        // A launch from a node has ended with the ghostd that carried its command's connection.
        let nested = !is_forked(id) && place.is_some();
        let forked = is_forked(id) || nested;
        let is_launchers = self.launches.get(&launch_id).is_some_and(|launch| launch.user.pid == found.ppid);
        let fork = forked.then_some(Fork {
            origin: maker,
            creator: None,
            parent: match maker {
                Some(maker) => Parent::Ghost(maker),
                None if is_launchers => Parent::Launcher,
                None => Parent::Init,
            },
            making: Making::Made,
            place,
            comm: [0; 15],
            due: self.now,
            since: self.now,
            failures: 0,
            reaped: nested,
            heir: None,
            seat: 0,
            launched: false,
        });
        let streams = [(); 2].map(|()| match (nested, forked) {
            (true, _) => Output { closed: true, ..Output::found(window(1)) },
            (_, true) => Output::none(),
            (_, false) => Output::found(window(1)),
        });
        let process = Process {
            fork,
            outputs: streams,
            stdin_open: !forked,
            // One that was made just then may never have been told that it is watched.
            ghost: Ghost::Awake { next: (forked && !found.killed).then_some(Answer::Armed) },
            pid: found.pid,
            killed: found.killed,
            ghost_pgid: found.pgid,
            ..Process::found(launch_id, node)
        };
        self.processes.insert(id, process);
        self.by_pid.insert(found.pid, id);
        self.enlist(id, launch_id);
        if let (Some(launch), Some(place)) = (self.launches.get_mut(&launch_id), place) {
            launch.places.taken(place);
        }
        if found.killed || nested {
            self.forward(id, Forward::kill());
        }
    }

    /// Puts a process that was found into its launch.
    pub(super) fn enlist(&mut self, id: ProcId, launch_id: LaunchId) {
        let Some(launch) = self.launches.get_mut(&launch_id) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.launch = launch_id;
        if let Some(fork) = &mut process.fork {
            let rank = launch.next_rank;
            launch.next_rank = rank.wrapping_add(1);
            launch.forked.insert(rank, id);
            (process.rank, fork.seat) = (rank, rank);
        } else if let Some(rank) = id.0.checked_sub(launch_id.0 + 1).and_then(|rank| u32::try_from(rank).ok())
            && (rank as usize) < MOST_RANKS
        {
            let at = rank as usize;
            if launch.ranks.len() <= at {
                launch.ranks.resize(at + 1, None);
            }
            launch.ranks[at] = Some(id);
            process.rank = rank;
        }
    }

    /// A node has come back for the first time, and says what it holds.
    pub(super) fn meet_held(&mut self, number: NodeNumber, held: &[HeldProcess]) {
        for held in held {
            let (id, launch) = (ProcId(held.proc), LaunchId(held.launch));
            let earlier = is_forked(id) || id.0 < self.settings.first_id;
            if launch == LaunchId::default() || !earlier {
                continue;
            }
            match self.processes.get(&id) {
                Some(process) if process.node != number || !process.found => continue,
                Some(process) if process.fork.is_some() && !is_forked(id) => continue,
                Some(process) if process.launch == LaunchId::default() => {
                    self.ensure_launch(launch, held.uid);
                    self.enlist(id, launch);
                }
                Some(process) if process.launch != launch => {
                    tracing::warn!(
                        node = number.0,
                        process = id.0,
                        "a process is not of the launch that it was said to be of"
                    );
                    if !matches!(process.ghost, Ghost::Gone) {
                        continue;
                    }
                    // A command has claimed what is not its own.
                    self.disown(id);
                    self.ensure_launch(launch, held.uid);
                    self.found_without_ghost(id, launch, number);
                }
                Some(_) => {}
                // It is told by itself.
                None if is_forked(id) => continue,
                None => {
                    // Its ghost is dead: it is to follow.
                    self.ensure_launch(launch, held.uid);
                    self.found_without_ghost(id, launch, number);
                }
            }
            if let Some(process) = self.processes.get_mut(&id) {
                if process.stdin_acked > held.stdin {
                    // The command has left out what the process has not got.
                    tracing::warn!(
                        process = id.0,
                        "a command has come back without the input that its process waits for"
                    );
                    process.stdin_open = false;
                }
                process.stdin_acked = held.stdin;
                let (launch, rank, launched) = (process.launch, process.rank, process.is_launched());
                if launched {
                    self.tell_launcher(launch, MasterToClient::Ack(client::Ack { rank, fd: 0, offset: held.stdin }));
                    self.acknowledge_stdin(launch);
                }
            }
        }
    }

    fn found_without_ghost(&mut self, id: ProcId, launch: LaunchId, node: NodeNumber) {
        self.processes.insert(id, Process { ghost: Ghost::Gone, ..Process::found(launch, node) });
        self.enlist(id, launch);
        self.forward(id, Forward::kill());
    }

    fn disown(&mut self, id: ProcId) {
        let Some(process) = self.processes.remove(&id) else { return };
        if let Some(launch) = self.launches.get_mut(&process.launch) {
            launch.ranks.iter_mut().filter(|rank| **rank == Some(id)).for_each(|rank| *rank = None);
        }
        let told = client::StartFailed {
            rank: process.rank,
            stage: StartStage::Reach as i32,
            errno: 0,
            text: "this process is another launch's".to_owned(),
        };
        self.tell_launcher(process.launch, MasterToClient::StartFailed(told));
    }

    pub(super) fn ensure_launch(&mut self, id: LaunchId, uid: u32) {
        if !self.launches.contains_key(&id) {
            let user = User { pid: 0, uid, gid: uid, groups: Vec::new() };
            let launch = Launch { absent: false, ended: true, ..self.absent_launch(user) };
            self.launches.insert(id, launch);
        }
    }

    /// The node knows nothing of a process that was found.
    pub(super) fn vanished(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        (process.found, process.held) = (false, false);
        if process.fork.is_some() {
            return self.ended(id, WaitStatus::KILLED, false, None);
        }
        match process.noted {
            // All of its output had been acknowledged, but perhaps its end had not come through.
            true => self.end_outputs(id),
            false => self.end_outputs_silently(id),
        }
        let text = "ghostd was started again before the process was begun".to_owned();
        self.start_failed(id, StartStage::Reach, 0, text);
    }

    /// The node tells again of a forked process that was found.
    pub(super) fn meet_forked(&mut self, id: ProcId, node: NodeNumber, pid: u32, comm: [u8; 15]) {
        let Some(process) = self.processes.get_mut(&id).filter(|process| process.found && process.node == node) else {
            return;
        };
        process.remote = Remote::Running { pid };
        if let Some(fork) = &mut process.fork {
            fork.comm = comm;
        }
        self.by_node_pid.insert((node, pid), id);
        self.is_met(id);
    }

    /// The node has spoken of a process that was found: from now on it is as any other.
    pub(super) fn is_met(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !std::mem::take(&mut process.found) {
            return;
        }
        if matches!(process.ghost, Ghost::Awake { .. }) && !process.ghost_stopped {
            // Stopped although its process runs, unless the node says otherwise next.
            self.restless.insert(id);
        }
        self.view_born(id);
    }

    /// Commands that have not come back, with their tasks: of their ends only a record tells.
    pub fn absent_launchers(&self) -> Vec<(LaunchId, u32)> {
        let absent = self.launches.iter().filter(|(_, launch)| launch.absent);
        absent.map(|(&id, launch)| (id, launch.user.pid)).collect()
    }

    /// A launch whose command has not come back: that is dead.
    pub(super) fn launcher_gone(&mut self, id: LaunchId) {
        if self.launches.get(&id).is_some_and(|launch| launch.absent) {
            self.end_launch(id);
        }
    }

    /// A command goes on with its launch. `launch`: the one that the kernel has its task under.
    pub(super) fn resume(&mut self, client: ClientId, launch: Option<LaunchId>, message: client::Resume) {
        let id = LaunchId(message.launch);
        let Some(state) = self.clients.get_mut(&client) else { return };
        let user = state.user.clone();
        let known = self.launches.get(&id).is_some_and(|launch| launch.absent && !launch.ended);
        if launch != Some(id) || !known || state.launch.is_some() || message.ranks.len() > MOST_RANKS {
            return self.refuse(client, "ghostd has begun anew and does not know it any more", None);
        }
        state.launch = Some(id);
        let streams_in = message.stdio.first() == Some(&(Stdio::Stream as i32));
        for (rank, said) in message.ranks.iter().enumerate() {
            self.resume_rank(id, rank, said, streams_in, message.stdin);
        }
        let Some(launch) = self.launches.get_mut(&id) else { return };
        self.counts.commands_resumed += 1;
        launch.client = client;
        launch.user = user;
        launch.program = ProgramSpec { stdio: message.stdio.clone(), ..ProgramSpec::default() };
        let window = window(message.ranks.len());
        launch.window = window;
        launch.absent = false;
        launch.ranks.resize(message.ranks.len(), None);
        let plan = |rank: &client::ResumedRank| client::RankPlan { node: rank.node, ..Default::default() };
        launch.plans = message.ranks.iter().map(plan).collect();
        launch.stdin.received = message.stdin;
        launch.stdin.before = message.sent;
        self.tell_client(client, MasterToClient::Resumed(client::Resumed { window }));
        let ranks: Vec<ProcId> = self.launches[&id].ranks.iter().flatten().copied().collect();
        for process in ranks {
            self.catch_up(client, process);
        }
    }

    fn resume_rank(
        &mut self,
        launch_id: LaunchId,
        rank: usize,
        said: &client::ResumedRank,
        streams_in: bool,
        stdin: u64,
    ) {
        let id = ProcId(launch_id.0 + 1 + rank as u64);
        let number = NodeNumber(said.node);
        if self.processes.get(&id).is_some_and(|process| process.launch != launch_id || process.node != number) {
            return;
        }
        let known = self.processes.contains_key(&id);
        if !known {
            if id.0 >= self.settings.first_id {
                return;
            }
            self.processes.insert(id, Process { ghost: Ghost::Gone, ..Process::found(launch_id, number) });
            self.enlist(id, launch_id);
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        for (output, said) in process.outputs.iter_mut().zip(&said.outputs) {
            (output.skip, output.early) = (said.received, said.consumed);
            output.closed |= said.done;
        }
        if said.over {
            process.verdict = None;
            process.noted = true;
        }
        process.stdin_open &= streams_in && said.reads && process.stdin_acked >= if process.found { 0 } else { stdin };
        if process.found {
            // Each by itself: the command goes on as soon as the slowest has told of more.
            process.stdin_acked = process.stdin_acked.max(said.taken.max(stdin));
        }
        let comes = self.nodes.get(&number).is_some_and(|node| node.epoch != 0 && node.link.is_none());
        if !known && !comes {
            self.vanished(id);
        }
    }

    /// Tells a command that has come back what it missed of a process.
    fn catch_up(&mut self, client: ClientId, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let (rank, open, acked) = (process.rank, process.stdin_open, process.stdin_acked);
        let verdict = process.verdict.clone();
        let mut waiting: Vec<Data> = Vec::new();
        for output in &mut process.outputs {
            let of_it = std::mem::take(&mut output.waiting);
            if !output.closed {
                waiting.extend(of_it);
            }
        }
        if open {
            self.tell_client(client, MasterToClient::Ack(client::Ack { rank, fd: 0, offset: acked }));
        } else {
            self.tell_client(client, MasterToClient::StdinGone(client::StdinGone { rank }));
        }
        if let Some(verdict) = verdict {
            self.tell_client(client, verdict);
        }
        for data in waiting {
            self.pass_on(client, id, data);
        }
        for fd in 1..=2 {
            self.acknowledge_early(id, fd);
        }
        self.tell_closed_outputs(id);
        self.clear_process(id);
    }

    /// Passes on what the command has not got.
    pub(super) fn pass_on(&mut self, client: ClientId, id: ProcId, mut data: Data) {
        let Some(output) = self.processes.get(&id).and_then(|p| p.outputs.get(usize::from(data.fd).wrapping_sub(1)))
        else {
            return;
        };
        let old = usize::try_from(output.skip.saturating_sub(data.offset)).unwrap_or(usize::MAX).min(data.bytes.len());
        bytes::Buf::advance(&mut data.bytes, old);
        data.offset += old as u64;
        if data.bytes.is_empty() {
            // Where an end is that ghostd has made itself, only the command knows.
            data.offset = data.offset.max(output.skip);
        }
        if data.eof || !data.bytes.is_empty() {
            self.act(Action::SendClient { client, data });
        }
    }

    /// What the command had written out already when it came back, and has now come again.
    pub(super) fn acknowledge_early(&mut self, id: ProcId, fd: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let node = process.node;
        let Some(output) = process.outputs.get_mut(fd as usize - 1) else { return };
        let offset = output.early.min(output.receiver.received());
        let new = offset.saturating_sub(output.receiver.consumed());
        if new > 0 && output.anchored {
            output.receiver.consume(new as usize);
            self.tell_node(node, MasterToNode::Ack(node::Ack { proc: id.0, fd, offset }));
        }
    }

    /// The command has the verdict on a rank.
    pub(super) fn noted(&mut self, client: ClientId, rank: u32) {
        let Some(id) = self.rank_of(client, rank) else { return };
        if let Some(process) = self.processes.get_mut(&id)
            && process.remote.is_over()
        {
            process.verdict = None;
            self.clear_process(id);
        }
    }
}

impl Process {
    /// One that was there before this ghostd.
    fn found(launch: LaunchId, node: NodeNumber) -> Process {
        let output = || Output::found(window(1));
        Process {
            remote: Remote::Asked,
            found: true,
            held: true,
            held_back: None,
            outputs: [output(), output()],
            stdin_open: true,
            ..Process::planned(launch, 0, node)
        }
    }
}
