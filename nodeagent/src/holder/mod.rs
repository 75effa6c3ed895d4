//! The holder: init of the cluster PID namespace on a node, parent of the cluster's processes, keeper of their pipes, and
//! the one who kills them when the master is not heard of any more.
//!
//! ```text
//!   agent's socket ──> connection ──> core ──> driver: spawn, pipes, signals, cgroups
//!                                      ^                │
//!                                      └── events ──────┘
//! ```
//! [`core`] decides, [`driver`] acts; everything else is one thing that the driver uses. It is a single thread, without
//! helpers: each process in the namespace has a number that may be somebody's.
//!
//! Invariant: it waits in one place only, for anything at all to happen; the driver's documentation names the one exception.

pub mod cgroup;
pub mod connection;
pub mod core;
pub mod deliver;
pub mod driver;
pub mod event;
mod handles;
mod heard;
pub mod input;
mod launch_end;
mod load;
pub mod numbers;
pub mod output;
pub mod processes;
pub mod program;
mod relays;
pub mod rings;
pub mod setup;
pub mod standins;
mod terminal;
pub mod tree;
mod upwards;
