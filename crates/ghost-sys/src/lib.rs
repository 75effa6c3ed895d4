//! The one door to the kernel: every unsafe line of user space stands in this crate.
#![allow(unsafe_code, reason = "this crate is where the workspace keeps it")]

pub mod bpf;
pub mod descriptors;
pub mod fdpass;
pub mod ghost;
pub mod bpf_objects;
pub mod mount;
pub mod namespace;
pub mod notify;
pub mod fuse;
pub mod identity;
pub mod peer;
pub mod signal;
pub mod signal_wait;
pub mod inherit;
pub mod nowait;
pub mod quiet;
pub mod pidfd;
pub mod pipe;
pub mod reaper;
pub mod spawn;
pub mod tcp;
