//! A new nice value of a ghost reaches its process, and nothing else does.

use ghost_proto::ids::ProcId;
use ghost_proto::node::{MasterToNode, NodeToMaster, Renice};
use ghost_proto::tree::{Forked, forked_id};

use super::super::{Action, Event, NodeNumber};
use super::transitions::Bench;

const CHILD: ProcId = forked_id(NodeNumber(0), 1);

fn look(bench: &mut Bench, values: &[(ProcId, i32)]) -> Vec<(u64, i32)> {
    let actions = bench.feed(Event::NiceSeen { values: values.to_vec() });
    let told = actions.iter().map(|action| match action {
        Action::TellNode { message: MasterToNode::Renice(Renice { proc, nice }), .. } => (*proc, *nice),
        other => panic!("{other:?}"),
    });
    told.collect()
}

#[test]
fn a_new_value_is_told_once() {
    let mut bench = Bench::running();
    // As launched.
    assert_eq!(look(&mut bench, &[(ProcId(2), 0)]), []);
    assert_eq!(look(&mut bench, &[(ProcId(2), 7)]), [(2, 7)]);
    assert_eq!(look(&mut bench, &[(ProcId(2), 7)]), []);
    assert_eq!(look(&mut bench, &[(ProcId(2), -3)]), [(2, -3)]);
    // A ghost that is not known.
    assert_eq!(look(&mut bench, &[(ProcId(99), 5)]), []);
}

#[test]
fn one_that_changes_before_the_first_look_is_told() {
    let mut bench = Bench::running();
    assert_eq!(look(&mut bench, &[(ProcId(2), 4)]), [(2, 4)]);
}

#[test]
fn a_node_that_is_away_is_told_later() {
    let mut bench = Bench::running();
    assert_eq!(look(&mut bench, &[(ProcId(2), 0)]), []);
    bench.disconnect(0, 10);
    assert_eq!(look(&mut bench, &[(ProcId(2), 4)]), []);
    assert_eq!(look(&mut bench, &[(ProcId(2), 4)]), []);
    bench.connect(0, 12, 1000, 70, &[2]);
    assert_eq!(look(&mut bench, &[(ProcId(2), 4)]), [(2, 4)]);
}

#[test]
fn a_forked_one_begins_with_its_makers_value() {
    let mut bench = Bench::running();
    assert_eq!(look(&mut bench, &[(ProcId(2), 0)]), []);
    let forked = Forked { proc: CHILD.0, parent: 2, launch: 1, pid: 500, standing: None, creator: 0 };
    bench.node(0, 10, NodeToMaster::Forked(forked));
    // The parent's ghost was reniced before it made the child's: both processes have the old value.
    assert_eq!(look(&mut bench, &[(CHILD, 9), (ProcId(2), 9)]), [(CHILD.0, 9), (2, 9)]);
    assert_eq!(look(&mut bench, &[(CHILD, 9), (ProcId(2), 9)]), []);
}
