//! The packages on virtual machines: a master and two nodes under QEMU, with Debian's own kernel, systemd as PID 1, and what
//! apt installs. `cargo xtask vm` builds what they need and runs the program of this crate.
//!
//! [`root`] makes the root file systems, [`network`] joins the machines, [`machine`] is one of them, [`cluster`] all three with the
//! product on them as the README says, [`scenario`] what is tried there. In each machine runs `vm-agent`, to which [`protocol`] is
//! spoken over a virtio-serial port.

pub mod byhand;
pub mod cluster;
pub mod host;
pub mod machine;
pub mod network;
pub mod protocol;
pub mod readme;
pub mod root;
pub mod scenario;
