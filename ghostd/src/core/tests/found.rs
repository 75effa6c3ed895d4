//! A ghostd that comes after another one, in a single thread of events.

use std::time::Duration;

use bytes::Bytes;
use ghost_abi::SignalRecord;
use ghost_host::pin::ReadToken;
use ghost_proto::client::{self, ClientToMaster, MasterToClient};
use ghost_proto::frame::{ALL_RANKS, Data};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::launch::Stdio;
use ghost_proto::node::{self, MasterToNode, NodeHello, NodeToMaster};
use ghost_proto::standin::{Origin, Original, Sent};
use ghost_proto::tree::{Forked, Standing, forked_id};
use ghost_sys::ghost::{Answer, Kill, KillKind, RANK_SHIFT};

use super::super::{Action, ClientId, Core, Event, Found, FoundGhost, FoundLauncher, LinkId, Settings, User};
use super::FourNodes;

const EPOCH: u64 = 70;
const HOLDER: u64 = 1000;
const GHOST: u32 = 200;
const BPSH: u32 = 100;
const LAUNCH: u64 = 1;
const PROCESS: ProcId = ProcId(2);
const CLIENT: ClientId = ClientId(1);
const LINK: LinkId = LinkId(10);
const NODE: NodeNumber = NodeNumber(0);
const LEASE: Duration = Duration::from_secs(15);
const MARGIN: Duration = Duration::from_secs(5);

struct Bench {
    core: Core,
    now: Duration,
}

fn origin() -> Origin {
    let original = |pid: u32, comm: &'static str| Original { pid, uid: 1000, comm: comm.into() };
    Origin { parent: original(BPSH, "bpsh"), group: original(BPSH, "bpsh"), session: original(50, "bash") }
}

fn ghost() -> FoundGhost {
    FoundGhost { process: PROCESS, tag: 0, pid: GHOST, ppid: BPSH, pgid: BPSH, killed: false, exited: false }
}

fn settings() -> Settings {
    Settings {
        epoch: 99,
        lease: LEASE,
        margin: MARGIN,
        program: "ghostd test".into(),
        view: false,
        node_up: false,
        first_id: 2 << 40,
    }
}

impl Bench {
    /// Launch 1 with process 2 on node 0, whose ghost sleeps (read 1 on file 5).
    fn new(ghosts: Vec<FoundGhost>) -> Bench {
        let settings = settings();
        let mut bench = Bench { core: Core::new(settings), now: Duration::ZERO };
        let launchers = vec![FoundLauncher {
            launch: LaunchId(LAUNCH),
            pid: BPSH,
            uid: 1000,
            gid: 1000,
            exited: false,
            origin: Some(origin()),
        }];
        let asleep = !ghosts.is_empty();
        bench.feed(Event::Found(Found { ghosts, launchers, nodes: vec![(NODE, EPOCH, HOLDER)], ..Found::default() }));
        if asleep {
            let read = bench.read(1);
            assert!(read.is_empty(), "{read:?}");
        }
        bench
    }

    fn feed(&mut self, event: Event) -> Vec<Action> {
        self.core.handle(event, self.now, &FourNodes)
    }

    fn read(&mut self, unique: u64) -> Vec<Action> {
        let token = ReadToken::for_test(unique);
        self.feed(Event::PinRead { token, file: 5, pid: GHOST, offset: 0 << RANK_SHIFT })
    }

    /// The node is back, and holds these.
    fn connect(&mut self, held: &[(u64, u64)]) -> Vec<Action> {
        let held = held.iter().map(|&(proc, launch)| node::HeldProcess { proc, launch, uid: 1000, pid: 1, stdin: 300 });
        let hello = NodeHello { epoch: EPOCH, holder: HOLDER, processes: held.collect(), ..NodeHello::default() };
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        self.feed(Event::NodeConnected { node: NODE, link: LINK, hello, address })
    }

    fn node(&mut self, message: NodeToMaster) -> Vec<Action> {
        self.feed(Event::NodeSaid { node: NODE, link: LINK, message })
    }

    fn started(&mut self) {
        self.node(NodeToMaster::Started(node::Started { proc: PROCESS.0, pid: GHOST, cwd_errno: 0, pgid: 0, sid: 0 }));
    }

    fn ended(&mut self) -> Vec<Action> {
        self.node(NodeToMaster::Ended(node::Ended { proc: PROCESS.0, status: 7 << 8, usage: None, heir: 0 }))
    }

    fn output(&mut self, offset: u64, text: &'static str, eof: bool) -> Vec<Action> {
        let data = Data { id: PROCESS.0, offset, fd: 1, eof, bytes: Bytes::from(text) };
        self.feed(Event::NodeData { node: NODE, link: LINK, data })
    }

    /// The command is back. It has got 6 bytes of output, and written out 4.
    fn resume(&mut self, launch: Option<u64>) -> Vec<Action> {
        self.resume_with(launch, false)
    }

    /// The same; `over`: it knows how the process has ended.
    fn resume_with(&mut self, launch: Option<u64>, over: bool) -> Vec<Action> {
        let user = User { pid: BPSH, uid: 1000, gid: 1000, groups: vec![1000] };
        self.feed(Event::ClientJoined { client: CLIENT, user });
        let features = vec![client::RESUME.to_owned()];
        let hello = ClientToMaster::Hello(client::Hello { features, ..client::Hello::default() });
        self.feed(Event::ClientSaid { client: CLIENT, message: hello });
        let outputs = vec![
            client::ResumedOutput { received: 6, consumed: 4, done: false },
            client::ResumedOutput { received: 0, consumed: 0, done: true },
        ];
        let ranks = vec![client::ResumedRank { node: 0, over, reads: !over, outputs, taken: 100 }];
        let message =
            client::Resume { launch: LAUNCH, stdio: vec![Stdio::Stream as i32; 3], stdin: 100, ranks, sent: 300 };
        self.feed(Event::Resume { client: CLIENT, launch: launch.map(LaunchId), message })
    }
}

fn told(actions: &[Action]) -> Vec<&MasterToClient> {
    let told = |action: &'_ Action| matches!(action, Action::TellClient { .. });
    actions
        .iter()
        .filter(|action| told(action))
        .map(|action| match action {
            Action::TellClient { message, .. } => message,
            _ => unreachable!("filtered"),
        })
        .collect()
}

fn bytes(actions: &[Action]) -> Vec<(u64, Bytes, bool)> {
    let data = |action: &Action| match action {
        Action::SendClient { data, .. } => Some((data.offset, data.bytes.clone(), data.eof)),
        _ => None,
    };
    actions.iter().filter_map(data).collect()
}

fn acks(actions: &[Action]) -> Vec<(u32, u64)> {
    let ack = |action: &Action| match action {
        Action::TellNode { message: MasterToNode::Ack(ack), .. } => Some((ack.fd, ack.offset)),
        _ => None,
    };
    actions.iter().filter_map(ack).collect()
}

fn is_forgotten(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::TellNode { message: MasterToNode::Forget(_), .. }))
}

/// Whoever comes first, node or command: output goes on where the command has it, and is acknowledged where it has written it.
#[test]
fn output_goes_on_where_it_was() {
    let mut bench = Bench::new(vec![ghost()]);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    // Acknowledged up to 2: it comes again from there, and waits.
    assert!(bytes(&bench.output(2, "cdefgh", false)).is_empty());
    let back = bench.resume(Some(LAUNCH));
    assert!(
        matches!(told(&back)[..], [_, MasterToClient::Resumed(_), ..] | [MasterToClient::Resumed(_), ..]),
        "{back:?}"
    );
    assert_eq!(bytes(&back), [(6, Bytes::from("gh"), false)]);
    assert_eq!(acks(&back), [(1, 4)]);

    let mut bench = Bench::new(vec![ghost()]);
    bench.resume(Some(LAUNCH));
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    let came = bench.output(2, "cdefgh", false);
    assert_eq!((bytes(&came), acks(&came)), (vec![(6, Bytes::from("gh"), false)], vec![(1, 4)]));
    // What it writes out before it comes again counts when it does.
    let mut bench = Bench::new(vec![ghost()]);
    bench.resume(Some(LAUNCH));
    let early = ClientToMaster::Ack(client::Ack { rank: 0, fd: 1, offset: 6 });
    assert!(bench.feed(Event::ClientSaid { client: CLIENT, message: early }).is_empty());
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    assert_eq!(acks(&bench.output(2, "cdefgh", true)), [(1, 6)]);
}

/// All that was sent before has been taken, and nobody had said so yet: the command learns it, or it would wait for ever.
#[test]
fn input_goes_on_where_it_was() {
    let taken = |actions: &[Action]| {
        let told = told(actions);
        told.iter().any(|m| matches!(m, MasterToClient::Ack(ack) if ack.fd == 0 && ack.offset == 300))
    };
    let mut bench = Bench::new(vec![ghost()]);
    bench.resume(Some(LAUNCH));
    assert!(taken(&bench.connect(&[(PROCESS.0, LAUNCH)])));
    let mut bench = Bench::new(vec![ghost()]);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    assert!(taken(&bench.resume(Some(LAUNCH))));
    // What comes again has been taken; what is new goes to the node.
    for (offset, length) in [(100, 200), (300, 50)] {
        let data = Data { id: ALL_RANKS, offset, fd: 0, eof: false, bytes: vec![7; length].into() };
        let actions = bench.feed(Event::ClientData { client: CLIENT, data });
        assert!(matches!(actions[..], [Action::SendNode { .. }]), "{actions:?}");
    }
    let ack = NodeToMaster::Ack(node::Ack { proc: PROCESS.0, fd: 0, offset: 350 });
    assert_eq!(told(&bench.node(ack)), [&MasterToClient::Ack(client::Ack { rank: 0, fd: 0, offset: 350 })]);
}

#[test]
fn a_status_is_told_until_it_is_noted() {
    let mut bench = Bench::new(vec![ghost()]);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    let ended = bench.ended();
    assert!(
        ended.contains(&Action::AnswerGhost { token: ReadToken::for_test(1), answer: Answer::Exit(7) }),
        "{ended:?}"
    );
    bench.output(2, "cdef", true);
    let back = bench.resume(Some(LAUNCH));
    assert!(
        told(&back).iter().any(|m| matches!(m, MasterToClient::Ended(ended) if ended.status == 7 << 8)),
        "{back:?}"
    );
    assert!(!is_forgotten(&back));
    let noted = ClientToMaster::Noted(client::Noted { rank: 0 });
    assert!(
        !is_forgotten(&bench.feed(Event::ClientSaid { client: CLIENT, message: noted })),
        "its output is not written out"
    );
    let ack = ClientToMaster::Ack(client::Ack { rank: 0, fd: 1, offset: 6 });
    assert!(is_forgotten(&bench.feed(Event::ClientSaid { client: CLIENT, message: ack })));
}

#[test]
fn a_process_that_its_node_does_not_hold_was_never_begun() {
    let mut bench = Bench::new(vec![ghost()]);
    bench.resume(Some(LAUNCH));
    let actions = bench.connect(&[]);
    assert!(told(&actions).iter().any(|m| matches!(m, MasterToClient::StartFailed(_))), "{actions:?}");
    assert!(actions.contains(&Action::AnswerGhost { token: ReadToken::for_test(1), answer: Answer::Exit(125) }));
    assert!(!actions.iter().any(|a| matches!(a, Action::TellNode { message: MasterToNode::Spawn(_), .. })));
}

#[test]
fn a_process_whose_ghost_is_gone_is_killed() {
    let mut bench = Bench::new(vec![]);
    let actions = bench.connect(&[(PROCESS.0, LAUNCH)]);
    let kill = |a: &Action| matches!(a, Action::TellNode { message: MasterToNode::Signal(s), .. } if s.signal == 9);
    assert!(actions.iter().any(kill), "{actions:?}");
}

#[test]
fn what_a_dead_command_launched_is_ended() {
    let mut bench = Bench::new(vec![]);
    let actions = bench.connect(&[(50, 49)]);
    let end = |a: &Action| matches!(a, Action::TellNode { message: MasterToNode::EndLaunch(e), .. } if e.launch == 49);
    assert!(actions.iter().any(end), "{actions:?}");
    // One that dies before it has come back, too.
    let mut bench = Bench::new(vec![ghost()]);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    let gone = bench.feed(Event::GhostExited { ghost: LAUNCH, launcher: true, pid: BPSH });
    let end =
        |a: &Action| matches!(a, Action::TellNode { message: MasterToNode::EndLaunch(e), .. } if e.launch == LAUNCH);
    assert!(gone.iter().any(end), "{gone:?}");
}

/// It is a zombie: of its end no record may come any more, and that is what its launch would wait for.
#[test]
fn what_a_command_launched_that_is_dead_already_is_ended() {
    let mut bench = Bench { core: Core::new(settings()), now: Duration::ZERO };
    let launcher =
        FoundLauncher { launch: LaunchId(LAUNCH), pid: BPSH, uid: 1000, gid: 1000, exited: true, origin: None };
    let ghost = FoundGhost { ppid: 1, ..ghost() };
    bench.feed(Event::Found(Found {
        ghosts: vec![ghost],
        launchers: vec![launcher],
        nodes: vec![(NODE, EPOCH, HOLDER)],
        ..Found::default()
    }));
    let actions = bench.connect(&[(PROCESS.0, LAUNCH)]);
    let end =
        |a: &Action| matches!(a, Action::TellNode { message: MasterToNode::EndLaunch(e), .. } if e.launch == LAUNCH);
    assert!(actions.iter().any(end), "{actions:?}");
}

/// The command has the status, and waits for the end of the output: it gets that from whoever is left to say it.
#[test]
fn output_of_a_process_that_has_ended_comes_to_an_end() {
    let end = [(6, Bytes::new(), true)];
    // The node was told to forget it: all bytes had been acknowledged, only their end was lost on its way to the command.
    let mut bench = Bench::new(vec![]);
    bench.resume_with(Some(LAUNCH), true);
    let actions = bench.connect(&[]);
    assert_eq!((bytes(&actions), told(&actions)), (end.to_vec(), vec![]));
    let mut bench = Bench::new(vec![]);
    bench.connect(&[]);
    assert_eq!(bytes(&bench.resume_with(Some(LAUNCH), true)), end);
    // The node is lost, before the command comes or after.
    for before in [true, false] {
        let mut bench = Bench::new(vec![]);
        let mut came = Vec::new();
        if !before {
            came = bench.resume_with(Some(LAUNCH), true);
        }
        bench.now = LEASE + MARGIN + Duration::from_millis(1);
        came.extend(bench.feed(Event::Tick));
        if before {
            came.extend(bench.resume_with(Some(LAUNCH), true));
        }
        assert_eq!(bytes(&came), end, "lost before: {before}");
        assert!(!told(&came).iter().any(|m| matches!(m, MasterToClient::Ended(_) | MasterToClient::StartFailed(_))));
    }
    // Its ghost is still there.
    let mut bench = Bench::new(vec![ghost()]);
    bench.now = LEASE + MARGIN + Duration::from_millis(1);
    bench.feed(Event::Tick);
    assert_eq!(bytes(&bench.resume_with(Some(LAUNCH), true)), end);
    // The node still has it: what the command has got already does not come again.
    let mut bench = Bench::new(vec![]);
    bench.resume_with(Some(LAUNCH), true);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    assert!(told(&bench.ended()).is_empty());
    let output = bench.output(4, "efgh", true);
    assert_eq!(bytes(&output), [(6, Bytes::from("gh"), true)]);
}

/// All its ghosts are stopped, or dead: none of them tells which file is the launch's.
#[test]
fn input_is_taken_before_a_ghost_reads() {
    let mut bench = Bench::new(vec![]);
    bench.feed(Event::Found(Found { ghosts: vec![ghost()], ..Found::default() }));
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    bench.resume(Some(LAUNCH));
    let data = Data { id: ALL_RANKS, offset: 100, fd: 0, eof: false, bytes: vec![7; 300].into() };
    let actions = bench.feed(Event::ClientData { client: CLIENT, data });
    assert!(matches!(actions[..], [Action::SendNode { .. }]), "{actions:?}");
}

/// Its last word to the node was lost with the connection: the node's second hello is no reason to begin again with it.
#[test]
fn what_is_forgotten_stays_so() {
    let mut bench = Bench::new(vec![ghost()]);
    bench.resume_with(Some(LAUNCH), true);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    bench.ended();
    bench.feed(Event::GhostExited { ghost: PROCESS.0, launcher: false, pid: GHOST });
    let output = bench.output(6, "", true);
    let ack = ClientToMaster::Ack(client::Ack { rank: 0, fd: 1, offset: 6 });
    let acked = bench.feed(Event::ClientSaid { client: CLIENT, message: ack });
    assert!(is_forgotten(&output) || is_forgotten(&acked), "{output:?} {acked:?}");
    bench.feed(Event::NodeDisconnected { node: NODE, link: LINK });
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    let again = bench.ended();
    assert!(told(&again).is_empty(), "{again:?}");
    assert!(is_forgotten(&again), "{again:?}");
}

#[test]
fn a_node_that_stays_away_is_lost() {
    let mut bench = Bench::new(vec![ghost()]);
    bench.resume(Some(LAUNCH));
    bench.now = LEASE + MARGIN;
    assert!(told(&bench.feed(Event::Tick)).is_empty());
    bench.now += Duration::from_millis(1);
    let lost = bench.feed(Event::Tick);
    assert!(told(&lost).iter().any(|m| matches!(m, MasterToClient::Ended(ended) if ended.lost)), "{lost:?}");
    assert!(lost.contains(&Action::NoteNode { node: NODE, epoch: 0, holder: 0 }));
    assert!(lost.contains(&Action::AnswerGhost { token: ReadToken::for_test(1), answer: Answer::Die(9) }));
}

#[test]
fn a_launch_is_the_commands_that_the_kernel_knows() {
    for other in [None, Some(7)] {
        let mut bench = Bench::new(vec![ghost()]);
        let refused = bench.resume(other);
        assert!(told(&refused).iter().any(|m| matches!(m, MasterToClient::Refused(_))), "{refused:?}");
        assert!(refused.contains(&Action::CloseClient { client: CLIENT }));
    }
    // It comes back once.
    let mut bench = Bench::new(vec![ghost()]);
    bench.resume(Some(LAUNCH));
    assert!(told(&bench.resume(Some(LAUNCH))).iter().any(|m| matches!(m, MasterToClient::Refused(_))));
}

/// A command claims a rank whose name is another launch's process: it gets nothing of it.
#[test]
fn a_command_cannot_claim_another_launchs_process() {
    let mut bench = Bench::new(vec![]);
    bench.resume(Some(LAUNCH));
    let actions = bench.connect(&[(PROCESS.0, 77)]);
    assert!(told(&actions).iter().any(|m| matches!(m, MasterToClient::StartFailed(_))), "{actions:?}");
    bench.started();
    assert!(bytes(&bench.output(0, "secret", false)).is_empty());
    assert!(told(&bench.ended()).is_empty());
}

#[test]
fn signals_that_were_acted_on_before_are_sent_under_the_same_names() {
    let mut bench = Bench::new(vec![ghost()]);
    let record = |seq| SignalRecord {
        kind: 1,
        flags: 0,
        ghost: PROCESS.0,
        seq,
        call: 0,
        value: 0,
        sig: 15,
        scope: 0,
        si_code: 0,
        sender_pid: 33,
        sender_uid: 1000,
        sender_euid: 1000,
        pgid: 0,
    };
    bench.feed(Event::Signal(record(40)));
    bench.feed(Event::Signal(record(41)));
    let actions = bench.connect(&[(PROCESS.0, LAUNCH)]);
    let names = actions.iter().filter_map(|action| match action {
        Action::TellNode { message: MasterToNode::Signal(signal), .. } => Some(signal.seq),
        _ => None,
    });
    // The first may have been delivered already: the second is not merged with it.
    assert_eq!(names.collect::<Vec<_>>(), [40, 41]);
}

#[test]
fn who_asks_for_nodes_waits_for_those_that_are_on_their_way() {
    let mut bench = Bench::new(vec![ghost()]);
    assert!(bench.core.is_gathering(Duration::from_millis(10)));
    assert!(!bench.core.is_gathering(Duration::from_secs(4)), "not for ever");
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    assert!(!bench.core.is_gathering(Duration::from_millis(10)), "all are here");
}

#[test]
fn what_has_begun_is_seen() {
    let mut bench = Bench::new(vec![ghost()]);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    let asks = ClientId(7);
    assert!(bench.core.is_starting(asks), "the node has not said that the process runs");
    bench.started();
    assert!(!bench.core.is_starting(asks), "nothing has");
    let user = User { pid: 900, uid: 0, gid: 0, groups: vec![] };
    bench.feed(Event::ClientJoined { client: asks, user: user.clone() });
    assert!(!bench.core.is_starting(asks), "but the one that asks");
    bench.feed(Event::ClientJoined { client: ClientId(8), user });
    assert!(bench.core.is_starting(asks), "one that has not said what it wants");
    bench.feed(Event::ClientGone { client: ClientId(8) });
    assert!(!bench.core.is_starting(asks), "it is gone");
}

fn is_killed(actions: &[Action], id: ProcId) -> bool {
    let kill = |a: &Action| matches!(a, Action::TellNode { message: MasterToNode::Signal(s), .. } if s.proc == id.0 && s.signal == 9);
    actions.iter().any(kill)
}

/// A process that was forked under the ghostd before; its parent, process 2's, ghost may have made its ghost.
const CHILD: ProcId = forked_id(NODE, 1);

fn forked(launch: u64) -> NodeToMaster {
    let standing = Some(Standing { pgid: 300, sid: 1, uid: 1000, gid: 1000, comm: Bytes::new() });
    NodeToMaster::Forked(Forked { proc: CHILD.0, parent: PROCESS.0, launch, pid: 300, standing, creator: 0 })
}

/// Its ghost is dead, its command as well: nothing here tells of it but its node.
#[test]
fn a_forked_process_without_a_ghost_is_killed() {
    let mut bench = Bench::new(vec![]);
    bench.connect(&[(CHILD.0, 49)]);
    let told = bench.node(forked(49));
    assert!(is_killed(&told, CHILD), "{told:?}");
    bench.node(NodeToMaster::Ended(node::Ended { proc: CHILD.0, status: 9, usage: None, heir: 0 }));
    // A ghost of it might have been on its way.
    for _ in 0..40 {
        bench.now += Duration::from_millis(10);
        bench.feed(Event::Tick);
    }
    let known = |id: &u64| bench.core.launches.contains_key(&LaunchId(*id));
    assert_eq!([49, LAUNCH].iter().filter(|id| known(id)).count(), 1, "it has taken its launch with it");
    // Of a launch that this ghostd has not given yet nobody else can know.
    bench.node(forked(3 << 40));
    assert!(!bench.core.processes.contains_key(&CHILD));
}

/// The maker of one had kept ghostd waiting, and another maker was asked.
#[test]
fn of_two_ghosts_for_one_process_the_living_one_counts() {
    let late = FoundGhost { pid: GHOST + 1, exited: true, ..ghost() };
    let mut bench = Bench::new(vec![late, ghost()]);
    let other = bench.feed(Event::GhostExited { ghost: PROCESS.0, launcher: false, pid: GHOST + 1 });
    assert!(other.is_empty(), "{other:?}");
    bench.resume(Some(LAUNCH));
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    bench.ended();
    bench.feed(Event::GhostExited { ghost: PROCESS.0, launcher: false, pid: GHOST });
    bench.feed(Event::ClientGone { client: CLIENT });
    assert_eq!(bench.core.filled_tables(), []);
}

/// Numbers do not tell who came first: the parent may be found after its child.
#[test]
fn a_zombie_goes_with_its_parent_in_whatever_order_they_are_found() {
    let zombie = FoundGhost { process: CHILD, tag: 0, pid: 50, ppid: GHOST, pgid: BPSH, killed: false, exited: true };
    let mut bench = Bench::new(vec![zombie, ghost()]);
    bench.resume(Some(LAUNCH));
    // Neither is held by the node any more.
    bench.connect(&[]);
    bench.feed(Event::GhostExited { ghost: PROCESS.0, launcher: false, pid: GHOST });
    bench.feed(Event::ClientGone { client: CLIENT });
    assert_eq!(bench.core.filled_tables(), []);
}

#[test]
fn a_view_is_put_on_once() {
    let mut bench = Bench { core: Core::new(Settings { view: true, ..settings() }), now: Duration::ZERO };
    bench.feed(Event::Found(Found {
        ghosts: vec![ghost()],
        launchers: vec![],
        nodes: vec![(NODE, EPOCH, HOLDER)],
        ..Found::default()
    }));
    bench.feed(Event::ViewUp);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    bench.core.view_born(PROCESS);
    bench.now = Duration::from_secs(1);
    let shown = bench.feed(Event::Tick);
    assert_eq!(shown.iter().filter(|a| matches!(a, Action::ShowGhost { .. })).count(), 1, "{shown:?}");
}

/// Its parent is dead, so that nothing but the file on which it sleeps tells of which launch it is, until its node is back.
#[test]
fn an_orphaned_ghost_is_not_refused() {
    let orphan = FoundGhost { process: CHILD, tag: 0, pid: 300, ppid: 1, pgid: BPSH, killed: false, exited: false };
    let mut bench = Bench::new(vec![ghost(), orphan]);
    let read = |unique| {
        let token = ReadToken::for_test(unique);
        Event::PinRead { token, file: 5, pid: 300, offset: 7 << RANK_SHIFT }
    };
    let armed = bench.feed(read(2));
    assert_eq!(armed, [Action::AnswerGhost { token: ReadToken::for_test(2), answer: Answer::Armed }]);
    assert_eq!(bench.feed(read(3)), []);
    bench.connect(&[(PROCESS.0, LAUNCH), (CHILD.0, LAUNCH)]);
    assert!(!is_killed(&bench.node(forked(LAUNCH)), CHILD));
}

/// The ghostd before has noted that the node is lost, and was killed before it had told all its ghosts.
#[test]
fn a_ghost_whose_node_was_lost_already_ends() {
    let mut bench = Bench { core: Core::new(settings()), now: Duration::ZERO };
    let launchers =
        vec![FoundLauncher { launch: LaunchId(LAUNCH), pid: BPSH, uid: 1000, gid: 1000, exited: false, origin: None }];
    bench.feed(Event::Found(Found { ghosts: vec![ghost()], launchers, ..Found::default() }));
    assert_eq!(bench.read(1), [Action::AnswerGhost { token: ReadToken::for_test(1), answer: Answer::Die(9) }]);
    let back = bench.resume(Some(LAUNCH));
    assert!(told(&back).iter().any(|m| matches!(m, MasterToClient::Ended(ended) if ended.lost)), "{back:?}");
}

#[test]
fn a_signal_upwards_that_was_sent_while_there_was_no_ghostd_is_sent_before_its_senders_end() {
    let mut bench = Bench::new(vec![ghost()]);
    bench.connect(&[(PROCESS.0, LAUNCH)]);
    bench.started();
    let (target, value, seq) = (BPSH, 0, 9);
    let sent = Sent { proc: PROCESS.0, target, group: false, signal: 10, code: 0, value, seq, settled: seq };
    let actions = bench.node(NodeToMaster::Sent(sent));
    let killed = Answer::Kill(Kill { target: BPSH.cast_signed(), signal: 10, kind: KillKind::Kill, value: 0 });
    assert!(
        actions.iter().any(|action| matches!(action, Action::AnswerGhost { answer, .. } if *answer == killed)),
        "{actions:?}"
    );
    assert!(
        !bench.ended().iter().any(|action| matches!(action, Action::AnswerGhost { .. })),
        "its ghost is at it still"
    );
    assert!(bench.read(2).iter().any(|action| matches!(action, Action::AnswerGhost { answer: Answer::Exit(7), .. })));
}
