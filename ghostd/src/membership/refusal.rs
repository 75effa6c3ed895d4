//! Why somebody or something is refused. `Display` is for the log and the administrator: it says what to do.

use ghost_proto::ids::NodeNumber;
use ghost_proto::nodeset::fold;
use ghost_trust::Serial;
use ghost_trust::token::TokenId;

/// Why a machine may not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    #[error("token: unknown here (another cluster's, or long void); make a new one with `bpctl token`")]
    UnknownToken,
    #[error("token {id}: the secret is wrong")]
    WrongSecret { id: TokenId },
    #[error("token {id}: expired {} ago; make a new one with `bpctl token`", span(*.ago))]
    Expired { id: TokenId, ago: u64 },
    #[error("token {id}: used up; make a new one with `bpctl token`, for more nodes with --uses")]
    UsedUp { id: TokenId },
    #[error("node {number} is not among those that the token is good for ({nodes}); make another with `bpctl token`")]
    NotInToken { number: NodeNumber, nodes: String },
    #[error("node {number} has joined already; if this machine takes its place: `bpctl nodes replace {number}`")]
    Taken { number: NodeNumber },
    #[error("node {number} is revoked; to let it join again: `bpctl nodes replace {number}`")]
    Revoked { number: NodeNumber },
    #[error("all nodes that may join have joined; add some with `bpctl nodes add`")]
    NoneFree,
    #[error("{number} is not a node number, 0 to {} are", NodeNumber::MAX)]
    BadNumber { number: i32 },
    #[error("the host name is empty, too long or has characters that host names do not have")]
    BadHostname,
    #[error("it was given another certificate just now; try again in 2 s")]
    TooSoon,
    #[error("the certificate request is refused: {0}")]
    BadRequest(String),
    #[error("the master could not keep the new membership: {0}")]
    NotKept(String),
}

impl JoinRefusal {
    /// What the machine is told: a wrong secret gives away nothing about which tokens exist, the master's own trouble
    /// stays in its log.
    pub fn for_peer(&self) -> String {
        match self {
            JoinRefusal::WrongSecret { .. } => JoinRefusal::UnknownToken.to_string(),
            JoinRefusal::NotKept(_) => "the master has a problem of its own; its log says which".to_owned(),
            other => other.to_string(),
        }
    }
}

/// Why a certificate that the CA has issued is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    #[error("node {number} is not a member (removed?); it can join anew with a token")]
    Unknown { number: NodeNumber },
    #[error("node {number} is revoked; `bpctl nodes replace {number}` lets it join anew")]
    Revoked { number: NodeNumber },
    #[error("node {number}: the certificate {serial} has been replaced")]
    Replaced { number: NodeNumber, serial: Serial },
    #[error("node {number}: the certificate {serial} is not the member's")]
    NotItsCertificate { number: NodeNumber, serial: Serial },
}

/// Why an administrator's request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminRefusal {
    #[error("{}: no such node; `bpctl nodes list` shows those that there are", fold(.0))]
    Unknown(Vec<NodeNumber>),
    #[error("there are {0} valid tokens already; wait until some expire")]
    TooManyTokens(usize),
    #[error("a token can be valid for {} at most", span(*.0))]
    TooLong(u64),
}

/// A number of seconds for people: `45 s`, `12 min`, `2 h`, `3 days`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
