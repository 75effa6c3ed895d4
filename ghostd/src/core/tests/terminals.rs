//! Terminals on nodes: who has them, and the sizes of their windows.

use ghost_abi::{SignalFlags, SignalRecord};
use ghost_proto::client::{ClientToMaster, Launch, MasterToClient};
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::node::{HeldProcess, MasterToNode, NodeHello, NodeToMaster, Spawn, Started};
use ghost_proto::terminal::{FEATURE, Resize, ResizeRank, Size, Terminal};

use super::super::{Action, Event, LinkId};
use super::transitions::{Bench, CLIENT, FILE, GHOST};
use ghost_proto::ids::{NodeNumber, ProcId};

const SMALL: Size = Size { rows: 24, columns: 80, width: 0, height: 0 };
const LARGE: Size = Size { rows: 60, columns: 200, width: 0, height: 0 };

fn launch(bench: &mut Bench) -> Vec<Action> {
    let stdio = vec![Stdio::Stream as i32, Stdio::Stream as i32];
    let terminal = Some(Box::new(Terminal { size: Some(SMALL), modes: None }));
    let program = Some(ProgramSpec { argv: vec!["x".into()], stdio, terminal, ..ProgramSpec::default() });
    bench.say(ClientToMaster::Launch(Launch { nodes: "0".into(), program, plain: false }));
    bench.feed(Event::PinOpened { client: CLIENT, file: FILE })
}

/// Node 0 with a holder that makes terminals.
fn node_with_terminals(bench: &mut Bench, link: u64, epoch: u64) -> Vec<Action> {
    let hello = NodeHello { holder: 1000, epoch, features: vec![FEATURE.to_owned()], ..NodeHello::default() };
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    bench.feed(Event::NodeConnected { node: NodeNumber(0), link: LinkId(link), hello, address })
}

fn told<'a>(actions: &'a [Action]) -> Vec<&'a MasterToNode> {
    let message = |action: &'a Action| match action {
        Action::TellNode { message, .. } => Some(message),
        _ => None,
    };
    actions.iter().filter_map(message).collect()
}

fn resize(bench: &mut Bench, size: Size) -> Vec<Action> {
    bench.say(ClientToMaster::Resize(ResizeRank { rank: 0, size: Some(size) }))
}

#[test]
fn a_node_without_terminals_runs_nothing_that_is_to_have_one() {
    let mut bench = Bench::new();
    let actions = launch(&mut bench);
    let [Action::Launched { message: MasterToClient::Launched(launched), .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(launched.ranks[0].reason.contains("terminal"), "{launched:?}");
}

#[test]
fn a_size_reaches_the_node_whenever_it_is_told() {
    let mut bench = Bench::new();
    let actions = node_with_terminals(&mut bench, 20, 0);
    let epoch = told(&actions).iter().find_map(|message| match message {
        MasterToNode::Welcome(welcome) => Some(welcome.epoch),
        _ => None,
    });
    launch(&mut bench);
    // Before it is begun.
    assert!(told(&resize(&mut bench, LARGE)).is_empty());
    bench.read(GHOST, 0);
    let mut actions = bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 100 });
    actions.extend(bench.read(GHOST, 0));
    let program = told(&actions).into_iter().find_map(|message| match message {
        MasterToNode::Spawn(Spawn { program, .. }) => program.as_ref(),
        _ => None,
    });
    let terminal = program.and_then(|program| program.terminal.as_ref());
    assert_eq!(terminal.and_then(|terminal| terminal.size), Some(LARGE));
    // While it runs.
    let expected = |size| MasterToNode::Resize(Resize { proc: 2, size: Some(size) });
    assert_eq!(told(&resize(&mut bench, SMALL)), [&expected(SMALL)]);
    // On a new connection, which may have been without one.
    bench.disconnect(0, 20);
    bench.say(ClientToMaster::Resize(ResizeRank { rank: 0, size: Some(LARGE) }));
    let held = HeldProcess { proc: 2, pid: GHOST, launch: 1, ..HeldProcess::default() };
    let epoch = epoch.expect("a welcome");
    let hello = NodeHello { holder: 1000, epoch, processes: vec![held], ..NodeHello::default() };
    let (node, address) = (NodeNumber(0), std::net::Ipv4Addr::LOCALHOST.into());
    let actions = bench.feed(Event::NodeConnected { node, link: LinkId(22), hello, address });
    assert!(told(&actions).contains(&&expected(LARGE)), "{actions:?}");
}

#[test]
fn the_window_here_is_not_the_window_there() {
    let mut bench = Bench::new();
    node_with_terminals(&mut bench, 20, 0);
    launch(&mut bench);
    bench.read(GHOST, 0);
    bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 100 });
    bench.read(GHOST, 0);
    bench.node(0, 20, NodeToMaster::Started(Started { proc: 2, pid: GHOST, cwd_errno: 0, pgid: 0, sid: 900 }));
    let mut record = SignalRecord {
        kind: 1,
        flags: SignalFlags::KERNEL,
        ghost: 2,
        seq: 1,
        call: 0,
        value: 0,
        sig: 28,
        scope: 0,
        si_code: 128,
        sender_pid: 0,
        sender_uid: 0,
        sender_euid: 0,
        pgid: 0,
    };
    assert!(told(&bench.feed(Event::Signal(record))).is_empty(), "the kernel's SIGWINCH");
    (record.flags, record.seq, record.si_code, record.sender_pid) = (0, 2, 0, 33);
    assert!(matches!(told(&bench.feed(Event::Signal(record)))[..], [MasterToNode::Signal(_)]), "a user's");
}
