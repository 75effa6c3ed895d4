//! The one door to the kernel: every unsafe line of user space stands in this crate.
#![allow(unsafe_code, reason = "this crate is where the workspace keeps it")]

pub mod bpf;
pub mod bpf_objects;
pub mod capability;
pub mod descriptors;
pub mod fdpass;
pub mod fuse;
pub mod ghost;
pub mod heap;
pub mod identity;
pub mod inherit;
pub mod mount;
pub mod mount_tree;
pub mod namespace;
pub mod notify;
pub mod nowait;
pub mod peer;
pub mod pidfd;
pub mod pipe;
pub mod priority;
pub mod procfs;
pub mod quiet;
pub mod reaper;
pub mod ring;
pub mod signal;
pub mod signal_wait;
pub mod spawn;
pub mod standin;
pub mod tcp;
pub mod terminal;
#[cfg(feature = "trials")]
pub mod trials;
