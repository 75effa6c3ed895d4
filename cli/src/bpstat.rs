//! `bpstat`.
