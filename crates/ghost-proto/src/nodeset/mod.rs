//! Node lists, as users write them: `0,2-3`, `4-`, `master`, `up`, `n[1-3,8-20/2]`, `all!(3,@broken)`.
//!
//! ```text
//! list   = term *( op term )              blanks around a term do not matter; from left to right, no operator goes before another
//! op     = ","                            and then these
//!        | "!"                            but without these
//!        | "&"                            but only those that are among these
//!        | "^"                            those that are in one of the two and not in both
//! term   = "(" list ")" | "()"            the latter is nobody
//!        | "@" group | item               a group is replaced by the commands before ghostd is asked
//! item   = number                         a node, whether it exists or not
//!        | number "-" number              all numbers of the range, whether the nodes exist or not
//!        | "[" ranges "]"                 the same, also in steps: [8-20/2] is every second one
//!        | number "-"                     the existing nodes from this number on
//!        | "master" | "-1"
//!        | "all"                          the existing nodes, in whatever state
//!        | ["all"] ["not"] state          the existing nodes that are (not) in this state
//!        | name                           a host name, or its first part; with "[" ranges "]" many: n[1-3,8-20/2], r[1-2]n[01-40]
//!        | level *( "/" level )           GProc's levels of a tree of nodes: 1/. or ./.; read, but there is no tree yet
//! ```
//! Order is kept as written, and so is a node that is written twice: it stands for two processes. Within an item nodes
//! come in the order of their numbers, by names in the order of the names.
//!
//! Invariant: a list of few characters cannot ask for more than [`MAX_NODES`] nodes, nor for much work; more is an error, found
//! before memory is set aside.

mod fold;
mod names;
mod parse;
mod resolve;

#[cfg(test)]
mod tests;

use crate::ids::NodeNumber;
use crate::node_state::NodeStatus;
pub use fold::{fold, fold_set};
use names::NamePattern;

/// The largest number of nodes that a list may stand for.
pub const MAX_NODES: usize = 65_536;
/// The longest text of a list, in bytes.
pub const MAX_TEXT: usize = 1 << 20;

/// A node list, understood but not yet applied to the nodes that there are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeSpec {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    /// What it does to what stands before it; [`Operator::And`] for the first.
    operator: Operator,
    operand: Operand,
    /// Where the operand begins, in characters from 0.
    position: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    And,
    Without,
    Among,
    Either,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    List(NodeSpec),
    Group(String),
    /// One node has both ends the same.
    Numbers(Vec<Numbers>),
    From(NodeNumber),
    Existing(Selector),
    Named(NamePattern),
    Levels(Vec<Level>),
}

/// These numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    first: i32,
    last: i32,
    step: i32,
}

/// Which of the existing nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selector {
    All,
    In(NodeStatus),
    NotIn(NodeStatus),
}

/// Which nodes of one level of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    All,
    /// Both included, by their places in the level.
    Range(u32, u32),
}

/// A node that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState<'a> {
    pub number: NodeNumber,
    pub status: NodeStatus,
    /// Its host name; empty if it never joined.
    pub name: &'a str,
}

/// A group in the text of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupUse {
    pub name: String,
    /// Where its `@` stands, in characters from 0.
    pub position: usize,
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
#[error("{problem}")]
pub struct ResolveError {
    /// Where the term begins that is to blame, in characters from 0.
    pub position: usize,
    pub problem: Problem,
}

/// Why a list cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("no node {0}")]
    Nobody(String),
    #[error("the node list stands for more than {MAX_NODES} nodes")]
    TooMany,
    #[error("the node list asks for too much work; write it with fewer terms")]
    TooMuch,
    #[error("only node numbers are allowed here, not `{0}`")]
    NotNumbers(String),
    #[error("no node is called `{name}`{hint}")]
    NoSuchName { name: String, hint: String },
    #[error("nodes {nodes} are all called `{name}`; write their numbers")]
    Ambiguous { name: String, nodes: String },
    #[error("groups such as `@{0}` have no meaning here; write the nodes")]
    Group(String),
    #[error(
        "`{0}` names levels of a tree of nodes, and this cluster has no tree; write the nodes' numbers ([0-8/2] is every second one)"
    )]
    Levels(String),
}

impl NodeSpec {
    /// Reads a node list.
    ///
    /// # Errors
    /// It is empty, or something in it is no term, with the position.
    pub fn parse(text: &str) -> Result<NodeSpec, ParseError> {
        parse::parse(text)
    }

    /// The groups in it, in the order of their places.
    pub fn groups(&self) -> Vec<GroupUse> {
        let mut groups = Vec::new();
        for term in &self.terms {
            match &term.operand {
                Operand::Group(name) => groups.push(GroupUse { name: name.clone(), position: term.position }),
                Operand::List(list) => groups.extend(list.groups()),
                _ => {}
            }
        }
        groups
    }

    /// The nodes that the list stands for, given those that exist (in any order).
    ///
    /// Numbers are taken as written: a node that is down or does not exist is in the result, so that the caller can say so.
    ///
    /// # Errors
    /// A term that stands for existing nodes finds none (and is not there to be taken away), a name is unknown, nobody is left,
    /// or the list is too long.
    pub fn resolve(&self, existing: &[NodeState<'_>]) -> Result<Vec<NodeNumber>, ResolveError> {
        resolve::resolve(self, existing)
    }

    /// The numbers of a list that names nodes by number only, each once, in order: for nodes that need not exist yet.
    ///
    /// # Errors
    /// A term depends on which nodes exist, or is the master; nobody is left.
    pub fn numbers(&self) -> Result<Vec<NodeNumber>, ResolveError> {
        self.only_numbers()?;
        let mut nodes = self.resolve(&[])?;
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes)
    }

    fn only_numbers(&self) -> Result<(), ResolveError> {
        for term in &self.terms {
            match &term.operand {
                Operand::List(list) => list.only_numbers()?,
                Operand::Numbers(ranges) if ranges.iter().all(|range| range.first >= 0) => {}
                other => {
                    return Err(ResolveError { position: term.position, problem: Problem::NotNumbers(other.text()) });
                }
            }
        }
        Ok(())
    }
}

impl Operand {
    /// As it might have been written.
    fn text(&self) -> String {
        match self {
            Operand::List(_) => "(…)".to_owned(),
            Operand::Group(name) => format!("@{name}"),
            Operand::Numbers(ranges) => match ranges.first() {
                Some(range) if range.first < 0 => "master".to_owned(),
                Some(range) => format!("{}-{}", range.first, range.last),
                None => String::new(),
            },
            Operand::From(first) => format!("{first}-"),
            Operand::Existing(Selector::All) => "all".to_owned(),
            Operand::Existing(Selector::In(status)) => status.to_string(),
            Operand::Existing(Selector::NotIn(status)) => format!("not{status}"),
            Operand::Named(pattern) => pattern.text(),
            Operand::Levels(levels) => {
                let level = |level: &Level| match level {
                    Level::All => ".".to_owned(),
                    Level::Range(first, last) if first == last => first.to_string(),
                    Level::Range(first, last) => format!("{first}-{last}"),
                };
                levels.iter().map(level).collect::<Vec<_>>().join("/")
            }
        }
    }
}
