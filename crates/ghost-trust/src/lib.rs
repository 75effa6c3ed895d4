//! Who is who in a cluster: its certificate authority, join tokens, and the TLS settings of both ends.
//!
//! Trust flows from one key, the cluster's CA on the master. A certificate says a role (the master, or node N) and the
//! cluster, never an address. A machine that has no certificate yet knows the master by the CA's fingerprint in its join
//! token, and is known by the token's secret.
//!
//! Invariants:
//! - A certificate serves in exactly the role it names: a node's is never taken for the master's, nor the other way round.
//! - Validity in time is judged by the master's clock only; a node's own clock is never asked ([`tls`]).
//! - A certificate that the CA has issued says who the peer is, not that it is still a member: that is the master's list,
//!   asked after every handshake.
//! - Secrets show in no `Debug` output.

pub mod ca;
pub mod certificate;
pub mod gulps;
pub mod pem_file;
pub mod tls;
pub mod token;
pub mod verify;

mod random;

pub use ca::Ca;
pub use certificate::{ClusterId, Fingerprint, Role, Serial};
pub use gulps::Gulps;
pub use tls::{MasterIdentity, NodeIdentity, Peer};
pub use token::Token;
pub use verify::{Distrust, is_broken_off};
