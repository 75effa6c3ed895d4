//! Programs in a node's own namespaces: root's alone, and only where they can be.

use ghost_proto::client::{self, ClientToMaster, Launch, MasterToClient, Obstacle};
use ghost_proto::ids::NodeNumber;
use ghost_proto::launch::{HOST, ProgramSpec};
use ghost_proto::node::NodeHello;

use super::super::{Action, ClientId, Event, LinkId, User};
use super::transitions::Bench;

/// What is planned for nodes 0, which can, and 1, which cannot: what is in the way, with the words.
fn planned(uid: u32, host: bool) -> Vec<(Obstacle, String)> {
    let mut bench = Bench::new();
    let hello = NodeHello { holder: 1000, features: vec![HOST.to_owned()], ..NodeHello::default() };
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    bench.feed(Event::NodeConnected { node: NodeNumber(0), link: LinkId(20), hello, address });
    let client = ClientId(9);
    bench.feed(Event::ClientJoined { client, user: User { pid: 1, uid, gid: uid, groups: vec![] } });
    let hello = ClientToMaster::Hello(client::Hello::default());
    let actions = bench.feed(Event::ClientSaid { client, message: hello });
    let says = |action: &Action| {
        matches!(action, Action::TellClient { message: MasterToClient::Hello(hello), .. }
            if hello.features.iter().any(|feature| feature == HOST))
    };
    assert!(actions.iter().any(says), "a newer bpsh has to know that it is understood");
    let program = Some(ProgramSpec { argv: vec!["x".into()], host, ..ProgramSpec::default() });
    let message = ClientToMaster::Launch(Launch { nodes: "0,1".into(), program, plain: false });
    bench.feed(Event::ClientSaid { client, message });
    let actions = bench.feed(Event::PinOpened { client, file: 90 });
    let [Action::Launched { message: MasterToClient::Launched(launched), .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    launched.ranks.iter().map(|plan| (plan.obstacle(), plan.reason.clone())).collect()
}

#[test]
fn the_nodes_own_namespaces_are_for_root_and_where_they_can_be_entered() {
    let [able, unable] = &planned(0, true)[..] else { panic!("two ranks") };
    assert_eq!(able.1, "");
    assert!(unable.0 == Obstacle::Other && unable.1.contains("--host: its nodeagent is older"), "{unable:?}");
    for (obstacle, reason) in planned(1000, true) {
        assert_eq!((obstacle, reason.as_str()), (Obstacle::Forbidden, "--host is root's alone"));
    }
    assert!(planned(1000, false).iter().all(|(_, reason)| reason.is_empty()));
}
