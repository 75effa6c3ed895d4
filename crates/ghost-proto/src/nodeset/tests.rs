use super::*;
use proptest::prelude::*;

fn cluster() -> Vec<NodeState<'static>> {
    use NodeStatus::{Down, Error, Up};
    [(5, Error, "io"), (0, Up, "n0"), (1, Down, "n01"), (2, Up, "r2n10.cluster.local"), (7, Down, "")]
        .map(|(number, status, name)| NodeState { number: NodeNumber(number), status, name })
        .to_vec()
}

fn found(list: &str) -> Vec<i32> {
    let nodes = NodeSpec::parse(list).unwrap_or_else(|e| panic!("{list}: {e}")).resolve(&cluster());
    nodes.unwrap_or_else(|e| panic!("{list}: {e}")).iter().map(|n| n.0).collect()
}

#[track_caller]
fn check(list: &str, expected: &[i32]) {
    assert_eq!(found(list), expected, "{list}");
}

#[track_caller]
fn refuse(list: &str, position: usize, part: &str) {
    let error = NodeSpec::parse(list).expect_err(list);
    assert_eq!(error.position, position, "{list}: {error}");
    assert!(error.message.contains(part), "{list}: {error}");
}

#[track_caller]
fn unresolved(list: &str, existing: &[NodeState<'_>], position: usize, part: &str) {
    let error = NodeSpec::parse(list).expect(list).resolve(existing).expect_err(list);
    assert_eq!(error.position, position, "{list}: {error}");
    assert!(error.to_string().contains(part), "{list}: {error}");
}

#[test]
fn every_form_of_an_item() {
    check("3", &[3]);
    check("0,2-3", &[0, 2, 3]);
    check("0-4", &[0, 1, 2, 3, 4]);
    check("3-3", &[3]);
    check("2-", &[2, 5, 7]);
    check("3-", &[5, 7]);
    check("master", &[-1]);
    check("-1", &[-1]);
    check("-1,0", &[-1, 0]);
    check("all", &[0, 1, 2, 5, 7]);
    for up in ["up", "allup"] {
        check(up, &[0, 2]);
    }
    for notup in ["notup", "allnotup"] {
        check(notup, &[1, 5, 7]);
    }
    check("down", &[1, 7]);
    check("error", &[5]);
    check("notdown", &[0, 2, 5]);
    check(" 3 ,\t1", &[3, 1]);
    check("[1-3,8-20/4]", &[1, 2, 3, 8, 12, 16, 20]);
    check("[7]", &[7]);
}

#[test]
fn names_are_host_names_whole_or_short() {
    check("n0", &[0]);
    check("n[0,01]", &[0, 1]);
    check("n[01],io", &[1, 5]);
    check("r2n10.cluster.local", &[2]);
    check("r[2]n[10-10]", &[2]);
    unresolved("0,n0-1", &cluster(), 2, "did you mean n[0-1]?");
    unresolved("n[0-2]", &cluster(), 0, "no node is called `n1`");
    unresolved("Up", &cluster(), 0, "states are down, boot, up");
    let twins = [0, 3].map(|n| NodeState { number: NodeNumber(n), status: NodeStatus::Up, name: "twin" });
    unresolved("twin", &twins, 0, "nodes 0,3 are all called `twin`");
}

#[test]
fn zeros_in_front_count() {
    let names = |list: &str| match &NodeSpec::parse(list).expect(list).terms[0].operand {
        Operand::Named(pattern) => pattern.names(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names("n[08-10]"), ["n08", "n09", "n10"]);
    assert_eq!(names("n[8-10]"), ["n8", "n9", "n10"]);
    assert_eq!(names("r[1-2]n[0-4/2]x"), ["r1n0x", "r1n2x", "r1n4x", "r2n0x", "r2n2x", "r2n4x"]);
}

#[test]
fn sets_are_combined_from_left_to_right() {
    check("0-7!3", &[0, 1, 2, 4, 5, 6, 7]);
    check("all!down", &[0, 2, 5]);
    check("all!(1,n0)", &[2, 5, 7]);
    check("0-3&2-5", &[2, 3]);
    check("0-3^2-5", &[0, 1, 4, 5]);
    check("0-3!1,1", &[0, 2, 3, 1]);
    check("0,1!1,2", &[0, 2]);
    check("0,(1!1),2", &[0, 2]);
    check("0,(),2", &[0, 2]);
    check("all & up , 7", &[0, 2, 7]);
    // Nobody is in that state, and nobody is taken away.
    check("0-1!reboot", &[0, 1]);
    // Two processes each.
    check("0,0,1!1", &[0, 0]);
    unresolved("0-3!0-3", &cluster(), 0, "is left");
    unresolved("0-3!n9", &cluster(), 4, "no node is called `n9`");
}

#[test]
fn order_and_repetitions_are_kept() {
    check("3,0,3", &[3, 0, 3]);
    check("0-1,0-1", &[0, 1, 0, 1]);
    check("2,up", &[2, 0, 2]);
}

#[test]
fn levels_of_a_tree_are_read_and_refused_at_use() {
    for (list, levels) in [
        (".", vec![Level::All]),
        ("./.", vec![Level::All, Level::All]),
        ("1/.", vec![Level::Range(1, 1), Level::All]),
        ("0-3/7-9", vec![Level::Range(0, 3), Level::Range(7, 9)]),
        ("1/2/3", vec![Level::Range(1, 1), Level::Range(2, 2), Level::Range(3, 3)]),
    ] {
        let spec = NodeSpec::parse(list).expect(list);
        assert_eq!(spec.terms[0].operand, Operand::Levels(levels), "{list}");
        unresolved(&format!("0,{list}"), &cluster(), 2, "no tree");
        unresolved(list, &cluster(), 0, list);
    }
    refuse("1/", 2, "a level is missing");
    refuse("./x", 2, "is no number");
    refuse("n/1", 1, "levels of a tree");
}

#[test]
fn groups_are_left_to_the_commands() {
    let spec = NodeSpec::parse("0,(@io!@a:b-c.d_e)").expect("a list");
    let group = |name: &str, position| GroupUse { name: name.to_owned(), position };
    assert_eq!(spec.groups(), [group("io", 3), group("a:b-c.d_e", 7)]);
    unresolved("0,@io", &cluster(), 2, "`@io` have no meaning here");
    refuse("0,@", 3, "name of a group is missing");
    refuse("@a[1]", 2, "does not belong");
}

#[test]
fn errors_say_where() {
    refuse("", 0, "missing");
    refuse("0,", 2, "missing");
    refuse(",0", 0, "missing");
    refuse("0, ,1", 3, "missing");
    refuse("1,4-2", 2, "write 2-4");
    refuse("é,é", 0, "no node");
    refuse("1,é", 2, "no node");
    refuse("0,1x", 2, "not a node number");
    refuse("0-1-2", 2, "not a node number");
    refuse("-2", 0, "no node");
    refuse("-1-3", 0, "no node");
    refuse("65536", 0, "largest");
    refuse("0-4000000000", 2, "largest");
    refuse("99999999999999999999", 0, "largest");
    refuse("0 1", 2, "a comma is missing");
    refuse("!3", 0, "write all!");
    refuse("0!", 2, "missing");
    refuse("(0,1", 0, "is not closed");
    refuse("0,1)", 3, "closes nothing");
    refuse("n[1-3", 1, "is not closed");
    refuse("n1]", 2, "closes nothing");
    refuse("n[1,[2]]", 4, "within brackets");
    refuse("n[]", 2, "is no number");
    refuse("n[1,x]", 4, "is no number");
    refuse("n[3-1]", 2, "ends before");
    refuse("n[1-3/0]", 6, "at least 1");
    refuse("[1]x", 0, "begins with a letter");
    refuse("n[0-65535]m[0-1]", 0, "more than 65536 names");
    refuse("n$", 1, "does not belong");
    refuse(&"(".repeat(40), 32, "within one another");
}

#[test]
fn an_item_that_finds_nobody_is_an_error() {
    unresolved("0,8-", &cluster(), 2, "no node has a number of 8 or more");
    unresolved("reboot", &cluster(), 0, "no node is reboot");
    unresolved("all", &[], 0, "bpctl nodes add");
}

#[test]
fn a_short_list_cannot_ask_for_much() {
    assert_eq!(NodeSpec::parse("0-65535").unwrap().resolve(&[]).unwrap().len(), MAX_NODES);
    assert!(NodeSpec::parse(&"0,".repeat(5_000_000)).is_err());
    unresolved("0-65535,0", &[], 8, "more than 65536");
    unresolved("[0-65535,0]", &[], 0, "more than 65536");
    unresolved(&("0".to_owned() + &"!0-65535".repeat(100)), &[], 2 + 8 * 31, "too much work");
}

#[test]
fn lists_of_numbers() {
    let numbers = |list: &str| NodeSpec::parse(list).unwrap().numbers().map(|n| fold(&n));
    assert_eq!(numbers("7,0-3,2").unwrap(), "0-3,7");
    assert_eq!(numbers("0-7!(3,[4-6/2])").unwrap(), "0-2,5,7");
    for bad in ["all", "up", "3-", "master", "0,notup", "0,(up)", "n1", "@io", "1/.", "0!0"] {
        assert!(numbers(bad).is_err(), "{bad}");
    }
}

#[test]
fn runs_are_folded() {
    let text = |nodes: &[i32]| fold(&nodes.iter().copied().map(NodeNumber).collect::<Vec<_>>());
    assert_eq!(text(&[]), "");
    assert_eq!(text(&[0, 1, 2, 3, 4, 7]), "0-4,7");
    assert_eq!(text(&[5, 7, 8, 9]), "5,7-9");
    assert_eq!(text(&[-1, 0, 1]), "-1,0-1");
    assert_eq!(text(&[3, 3, 4]), "3,3-4");
    assert_eq!(text(&[2, 1, 0]), "2,1,0");
    assert_eq!(fold_set([3, 1, 0, 3, -1]), "-1,0-1,3");
}

/// A list of terms that all mean something in [`cluster`].
fn lists() -> impl Strategy<Value = String> {
    let item = prop_oneof![
        "[0-9]",
        Just("0-4".to_owned()),
        Just("2-".to_owned()),
        Just("up".to_owned()),
        Just("all".to_owned()),
        Just("n[0,01]".to_owned()),
        Just("[0-8/2]".to_owned()),
    ];
    item.prop_recursive(3, 24, 4, |inner| {
        (prop::collection::vec((inner, "[,!&^]"), 1..4)).prop_map(|terms| {
            let mut text = String::new();
            for (index, (term, operator)) in terms.into_iter().enumerate() {
                if index > 0 {
                    text.push_str(&operator);
                }
                text.push_str(&term);
            }
            format!("({text})")
        })
    })
}

fn or_nobody(list: &str) -> Vec<i32> {
    let nodes = NodeSpec::parse(list).unwrap_or_else(|e| panic!("{list}: {e}")).resolve(&cluster());
    nodes.unwrap_or_default().iter().map(|n| n.0).collect()
}

proptest! {
    #[test]
    fn what_is_folded_reads_back(nodes in prop::collection::vec(-1i32..40, 1..60)) {
        let nodes: Vec<NodeNumber> = nodes.into_iter().map(NodeNumber).collect();
        let again = NodeSpec::parse(&fold(&nodes)).unwrap().resolve(&[]).unwrap();
        prop_assert_eq!(again, nodes);
    }

    #[test]
    fn any_text_is_read_or_refused_within_itself(text in "\\PC{0,60}|[0-9,a-z -]{0,60}|[0-9,n@!&^()/.\\[\\]-]{0,40}") {
        match NodeSpec::parse(&text) {
            Ok(spec) => {
                if let Err(error) = spec.resolve(&cluster()) {
                    prop_assert!(error.position <= text.chars().count());
                }
            }
            Err(error) => prop_assert!(error.position <= text.chars().count()),
        }
    }

    /// The operators mean what they mean for sets, whatever stands on both sides.
    #[test]
    fn operators_are_those_of_sets(left in lists(), right in lists()) {
        let (a, b) = (or_nobody(&left), or_nobody(&right));
        let of = |operator: &str| or_nobody(&format!("({left}){operator}({right})"));
        let without = |a: &[i32], b: &[i32]| a.iter().copied().filter(|n| !b.contains(n)).collect::<Vec<_>>();
        prop_assert_eq!(of("!"), without(&a, &b));
        prop_assert_eq!(of("&"), a.iter().copied().filter(|n| b.contains(n)).collect::<Vec<_>>());
        prop_assert_eq!(of("^"), [without(&a, &b), without(&b, &a)].concat());
        if !a.is_empty() && !b.is_empty() {
            prop_assert_eq!(of(","), [a, b].concat());
        }
    }

    #[test]
    fn a_folded_name_stands_for_what_its_range_says(first in 0u32..200, length in 0u32..40, step in 1u32..7, width in 1usize..4) {
        let last = first + length;
        let list = format!("n[{first:0width$}-{last}/{step}]");
        let NodeSpec { terms } = NodeSpec::parse(&list).unwrap();
        let Operand::Named(pattern) = &terms[0].operand else { panic!("{terms:?}") };
        // 007-9 is 007, 008, 009; 7-9 is 7, 8, 9.
        let width = if format!("{first:0width$}").starts_with('0') { format!("{first:0width$}").len() } else { 0 };
        let names: Vec<String> = (first..=last).step_by(step as usize).map(|n| format!("n{n:0width$}")).collect();
        prop_assert_eq!(pattern.count(), Some(names.len()));
        prop_assert_eq!(pattern.names(), names);
    }

    #[test]
    fn a_state_and_its_negation_are_all(states in prop::collection::vec(0usize..8, 1..50), asked in 0usize..8) {
        let nodes: Vec<NodeState<'_>> = (0i32..).zip(&states)
            .map(|(number, s)| NodeState { number: NodeNumber(number), status: NodeStatus::ALL[*s], name: "" }).collect();
        let name = NodeStatus::ALL[asked].name();
        let find = |list: &str| NodeSpec::parse(list).unwrap().resolve(&nodes).unwrap_or_default();
        let mut both = find(name);
        both.extend(find(&format!("allnot{name}")));
        both.sort_unstable();
        prop_assert_eq!(both, find("all"));
    }
}
