//! The view: `/proc/GHOST` shows the node's process.
//!
//! ```text
//!  ghostd ──Show, Hide──▶ guard ──Serve, Drop, Ping──▶ server ◀── /dev/fuse
//!     ▲                     └─ mounts RUN/view, and each directory of it over its /proc/GHOST
//!     └────────────── Look ◀──────▶ Figures ────────────┘
//! ```
//! A FUSE file system has a directory for each ghost; the guard binds it over the ghost's in /proc. Its server answers from
//! memory ([`figures`]): what the node said of the process, with everything that names an identity or a time replaced by the
//! ghost's own ([`stat`], [`status`]). When somebody looks at what is older than [`FRESH`], the server asks ghostd, which asks
//! the node, once for all ghosts there ([`asking`]); nothing is read while nobody looks.
//!
//! Invariants:
//! - It never hangs a reader for long. The server is a process of its own; it waits for a node a moment at most, and not at
//!   all for one that was late. When it does not answer for [`watch::PATIENCE`] the guard kills it; its end of the connection
//!   is in no other process, so that every reader gets ENOTCONN at once; a successor is mounted anew.
//! - Who opens a file that comes in parts waits longer, for as long as parts come, and can be killed meanwhile ([`serving`]).
//! - The guard itself asks the file system for nothing but in a thread for that, which ends with the server's death.
//! - Neither looks at a ghost through /proc, where the view is, but through a mount of proc of its own (`RUN/proc`). That one
//!   carries no view at all, which also keeps unprivileged mounts of proc possible (fs/namespace.c `mnt_already_visible`).
//! - A ghost's view is taken off before the ghost ends; should that fail, the kernel does it when the ghost is reaped
//!   (fs/proc/base.c `proc_flush_pid`).
//! - What a user may not see of a process of his own kind he may not see of a ghost: files belong to the ghost's user with
//!   the modes of proc, and to root when the node's process belongs to somebody else.

mod asking;
mod figures;
mod files;
#[cfg(test)]
mod golden;
pub mod guard;
mod guarded;
mod mounter;
mod outbox;
mod paths;
mod port;
mod rendering;
pub mod server;
mod serving;
mod snapshots;
mod stat;
mod status;
mod watch;

use std::time::Duration;

pub use paths::Paths;
pub use port::Port;
pub use stat::start as start_in_stat;

/// What is this old is believed, and shown.
pub const FRESH: Duration = Duration::from_millis(1000);
