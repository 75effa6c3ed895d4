//! Node lists, as users write them: `0,2-3`, `4-`, `master`, `up`, `notdown`.
//!
//! ```text
//! list   = item *( "," item )             blanks around an item do not matter
//! item   = number                         a node, whether it exists or not
//!        | number "-" number              all numbers of the range, whether the nodes exist or not
//!        | number "-"                     the existing nodes from this number on
//!        | "master" | "-1"
//!        | "all"                          the existing nodes, in whatever state
//!        | ["all"] ["not"] state          the existing nodes that are (not) in this state
//! ```
//! Order is kept as written, and so is a node that is written twice: it stands for two processes. Within an item nodes
//! come in the order of their numbers.
//!
//! Invariant: a list of few characters cannot ask for more than [`MAX_NODES`] nodes; more is an error, found before memory is
//! set aside.

use crate::ids::NodeNumber;
use crate::node_state::NodeStatus;

/// The largest number of nodes that a list may stand for.
pub const MAX_NODES: usize = 65_536;

/// A node list, understood but not yet applied to the nodes that there are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeSpec {
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    what: What,
    /// Where it begins, in characters from 0.
    position: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// These numbers, both included; one node has both ends the same.
    Range(NodeNumber, NodeNumber),
    From(NodeNumber),
    Existing(Selector),
}

/// Which of the existing nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selector {
    All,
    In(NodeStatus),
    NotIn(NodeStatus),
}

/// A node that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    pub number: NodeNumber,
    pub status: NodeStatus,
}

/// The text is not a node list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node list, character {}: {message}", position + 1)]
pub struct ParseError {
    /// In characters from 0.
    pub position: usize,
    pub message: String,
}

/// The list cannot be applied to the nodes that there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("no node {what}")]
    Nobody { what: String, position: usize },
    #[error("the node list stands for more than {MAX_NODES} nodes")]
    TooMany { position: usize },
    #[error("only node numbers are allowed here, not `{what}`")]
    NotNumbers { what: String, position: usize },
}

impl ResolveError {
    /// Where the item begins that is to blame, in characters from 0.
    pub fn position(&self) -> usize {
        match self {
            ResolveError::Nobody { position, .. }
            | ResolveError::TooMany { position }
            | ResolveError::NotNumbers { position, .. } => *position,
        }
    }
}

impl NodeSpec {
    /// Reads a node list.
    ///
    /// # Errors
    /// It is empty, or something in it is no item, with the position.
    pub fn parse(text: &str) -> Result<NodeSpec, ParseError> {
        let mut items = Vec::new();
        let mut position = 0;
        for part in text.split(',') {
            let lead = part.chars().take_while(|c| *c == ' ' || *c == '\t').count();
            let item = part.trim_matches([' ', '\t']);
            if items.len() == MAX_NODES {
                return Err(ParseError { position, message: format!("a list has at most {MAX_NODES} items") });
            }
            items.push(parse_item(item, position + lead)?);
            position += part.chars().count() + 1;
        }
        Ok(NodeSpec { items })
    }

    /// The nodes that the list stands for, given those that exist (in any order).
    ///
    /// Numbers are taken as written: a node that is down or does not exist is in the result, so that the caller can say so.
    ///
    /// # Errors
    /// An item that stands for existing nodes finds none, or the list is too long.
    pub fn resolve(&self, existing: &[NodeState]) -> Result<Vec<NodeNumber>, ResolveError> {
        let mut existing = existing.to_vec();
        existing.sort_by_key(|node| node.number);
        let mut nodes = Vec::new();
        for item in &self.items {
            let before = nodes.len();
            match item.what {
                What::Range(first, last) => {
                    extend_checked(&mut nodes, (first.0..=last.0).map(NodeNumber), item.position)?;
                }
                What::From(_) | What::Existing(_) => {
                    let chosen = existing.iter().filter(|node| item.what.takes(node)).map(|node| node.number);
                    extend_checked(&mut nodes, chosen, item.position)?;
                    if nodes.len() == before {
                        return Err(ResolveError::Nobody { what: item.what.describe(), position: item.position });
                    }
                }
            }
        }
        Ok(nodes)
    }

    /// The numbers of a list that names nodes by number only, each once, in order: for nodes that need not exist yet.
    ///
    /// # Errors
    /// An item depends on which nodes exist, or is the master.
    pub fn numbers(&self) -> Result<Vec<NodeNumber>, ResolveError> {
        let mut nodes = Vec::new();
        for item in &self.items {
            match item.what {
                What::Range(first, last) if first > NodeNumber::MASTER => {
                    extend_checked(&mut nodes, (first.0..=last.0).map(NodeNumber), item.position)?;
                }
                other => return Err(ResolveError::NotNumbers { what: other.text(), position: item.position }),
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes)
    }
}

impl What {
    fn takes(self, node: &NodeState) -> bool {
        match self {
            What::Range(first, last) => (first..=last).contains(&node.number),
            What::From(first) => node.number >= first,
            What::Existing(Selector::All) => true,
            What::Existing(Selector::In(status)) => node.status == status,
            What::Existing(Selector::NotIn(status)) => node.status != status,
        }
    }

    /// Completes "no node …".
    fn describe(self) -> String {
        match self {
            What::Range(first, last) => format!("is among {first}-{last}"),
            What::From(first) => format!("has a number of {first} or more"),
            What::Existing(Selector::All) => "exists; add some with `bpctl nodes add` or let them join".to_owned(),
            What::Existing(Selector::In(status)) => format!("is {status}"),
            What::Existing(Selector::NotIn(status)) => format!("is in another state than {status}"),
        }
    }

    fn text(self) -> String {
        match self {
            What::Range(first, _) if first == NodeNumber::MASTER => "master".to_owned(),
            What::Range(first, last) => format!("{first}-{last}"),
            What::From(first) => format!("{first}-"),
            What::Existing(Selector::All) => "all".to_owned(),
            What::Existing(Selector::In(status)) => status.to_string(),
            What::Existing(Selector::NotIn(status)) => format!("not{status}"),
        }
    }
}

/// Writes nodes as a list, runs of numbers as ranges: `0-4,7`. Order and repetitions are kept.
pub fn fold(nodes: &[NodeNumber]) -> String {
    let mut text = String::new();
    let mut rest = nodes;
    while let Some(&first) = rest.first() {
        let mut length = 1;
        // The master is not the beginning of a range: "-1-3" would be no item.
        if first > NodeNumber::MASTER {
            length += rest.windows(2).take_while(|pair| pair[0].0.checked_add(1) == Some(pair[1].0)).count();
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if length > 1 {
            text.push('-');
            text.push_str(&rest[length - 1].to_string());
        }
        rest = &rest[length..];
    }
    text
}

fn extend_checked(
    nodes: &mut Vec<NodeNumber>,
    more: impl Iterator<Item = NodeNumber>,
    position: usize,
) -> Result<(), ResolveError> {
    for node in more {
        if nodes.len() == MAX_NODES {
            return Err(ResolveError::TooMany { position });
        }
        nodes.push(node);
    }
    Ok(())
}

fn parse_item(text: &str, position: usize) -> Result<Item, ParseError> {
    let fail = |at: usize, message: String| ParseError { position: position + at, message };
    let item = |what| Ok(Item { what, position });
    if text.is_empty() {
        return Err(fail(0, "a node number, a range or a state is missing here".to_owned()));
    }
    if text == "master" || text == "-1" {
        return item(What::Range(NodeNumber::MASTER, NodeNumber::MASTER));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let Some((first, last)) = text.split_once('-') else {
            let number = parse_number(text).map_err(|message| fail(0, message))?;
            return item(What::Range(number, number));
        };
        let start = parse_number(first).map_err(|message| fail(0, message))?;
        if last.is_empty() {
            return item(What::From(start));
        }
        let end = parse_number(last).map_err(|message| fail(first.len() + 1, message))?;
        if end < start {
            return Err(fail(0, format!("the range ends before it begins; write {end}-{start}")));
        }
        return item(What::Range(start, end));
    }
    if text == "all" {
        return item(What::Existing(Selector::All));
    }
    let name = text.strip_prefix("all").unwrap_or(text);
    let (name, negated) = match name.strip_prefix("not") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    match name.parse::<NodeStatus>() {
        Ok(status) if negated => item(What::Existing(Selector::NotIn(status))),
        Ok(status) => item(What::Existing(Selector::In(status))),
        Err(_) => {
            let states = NodeStatus::ALL.map(NodeStatus::name).join(", ");
            let message = format!(
                "`{text}` is no node; write numbers, ranges, `master`, `all`, or a state ({states}) or `not` and a state"
            );
            Err(fail(0, message))
        }
    }
}

fn parse_number(text: &str) -> Result<NodeNumber, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` is not a node number"));
    }
    match text.parse::<i32>() {
        Ok(number) if number <= NodeNumber::MAX.0 => Ok(NodeNumber(number)),
        _ => Err(format!("{text} is beyond the largest node number, {}", NodeNumber::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster() -> Vec<NodeState> {
        [(5, NodeStatus::Error), (0, NodeStatus::Up), (1, NodeStatus::Down), (2, NodeStatus::Up), (7, NodeStatus::Down)]
            .map(|(number, status)| NodeState { number: NodeNumber(number), status })
            .to_vec()
    }

    #[track_caller]
    fn check(list: &str, expected: &[i32]) {
        let nodes = NodeSpec::parse(list).unwrap().resolve(&cluster()).unwrap();
        assert_eq!(nodes.iter().map(|n| n.0).collect::<Vec<_>>(), expected, "{list}");
    }

    #[track_caller]
    fn refuse(list: &str, position: usize, part: &str) {
        let error = NodeSpec::parse(list).expect_err(list);
        assert_eq!(error.position, position, "{list}: {error}");
        assert!(error.message.contains(part), "{list}: {error}");
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
    }

    #[test]
    fn order_and_repetitions_are_kept() {
        check("3,0,3", &[3, 0, 3]);
        check("0-1,0-1", &[0, 1, 0, 1]);
        check("2,up", &[2, 0, 2]);
    }

    #[test]
    fn errors_say_where() {
        refuse("", 0, "missing");
        refuse("0,", 2, "missing");
        refuse(",0", 0, "missing");
        refuse("0, ,1", 3, "missing");
        refuse("1,4-2", 2, "write 2-4");
        refuse("0,x", 2, "no node");
        refuse("é,é", 0, "no node");
        refuse("1,é", 2, "no node");
        refuse("0,1x", 2, "not a node number");
        refuse("0-1-2", 2, "not a node number");
        refuse("-2", 0, "no node");
        refuse("-1-3", 0, "no node");
        refuse("65536", 0, "largest");
        refuse("0-4000000000", 2, "largest");
        refuse("99999999999999999999", 0, "largest");
        refuse("not", 0, "no node");
        refuse("notmaster", 0, "no node");
        refuse("alll", 0, "no node");
        refuse("Up", 0, "no node");
    }

    #[test]
    fn an_item_that_finds_nobody_is_an_error() {
        let none = |list: &str, existing: &[NodeState]| NodeSpec::parse(list).unwrap().resolve(existing).unwrap_err();
        assert_eq!(none("0,8-", &cluster()).to_string(), "no node has a number of 8 or more");
        assert_eq!(none("0,8-", &cluster()).position(), 2);
        assert_eq!(none("reboot", &cluster()).to_string(), "no node is reboot");
        assert!(none("all", &[]).to_string().contains("bpctl nodes add"));
    }

    #[test]
    fn a_short_list_cannot_ask_for_much() {
        assert_eq!(NodeSpec::parse("0-65535").unwrap().resolve(&[]).unwrap().len(), MAX_NODES);
        assert!(NodeSpec::parse(&"0,".repeat(5_000_000)).is_err());
        let twice = NodeSpec::parse("0-65535,0").unwrap();
        assert_eq!(twice.resolve(&[]), Err(ResolveError::TooMany { position: 8 }));
    }

    #[test]
    fn lists_of_numbers() {
        let numbers = |list: &str| NodeSpec::parse(list).unwrap().numbers().map(|n| fold(&n));
        assert_eq!(numbers("7,0-3,2").unwrap(), "0-3,7");
        for bad in ["all", "up", "3-", "master", "0,notup"] {
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
    }

    proptest! {
        #[test]
        fn what_is_folded_reads_back(nodes in prop::collection::vec(-1i32..40, 1..60)) {
            let nodes: Vec<NodeNumber> = nodes.into_iter().map(NodeNumber).collect();
            let again = NodeSpec::parse(&fold(&nodes)).unwrap().resolve(&[]).unwrap();
            prop_assert_eq!(again, nodes);
        }

        #[test]
        fn any_text_is_read_or_refused_within_itself(text in "\\PC{0,60}|[0-9,a-z -]{0,60}") {
            match NodeSpec::parse(&text) {
                Ok(spec) => {
                    if let Err(error) = spec.resolve(&cluster()) {
                        prop_assert!(error.position() <= text.chars().count());
                    }
                }
                Err(error) => prop_assert!(error.position <= text.chars().count()),
            }
        }

        #[test]
        fn a_state_and_its_negation_are_all(states in prop::collection::vec(0usize..8, 1..50), asked in 0usize..8) {
            let nodes: Vec<NodeState> = (0i32..).zip(&states)
                .map(|(number, s)| NodeState { number: NodeNumber(number), status: NodeStatus::ALL[*s] }).collect();
            let name = NodeStatus::ALL[asked].name();
            let find = |list: &str| NodeSpec::parse(list).unwrap().resolve(&nodes).unwrap_or_default();
            let mut both = find(name);
            both.extend(find(&format!("allnot{name}")));
            both.sort_unstable();
            prop_assert_eq!(both, find("all"));
        }
    }
}
