//! A node that says whatever a node can say.

use ghost_proto::ids::NodeNumber;
use ghost_proto::node::{self, MasterToNode, NodeToMaster};
use ghost_proto::tree::{Execed, Forked, Reaped, Standing, forked_id};
use ghost_sys::ghost::Answer;

use super::transitions::{Bench, answers, to_client, to_nodes};

#[test]
fn nothing_that_a_node_can_say_touches_another_nodes_process() {
    let lies = |proc: u64| {
        let standing = || Some(Standing { pgid: 1, sid: 1, uid: 0, gid: 0, comm: "lie".to_owned().into() });
        vec![
            NodeToMaster::Started(node::Started { proc, pid: 1, ..Default::default() }),
            NodeToMaster::StartFailed(node::StartFailed { proc, ..Default::default() }),
            NodeToMaster::Stopped(node::Stopped { proc, signal: 19 }),
            NodeToMaster::Continued(node::Continued { proc }),
            NodeToMaster::Ended(node::Ended { proc, status: 9, usage: None, heir: 0 }),
            NodeToMaster::Ack(node::Ack { proc, fd: 0, offset: u64::MAX }),
            NodeToMaster::StdinGone(node::StdinGone { proc }),
            NodeToMaster::SignalDone(node::SignalDone { proc, seq: 1, errno: 0 }),
            NodeToMaster::Execed(Execed { proc, standing: standing() }),
            NodeToMaster::Reaped(Reaped { proc }),
            // A child of another node's process, by a name that is not its own to give, and by one that is.
            NodeToMaster::Forked(Forked {
                proc: forked_id(NodeNumber(0), 7).0,
                parent: proc,
                launch: 1,
                pid: 5,
                standing: standing(),
                creator: proc,
            }),
            // In a launch that has nothing on this node: a user who runs nothing there.
            NodeToMaster::Forked(Forked {
                proc: forked_id(NodeNumber(1), 7).0,
                parent: 0,
                launch: 99,
                pid: 5,
                standing: standing(),
                creator: 0,
            }),
        ]
    };
    // Process 2, of launch 1, is on node 0; node 1 has nothing of it.
    for lie in lies(2) {
        let mut bench = Bench::running();
        let actions = bench.node(1, 11, lie.clone());
        let told: Vec<_> = to_nodes(&actions).into_iter().filter(|m| !matches!(m, MasterToNode::Forget(_))).collect();
        assert!(
            to_client(&actions).is_empty() && answers(&actions).is_empty() && told.is_empty(),
            "{lie:?}: {actions:?}"
        );
        // And its own node's word counts as before.
        assert_eq!(answers(&bench.end(0)), [Answer::Exit(0)], "{lie:?}");
    }
}
