//! When nodes get their leases.

use std::time::Duration;

use ghost_proto::ids::NodeNumber;
use ghost_proto::node::{LeaseAck, MasterToNode, NodeToMaster};

use super::transitions::Bench;
use crate::core::{Action, Event};

const LEASE: Duration = Duration::from_secs(16);

/// Nodes that get a lease, and its number.
fn leases(actions: &[Action]) -> Vec<(i32, u64)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::TellNode { node: NodeNumber(node), message: MasterToNode::Lease(lease), .. } => {
                Some((*node, lease.seq))
            }
            _ => None,
        })
        .collect()
}

fn acknowledge(bench: &mut Bench, node: i32, seq: u64) -> Vec<(i32, u64)> {
    let ack = LeaseAck { seq, ..LeaseAck::default() };
    leases(&bench.node(node, 10 + u64::try_from(node).unwrap(), NodeToMaster::LeaseAck(ack)))
}

#[test]
fn a_node_whose_turn_comes_soon_is_taken_along() {
    let mut bench = Bench::with_lease(LEASE);
    // Node 1 comes anew, a quarter of the period later than node 0.
    bench.now = LEASE / 16;
    bench.disconnect(1, 11);
    bench.connect(1, 11, 1001, 71, &[]);
    bench.now = LEASE / 4 - Duration::from_millis(1);
    assert!(leases(&bench.feed(Event::Tick)).is_empty(), "nobody is due");
    bench.now = LEASE / 4;
    assert_eq!(leases(&bench.feed(Event::Tick)), [(0, 1), (1, 1)], "one is due, the other goes along");
    // The second of a pair follows the answer to the first at once; no third before their turn comes again.
    assert_eq!(acknowledge(&mut bench, 0, 1), [(0, 2)]);
    assert_eq!(acknowledge(&mut bench, 1, 1), [(1, 2)]);
    assert!(acknowledge(&mut bench, 0, 2).is_empty(), "an older node acknowledges the second, too");
    assert!(leases(&bench.feed(Event::Tick)).is_empty());
    bench.now = LEASE / 2;
    assert_eq!(leases(&bench.feed(Event::Tick)), [(0, 3), (1, 3)]);
    // Node 1 does not answer: nothing more is sent to it.
    assert_eq!(acknowledge(&mut bench, 0, 3), [(0, 4)]);
    bench.now = LEASE / 4 * 3;
    assert_eq!(leases(&bench.feed(Event::Tick)), [(0, 5)]);
}

#[test]
fn a_node_that_has_just_had_one_is_not_taken_along() {
    let mut bench = Bench::with_lease(LEASE);
    bench.now = LEASE / 4 - LEASE / 8 + Duration::from_millis(1);
    bench.disconnect(1, 11);
    bench.connect(1, 11, 1001, 71, &[]);
    bench.now = LEASE / 4;
    assert_eq!(leases(&bench.feed(Event::Tick)), [(0, 1)]);
}

#[test]
fn a_pair_is_complete_without_a_second_acknowledgement() {
    let mut bench = Bench::with_lease(LEASE);
    bench.now = LEASE / 4;
    assert_eq!(leases(&bench.feed(Event::Tick)), [(0, 1), (1, 1)]);
    assert_eq!(acknowledge(&mut bench, 0, 1), [(0, 2)]);
    assert!(acknowledge(&mut bench, 0, 1).is_empty(), "once");
    bench.now = LEASE / 2;
    assert_eq!(leases(&bench.feed(Event::Tick)), [(0, 3)]);
}
