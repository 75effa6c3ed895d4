//! From terms to nodes.

use std::cell::{Cell, OnceCell};
use std::collections::{HashMap, HashSet};

use super::{
    MAX_NODES, NodeSpec, NodeState, Numbers, Operand, Operator, Problem, ResolveError, Selector, Term, fold, names,
};
use crate::ids::NodeNumber;
use crate::node_state::NodeStatus;

/// Nodes that may be looked at on the way: a list whose every term takes something away from many is not to hold ghostd up.
const WORK: usize = 32 * MAX_NODES;

pub(super) fn resolve(spec: &NodeSpec, existing: &[NodeState<'_>]) -> Result<Vec<NodeNumber>, ResolveError> {
    let mut existing = existing.to_vec();
    existing.sort_by_key(|node| node.number);
    let cluster = Cluster { existing, names: OnceCell::new(), work: Cell::new(0) };
    let nodes = cluster.list(spec)?;
    if nodes.is_empty() {
        return Err(ResolveError { position: 0, problem: Problem::Nobody("is left of this list".to_owned()) });
    }
    Ok(nodes)
}

struct Cluster<'a> {
    /// In order of numbers.
    existing: Vec<NodeState<'a>>,
    /// By name, and by its part before the first dot.
    names: OnceCell<HashMap<&'a str, Vec<NodeNumber>>>,
    work: Cell<usize>,
}

impl<'a> Cluster<'a> {
    fn list(&self, spec: &NodeSpec) -> Result<Vec<NodeNumber>, ResolveError> {
        let mut nodes = Vec::new();
        for term in &spec.terms {
            let fail = |problem| ResolveError { position: term.position, problem };
            let right = self.term(term)?;
            self.work.set(self.work.get() + right.len() + nodes.len() / 8);
            if self.work.get() > WORK {
                return Err(fail(Problem::TooMuch));
            }
            match term.operator {
                Operator::And => {
                    if nodes.len() + right.len() > MAX_NODES {
                        return Err(fail(Problem::TooMany));
                    }
                    nodes.extend(right);
                }
                Operator::Without => {
                    let right: HashSet<NodeNumber> = right.into_iter().collect();
                    nodes.retain(|node| !right.contains(node));
                }
                Operator::Among => {
                    let right: HashSet<NodeNumber> = right.into_iter().collect();
                    nodes.retain(|node| right.contains(node));
                }
                Operator::Either => {
                    let left: HashSet<NodeNumber> = nodes.iter().copied().collect();
                    let known: HashSet<NodeNumber> = right.iter().copied().collect();
                    nodes.retain(|node| !known.contains(node));
                    nodes.extend(right.into_iter().filter(|node| !left.contains(node)));
                    if nodes.len() > MAX_NODES {
                        return Err(fail(Problem::TooMany));
                    }
                }
            }
        }
        Ok(nodes)
    }

    fn term(&self, term: &Term) -> Result<Vec<NodeNumber>, ResolveError> {
        let fail = |problem| ResolveError { position: term.position, problem };
        let nodes: Vec<NodeNumber> = match &term.operand {
            Operand::List(list) => return self.list(list),
            Operand::Group(name) => return Err(fail(Problem::Group(name.clone()))),
            Operand::Levels(_) => return Err(fail(Problem::Levels(term.operand.text()))),
            Operand::Numbers(ranges) => {
                let count = ranges.iter().map(|range| range.count()).fold(0, usize::saturating_add);
                if count > MAX_NODES {
                    return Err(fail(Problem::TooMany));
                }
                return Ok(ranges.iter().flat_map(|range| range.nodes()).collect());
            }
            Operand::Named(pattern) => {
                return pattern.names().iter().map(|name| self.named(name).map_err(fail)).collect();
            }
            Operand::From(first) => self.those(|node| node.number >= *first),
            Operand::Existing(Selector::All) => self.those(|_| true),
            Operand::Existing(Selector::In(status)) => self.those(|node| node.status == *status),
            Operand::Existing(Selector::NotIn(status)) => self.those(|node| node.status != *status),
        };
        // Who takes nobody away, or asks who of them is up, has made no mistake.
        if nodes.is_empty() && term.operator == Operator::And {
            return Err(fail(Problem::Nobody(term.operand.describe())));
        }
        Ok(nodes)
    }

    fn those(&self, wanted: impl Fn(&NodeState<'_>) -> bool) -> Vec<NodeNumber> {
        self.work.set(self.work.get() + self.existing.len() / 8);
        self.existing.iter().filter(|node| wanted(node)).map(|node| node.number).collect()
    }

    fn named(&self, name: &str) -> Result<NodeNumber, Problem> {
        match self.names().get(name).map(Vec::as_slice) {
            Some([node]) => Ok(*node),
            Some(nodes) => Err(Problem::Ambiguous { name: name.to_owned(), nodes: fold(nodes) }),
            None => {
                let hint = match names::meant(name) {
                    Some(meant) => format!("; did you mean {meant}?"),
                    None => {
                        let states = NodeStatus::ALL.map(NodeStatus::name).join(", ");
                        format!("; `bpstat -l` shows the names, states are {states}")
                    }
                };
                Err(Problem::NoSuchName { name: name.to_owned(), hint })
            }
        }
    }

    fn names(&self) -> &HashMap<&'a str, Vec<NodeNumber>> {
        self.names.get_or_init(|| {
            let mut names: HashMap<&'a str, Vec<NodeNumber>> = HashMap::new();
            for node in self.existing.iter().filter(|node| !node.name.is_empty()) {
                names.entry(node.name).or_default().push(node.number);
                if let Some((short, _)) = node.name.split_once('.').filter(|(short, _)| !short.is_empty()) {
                    names.entry(short).or_default().push(node.number);
                }
            }
            names
        })
    }
}

impl Numbers {
    fn count(self) -> usize {
        usize::try_from((self.last - self.first) / self.step).map_or(usize::MAX, |count| count + 1)
    }

    fn nodes(self) -> impl Iterator<Item = NodeNumber> {
        (self.first..=self.last).step_by(usize::try_from(self.step).unwrap_or(1)).map(NodeNumber)
    }
}

impl Operand {
    /// Completes "no node …".
    fn describe(&self) -> String {
        match self {
            Operand::From(first) => format!("has a number of {first} or more"),
            Operand::Existing(Selector::All) => "exists; add some with `bpctl nodes add` or let them join".to_owned(),
            Operand::Existing(Selector::In(status)) => format!("is {status}"),
            Operand::Existing(Selector::NotIn(status)) => format!("is in another state than {status}"),
            other => format!("is among {}", other.text()),
        }
    }
}
