//! The wire: what bpsh, ghostd, nodeagent and the holder say to each other.
//!
//! Three links carry the same frames ([`frame`]): client and ghostd over a Unix socket, ghostd and nodeagent over TLS 1.3,
//! nodeagent and holder over a Unix socket. Control messages are Protocol Buffers, one enum per direction ([`client`],
//! [`node`], [`join`]): an older peer skips fields and messages that it does not know. Bulk data travels in frames of its
//! own with a fixed header.
//!
//! Invariants:
//! - This crate does no I/O and reads no clock.
//! - A length is checked before anything is allocated for it ([`frame::Decoder`]).
//! - A byte of a stream has an absolute offset; at most the stream's window of bytes lies beyond the acknowledged offset
//!   ([`stream`]), which is flow control and bounds the memory of every hop.

pub mod client;
pub mod examine;
pub mod frame;
pub mod ids;
pub mod instance;
pub mod join;
pub mod launch;
pub mod metrics;
pub mod node;
pub mod node_state;
pub mod nodeset;
pub mod relay;
pub mod standin;
pub mod status;
pub mod stream;
pub mod terminal;
pub mod tree;
pub mod view;
pub mod view_port;
pub mod words;

mod control;

pub use control::Control;

/// The version of the protocol that this code speaks. A peer with another version is talked to as well: features are
/// negotiated by name in the hello, the number is for messages to people.
pub const VERSION: u32 = 1;
