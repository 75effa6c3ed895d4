//! One transition after the other, each with what it makes the driver do.

use std::time::Duration;

use bytes::Bytes;
use ghost_abi::{SignalFlags, SignalRecord};
use ghost_host::pin::ReadToken;
use ghost_proto::client::{self, ClientToMaster, MasterToClient};
use ghost_proto::frame::{ALL_RANKS, Data};
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::node::{self, MasterToNode, NodeHello, NodeToMaster};
use ghost_sys::ghost::{Answer, RANK_SHIFT};

use super::super::{Action, ClientId, Core, Event, LinkId, Settings, User};
use super::FourNodes;

pub(super) const CLIENT: ClientId = ClientId(1);
pub(super) const FILE: u64 = 5;
pub(super) const GHOST: u32 = 200;
const KILL: u16 = 9;
const STOP: u16 = 19;
const CONT: u16 = 18;
const LEASE: Duration = Duration::from_secs(15);
const MARGIN: Duration = Duration::from_secs(5);

pub(super) struct Bench {
    pub core: Core,
    pub now: Duration,
    reads: u64,
    records: u64,
}

impl Bench {
    /// Nodes 0 and 1 are up, a command has connected.
    pub fn new() -> Bench {
        Bench::with_lease(LEASE)
    }

    pub fn with_lease(lease: Duration) -> Bench {
        let settings = Settings {
            epoch: 70,
            lease,
            margin: MARGIN,
            program: "ghostd test".into(),
            view: false,
            node_up: false,
            first_id: 0,
        };
        let mut bench = Bench { core: Core::new(settings), now: Duration::ZERO, reads: 0, records: 0 };
        bench.connect(0, 10, 1000, 0, &[]);
        bench.connect(1, 11, 1001, 0, &[]);
        bench.feed(Event::ClientJoined {
            client: CLIENT,
            user: User { pid: 100, uid: 1000, gid: 1000, groups: vec![1000] },
        });
        bench.say(ClientToMaster::Hello(client::Hello::default()));
        bench
    }

    /// Process 2 of launch 1 runs on node 0, its ghost sleeps (read 2).
    pub fn running() -> Bench {
        let mut bench = Bench::new();
        bench.launch("0");
        bench.begin();
        bench
    }

    /// The process of the launch before, on node 0, begins.
    pub fn begin(&mut self) {
        self.read(GHOST, 0);
        self.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 100 });
        self.read(GHOST, 0);
        self.node(0, 10, NodeToMaster::Started(node::Started { proc: 2, pid: GHOST, cwd_errno: 0, pgid: 0, sid: 0 }));
    }

    pub fn feed(&mut self, event: Event) -> Vec<Action> {
        self.core.handle(event, self.now, &FourNodes)
    }

    pub fn say(&mut self, message: ClientToMaster) -> Vec<Action> {
        self.feed(Event::ClientSaid { client: CLIENT, message })
    }

    pub fn node(&mut self, node: i32, link: u64, message: NodeToMaster) -> Vec<Action> {
        self.feed(Event::NodeSaid { node: NodeNumber(node), link: LinkId(link), message })
    }

    pub fn connect(&mut self, node: i32, link: u64, holder: u64, epoch: u64, procs: &[u64]) -> Vec<Action> {
        let processes = procs.iter().map(|&proc| node::HeldProcess { proc, pid: 1, ..Default::default() }).collect();
        let hello = NodeHello { epoch, holder, processes, ..NodeHello::default() };
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        self.feed(Event::NodeConnected { node: NodeNumber(node), link: LinkId(link), hello, address })
    }

    pub fn disconnect(&mut self, node: i32, link: u64) {
        self.feed(Event::NodeDisconnected { node: NodeNumber(node), link: LinkId(link) });
    }

    pub fn launch(&mut self, nodes: &str) -> Vec<Action> {
        self.launch_as(nodes, false)
    }

    pub fn launch_as(&mut self, nodes: &str, plain: bool) -> Vec<Action> {
        let stdio = vec![Stdio::Stream as i32; 3];
        let program = ProgramSpec { argv: vec!["x".into()], stdio, ..ProgramSpec::default() };
        self.say(ClientToMaster::Launch(client::Launch { nodes: nodes.into(), program: Some(program), plain }));
        self.feed(Event::PinOpened { client: CLIENT, file: FILE })
    }

    pub fn read(&mut self, pid: u32, rank: u64) -> Vec<Action> {
        self.reads += 1;
        let token = ReadToken::for_test(self.reads);
        self.feed(Event::PinRead { token, file: FILE, pid, offset: rank << RANK_SHIFT })
    }

    /// A ghost is back from what it was told, which went wrong.
    pub fn read_with(&mut self, pid: u32, errno: u64) -> Vec<Action> {
        self.reads += 1;
        let token = ReadToken::for_test(self.reads);
        self.feed(Event::PinRead { token, file: FILE, pid, offset: errno })
    }

    pub fn signal(&mut self, signal: u16) -> Vec<Action> {
        self.records += 1;
        let seq = self.records;
        self.feed(Event::Signal(SignalRecord {
            kind: 1,
            flags: 0,
            ghost: 2,
            seq,
            call: 0,
            value: 7,
            sig: signal,
            scope: 0,
            si_code: -1,
            sender_pid: 33,
            sender_uid: 1000,
            sender_euid: 1000,
            pgid: 0,
        }))
    }

    /// A few ticks later nothing is left to be done.
    pub fn rest(&mut self) {
        for _ in 0..10 {
            self.feed(Event::Tick);
        }
        assert!(!self.core.is_restless());
    }

    fn interrupt(&mut self) -> Vec<Action> {
        self.feed(Event::PinInterrupted { unique: self.reads })
    }

    pub fn end(&mut self, status: i32) -> Vec<Action> {
        self.node(0, 10, NodeToMaster::Ended(node::Ended { proc: 2, status, usage: None, heir: 0 }))
    }
}

pub(super) fn answers(actions: &[Action]) -> Vec<Answer> {
    let answer = |action: &Action| match action {
        Action::AnswerGhost { answer, .. } => Some(*answer),
        Action::Beget { birth, .. } => Some(Answer::Fork(*birth)),
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

fn interrupts(actions: &[Action]) -> usize {
    actions.iter().filter(|a| matches!(a, Action::InterruptGhost { .. })).count()
}

fn refusals(actions: &[Action]) -> usize {
    actions.iter().filter(|a| matches!(a, Action::RefuseRead { .. })).count()
}

pub(super) fn to_nodes(actions: &[Action]) -> Vec<&MasterToNode> {
    actions
        .iter()
        .filter_map(|action| if let Action::TellNode { message, .. } = action { Some(message) } else { None })
        .collect()
}

pub(super) fn to_client(actions: &[Action]) -> Vec<&MasterToClient> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::TellClient { message, .. } | Action::Launched { message, .. } => Some(message),
            _ => None,
        })
        .collect()
}

/// The signals among what nodes are told: number and name, 0 for one of which no record tells.
fn signals(actions: &[Action]) -> Vec<(u32, u64)> {
    let signal = |m: &&MasterToNode| {
        if let MasterToNode::Signal(s) = m { Some((s.signal, if s.seq >> 63 == 0 { s.seq } else { 0 })) } else { None }
    };
    to_nodes(actions).iter().filter_map(signal).collect()
}

pub(super) fn output(proc: u64, offset: u64, bytes: &'static [u8], eof: bool) -> Data {
    Data { id: proc, offset, fd: 1, eof, bytes: Bytes::from_static(bytes) }
}

#[test]
fn everything_is_killed_where_it_was_launched() {
    let mut bench = Bench::new();
    bench.launch("0,0,2");
    bench.read(GHOST, 0);
    let actions = bench.say(ClientToMaster::Terminate(client::Terminate {}));
    let end = MasterToNode::EndLaunch(node::EndLaunch { launch: 1, everything: true });
    assert_eq!(to_nodes(&actions), [&end], "once for each node that is there");
}

#[test]
fn a_process_is_asked_for_when_its_ghost_is_watched() {
    let mut bench = Bench::new();
    let launched = bench.launch("0,2,3");
    let [MasterToClient::Launched(plan)] = to_client(&launched)[..] else { panic!("{launched:?}") };
    let reasons: Vec<&str> = plan.ranks.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(reasons, ["", "down (not connected)", "Operation not permitted"]);
    let actions = bench.read(GHOST, 0);
    assert!(matches!(
        actions[..],
        [Action::Adopt { process: ProcId(2), pid: GHOST, parent: Some(100), uid: 1000, .. }]
    ));
    let actions = bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 0 });
    let [MasterToNode::Spawn(spawn)] = to_nodes(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((spawn.proc, spawn.launch, spawn.rank, spawn.ranks, spawn.pid), (2, 1, 0, 3, GHOST));
    assert_eq!(spawn.credentials.as_ref().map(|c| c.uid), Some(1000));
}

#[test]
fn strangers_on_the_pin_are_refused() {
    let mut bench = Bench::new();
    bench.launch("0,2");
    assert_eq!(refusals(&bench.read(300, 1)), 1, "a rank that was not planned");
    assert_eq!(refusals(&bench.read(300, 7)), 1, "no rank");
    assert_eq!(refusals(&bench.read(0, 0)), 1, "a process of another PID namespace");
    let token = ReadToken::for_test(90);
    assert_eq!(refusals(&bench.feed(Event::PinRead { token, file: FILE, pid: 300, offset: 1 })), 1, "no rank's offset");
    let token = ReadToken::for_test(91);
    assert_eq!(refusals(&bench.feed(Event::PinRead { token, file: 77, pid: 300, offset: 0 })), 1, "no launch's file");
    bench.read(300, 0);
    assert_eq!(refusals(&bench.read(301, 0)), 1, "the rank's ghost is being looked at");
    bench.feed(Event::Adopted { process: ProcId(2), ok: false, pgid: 0 });
    assert!(matches!(bench.read(GHOST, 0)[..], [Action::Adopt { pid: GHOST, .. }]), "the true ghost still can come");
}

#[test]
fn a_status_reaches_client_and_ghost() {
    for (status, answer) in
        [(3 << 8, Answer::Exit(3)), (0, Answer::Exit(0)), (15, Answer::Die(15)), (139, Answer::Die(11))]
    {
        let mut bench = Bench::running();
        let actions = bench.end(status);
        assert_eq!(answers(&actions), [answer]);
        let [MasterToClient::Ended(ended)] = to_client(&actions)[..] else { panic!("{actions:?}") };
        assert_eq!((ended.rank, ended.status, ended.lost), (0, status, false));
        assert!(to_client(&bench.end(status)).is_empty(), "once");
    }
}

#[test]
fn a_stop_is_no_end() {
    let mut bench = Bench::running();
    assert!(to_client(&bench.end(0x137f)).is_empty());
}

#[test]
fn a_start_that_fails_has_the_shells_code() {
    for (stage, errno, code) in [(3, 2, 127), (3, 13, 126), (1, 11, 125)] {
        let mut bench = Bench::new();
        bench.launch("0");
        bench.read(GHOST, 0);
        bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 0 });
        bench.read(GHOST, 0);
        let failed = node::StartFailed { proc: 2, stage, errno, text: String::new() };
        let actions = bench.node(0, 10, NodeToMaster::StartFailed(failed));
        assert_eq!(answers(&actions), [Answer::Exit(code)]);
        assert!(matches!(to_client(&actions)[..], [MasterToClient::StartFailed(_)]));
        assert!(to_nodes(&actions).contains(&&MasterToNode::Forget(node::Forget { proc: 2 })));
    }
}

#[test]
fn a_killed_ghost_waits_for_its_process() {
    let mut bench = Bench::running();
    assert_eq!(signals(&bench.signal(KILL)), [(9, 1)]);
    assert!(bench.interrupt().is_empty(), "not before the process is dead");
    assert!(bench.node(0, 10, NodeToMaster::SignalDone(node::SignalDone { proc: 2, seq: 1, errno: 0 })).is_empty());
    assert_eq!(answers(&bench.end(9)), [Answer::Die(9)]);
}

#[test]
fn a_kill_whose_record_was_lost_counts_as_well() {
    let mut bench = Bench::running();
    let state = Event::GhostState { process: ProcId(2), signals: 1 << (KILL - 1), exited: false };
    assert_eq!(signals(&bench.feed(state)), [(9, 0)]);
    assert!(bench.interrupt().is_empty());
}

#[test]
fn a_ghost_stops_when_its_process_has() {
    let mut bench = Bench::running();
    assert_eq!(signals(&bench.signal(STOP)), [(19, 1)]);
    assert!(bench.interrupt().is_empty());
    let stopped = NodeToMaster::Stopped(node::Stopped { proc: 2, signal: 19 });
    assert!(answers(&bench.node(0, 10, stopped)).is_empty(), "SIGSTOP itself stops the ghost");
    let done = bench.node(0, 10, NodeToMaster::SignalDone(node::SignalDone { proc: 2, seq: 1, errno: 0 }));
    assert_eq!(interrupts(&done), 1);
    assert_eq!(signals(&bench.signal(CONT)), [(18, 2)]);
    assert!(bench.read(GHOST, 0).is_empty(), "it sleeps again");
}

#[test]
fn a_stop_and_a_kill_behind_it_do_not_free_the_ghost() {
    let mut bench = Bench::running();
    bench.signal(STOP);
    bench.interrupt();
    bench.signal(KILL);
    let done = bench.node(0, 10, NodeToMaster::SignalDone(node::SignalDone { proc: 2, seq: 1, errno: 0 }));
    assert_eq!((interrupts(&done), answers(&done).len()), (0, 0));
}

#[test]
fn an_interrupt_without_a_signal_is_let_through() {
    let mut bench = Bench::running();
    assert_eq!(interrupts(&bench.interrupt()), 1);
    assert!(bench.interrupt().is_empty(), "the read has ended");
}

#[test]
fn a_stop_that_is_told_behind_the_next_continue_stops_nobody() {
    let mut bench = Bench::running();
    bench.signal(20);
    bench.signal(CONT);
    let stopped = || NodeToMaster::Stopped(node::Stopped { proc: 2, signal: 20 });
    assert!(answers(&bench.node(0, 10, stopped())).is_empty(), "the process goes on already, or is about to");
    for seq in 1..=2 {
        bench.node(0, 10, NodeToMaster::SignalDone(node::SignalDone { proc: 2, seq, errno: 0 }));
    }
    assert!(answers(&bench.node(0, 10, NodeToMaster::Continued(node::Continued { proc: 2 }))).is_empty());
    assert_eq!(answers(&bench.node(0, 10, stopped())), [Answer::Stop(20)], "this one is new");
}

#[test]
fn a_process_that_stops_itself_stops_its_ghost() {
    let mut bench = Bench::running();
    let stopped = bench.node(0, 10, NodeToMaster::Stopped(node::Stopped { proc: 2, signal: 20 }));
    assert_eq!(answers(&stopped), [Answer::Stop(20)]);
    let on = bench.node(0, 10, NodeToMaster::Continued(node::Continued { proc: 2 }));
    assert!(on.contains(&Action::ContinueGhost { process: ProcId(2), pid: GHOST }));
    assert!(bench.core.is_restless(), "until it reads");
    bench.read(GHOST, 0);
    assert!(
        bench.feed(Event::Tick).contains(&Action::ContinueLauncher { client: ClientId(1) }),
        "it may have missed it"
    );
    bench.rest();
}

#[test]
fn a_stopped_ghost_is_fetched_for_its_last_answer() {
    let mut bench = Bench::running();
    bench.node(0, 10, NodeToMaster::Stopped(node::Stopped { proc: 2, signal: 20 }));
    let actions = bench.end(9);
    assert!(actions.contains(&Action::ContinueGhost { process: ProcId(2), pid: GHOST }));
    assert!(bench.feed(Event::Tick).contains(&Action::ContinueGhost { process: ProcId(2), pid: GHOST }));
    assert_eq!(answers(&bench.read(GHOST, 0)), [Answer::Die(9)]);
    bench.feed(Event::GhostExited { ghost: 2, launcher: false, pid: 0 });
    bench.rest();
}

#[test]
fn a_dead_ghost_takes_its_process_with_it() {
    let mut bench = Bench::running();
    bench.interrupt();
    let died = bench.feed(Event::GhostExited { ghost: 2, launcher: false, pid: 0 });
    assert_eq!(signals(&died), [(9, 0)]);
    assert!(matches!(to_client(&bench.end(9))[..], [MasterToClient::Ended(_)]));
}

#[test]
fn a_client_that_calls_a_sleeping_ghost_dead_is_not_believed() {
    let mut bench = Bench::running();
    let lie = bench.say(ClientToMaster::GhostDied(client::GhostDied { rank: 0, status: 9 }));
    assert_eq!((signals(&lie), answers(&lie).len()), (vec![(9, 0)], 0));
    assert_eq!(answers(&bench.end(9)), [Answer::Die(9)], "its read is not forgotten");
}

#[test]
fn a_launch_ends_with_its_client() {
    let mut bench = Bench::running();
    let actions = bench.feed(Event::ClientGone { client: CLIENT });
    assert!(to_nodes(&actions).contains(&&MasterToNode::EndLaunch(node::EndLaunch { launch: 1, everything: false })));
    bench.end(9);
    bench.feed(Event::GhostExited { ghost: 2, launcher: false, pid: 0 });
    assert_eq!(bench.core.filled_tables(), []);
}

#[test]
fn output_passes_once_and_is_acknowledged_by_the_client() {
    let mut bench = Bench::running();
    let (node, link) = (NodeNumber(0), LinkId(10));
    let sent = bench.feed(Event::NodeData { node, link, data: output(2, 0, b"abc", false) });
    assert_eq!(sent, [Action::SendClient { client: CLIENT, data: output(0, 0, b"abc", false) }]);
    let again = bench.feed(Event::NodeData { node, link, data: output(2, 0, b"abcde", false) });
    assert_eq!(again, [Action::SendClient { client: CLIENT, data: output(0, 3, b"de", false) }]);
    let gap = bench.feed(Event::NodeData { node, link, data: output(2, 9, b"x", false) });
    assert_eq!(gap, [Action::CloseNode { node, link }]);
    let acked = bench.say(ClientToMaster::Ack(client::Ack { rank: 0, fd: 1, offset: 5 }));
    assert_eq!(to_nodes(&acked), [&MasterToNode::Ack(node::Ack { proc: 2, fd: 1, offset: 5 })]);
    let refused = bench.say(ClientToMaster::Ack(client::Ack { rank: 0, fd: 1, offset: 6 }));
    assert!(refused.contains(&Action::CloseClient { client: CLIENT }));
}

#[test]
fn a_process_is_forgotten_when_its_output_has_arrived() {
    let mut bench = Bench::running();
    let (node, link) = (NodeNumber(0), LinkId(10));
    let forget = MasterToNode::Forget(node::Forget { proc: 2 });
    assert!(!to_nodes(&bench.end(0)).contains(&&forget), "its output is still there");
    bench.feed(Event::NodeData { node, link, data: output(2, 0, b"abc", true) });
    bench.feed(Event::NodeData { node, link, data: Data { fd: 2, ..output(2, 0, b"", true) } });
    let acked = bench.say(ClientToMaster::Ack(client::Ack { rank: 0, fd: 1, offset: 3 }));
    assert!(to_nodes(&acked).contains(&&forget));
    assert_eq!(to_nodes(&bench.end(0)), [&forget], "a node that repeats it has missed that");
}

#[test]
fn input_goes_out_at_once_and_again_after_a_reconnect() {
    let mut bench = Bench::running();
    let input = |offset, bytes, eof| Data { fd: 0, ..output(ALL_RANKS, offset, bytes, eof) };
    let sent = bench.feed(Event::ClientData { client: CLIENT, data: input(0, b"abc", true) });
    assert!(matches!(&sent[..], [Action::SendNode { data, .. }] if data.id == 2 && data.eof));
    bench.disconnect(0, 10);
    let again = bench.connect(0, 12, 1000, 70, &[2]);
    let data: Vec<_> =
        again.iter().filter_map(|a| if let Action::SendNode { data, .. } = a { Some(data) } else { None }).collect();
    assert_eq!(
        data.iter().map(|d| (d.offset, d.bytes.len(), d.eof)).collect::<Vec<_>>(),
        [(0, 3, false), (3, 0, true)]
    );
    let more = bench.feed(Event::ClientData { client: CLIENT, data: input(3, b"d", false) });
    assert!(more.contains(&Action::CloseClient { client: CLIENT }), "nothing follows the end");
}

#[test]
fn input_before_there_is_a_reader_is_refused() {
    let mut bench = Bench::new();
    let stdio = vec![Stdio::Stream as i32; 3];
    let program = ProgramSpec { argv: vec!["x".into()], stdio, ..ProgramSpec::default() };
    bench.say(ClientToMaster::Launch(client::Launch {
        nodes: "0".into(),
        program: Some(program),
        ..Default::default()
    }));
    let data = Data { fd: 0, ..output(ALL_RANKS, 0, b"early", false) };
    let refused = bench.feed(Event::ClientData { client: CLIENT, data });
    assert!(refused.contains(&Action::CloseClient { client: CLIENT }), "its node would see a gap");
}

#[test]
fn what_a_cut_has_swallowed_is_said_again() {
    let mut bench = Bench::running();
    bench.signal(STOP);
    bench.signal(KILL);
    bench.disconnect(0, 10);
    bench.say(ClientToMaster::CloseStream(client::CloseStream { rank: 0, fd: 1 }));
    bench.feed(Event::ClientGone { client: CLIENT });
    let back = bench.connect(0, 12, 1000, 70, &[2]);
    assert_eq!(signals(&back), [(9, 2)], "the kill alone counts");
    let told = to_nodes(&back);
    assert!(told.contains(&&MasterToNode::CloseStream(node::CloseStream { proc: 2, fd: 1 })));
    assert!(told.contains(&&MasterToNode::EndLaunch(node::EndLaunch { launch: 1, everything: false })));
}

#[test]
fn a_request_that_was_swallowed_is_made_again() {
    let mut bench = Bench::new();
    bench.launch("0");
    bench.read(GHOST, 0);
    bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 0 });
    bench.disconnect(0, 10);
    let back = bench.connect(0, 12, 1000, 70, &[]);
    assert!(to_nodes(&back).iter().any(|m| matches!(m, MasterToNode::Spawn(_))));
}

#[test]
fn another_holder_means_that_all_is_dead() {
    let mut bench = Bench::running();
    bench.disconnect(0, 10);
    let back = bench.connect(0, 12, 2000, 0, &[]);
    let ended = to_client(&back);
    assert!(matches!(ended[..], [MasterToClient::Ended(e)] if e.lost && e.status == 9), "{ended:?}");
    assert_eq!(answers(&back), [Answer::Die(9)]);
    let welcome =
        to_nodes(&back).into_iter().find_map(|m| if let MasterToNode::Welcome(w) = m { Some(w) } else { None });
    assert_eq!(welcome.map(|w| w.epoch), Some(72), "a new epoch");
}

#[test]
fn the_verdict_waits_for_lease_and_margin_and_is_final() {
    let mut bench = Bench::running();
    bench.disconnect(0, 10);
    bench.now = LEASE + MARGIN;
    assert!(to_client(&bench.feed(Event::Tick)).is_empty());
    bench.now += Duration::from_millis(1);
    let verdict = bench.feed(Event::Tick);
    assert!(matches!(to_client(&verdict)[..], [MasterToClient::Ended(e)] if e.lost));
    assert_eq!(answers(&verdict), [Answer::Die(9)]);
    let back = bench.connect(0, 12, 1000, 70, &[2]);
    assert!(to_nodes(&back).iter().any(|m| matches!(m, MasterToNode::Welcome(w) if w.epoch != 70)), "it is fenced");
    let message = NodeToMaster::Ended(node::Ended { proc: 2, status: 0, usage: None, heir: 0 });
    assert!(to_client(&bench.node(0, 12, message)).is_empty());
    let data = output(2, 0, b"old", false);
    assert!(bench.feed(Event::NodeData { node: NodeNumber(0), link: LinkId(12), data }).is_empty());
}

#[test]
fn an_old_connection_is_not_heard() {
    let mut bench = Bench::running();
    let actions = bench.connect(0, 12, 1000, 70, &[2]);
    assert!(actions.contains(&Action::CloseNode { node: NodeNumber(0), link: LinkId(10) }));
    assert!(bench.end(0).is_empty());
    bench.disconnect(0, 10);
    assert!(bench.core.is_connected(NodeNumber(0)));
}

#[test]
fn a_node_speaks_for_itself_alone() {
    let mut bench = Bench::running();
    let message = NodeToMaster::Ended(node::Ended { proc: 2, status: 0, usage: None, heir: 0 });
    let actions = bench.node(1, 11, message);
    assert!(to_client(&actions).is_empty() && answers(&actions).is_empty());
    let data = output(2, 0, b"lie", false);
    assert!(bench.feed(Event::NodeData { node: NodeNumber(1), link: LinkId(11), data }).is_empty());
}

/// A signal to the launcher: to it alone (scope 0), or to its group (1).
fn to_launcher(sig: u16, scope: u16) -> SignalRecord {
    SignalRecord {
        kind: 1,
        flags: SignalFlags::LAUNCHER,
        ghost: 1,
        seq: 0,
        call: 0,
        value: 0,
        sig,
        scope,
        si_code: 0,
        sender_pid: 33,
        sender_uid: 1000,
        sender_euid: 1000,
        pgid: 0,
    }
}

#[test]
fn a_signal_to_the_launcher_alone_is_for_its_programs() {
    let mut bench = Bench::running();
    assert_eq!(signals(&bench.feed(Event::Signal(to_launcher(2, 0)))), [(2, 0)]);
    let shared = bench.feed(Event::Signal(to_launcher(2, 1)));
    assert!(signals(&shared).is_empty(), "each ghost has its own record of that");
}

#[test]
fn a_group_stopped_and_continued_before_its_ghosts_are_watched_runs() {
    for (sent, wanted) in [(&[20, 18][..], &[(18, 0)][..]), (&[18, 20], &[(20, 0)]), (&[20, 2, 18], &[(2, 0), (18, 0)])]
    {
        let mut bench = Bench::new();
        bench.launch("0");
        for &signal in sent {
            bench.feed(Event::Signal(to_launcher(signal, 1)));
        }
        bench.read(GHOST, 0);
        assert_eq!(signals(&bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 0 })), wanted, "{sent:?}");
    }
}

#[test]
fn the_end_waits_for_the_last_ghost() {
    let mut bench = Bench::running();
    let actions = bench.feed(Event::End);
    assert_eq!(to_nodes(&actions).iter().filter(|m| matches!(m, MasterToNode::EndAll(_))).count(), 2);
    assert!(!bench.core.is_over());
    bench.end(9);
    assert!(!bench.core.is_over(), "the ghost has its answer, and may be stopped");
    bench.feed(Event::GhostExited { ghost: 2, launcher: false, pid: 0 });
    assert!(bench.core.is_over());
}

#[test]
fn hostile_commands_are_refused() {
    let mut bench = Bench::new();
    let refused = |actions: Vec<Action>| actions.contains(&Action::CloseClient { client: CLIENT });
    let client = ClientId(9);
    bench.feed(Event::ClientJoined { client, user: User { pid: 1, uid: 5, gid: 5, groups: vec![] } });
    let message = ClientToMaster::Processes(client::ProcessesRequest {});
    assert!(bench.feed(Event::ClientSaid { client, message }).contains(&Action::CloseClient { client }), "no hello");
    assert!(refused(bench.say(ClientToMaster::Admin(client::AdminRequest { admin: None }))), "not root");
    assert!(refused(bench.say(ClientToMaster::Launch(client::Launch::default()))), "no program");
    bench.launch("0");
    assert!(refused(bench.say(ClientToMaster::Launch(client::Launch::default()))), "a second launch");
    assert!(refused(bench.say(ClientToMaster::Ack(client::Ack { rank: 0, fd: 0, offset: 0 }))), "stdin is no output");
    assert!(
        refused(bench.say(ClientToMaster::CloseStream(client::CloseStream { rank: 0, fd: 7 }))),
        "no output stream"
    );
    assert!(bench.say(ClientToMaster::Ack(client::Ack { rank: 5, fd: 1, offset: 0 })).is_empty(), "no rank");
}

/// A ghost whose process has run for a moment, with the view on; gives what the tick did.
fn shown() -> (Bench, Vec<Action>) {
    let mut bench = Bench::new();
    bench.feed(Event::ViewSwitched { on: true });
    bench.feed(Event::ViewUp);
    bench.launch("0");
    bench.read(GHOST, 0);
    bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 0 });
    bench.read(GHOST, 0);
    bench.node(0, 10, NodeToMaster::Started(node::Started { proc: 2, pid: GHOST, cwd_errno: 0, pgid: 0, sid: 0 }));
    bench.now += Duration::from_millis(199);
    let early = bench.feed(Event::Tick);
    assert!(!early.iter().any(|action| matches!(action, Action::ShowGhost { .. })), "{early:?}");
    bench.now += Duration::from_millis(1);
    let actions = bench.feed(Event::Tick);
    (bench, actions)
}

#[test]
fn views_are_shown_while_they_are_on_and_there_is_a_guard() {
    let mut bench = Bench::new();
    bench.feed(Event::ViewSwitched { on: true });
    assert!(!bench.core.shows_views());
    bench.feed(Event::ViewUp);
    assert!(bench.core.shows_views());
    bench.feed(Event::ViewSwitched { on: false });
    assert!(!bench.core.shows_views());
    bench.feed(Event::ViewSwitched { on: true });
    bench.feed(Event::ViewDown);
    assert!(!bench.core.shows_views());
}

#[test]
fn a_ghost_gets_a_view_when_it_is_not_young_any_more() {
    let (_, actions) = shown();
    let wanted = Action::ShowGhost { process: ProcId(2), pid: GHOST, uid: 1000, gid: 1000, node: NodeNumber(0) };
    assert!(actions.contains(&wanted), "{actions:?}");
}

#[test]
fn a_ghosts_last_answer_waits_for_its_view_to_be_off_but_not_for_long() {
    let answered = |actions: &[Action]| actions.iter().any(|a| matches!(a, Action::AnswerGhost { .. }));
    for hidden in [true, false] {
        let (mut bench, _) = shown();
        let actions = bench.node(0, 10, NodeToMaster::Ended(node::Ended { proc: 2, status: 0, usage: None, heir: 0 }));
        assert!(actions.contains(&Action::HideGhost { process: ProcId(2) }) && !answered(&actions), "{actions:?}");
        let actions = if hidden {
            bench.feed(Event::GhostHidden { process: ProcId(2) })
        } else {
            bench.now += Duration::from_millis(99);
            assert!(!answered(&bench.feed(Event::Tick)));
            bench.now += Duration::from_millis(1);
            bench.feed(Event::Tick)
        };
        assert!(answered(&actions), "{actions:?}");
    }
}

#[test]
fn figures_of_other_nodes_processes_are_not_believed() {
    use ghost_proto::view::{AgentToMaster, Figures, Part, ProcessFigures};
    use ghost_proto::view_port::{GhostdToServer, NodeFigures};
    let (mut bench, _) = shown();
    let said = |node, link| {
        let process = ProcessFigures { proc: 2, ..ProcessFigures::default() };
        let figures = Figures { processes: vec![process], last: true, ..Figures::default() };
        Event::AgentSaid { node: NodeNumber(node), link: LinkId(link), message: AgentToMaster::Figures(figures) }
    };
    let believed = |actions: Vec<Action>| match actions.as_slice() {
        [Action::TellView(GhostdToServer::Figures(NodeFigures { figures: Some(figures), .. }))] => {
            figures.processes.len()
        }
        [Action::TellView(GhostdToServer::Part(_))] => 1,
        [] => 0,
        other => panic!("{other:?}"),
    };
    assert_eq!(believed(bench.feed(said(0, 10))), 1);
    assert_eq!(believed(bench.feed(said(1, 11))), 0);
    let part = |node, link| {
        let part = Part { proc: 2, ..Part::default() };
        Event::AgentSaid { node: NodeNumber(node), link: LinkId(link), message: AgentToMaster::Part(part) }
    };
    assert_eq!(believed(bench.feed(part(0, 10))), 1);
    assert_eq!(believed(bench.feed(part(1, 11))), 0);
}

/// Only of a process that is shown on that node, under the number that it has there.
#[test]
fn a_part_of_a_file_is_asked_of_the_processs_own_node() {
    use ghost_proto::view::{MasterToAgent, ReadPart};
    use ghost_proto::view_port::{Fetch, ServerToGhostd};
    let (mut bench, _) = shown();
    let fetch = |node, proc| {
        let fetch = Fetch { node, proc, file: "maps".into(), reading: 7, offset: 5 };
        Event::Looked(ServerToGhostd::Fetch(fetch))
    };
    let actions = bench.feed(fetch(0, 2));
    let wanted = |message: &MasterToAgent| matches!(message, MasterToAgent::ReadPart(ReadPart { reading: 7, proc: 2, offset: 5, file, .. }) if file == "maps");
    assert!(
        matches!(&actions[..], [Action::TellAgent { node: NodeNumber(0), message, .. }] if wanted(message)),
        "{actions:?}"
    );
    assert!(bench.feed(fetch(1, 2)).is_empty());
    assert!(bench.feed(fetch(0, 3)).is_empty());
}

/// Three times Ctrl-Z, the first and the last handled by one CPU: the kernel program gives both the same number.
#[test]
fn a_call_whose_number_comes_again_is_another_one() {
    let mut bench = Bench::running();
    let mut records = 100;
    let mut group_signal = |bench: &mut Bench, call| {
        records += 1;
        bench.feed(Event::Signal(SignalRecord {
            kind: 1,
            flags: SignalFlags::KERNEL,
            ghost: 2,
            seq: records,
            call,
            value: 0,
            sig: 20,
            scope: 1,
            si_code: 0x80,
            sender_pid: 0,
            sender_uid: 0,
            sender_euid: 0,
            pgid: 0,
        }))
    };
    assert_eq!(signals(&group_signal(&mut bench, 50)), [(20, 50)]);
    assert_eq!(signals(&group_signal(&mut bench, 102)), [(20, 102)]);
    assert_eq!(signals(&group_signal(&mut bench, 50)), [(20, 103)]);
}
