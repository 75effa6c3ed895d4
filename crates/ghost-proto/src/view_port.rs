//! Between ghostd, the guard of the view, and the view's server. All three run on one host and come from one build; each
//! message is one packet of a local socket.
//!
//! ```text
//!           Show, Hide               Serve, Drop, Ping
//!  ghostd ─────────────▶  guard  ─────────────────────▶ server
//!         ◀─────────────         ◀─────────────────────
//!           Hidden                   Pong
//!
//!  ghostd ──── Figures, Part ───▶ server
//!         ◀──── Look, Fetch ─────
//! ```

use crate::control::direction;
use crate::view;

direction!(ToGuardEnvelope, GhostdToGuard, "GhostdToGuard", "1, 2");
direction!(FromGuardEnvelope, GuardToGhostd, "GuardToGhostd", "1");
direction!(ToServerEnvelope, GuardToServer, "GuardToServer", "1, 2, 3");
direction!(FromServerEnvelope, ServerToGuard, "ServerToGuard", "1");
direction!(FiguresEnvelope, GhostdToServer, "GhostdToServer", "1, 2");
direction!(LookEnvelope, ServerToGhostd, "ServerToGhostd", "1, 2");

/// What ghostd may say to the guard.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum GhostdToGuard {
    #[prost(message, tag = "1")]
    Show(Show),
    /// Answered with [`Hidden`], also if nothing was shown.
    #[prost(message, tag = "2")]
    Hide(Hide),
}

/// What the guard may say to ghostd.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum GuardToGhostd {
    /// `/proc/GHOST` is the kernel's own again.
    #[prost(message, tag = "1")]
    Hidden(Hide),
}

/// What the guard may say to the server.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum GuardToServer {
    #[prost(message, tag = "1")]
    Serve(Serve),
    #[prost(message, tag = "2")]
    Drop(Drop),
    /// "Are you there?"
    #[prost(message, tag = "3")]
    Ping(Ping),
}

/// What the server may say to the guard.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ServerToGuard {
    #[prost(message, tag = "1")]
    Pong(Ping),
}

/// What ghostd may say to the server.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum GhostdToServer {
    #[prost(message, tag = "1")]
    Figures(NodeFigures),
    #[prost(message, tag = "2")]
    Part(NodePart),
}

/// What the server may say to ghostd.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ServerToGhostd {
    #[prost(message, tag = "1")]
    Look(Look),
    #[prost(message, tag = "2")]
    Fetch(Fetch),
}

/// A ghost whose /proc directory is to show its process.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Show {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    /// The ghost's.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// When the ghost was made, in clock ticks since boot (field 22 of its stat): with the number it names it for ever.
    #[prost(uint64, tag = "3")]
    pub start: u64,
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    #[prost(sint32, tag = "6")]
    pub node: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hide {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
}

/// A ghost with the number of its directory, which never comes again.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Serve {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(message, optional, tag = "2")]
    pub show: Option<Show>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Drop {
    #[prost(uint32, tag = "1")]
    pub number: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ping {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeFigures {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    #[prost(message, optional, tag = "2")]
    pub figures: Option<view::Figures>,
}

/// Somebody looks, and what is known is too old.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Look {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    /// As in [`view::Sample`].
    #[prost(string, repeated, tag = "2")]
    pub files: Vec<String>,
    /// Of this process alone; 0: of all that are shown there.
    #[prost(fixed64, tag = "3")]
    pub proc: u64,
}

/// Somebody opens a file: the part of it from `offset` on. As in [`view::ReadPart`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Fetch {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    #[prost(fixed64, tag = "2")]
    pub proc: u64,
    #[prost(string, tag = "3")]
    pub file: String,
    #[prost(fixed64, tag = "4")]
    pub reading: u64,
    #[prost(uint64, tag = "5")]
    pub offset: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodePart {
    #[prost(sint32, tag = "1")]
    pub node: i32,
    #[prost(message, optional, tag = "2")]
    pub part: Option<view::Part>,
}
