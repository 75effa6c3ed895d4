//! Node lists as users type them: an error points into the text; the nodes, folded, are a list of the same nodes.

#![no_main]

use ghost_proto::ids::NodeNumber;
use ghost_proto::node_state::NodeStatus;
use ghost_proto::nodeset::{NodeSpec, NodeState, fold};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let length = text.chars().count();
    let spec = match NodeSpec::parse(text) {
        Ok(spec) => spec,
        Err(error) => {
            assert!(error.position <= length, "{error:?}");
            return;
        }
    };
    assert!(spec.groups().iter().all(|group| text.chars().nth(group.position) == Some('@')));
    const NAMES: [&str; 10] = ["n1", "n2", "", "n04.here", "io", "n6", "r1n7", "n8", "n8", "a-b"];
    let existing: Vec<NodeState> = (-1..9)
        .zip(NAMES)
        .map(|(number, name)| NodeState {
            number: NodeNumber(number),
            status: NodeStatus::ALL[number.unsigned_abs() as usize % 8],
            name,
        })
        .collect();
    match spec.resolve(&existing) {
        Ok(nodes) => {
            let folded = fold(&nodes);
            let again = NodeSpec::parse(&folded).expect("a folded list").resolve(&existing).expect("numbers");
            assert_eq!(nodes, again, "{folded}");
        }
        Err(error) => assert!(error.position <= length, "{error:?}"),
    }
    if let Err(error) = spec.numbers() {
        assert!(error.position <= length, "{error:?}");
    }
});
