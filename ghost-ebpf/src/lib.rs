//! What the kernel programs of both objects use: reading the kernel's memory, and atomic changes of map values.
#![no_std]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "see atomic.rs")]

pub mod atomic;
pub mod kernel;
