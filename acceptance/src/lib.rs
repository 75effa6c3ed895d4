//! What the product must show, tried from outside in a running test cluster; the checkers read the kernel.
//!
//! ```text
//!   this test program (the host) ── Cluster::attach() reads the description named by GHOSTPROC_CLUSTER
//!     ├─ Cmd, Shell, Terminal: programs inside a member, each with a time limit
//!     ├─ Snapshot, tree, ghost_tree, permission, leak, bytes: what the kernel says, from the host's /proc and cgroups
//!     └─ report: printed when a test panics: the members' process trees and logs
//! ```
//!
//! Invariant: no checker asks the product. What judges a test is read from the kernel, from outside the cluster's
//! namespaces, and each checker has a test in which a planted fault must be caught.
//!
//! The tests run with `cargo xtask test`, or one program of them with
//! `cargo xtask cluster -n 5 --outside -- PROGRAM --test-threads=1`.

pub mod bytes;
pub mod cluster;
pub mod command;
pub mod ghost_tree;
pub mod health;
pub mod leak;
pub mod measure;
pub mod memory;
pub mod metrics;
pub mod permission;
pub mod process;
pub mod random;
pub mod reference;
pub mod report;
pub mod shell;
pub mod shown;
pub mod terminal;
pub mod tree;
pub mod until;
pub mod work;

pub use cluster::{Cluster, Member};
pub use command::{Cmd, Ended, Finished, Running, User};
pub use process::{Process, Snapshot};
pub use shell::Shell;
pub use terminal::Terminal;
pub use until::{eventually, poll_until};

/// Whether the long forms of the tests are wanted (`cargo xtask soak`).
pub fn long() -> bool {
    std::env::var_os("GHOSTPROC_LONG").is_some_and(|value| value == "1")
}
