//! The commands. Each is a small static program: one thread, no async runtime, a poll loop where one is needed.

pub mod bpctl;
pub mod bpsh;
pub mod bpstat;
pub mod connection;
