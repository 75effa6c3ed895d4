//! What it takes to hold ghosts on a host: the pin on which they sleep, the kernel programs that see their signals, and
//! the table of what the kernel must offer.
//!
//! Both daemons may use it: nothing here assumes that only the master holds ghosts.

pub mod companion;
pub mod examine;
pub mod features;
pub mod fuse;
pub mod pin;
pub mod programs;
pub mod requirements;
pub mod view;
