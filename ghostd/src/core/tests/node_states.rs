//! States of nodes, who may change what of them, what is run for those that come, and who watches.

use std::collections::BTreeMap;
use std::time::Duration;

use ghost_proto::client::{self, ClientToMaster, MasterToClient, NodeChange, NodeFailure, NodeInfo, Setting};
use ghost_proto::ids::NodeNumber;
use ghost_proto::launch::ProgramSpec;
use ghost_proto::node::{self, LeaseAck, MasterToNode, NodeHello, NodeToMaster};
use ghost_proto::node_state::NodeStatus;
use ghost_proto::view::{AgentToMaster, MasterToAgent, PowerDone};

use super::super::{Action, ClientId, Core, Directory, Event, Found, LinkId, NodeFacts, Settings, Stage, User};
use crate::node_setting::NodeSetting;

const LEASE: Duration = Duration::from_secs(15);
const MARGIN: Duration = Duration::from_secs(5);
const ROOT: ClientId = ClientId(1);
const OWNER: ClientId = ClientId(2);
const OTHER: ClientId = ClientId(3);
const EPOCH: u64 = 70;

#[derive(Default)]
struct Nodes(BTreeMap<NodeNumber, NodeFacts>);

impl Directory for Nodes {
    fn nodes(&self) -> Vec<NodeFacts> {
        self.0.values().cloned().collect()
    }

    fn node(&self, number: NodeNumber) -> Option<NodeFacts> {
        self.0.get(&number).cloned()
    }

    fn may_use(&self, number: NodeNumber, user: &User) -> bool {
        user.uid == 0 || self.0.get(&number).is_some_and(|facts| facts.mode & 1 == 1)
    }
}

/// Nodes 0 and 1 are connected, node 2 is not; they are uid 7's, of group 70. ROOT, OWNER (in groups 70 and 71) and OTHER have
/// connected.
struct Bench {
    core: Core,
    nodes: Nodes,
    now: Duration,
}

impl Bench {
    fn new(node_up: bool) -> Bench {
        let mut bench = Bench::empty(node_up);
        for number in [0, 1] {
            bench.connect(number, 10, 1, 0);
        }
        bench
    }

    fn empty(node_up: bool) -> Bench {
        let program = "ghostd test".into();
        let settings =
            Settings { epoch: EPOCH, lease: LEASE, margin: MARGIN, program, view: false, node_up, first_id: 0 };
        let facts = |number| NodeFacts {
            number: NodeNumber(number),
            mode: 0o111,
            uid: 7,
            gid: 70,
            address: None,
            hostname: format!("n{number}"),
            reason: "not connected".into(),
            held: None,
            root: String::new(),
        };
        let nodes = Nodes((0..3).map(|number| (NodeNumber(number), facts(number))).collect());
        let mut bench = Bench { core: Core::new(settings), nodes, now: Duration::from_secs(100) };
        for (client, uid, groups) in [(ROOT, 0, vec![]), (OWNER, 7, vec![70, 71]), (OTHER, 8, vec![70])] {
            bench.feed(Event::ClientJoined { client, user: User { pid: 100, uid, gid: uid, groups } });
            bench.say(client, ClientToMaster::Hello(client::Hello::default()));
        }
        bench
    }

    fn feed(&mut self, event: Event) -> Vec<Action> {
        self.core.handle(event, self.now, &self.nodes)
    }

    fn say(&mut self, client: ClientId, message: ClientToMaster) -> Vec<Action> {
        self.feed(Event::ClientSaid { client, message })
    }

    fn connect(&mut self, number: i32, link: u64, holder: u64, epoch: u64) -> Vec<Action> {
        let hello = NodeHello {
            epoch,
            holder,
            hostname: format!("n{number}"),
            features: vec![node::ROOT.to_owned()],
            ..NodeHello::default()
        };
        let (node, address) = (NodeNumber(number), std::net::Ipv4Addr::LOCALHOST.into());
        self.feed(Event::NodeConnected { node, link: LinkId(link), hello, address })
    }

    fn disconnect(&mut self, number: i32) -> Vec<Action> {
        self.feed(Event::NodeDisconnected { node: NodeNumber(number), link: LinkId(10) })
    }

    /// Asks for a change, and plays the driver, which keeps it. Who may not, with the words; or the refusal.
    fn change(&mut self, client: ClientId, nodes: &str, change: NodeChange) -> Result<Vec<NodeFailure>, String> {
        let actions =
            self.say(client, ClientToMaster::Change(client::Change { nodes: nodes.into(), change: Some(change) }));
        let mut all = Vec::new();
        for action in actions {
            match action {
                Action::ChangeNodes(change) => {
                    for (number, _) in &change.nodes {
                        let facts = self.nodes.0.get_mut(number).expect("a node");
                        match change.setting.clone() {
                            Some(NodeSetting::Mode(mode)) => facts.mode = mode.unwrap_or(0o111),
                            Some(NodeSetting::Owner(uid)) => facts.uid = uid.unwrap_or(0),
                            Some(NodeSetting::Group(gid)) => facts.gid = gid.unwrap_or(0),
                            Some(NodeSetting::Held(status)) => facts.held = status,
                            Some(NodeSetting::Root(root)) => facts.root = root,
                            None => {}
                        }
                    }
                    all.extend(self.feed(Event::NodesChanged(change)));
                }
                other => all.push(other),
            }
        }
        self.answer(&all)
    }

    fn answer(&self, actions: &[Action]) -> Result<Vec<NodeFailure>, String> {
        let answers = actions.iter().find_map(|action| match action {
            Action::TellClient { message: MasterToClient::Changed(changed), .. } => Some(Ok(changed.failures.clone())),
            Action::TellClient { message: MasterToClient::Refused(refused), .. } => Some(Err(refused.text.clone())),
            _ => None,
        });
        answers.unwrap_or(Err("no answer".to_owned()))
    }

    fn set(&mut self, nodes: &str, state: &str) {
        assert_eq!(self.change(ROOT, nodes, NodeChange::State(state.into())), Ok(vec![]), "{nodes} {state}");
    }

    fn listed(&mut self, number: i32) -> NodeInfo {
        let request = client::NodesRequest { nodes: number.to_string(), ..Default::default() };
        let actions = self.say(ROOT, ClientToMaster::Nodes(request));
        match &actions[..] {
            [Action::TellClient { message: MasterToClient::Nodes(reply), .. }] => reply.nodes[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    /// State and reason.
    fn state(&mut self, number: i32) -> (String, String) {
        let NodeInfo { status, reason, .. } = self.listed(number);
        (status, reason)
    }

    /// Why a new command of this user cannot start anything there; empty: it can.
    fn placed(&mut self, uid: u32, number: i32) -> String {
        let client = ClientId(1000 + self.now.as_nanos() as u64 % 1000);
        self.now += Duration::from_nanos(1);
        self.feed(Event::ClientJoined { client, user: User { pid: 9, uid, gid: uid, groups: vec![] } });
        self.say(client, ClientToMaster::Hello(client::Hello::default()));
        let program = ProgramSpec { argv: vec!["x".into()], ..ProgramSpec::default() };
        let nodes = number.to_string();
        self.say(client, ClientToMaster::Launch(client::Launch { nodes, program: Some(program), plain: false }));
        let actions = self.feed(Event::PinOpened { client, file: self.now.as_nanos() as u64 });
        let reason = actions.iter().find_map(|action| match action {
            Action::Launched { message: MasterToClient::Launched(launched), .. } => {
                Some(launched.ranks[0].reason.clone())
            }
            _ => None,
        });
        self.feed(Event::ClientGone { client });
        reason.expect("a launch")
    }
}

fn setting(value: u32) -> Setting {
    Setting { value: Some(value) }
}

/// The run that begins, if one does; those that are stopped.
fn runs(actions: &[Action]) -> (Option<u64>, Vec<u64>) {
    let begun = actions.iter().find_map(|action| match action {
        Action::RunNodeUp { run, .. } => Some(*run),
        _ => None,
    });
    let stopped = actions.iter().filter_map(|action| match action {
        Action::StopNodeUp { run } => Some(*run),
        _ => None,
    });
    (begun, stopped.collect())
}

fn up() -> (String, String) {
    ("up".into(), String::new())
}

#[test]
fn who_may_change_what() {
    let not = |text: &str| Some(format!("Operation not permitted; {text} (`bpstat 0` shows whose it is)"));
    let owner_mode = not("its owner and root may change the mode");
    let only_owner = not("only root may give it to another owner");
    let state = not("only root may set states");
    for (change, of_owner, of_other) in [
        (NodeChange::Mode(setting(0o100)), None, owner_mode.clone()),
        (NodeChange::Mode(Setting { value: None }), None, owner_mode),
        (NodeChange::Group(setting(71)), None, not("its owner and root may change the group")),
        (
            NodeChange::Group(setting(72)),
            not("its owner may give it to groups that he is in, only root to others"),
            not("its owner and root may change the group"),
        ),
        (NodeChange::Owner(setting(7)), only_owner.clone(), only_owner.clone()),
        (NodeChange::Owner(setting(8)), only_owner.clone(), only_owner),
        (NodeChange::State("unavailable".into()), state.clone(), state.clone()),
        (NodeChange::State("reboot".into()), state.clone(), state.clone()),
        (NodeChange::State("up".into()), state.clone(), state),
        (
            NodeChange::Root("/srv".into()),
            not("only root may set the root directory"),
            not("only root may set the root directory"),
        ),
    ] {
        for (client, wanted) in [(OWNER, of_owner), (OTHER, of_other)] {
            let mut bench = Bench::new(false);
            let before = bench.nodes.0.clone();
            let failures = bench.change(client, "0", change.clone()).expect("an answer");
            assert_eq!(failures.first().map(|failure| failure.text.clone()), wanted, "{client:?} {change:?}");
            if wanted.is_some() {
                assert_eq!(bench.nodes.0, before, "{change:?}");
            }
        }
        if !matches!(&change, NodeChange::State(name) if name == "reboot") {
            assert_eq!(Bench::new(false).change(ROOT, "0", change.clone()), Ok(vec![]), "{change:?}");
        }
    }
}

#[test]
fn a_node_that_cannot_be_changed_keeps_no_other_from_it() {
    let mut bench = Bench::new(false);
    bench.nodes.0.get_mut(&NodeNumber(1)).expect("a node").uid = 8;
    let failures = bench.change(OWNER, "0-1,9,-1", NodeChange::Mode(setting(0o100))).expect("an answer");
    assert_eq!(failures.iter().map(|failure| failure.node).collect::<Vec<_>>(), [-1, 1, 9]);
    assert!(failures[2].text.starts_with("no such node"), "{failures:?}");
    assert_eq!((bench.listed(0).mode, bench.listed(1).mode), (0o100, 0o111));
    for (nodes, change, part) in [
        ("nowhere", NodeChange::Mode(setting(0)), "no node is called"),
        ("0", NodeChange::Mode(setting(0o1000)), "octal"),
        ("0", NodeChange::State("sideways".into()), "unavailable"),
        ("0", NodeChange::Root("srv".into()), "absolute"),
        ("0", NodeChange::Root(String::new()), "absolute"),
        ("0", NodeChange::Root("/srv\nall is well".into()), "`/srv\\nall is well` cannot"),
        ("0", NodeChange::Owner(setting(u32::MAX)), "nobody's"),
        ("0", NodeChange::Group(setting(u32::MAX)), "nobody's"),
    ] {
        let mut bench = Bench::new(false);
        let refused = bench.change(ROOT, nodes, change).expect_err("refused");
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn nothing_is_changed_from_a_node() {
    let mut bench = Bench::new(false);
    let process = ghost_proto::ids::ProcId(2);
    let (client, user) = (ClientId(50), User { pid: 9, uid: 0, gid: 0, groups: vec![] });
    bench.feed(Event::ClientRelayed { client, user, process });
    bench.say(client, ClientToMaster::Hello(client::Hello::default()));
    let refused = bench.change(client, "0", NodeChange::Mode(setting(0))).expect_err("refused");
    assert_eq!((refused.as_str(), bench.listed(0).mode), ("nodes are changed on the master", 0o111));
}

#[test]
fn changes_of_users_have_a_pace() {
    let mut bench = Bench::new(false);
    let mut ask = |client, now: u64| {
        bench.now = Duration::from_secs(now);
        // A refusal ends the connection; nobody does that here.
        bench.change(client, "0", NodeChange::Mode(setting(0o100))).is_ok()
    };
    assert_eq!((0..100).filter(|_| ask(OWNER, 200)).count(), 20);
    assert!(ask(OTHER, 200), "another one's own pace");
    assert!((0..100).all(|_| ask(ROOT, 200)));
    assert!(ask(OWNER, 201));
}

#[test]
fn only_up_takes_other_users_programs() {
    let mut bench = Bench::new(false);
    assert_eq!((bench.placed(8, 0), bench.placed(0, 0)), (String::new(), String::new()));
    for state in ["unavailable", "error", "boot"] {
        bench.set("0", state);
        assert_eq!(bench.state(0), (state.into(), "set by root".into()));
        assert_eq!(bench.placed(8, 0), format!("Operation not permitted ({state}: set by root)"));
        assert_eq!(bench.placed(0, 0), "", "root may look at it");
    }
    bench.set("0", "down");
    assert_eq!((bench.placed(8, 0), bench.placed(0, 0)), ("down (set by root)".into(), "down (set by root)".into()));
    bench.set("0", "up");
    assert_eq!((bench.state(0), bench.placed(8, 0)), (up(), String::new()));
    // The mode goes before the state.
    bench.change(ROOT, "0", NodeChange::Mode(setting(0))).expect("done");
    bench.set("0", "unavailable");
    assert_eq!(bench.placed(8, 0), "Operation not permitted");
    assert_eq!(bench.placed(8, 2), "down (not connected)");
}

#[test]
fn a_state_that_is_held_outlasts_the_connection_and_selects_nodes() {
    let mut bench = Bench::new(false);
    bench.set("0", "unavailable");
    bench.disconnect(0);
    assert_eq!(bench.state(0), ("down".into(), "not connected".into()));
    bench.connect(0, 11, 2, 0);
    assert_eq!(bench.state(0), ("unavailable".into(), "set by root".into()));
    assert_eq!(bench.change(ROOT, "unavailable", NodeChange::State("up".into())), Ok(vec![]));
    assert_eq!(bench.state(0), up());
    assert!(bench.change(ROOT, "unavailable", NodeChange::State("up".into())).is_err(), "nobody is");
}

#[test]
fn a_node_that_is_set_down_ends_what_it_runs() {
    let mut bench = Bench::new(false);
    let request = client::Change { nodes: "0".into(), change: Some(NodeChange::State("down".into())) };
    let actions = bench.say(ROOT, ClientToMaster::Change(request));
    let Some(Action::ChangeNodes(change)) = actions.into_iter().next() else { panic!("no change") };
    assert_eq!(change.nodes, [(NodeNumber(0), "up".to_owned())], "what it was, for the log");
    let actions = bench.feed(Event::NodesChanged(change));
    let ends = |action: &Action| {
        matches!(action, Action::TellNode { node: NodeNumber(0), message: MasterToNode::EndAll(_), .. })
    };
    assert!(actions.iter().any(ends), "{actions:?}");
}

#[test]
fn a_node_that_comes_is_prepared() {
    let mut bench = Bench::empty(true);
    let (run, _) = runs(&bench.connect(0, 10, 1, 0));
    let run = run.expect("a run");
    assert_eq!(bench.state(0), ("boot".into(), "node_up runs".into()));
    assert_eq!(bench.placed(8, 0), "Operation not permitted (boot: node_up runs)");
    assert_eq!(bench.placed(0, 0), "", "the program that prepares it runs there");
    let ended = |run, outcome| Event::NodeUpEnded { node: NodeNumber(0), run, outcome };
    bench.feed(ended(run + 1, Ok(())));
    assert_eq!(bench.state(0).0, "boot", "another run");
    bench.feed(ended(run, Err("node_up ended with status 1".into())));
    assert_eq!(bench.state(0), ("error".into(), "node_up ended with status 1".into()));
    // Again, by root's word; then well.
    let request = client::Change { nodes: "0".into(), change: Some(NodeChange::State("boot".into())) };
    let actions = bench.say(ROOT, ClientToMaster::Change(request));
    let Some(Action::ChangeNodes(change)) = actions.into_iter().next() else { panic!("no change") };
    let (again, _) = runs(&bench.feed(Event::NodesChanged(change)));
    bench.feed(ended(again.expect("a run"), Ok(())));
    assert_eq!(bench.state(0), up());
}

#[test]
fn a_pause_of_the_connection_is_no_new_beginning() {
    let mut bench = Bench::empty(true);
    let run = runs(&bench.connect(0, 10, 1, 0)).0.expect("a run");
    bench.disconnect(0);
    assert_eq!(runs(&bench.connect(0, 11, 1, EPOCH)), (None, vec![]), "it runs on");
    bench.feed(Event::NodeUpEnded { node: NodeNumber(0), run, outcome: Ok(()) });
    assert_eq!(bench.state(0), up());
    bench.feed(Event::NodeDisconnected { node: NodeNumber(0), link: LinkId(11) });
    assert_eq!(runs(&bench.connect(0, 12, 1, EPOCH)), (None, vec![]));
    assert_eq!(bench.state(0), up());
    // With another holder nothing of it is there any more.
    let second = runs(&bench.connect(0, 13, 2, EPOCH)).0.expect("a run");
    let (third, stopped) = runs(&bench.connect(0, 14, 3, EPOCH));
    assert!(third.is_some());
    assert_eq!(stopped, [second]);
}

#[test]
fn a_run_ends_with_its_node() {
    for (event, seconds) in [
        (Event::NodeDismissed { node: NodeNumber(0) }, 0),
        (Event::End, 0),
        // Lost.
        (Event::Tick, 21),
    ] {
        let mut bench = Bench::empty(true);
        let run = runs(&bench.connect(0, 10, 1, 0)).0.expect("a run");
        if seconds > 0 {
            bench.disconnect(0);
            assert_eq!(runs(&bench.feed(Event::Tick)).1, []);
        }
        bench.now += Duration::from_secs(seconds);
        assert_eq!(runs(&bench.feed(event)).1, [run]);
    }
    let mut bench = Bench::empty(true);
    let run = runs(&bench.connect(0, 10, 1, 0)).0.expect("a run");
    bench.set("0", "up");
    bench.feed(Event::NodeUpEnded { node: NodeNumber(0), run, outcome: Err("late".into()) });
    assert_eq!(bench.state(0), up(), "root's word");
}

#[test]
fn another_ghostd_goes_on_with_what_was_noted() {
    for (noted, node_up, state, runs_again) in [
        (Stage::Boot, true, "boot", true),
        (Stage::Boot, false, "up", false),
        (Stage::Error("why".into()), true, "error", false),
        (Stage::Leaving(NodeStatus::Reboot), true, "reboot", false),
        (Stage::Up, true, "up", false),
    ] {
        assert_eq!(Stage::from_note(&noted.to_note()).as_ref(), Some(&noted));
        let mut bench = Bench::empty(node_up);
        let (nodes, stages) = (vec![(NodeNumber(0), EPOCH, 1)], vec![(NodeNumber(0), noted.clone())]);
        bench.feed(Event::Found(Found { nodes, stages, ..Found::default() }));
        let (run, _) = runs(&bench.connect(0, 10, 1, EPOCH));
        assert_eq!((run.is_some(), bench.state(0).0.as_str()), (runs_again, state), "{noted:?}");
    }
    for nonsense in ["", "sideways", "down", "unavailable x"] {
        assert_eq!(Stage::from_note(nonsense), None);
    }
}

/// Orders a restart of nodes 0 to 2; the number of the order.
fn order(bench: &mut Bench) -> u64 {
    let request = client::Change { nodes: "0-2".into(), change: Some(NodeChange::State("reboot".into())) };
    let actions = bench.say(ROOT, ClientToMaster::Change(request));
    let Some(Action::ChangeNodes(change)) = actions.into_iter().next() else { panic!("no change") };
    assert_eq!((change.setting.clone(), change.nodes.len()), (None, 2));
    let actions = bench.feed(Event::NodesChanged(change));
    assert_eq!(bench.answer(&actions), Err("no answer".into()), "not yet");
    let asked = actions.iter().filter_map(|action| match action {
        Action::TellAgent { message: MasterToAgent::Power(power), .. } => Some((power.seq, power.state.as_str())),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    assert_eq!((asked.len(), asked[0].1), (2, "reboot"));
    asked[0].0
}

#[test]
fn an_order_to_go_is_answered_when_all_have_said_how_it_went() {
    let mut bench = Bench::new(false);
    let seq = order(&mut bench);
    assert_eq!(bench.state(0), ("reboot".into(), "by root's order".into()));
    assert_eq!(bench.placed(0, 0), "reboot (by root's order)");
    let done = |bench: &mut Bench, number: i32, error: &str| {
        let message = AgentToMaster::PowerDone(PowerDone { seq, error: error.into() });
        let actions = bench.feed(Event::AgentSaid { node: NodeNumber(number), link: LinkId(10), message });
        bench.answer(&actions)
    };
    assert_eq!(done(&mut bench, 1, "no such command"), Err("no answer".into()));
    assert_eq!(bench.state(1), up(), "it stays");
    let failures = done(&mut bench, 0, "").expect("an answer");
    assert_eq!(failures.iter().map(|failure| failure.node).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(failures[1].text, "down (not connected): nothing there can be told to reboot");
    bench.disconnect(0);
    assert_eq!(bench.state(0), ("down".into(), "restarts by root's order".into()));
    bench.connect(0, 11, 2, 0);
    assert_eq!(bench.state(0), up());
}

#[test]
fn a_nodes_words_do_not_reach_a_terminal_as_they_are() {
    let mut bench = Bench::new(false);
    let seq = order(&mut bench);
    let message = AgentToMaster::PowerDone(PowerDone { seq, error: "\x1b[2J\n".repeat(1000) });
    bench.feed(Event::AgentSaid { node: NodeNumber(1), link: LinkId(10), message });
    let done = AgentToMaster::PowerDone(PowerDone { seq, error: String::new() });
    let actions = bench.feed(Event::AgentSaid { node: NodeNumber(0), link: LinkId(10), message: done });
    let failures = bench.answer(&actions).expect("an answer");
    assert!(failures[0].text.len() == 500 && !failures[0].text.contains(char::is_control), "{failures:?}");
    let hello = NodeHello { holder: 9, hostname: "$(reboot)".into(), ..NodeHello::default() };
    let (node, address) = (NodeNumber(1), std::net::Ipv4Addr::LOCALHOST.into());
    bench.feed(Event::NodeConnected { node, link: LinkId(20), hello, address });
    assert_eq!(bench.listed(1).hostname, "");
}

#[test]
fn who_goes_without_a_word_has_gone_and_who_says_nothing_has_not() {
    let mut bench = Bench::new(false);
    order(&mut bench);
    let actions = bench.disconnect(0);
    assert_eq!(bench.answer(&actions), Err("no answer".into()), "node 1 has not said anything");
    // It answers leases.
    bench.now += Duration::from_secs(10);
    bench.feed(Event::Tick);
    let ack = LeaseAck { seq: 1, ..LeaseAck::default() };
    bench.feed(Event::NodeSaid { node: NodeNumber(1), link: LinkId(10), message: NodeToMaster::LeaseAck(ack) });
    bench.now += Duration::from_secs(11);
    let actions = bench.feed(Event::Tick);
    let failures = bench.answer(&actions).expect("an answer");
    assert_eq!(failures.iter().map(|failure| failure.node).collect::<Vec<_>>(), [1, 2]);
    assert!(failures[0].text.contains("has not said within 20 s"), "{failures:?}");
    assert_eq!(bench.state(1), up());
    assert!(bench.core.filled_tables().iter().all(|(name, _)| *name != "power_orders"));
}

#[test]
fn a_root_directory_goes_along_with_the_program() {
    let mut bench = Bench::new(false);
    bench.change(ROOT, "0", NodeChange::Root("/srv/image/".into())).expect("done");
    assert_eq!(bench.listed(0).root, "/srv/image/");
    assert_eq!(bench.placed(8, 0), "");
    bench.change(ROOT, "0", NodeChange::Root("/".into())).expect("done");
    assert_eq!(bench.listed(0).root, "");
}

fn news(actions: &[Action], to: ClientId) -> Vec<Vec<NodeInfo>> {
    let news = actions.iter().filter_map(|action| match action {
        Action::TellClient { client, message: MasterToClient::Nodes(reply) } if *client == to => {
            Some(reply.nodes.clone())
        }
        _ => None,
    });
    news.collect()
}

#[test]
fn who_watches_hears_the_newest_once() {
    let mut bench = Bench::new(false);
    let watch = |nodes: &str| ClientToMaster::Watch(client::Watch { nodes: nodes.into() });
    let first = news(&bench.say(OTHER, watch("")), OTHER);
    assert_eq!(first[0].iter().map(|node| node.status.as_str()).collect::<Vec<_>>(), ["up", "up", "down"]);
    bench.disconnect(0);
    bench.now += Duration::from_secs(1);
    assert!(news(&bench.feed(Event::Tick), OTHER).is_empty(), "it has not asked on");
    bench.disconnect(1);
    bench.connect(0, 11, 1, EPOCH);
    assert!(news(&bench.say(OTHER, watch("")), OTHER).is_empty(), "at the next look");
    let second = news(&bench.feed(Event::Tick), OTHER);
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].iter().map(|node| node.status.as_str()).collect::<Vec<_>>(), ["up", "down", "down"]);
    bench.say(OTHER, watch(""));
    for _ in 0..10 {
        bench.now += Duration::from_secs(1);
        assert!(news(&bench.feed(Event::Tick), OTHER).is_empty(), "nothing is new");
    }
    // Nobody in such a state is no mistake, a name that there is not is one.
    assert_eq!(news(&bench.say(OWNER, watch("boot")), OWNER), [vec![]]);
    let refused = bench.say(ROOT, watch("nowhere"));
    assert!(bench.answer(&refused).expect_err("refused").contains("nowhere"));
    assert!(!bench.core.is_starting(ROOT), "whoever watches has nothing that begins");
    for client in [OTHER, OWNER] {
        bench.feed(Event::ClientGone { client });
    }
    assert!(bench.core.filled_tables().iter().all(|(name, _)| *name != "watchers"));
}

#[test]
fn that_there_are_none_is_an_answer_to_those_who_count() {
    let mut bench = Bench::new(false);
    let ask =
        |nodes: &str, perhaps_none| ClientToMaster::Nodes(client::NodesRequest { nodes: nodes.into(), perhaps_none });
    assert_eq!(news(&bench.say(OTHER, ask("boot", true)), OTHER), [vec![]]);
    for (nodes, perhaps_none, part) in [("boot", false, "no node is boot"), ("9", true, "9: no such node")] {
        let refused = bench.say(OTHER, ask(nodes, perhaps_none));
        let text = bench.answer(&refused).expect_err("refused");
        assert!(text.contains(part), "{text}");
    }
    let hello = bench.say(OTHER, ClientToMaster::Hello(client::Hello::default()));
    let watches = |action: &Action| match action {
        Action::TellClient { message: MasterToClient::Hello(hello), .. } => {
            hello.features.iter().any(|f| f == client::WATCH)
        }
        _ => false,
    };
    assert!(hello.iter().any(watches), "{hello:?}");
}

#[test]
fn figures_are_those_that_came_last() {
    let mut bench = Bench::new(false);
    let mut ack = |seq, load_centi, mem_total_kib| {
        let ack = LeaseAck { seq, load_centi, mem_available_kib: 1000, mem_total_kib };
        bench.feed(Event::NodeSaid { node: NodeNumber(0), link: LinkId(10), message: NodeToMaster::LeaseAck(ack) });
        let info = bench.listed(0);
        (info.load_centi, info.mem_available_kib, info.mem_total_kib)
    };
    assert_eq!(ack(0, 0, 0), (0, 0, 0), "not known yet");
    assert_eq!(ack(0, 150, 4000), (150, 1000, 4000));
    assert_eq!(ack(0, 0, 0), (150, 1000, 4000), "nothing new");
    bench.disconnect(0);
    assert_eq!(bench.listed(0).mem_total_kib, 0, "nobody knows");
}
