//! The way between the master and the holder.
//!
//! ```text
//! ghostd ── TLS 1.3 ── [session] ── Unix socket ── holder
//!                       up:   frames, control before bulk
//!                       down: bytes as they come
//!                       and between the two, [sampler] and [readings]: what the view asks for
//!                       [pulse]: a holder that stands still is ended
//! ```
//! Invariants:
//! - Each session with the master has a connection of its own to the holder, so that the holder's hello is the first frame
//!   that the master gets, and its welcome the first that the holder gets.
//! - Nothing is kept here that is not lost without harm: what is under way is sent again by the two ends.

mod census;
pub mod holder_process;
pub mod input_rings;
pub mod own_frames;
mod power;
mod pulse;
mod readings;
mod sampler;
pub mod service;
pub mod session;
mod socket;
pub mod splitter;
