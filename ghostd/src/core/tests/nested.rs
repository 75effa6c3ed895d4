//! Launches from nodes.

use bytes::Bytes;
use ghost_proto::client::{self, ClientToMaster, MakeGhost, MasterToClient, SignalRanks};
use ghost_proto::ids::{LaunchId, NodeNumber, ProcId};
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::node::{self, MasterToNode, NodeToMaster, Scope};
use ghost_proto::standin::{Origin, Original};
use ghost_sys::ghost::{Answer, Birth, Kin};

use super::super::{Action, ClientId, Event, Found, FoundGhost, FoundLauncher};
use super::transitions::{Bench, GHOST, answers, to_client, to_nodes};

/// bpsh on node 0, which is process 2 of launch 1.
const ASKER: ProcId = ProcId(2);
const COMMAND: ClientId = ClientId(9);
/// What it launches on node 1, and the ghost.
const RANK: ProcId = ProcId(4);
const RANKS_GHOST: u32 = 300;

impl Bench {
    fn nested(nodes: &str) -> (Bench, Vec<Action>) {
        let mut bench = Bench::running();
        let user = bench.core.asker(NodeNumber(0), ASKER, 1000).expect("it may ask");
        bench.feed(Event::ClientRelayed { client: COMMAND, user, process: ASKER });
        bench.there(ClientToMaster::Hello(client::Hello::default()));
        let stdio = vec![Stdio::Stream as i32; 3];
        let program = ProgramSpec { argv: vec!["/bin/prog".into()], stdio, ..ProgramSpec::default() };
        let launch = client::Launch { nodes: nodes.into(), program: Some(program), plain: true };
        let actions = bench.there(ClientToMaster::Launch(launch));
        (bench, actions)
    }

    fn there(&mut self, message: ClientToMaster) -> Vec<Action> {
        self.feed(Event::ClientSaid { client: COMMAND, message })
    }

    /// The rank's ghost is made, comes, and is watched.
    fn comes(&mut self) -> Vec<Action> {
        let actions = self.there(ClientToMaster::MakeGhost(MakeGhost { rank: 0 }));
        let birth = birth(&actions);
        let origin = Origin { parent: who(GHOST), group: who(100), session: who(90) };
        self.feed(Event::AboveLaunch { launch: LaunchId(3), origin });
        self.read(GHOST, 0);
        self.read(RANKS_GHOST, u64::from(birth.rank));
        let actions = self.feed(Event::Adopted { process: RANK, ok: true, pgid: 100 });
        self.read(RANKS_GHOST, u64::from(birth.rank));
        actions
    }

    fn started(&mut self) {
        let started = node::Started { proc: RANK.0, pid: RANKS_GHOST, cwd_errno: 0, pgid: 100, sid: 90 };
        self.node(1, 11, NodeToMaster::Started(started));
    }
}

fn who(pid: u32) -> Original {
    Original { pid, uid: 1000, comm: Bytes::new() }
}

fn birth(actions: &[Action]) -> Birth {
    match answers(actions)[..] {
        [Answer::Fork(birth)] => birth,
        ref other => panic!("no birth: {other:?}"),
    }
}

fn signals(actions: &[Action]) -> Vec<(u64, u32)> {
    let of = |m: &&MasterToNode| if let MasterToNode::Signal(s) = m { Some((s.proc, s.signal)) } else { None };
    to_nodes(actions).iter().filter_map(of).collect()
}

#[test]
fn the_askers_ghost_makes_the_ranks() {
    let (mut bench, launched) = Bench::nested("1");
    let [MasterToClient::Launched(plan)] = to_client(&launched)[..] else { panic!("{launched:?}") };
    assert!(plan.makes_ghosts && plan.launch == 3);
    assert!(!launched.iter().any(|action| matches!(action, Action::OpenPin { .. } | Action::Launched { .. })));

    let actions = bench.there(ClientToMaster::MakeGhost(MakeGhost { rank: 0 }));
    let above = |action: &Action| *action == Action::LookAbove { launch: LaunchId(3), pid: GHOST, uid: 1000 };
    let begets = |action: &Action| matches!(action, Action::Beget { maker: GHOST, process: RANK, .. });
    let [looks, makes] = [actions.iter().position(above), actions.iter().position(begets)];
    assert!(looks.is_some() && looks < makes, "{actions:?}");
    let birth = birth(&actions);
    assert_eq!((birth.pid, birth.kin, &birth.comm[..5]), (0, Kin::Child, &b"prog\0"[..]));
    assert!(birth.rank > 0, "it has a seat of its own in the launch in whose memory it lives");

    let origin = Origin { parent: who(GHOST), group: who(100), session: who(90) };
    bench.feed(Event::AboveLaunch { launch: LaunchId(3), origin: origin.clone() });
    bench.read(GHOST, 0);
    let actions = bench.read(RANKS_GHOST, u64::from(birth.rank));
    assert!(
        matches!(actions[..], [Action::Adopt { process: RANK, parent: Some(GHOST), uid: 1000, .. }]),
        "{actions:?}"
    );
    let actions = bench.feed(Event::Adopted { process: RANK, ok: true, pgid: 100 });
    let [MasterToNode::Spawn(spawn)] = to_nodes(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((spawn.proc, spawn.launch, spawn.rank, spawn.pid), (RANK.0, 3, 0, RANKS_GHOST));
    assert_eq!(spawn.credentials.as_ref().map(|c| (c.uid, c.groups.clone())), Some((1000, vec![1000])));
}

#[test]
fn the_askers_ghost_waits_for_the_ranks() {
    let (mut bench, _) = Bench::nested("1");
    bench.comes();
    bench.started();
    let ended = NodeToMaster::Ended(node::Ended { proc: RANK.0, status: 7 << 8, usage: None, heir: 0 });
    let actions = bench.node(1, 11, ended);
    assert!(matches!(to_client(&actions)[..], [MasterToClient::Ended(client::Ended { rank: 0, .. })]), "{actions:?}");
    assert_eq!(answers(&actions), [Answer::Exit(7)]);
    let actions = bench.feed(Event::GhostExited { ghost: RANK.0, launcher: false, pid: RANKS_GHOST });
    assert_eq!(answers(&actions), [Answer::Reap(RANKS_GHOST)]);
    bench.read(GHOST, 0);
    bench.feed(Event::ClientGone { client: COMMAND });
    assert!(!bench.core.launches.contains_key(&LaunchId(3)), "nothing is left of it");
    assert!(bench.core.launches.contains_key(&LaunchId(1)));
}

#[test]
fn what_is_launched_ends_with_the_askers_process() {
    let (mut bench, _) = Bench::nested("1");
    bench.comes();
    bench.started();
    let actions = bench.end(9);
    let end = MasterToNode::EndLaunch(node::EndLaunch { launch: 3, everything: false });
    assert!(to_nodes(&actions).contains(&&end), "{actions:?}");
}

#[test]
fn what_was_never_begun_leaves_nothing() {
    let (mut bench, _) = Bench::nested("1,1");
    let birth = birth(&bench.there(ClientToMaster::MakeGhost(MakeGhost { rank: 0 })));
    bench.feed(Event::ClientGone { client: COMMAND });
    // Its ghost was being made.
    bench.read(GHOST, 0);
    bench.read(RANKS_GHOST, u64::from(birth.rank));
    bench.feed(Event::Adopted { process: RANK, ok: true, pgid: 100 });
    let actions = bench.read(RANKS_GHOST, u64::from(birth.rank));
    assert_eq!(answers(&actions), [Answer::Exit(125)]);
    let actions = bench.feed(Event::GhostExited { ghost: RANK.0, launcher: false, pid: RANKS_GHOST });
    assert_eq!(answers(&actions), [Answer::Reap(RANKS_GHOST)]);
    assert!(!bench.core.launches.contains_key(&LaunchId(3)));
}

#[test]
fn a_rank_that_nobody_can_make_is_not_started() {
    let (mut bench, _) = Bench::nested("1");
    let mut actions = bench.there(ClientToMaster::MakeGhost(MakeGhost { rank: 0 }));
    for _ in 0..20 {
        if let [Answer::Fork(_)] = answers(&actions)[..] {
            // EAGAIN: too many processes of the user.
            actions = bench.read_with(GHOST, 11);
        } else {
            bench.now += std::time::Duration::from_millis(100);
            actions = bench.feed(Event::Tick);
        }
        if let [MasterToClient::StartFailed(failed)] = to_client(&actions)[..] {
            assert_eq!(failed.errno, 11);
            return;
        }
    }
    panic!("nothing is said: {actions:?}");
}

#[test]
fn signals_to_the_asker_are_for_its_ranks() {
    let (mut bench, _) = Bench::nested("1");
    bench.comes();
    bench.started();
    let actions = bench.signal(15);
    assert_eq!(signals(&actions), [(ASKER.0, 15), (RANK.0, 15)], "bpsh there knows what it means");
    assert_eq!(signals(&bench.signal(9)), [(ASKER.0, 9)]);
    let actions = bench.there(ClientToMaster::SignalRanks(SignalRanks { rank: None, signal: 10 }));
    let [MasterToNode::Signal(signal)] = to_nodes(&actions)[..] else { panic!("{actions:?}") };
    let sent = (signal.proc, signal.signal, signal.sender_uid, signal.privileged);
    assert_eq!(sent, (RANK.0, 10, 1000, false), "with its user's rights and no more");
    assert_eq!(signal.scope, Scope::Process as i32);
    for signal in [0, 65] {
        assert_eq!(signals(&bench.there(ClientToMaster::SignalRanks(SignalRanks { rank: None, signal }))), []);
    }
}

#[test]
fn the_asker_is_told_what_stands_still_and_is_continued_by_it() {
    let (mut bench, _) = Bench::nested("1");
    bench.comes();
    bench.started();
    let stopped = bench.node(1, 11, NodeToMaster::Stopped(node::Stopped { proc: RANK.0, signal: 20 }));
    assert!(matches!(
        to_client(&stopped)[..],
        [MasterToClient::RankStopped(client::RankStopped { rank: 0, signal: 20 })]
    ));
    // It stops itself, then.
    bench.node(0, 10, NodeToMaster::Stopped(node::Stopped { proc: ASKER.0, signal: 20 }));
    let continued = bench.node(1, 11, NodeToMaster::Continued(node::Continued { proc: RANK.0 }));
    assert!(to_client(&continued).iter().any(|message| matches!(message, MasterToClient::RankContinued(_))));
    assert_eq!(signals(&continued), [(ASKER.0, 18)]);
}

#[test]
fn another_ghostd_ends_what_nodes_have_launched() {
    let mut bench = Bench::new();
    let node = |number: u32, place: u32| number | place << 16;
    let ghosts = vec![
        FoundGhost { process: ASKER, tag: node(0, 0), pid: GHOST, ppid: 100, pgid: 100, killed: false, exited: false },
        FoundGhost { process: RANK, tag: node(1, 1), pid: 300, ppid: GHOST, pgid: 100, killed: false, exited: false },
    ];
    let launcher = FoundLauncher { launch: LaunchId(1), pid: 100, uid: 1000, gid: 1000, exited: false, origin: None };
    let nodes = vec![(NodeNumber(0), 70, 1000), (NodeNumber(1), 71, 1001)];
    bench.feed(Event::Found(Found { ghosts, launchers: vec![launcher], nodes, ..Found::default() }));
    let actions = bench.connect(1, 21, 1001, 71, &[RANK.0]);
    assert_eq!(signals(&actions), [(RANK.0, 9)]);
    let ended = NodeToMaster::Ended(node::Ended { proc: RANK.0, status: 9, usage: None, heir: 0 });
    bench.node(1, 21, NodeToMaster::Started(node::Started { proc: RANK.0, pid: 300, cwd_errno: 0, pgid: 0, sid: 0 }));
    bench.node(1, 21, ended);
    let process = bench.core.processes.get(&RANK).expect("its ghost is still there");
    assert!(process.remote.is_over() && process.verdict.is_none());
}
