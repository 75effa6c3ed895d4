//! Launches: from the request to the last status.

use ghost_proto::client::{self, MasterToClient, Obstacle, RankPlan, StartStage};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::launch::{Credentials, Stdio};
use ghost_proto::node::{self, MasterToNode};
use ghost_proto::node_state::NodeStatus;
use ghost_proto::status::{Usage, WaitStatus};
use ghost_sys::ghost::Answer;

use super::counts::{NotStarted, Outcome};
use super::types::{Ghost, Launch, Output, Process, Remote, Stdin, User};
use super::{Action, ClientId, Core, Directory, Node};

/// Stream bytes that one launch may have on their way, in all its streams together.
const LAUNCH_BUDGET: usize = 16 * 1024 * 1024;
/// What a stream needs so that its ends do not wait for one another: a quarter is acknowledged at a time.
pub(super) const LARGEST_WINDOW: usize = 2 * 1024 * 1024;
const SMALLEST_WINDOW: usize = 16 * 1024;

/// The window of each stream of a launch with this many ranks (three streams each).
pub(super) fn window(ranks: usize) -> u32 {
    let window = (LAUNCH_BUDGET / (ranks.max(1) * 3)).clamp(SMALLEST_WINDOW, LARGEST_WINDOW);
    u32::try_from(window).unwrap_or(u32::MAX)
}

impl Launch {
    fn as_launched(&self, id: LaunchId) -> client::Launched {
        let (ranks, window) = (self.plans.clone(), self.window);
        client::Launched { launch: id.0, ranks, window, makes_ghosts: self.via.is_some() }
    }
}

impl Core {
    pub(super) fn launch(&mut self, client: ClientId, request: client::Launch, directory: &dyn Directory) {
        let Some(state) = self.clients.get(&client) else { return };
        let (user, resumes, via) = (state.user.clone(), state.resumes, state.via);
        let host = via.and_then(|via| self.processes.get(&via)).map(|process| self.host_of(process.launch));
        if state.launch.is_some() {
            return self.refuse(client, "a connection can launch once", None);
        }
        if self.ending {
            return self.refuse(client, "ghostd is ending; try again when it runs again", None);
        }
        let Some(program) = request.program else {
            return self.refuse(client, "the launch names no program", None);
        };
        if let Err(reason) = program.check() {
            return self.refuse(client, reason, None);
        }
        let facts = directory.nodes();
        let numbers = match self.resolve(&request.nodes, &facts) {
            Ok(numbers) => numbers,
            Err((text, position)) => return self.refuse(client, text, Some(position)),
        };
        let id = LaunchId(self.fresh_id());
        // Its processes have the names behind it, by rank.
        self.next_id += numbers.len() as u64;
        let mut plans: Vec<RankPlan> = numbers.into_iter().map(|node| self.plan(node, &user, directory)).collect();
        if program.terminal.is_some() {
            self.plan_terminals(&mut plans);
        }
        if program.host {
            self.plan_host(&mut plans, user.uid);
        }
        // The node's own namespaces have their own root directory: a way in where the other one is broken.
        let roots = facts.into_iter().filter(|facts| !facts.root.is_empty() && !program.host);
        let roots = roots.map(|facts| (facts.number, facts.root)).collect();
        let launch = Launch {
            client,
            user,
            program,
            plain: request.plain,
            asked: Some(self.now),
            origin: None,
            via,
            host,
            file: None,
            ranks: vec![None; plans.len()],
            forked: Default::default(),
            next_rank: plans.len() as u32,
            lacks_maker: false,
            places: Default::default(),
            window: window(plans.len()),
            plans,
            roots,
            stdin: Stdin::default(),
            launcher_stopped: false,
            resumes,
            absent: false,
            ended: false,
        };
        self.counts.launches += 1;
        self.launches.insert(id, launch);
        if let Some(state) = self.clients.get_mut(&client) {
            state.launch = Some(id);
        }
        match via {
            Some(_) => self.begin_launch(id),
            None => self.act(Action::OpenPin { client, launch: id }),
        }
    }

    /// Whether a user can start programs on a node now, and why not.
    fn plan(&self, node: NodeNumber, user: &User, directory: &dyn Directory) -> RankPlan {
        let plan = |obstacle: Obstacle, reason: &str, name: &str| RankPlan {
            node: node.0,
            reason: reason.to_owned(),
            obstacle: obstacle as i32,
            name: name.to_owned(),
        };
        if node == NodeNumber::MASTER {
            return plan(Obstacle::Other, "the master runs no nodeagent; start the program directly", "");
        }
        let Some(facts) = directory.node(node) else { return plan(Obstacle::Unknown, "no such node", "") };
        let name = self.nodes.get(&node).map_or(facts.hostname.as_str(), |known| known.hostname.as_str());
        if !directory.may_use(node, user) {
            return plan(Obstacle::Forbidden, "Operation not permitted", name);
        }
        let (status, why) = self.status_of(&facts);
        match status {
            NodeStatus::Up => {}
            // To be looked at and put right there.
            NodeStatus::Boot | NodeStatus::Error | NodeStatus::Unavailable if user.uid == 0 => {}
            NodeStatus::Boot | NodeStatus::Error | NodeStatus::Unavailable => {
                return plan(Obstacle::Forbidden, &format!("Operation not permitted ({status}: {why})"), name);
            }
            NodeStatus::Down | NodeStatus::Reboot | NodeStatus::Halt | NodeStatus::PowerOff => {
                let reason = if why.is_empty() { status.to_string() } else { format!("{status} ({why})") };
                return plan(Obstacle::Unreachable, &reason, name);
            }
        }
        if !facts.root.is_empty() && !self.nodes.get(&node).is_some_and(|node| node.changes_root) {
            let reason = "its nodeagent is of an older release and cannot change the root directory; upgrade it";
            return plan(Obstacle::Other, reason, name);
        }
        plan(Obstacle::Other, "", name)
    }

    /// The launch has its pin file: the client may make the ghosts.
    pub(super) fn pin_opened(&mut self, client: ClientId, file: u64) {
        let Some(id) = self.clients.get(&client).and_then(|c| c.launch) else { return };
        self.plan_ranks(id);
        self.by_file.insert(file, id);
        let Some(launch) = self.launches.get_mut(&id) else { return };
        launch.file = Some(file);
        let message = MasterToClient::Launched(launch.as_launched(id));
        self.act(Action::Launched { client, message });
    }

    /// The same of one whose launcher makes no ghosts itself.
    fn begin_launch(&mut self, id: LaunchId) {
        self.plan_ranks(id);
        let Some(launch) = self.launches.get(&id) else { return };
        let message = MasterToClient::Launched(launch.as_launched(id));
        self.tell_launcher(id, message);
    }

    /// Of the nodes on which something was to run only those stay that can do what it needs.
    pub(super) fn plan_able(&self, plans: &mut [RankPlan], is_able: impl Fn(&Node) -> bool, reason: &str) {
        for plan in plans.iter_mut().filter(|plan| plan.reason.is_empty()) {
            if !self.nodes.get(&NodeNumber(plan.node)).is_some_and(&is_able) {
                plan.obstacle = Obstacle::Other.into();
                plan.reason = reason.to_owned();
            }
        }
    }

    fn plan_ranks(&mut self, id: LaunchId) {
        let Some(launch) = self.launches.get(&id) else { return };
        for plan in launch.plans.iter().filter(|plan| !plan.reason.is_empty()) {
            self.counts.not_started(NotStarted::planned(plan.obstacle()));
        }
        let window = launch.window;
        let streamed = [1, 2].map(|fd| launch.program.descriptor(fd) == Stdio::Stream);
        let stdin_open = launch.program.descriptor(0) == Stdio::Stream;
        let planned: Vec<(usize, NodeNumber)> = (launch.plans.iter().enumerate())
            .filter(|(_, plan)| plan.reason.is_empty())
            .map(|(rank, plan)| (rank, NodeNumber(plan.node)))
            .collect();
        for (rank, node) in planned {
            let process = ProcId(id.0 + 1 + rank as u64);
            let outputs = streamed.map(|open| Output::new(window, !open));
            let planned = Process { outputs, stdin_open, ..Process::planned(id, rank as u32, node) };
            self.processes.insert(process, planned);
            if let Some(launch) = self.launches.get_mut(&id) {
                launch.ranks[rank] = Some(process);
            }
        }
    }

    /// The ghost sleeps and is watched: the process itself may be made.
    pub(super) fn spawn(&mut self, id: ProcId) {
        let Some(node) = self.processes.get(&id).map(|p| p.node) else { return };
        if !self.is_connected(node) {
            return self.start_failed(
                id,
                StartStage::Reach,
                0,
                "down (its connection broke before the process was begun)".into(),
            );
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.remote = Remote::Asked;
        process.held = true;
        process.asked = Some(self.now);
        self.ask_for(id);
    }

    /// Tells the node all of a process that it has never heard of.
    pub(super) fn ask_for(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(launch) = self.launches.get(&process.launch) else { return };
        let (node, pid, rank) = (process.node, process.pid, process.rank);
        let stands_in = self.nodes.get(&node).is_some_and(|node| node.stands_in);
        let message = node::Spawn {
            proc: id.0,
            launch: process.launch.0,
            rank,
            ranks: launch.ranks.len() as u32,
            pid,
            credentials: Some(Credentials {
                uid: launch.user.uid,
                gid: launch.user.gid,
                groups: launch.user.groups.clone(),
            }),
            program: Some(launch.program.clone()),
            window: launch.window,
            origin: launch.origin.clone().filter(|_| stands_in).map(Box::new),
            root: launch.roots.get(&node).map(|path| Box::new(node::Root { path: path.clone() })),
        };
        self.tell_node(node, MasterToNode::Spawn(message));
        self.tell_closed_outputs(id);
        self.send_stdin_so_far(id);
    }

    pub(super) fn started(&mut self, id: ProcId, message: &node::Started) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.remote != Remote::Asked {
            return;
        }
        let found = process.found;
        process.remote = Remote::Running { pid: message.pid };
        process.pgid = if message.pgid == 0 { message.pid } else { message.pgid };
        // The holder's session has its number there.
        process.sid = message.sid.max(1);
        let (launch, rank, node) = (process.launch, process.rank, process.node);
        self.by_node_pid.insert((node, message.pid), id);
        self.count_start(id);
        self.founds_home(id);
        let told = client::Started { rank, pid: message.pid, cwd_errno: message.cwd_errno };
        self.tell_launcher(launch, MasterToClient::Started(told));
        self.ranks_changed(launch);
        if found {
            self.is_met(id);
        }
    }

    /// Which root directory could not be had, if that is what was missing.
    pub(super) fn root_text(&self, id: ProcId, stage: StartStage) -> Option<String> {
        let process = self.processes.get(&id).filter(|_| stage == StartStage::Root)?;
        let root = self.launches.get(&process.launch)?.roots.get(&process.node)?;
        Some(format!("root directory {root}"))
    }

    /// A process that never ran.
    pub(super) fn start_failed(&mut self, id: ProcId, stage: StartStage, errno: u32, text: String) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.remote.is_over() {
            return;
        }
        process.remote = Remote::Failed;
        self.counts.not_started(NotStarted::at(stage, errno));
        let (launch, rank) = (process.launch, process.rank);
        let told = client::StartFailed { rank, stage: stage as i32, errno, text };
        self.give_verdict(id, launch, MasterToClient::StartFailed(told));
        let code = match (stage, errno as i32) {
            (StartStage::Exec, nix::libc::ENOENT) => 127,
            (StartStage::Exec, _) => 126,
            _ => 125,
        };
        self.answer_ghost(id, Answer::Exit(code));
        self.over(id);
        self.is_waited_for(id);
    }

    /// A process is dead, or its node is lost.
    pub(super) fn ended(&mut self, id: ProcId, status: WaitStatus, lost: bool, usage: Option<Usage>) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.remote.is_over() || !lost && self.ends_later(id, status) {
            return;
        }
        self.late_ends.remove(&id);
        self.asker_ended(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let stopped = process.ghost_stopped || process.stopped;
        let node_pid = if let Remote::Running { pid } = process.remote { pid } else { 0 };
        process.remote = Remote::Ended(status);
        self.counts.ended(Outcome::of(status, lost));
        let (launch, rank, node, launched) = (process.launch, process.rank, process.node, process.is_launched());
        if self.by_node_pid.get(&(node, node_pid)) == Some(&id) {
            self.by_node_pid.remove(&(node, node_pid));
        }
        if launched {
            if lost {
                self.end_outputs(id);
            }
            let told = client::Ended { rank, status: status.to_raw(), lost, usage };
            self.give_verdict(id, launch, MasterToClient::Ended(told));
            self.ranks_changed(launch);
        }
        let answer = match status {
            WaitStatus::Exited(code) => Answer::Exit(code),
            WaitStatus::Signaled { signal, .. } => Answer::Die(signal),
        };
        if stopped && launched && !lost {
            self.is_perhaps_its_launchers_end(launch, status);
        }
        self.answer_ghost(id, answer);
        self.over(id);
        if stopped && launched {
            self.wake_launcher(launch);
        }
        self.is_waited_for(id);
    }

    /// After the end of a process: its ghost must come for its last answer and go; others stop waiting for it.
    fn over(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.stdin_open = false;
        process.signals.clear();
        let launch = process.launch;
        self.see_off(id);
        self.acknowledge_stdin(launch);
        self.clear_process(id);
    }

    /// A ghost whose process is over is made to come for its last answer, and to go with it.
    pub(super) fn see_off(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        match process.ghost {
            Ghost::Awake { .. } => {
                self.restless.insert(id);
                self.continue_ghost(id);
            }
            Ghost::Leaving { .. } => {
                let stopped = process.ghost_stopped;
                self.restless.insert(id);
                if stopped {
                    self.continue_ghost(id);
                }
            }
            Ghost::Awaited | Ghost::Expected { .. } | Ghost::Arriving | Ghost::Asleep(_) | Ghost::Gone => {}
        }
    }

    /// Forgets a process of which nothing more is to come, and its launch if it was the last.
    pub(super) fn clear_process(&mut self, id: ProcId) {
        let Some(launch) = self.processes.get(&id).map(|p| p.launch) else { return };
        if self.forget_process(id) {
            self.clear_launch(launch);
        }
    }

    /// Lets the node forget a process when all that it has of it is here or wanted by nobody; forgets it here when its ghost
    /// needs nothing more, either. `true`: it is not in the table any more.
    fn forget_process(&mut self, id: ProcId) -> bool {
        let Some(process) = self.processes.get_mut(&id) else { return true };
        let streams_done = process.outputs.iter().all(Output::is_done);
        let launch_ended = self.launches.get(&process.launch).is_none_or(|l| l.ended);
        let noted = process.verdict.is_none();
        if !process.remote.is_over() || !(streams_done && noted || launch_ended) {
            return false;
        }
        let (node, pid, settled) = (process.node, process.pid, process.ghost.is_settled());
        if std::mem::take(&mut process.held) {
            self.tell_node(node, MasterToNode::Forget(node::Forget { proc: id.0 }));
        }
        let settled = settled && !self.is_zombie(id);
        if settled {
            if self.by_pid.get(&pid) == Some(&id) {
                self.by_pid.remove(&pid);
            }
            self.restless.remove(&id);
            self.leave_tree(id);
            self.processes.remove(&id);
            self.view_over(id);
        }
        settled
    }

    /// Forgets a launch whose client is gone and whose processes are forgotten.
    pub(super) fn clear_launch(&mut self, id: LaunchId) {
        let Some(launch) = self.launches.get(&id) else { return };
        if !launch.ended {
            return;
        }
        let mut left = false;
        let ranks = launch.ranks.iter().flatten();
        for process in ranks.chain(launch.forked.values()).copied().collect::<Vec<ProcId>>() {
            left |= !self.forget_process(process);
        }
        if left {
            return;
        }
        self.beside.remove(&id);
        self.leaves_homes(id);
        if let Some(launch) = self.launches.remove(&id)
            && let Some(file) = launch.file
        {
            self.by_file.remove(&file);
        }
    }

    /// The client cannot make a ghost for a rank.
    pub(super) fn no_ghost(&mut self, client: ClientId, message: &client::NoGhost) {
        let Some(id) = self.rank_of(client, message.rank) else { return };
        let Some(process) = self.processes.get(&id) else { return };
        if matches!(process.ghost, Ghost::Awaited) && process.remote == Remote::Planned {
            let text = "no process could be made on the master".to_owned();
            self.start_failed(id, StartStage::Create, message.errno, text);
        }
    }

    /// Tells the client how a rank ended, and again if it comes back without having noted it.
    fn give_verdict(&mut self, id: ProcId, launch: LaunchId, verdict: MasterToClient) {
        if self.processes.get(&id).is_some_and(|process| process.noted) {
            return;
        }
        if let Some(process) = self.processes.get_mut(&id)
            && self.launches.get(&launch).is_some_and(|launch| launch.resumes)
        {
            process.verdict = Some(verdict.clone());
        }
        self.tell_launcher(launch, verdict);
    }

    pub(super) fn tell_launcher(&mut self, launch: LaunchId, message: MasterToClient) {
        if let Some(client) = self.launches.get(&launch).map(|l| l.client) {
            self.tell_client(client, message);
        }
    }
}
