//! Commands that run on nodes, and nodes that speak for commands.

use ghost_proto::client::{self, ClientToMaster, MasterToClient};
use ghost_proto::ids::{NodeNumber, ProcId};

use super::super::{Action, ClientId, Event, User};
use super::transitions::{Bench, CLIENT, GHOST};

const HERE: NodeNumber = NodeNumber(0);
/// The launched process of [`Bench::running`].
const PROCESS: ProcId = ProcId(2);
const COMMAND: ClientId = ClientId(9);

fn relayed(bench: &mut Bench, uid: u32) -> User {
    let user = bench.core.asker(HERE, PROCESS, uid).expect("it may ask");
    bench.feed(Event::ClientRelayed { client: COMMAND, user: user.clone(), process: PROCESS });
    user
}

fn says(bench: &mut Bench, message: ClientToMaster) -> Vec<Action> {
    bench.feed(Event::ClientSaid { client: COMMAND, message })
}

#[test]
fn a_node_can_ask_for_its_own_living_processes_alone() {
    let mut bench = Bench::running();
    assert!(bench.core.asker(NodeNumber(1), PROCESS, 1000).is_err(), "another node's process");
    assert!(bench.core.asker(HERE, ProcId(99), 1000).is_err(), "nobody's");
    assert!(bench.core.asker(HERE, ProcId(99), 0).is_err(), "nor as root");
    assert!(bench.core.asker(HERE, PROCESS, 1000).is_ok());
    bench.end(0);
    assert!(bench.core.asker(HERE, PROCESS, 1000).is_err(), "a dead one");
}

#[test]
fn a_command_on_a_node_is_the_launchs_user_whatever_the_node_says() {
    let mut bench = Bench::running();
    let user = relayed(&mut bench, 0);
    // Root there is no more here than who launched it.
    assert_eq!(user, User { pid: GHOST, uid: 1000, gid: 1000, groups: vec![1000] });
    says(&mut bench, ClientToMaster::Hello(client::Hello::default()));
    let admin = client::Admin::View(client::ViewRequest { on: false });
    let actions = says(&mut bench, ClientToMaster::Admin(client::AdminRequest { admin: Some(admin) }));
    let refused = |action: &Action| matches!(action, Action::TellClient { message: MasterToClient::Refused(_), .. });
    assert!(actions.iter().any(refused) && !actions.iter().any(|a| matches!(a, Action::Admin { .. })), "{actions:?}");
    let refusal = bench.core.asker(HERE, PROCESS, 1001).expect_err("somebody else's process");
    assert!(refusal.contains("uid 1001") && refusal.contains("uid 1000"), "{refusal}");
}

#[test]
fn nobody_administers_from_a_node() {
    let mut bench = Bench::running();
    let root = User { pid: GHOST, uid: 0, gid: 0, groups: vec![0] };
    bench.feed(Event::ClientRelayed { client: COMMAND, user: root, process: PROCESS });
    says(&mut bench, ClientToMaster::Hello(client::Hello::default()));
    let admin = client::Admin::Token(client::TokenRequest::default());
    let actions = says(&mut bench, ClientToMaster::Admin(client::AdminRequest { admin: Some(admin) }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Admin { .. })), "{actions:?}");
}

#[test]
fn what_is_reached_from_a_node_is_bpcps_end_at_the_bpsh_that_all_began_with() {
    let mut bench = Bench::running();
    relayed(&mut bench, 1000);
    says(&mut bench, ClientToMaster::Hello(client::Hello::default()));
    let arguments = || vec!["--send".into(), "--".into(), "/tmp/f".into()];
    let reach = |arguments| ClientToMaster::Reach(client::Reach { arguments });
    let serves = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Serve { .. }));
    assert!(!serves(&says(&mut bench, reach(arguments()))), "it has not said that it does this");

    let mut bench = Bench::running();
    bench.say(ClientToMaster::Hello(client::Hello { features: vec![client::SERVE.into()], ..Default::default() }));
    relayed(&mut bench, 1000);
    says(&mut bench, ClientToMaster::Hello(client::Hello::default()));
    let actions = says(&mut bench, reach(arguments()));
    assert_eq!(actions, [Action::Serve { client: COMMAND, server: CLIENT, arguments: arguments() }]);
    for other in [vec![], vec!["sh".into()], vec!["-r".into(), "--send".into()]] {
        assert!(!serves(&says(&mut bench, reach(other))));
    }
    // Nor from the master itself.
    assert!(!serves(&bench.say(reach(arguments()))));
}

#[test]
fn a_command_on_a_node_ends_with_its_process() {
    let mut bench = Bench::running();
    relayed(&mut bench, 1000);
    says(&mut bench, ClientToMaster::Hello(client::Hello::default()));
    let nodes = || ClientToMaster::Nodes(client::NodesRequest::default());
    assert!(!says(&mut bench, nodes()).is_empty());
    bench.end(0);
    assert!(says(&mut bench, nodes()).is_empty(), "nobody asks any more");
}
