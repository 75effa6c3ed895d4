//! The node daemon and the holder, as a library.

pub mod config;
pub mod holder;
pub mod identity;
pub mod join;
pub mod link;
pub mod master_address;
pub mod renew;
