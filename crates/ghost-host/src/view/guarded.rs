//! The server as the guard sees it: a child process with a file system.
//!
//! Invariant: the server's end of the FUSE connection is open in the server alone (and, until it has been started, in the
//! thread that starts it), so that the connection ends with the server.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ghost_sys::namespace::{Place, keep_over_exec, spawn};

use super::watch::Watch;
use super::{Paths, Port};

/// The name under which the view is in the table of mounts.
const SOURCE: &str = "ghostproc-view";

/// A running server.
#[derive(Debug)]
pub(super) struct Guarded {
    child: Child,
    pub port: Port,
    pub watch: Watch,
    pub pings: u64,
}

impl Guarded {
    /// Mounts the file system and starts its server: `program serve …`. `figures`: the end that is to talk with ghostd.
    ///
    /// # Errors
    /// Those of mounting and of starting a program.
    pub(super) fn start(program: &Path, paths: &Paths, figures: &OwnedFd) -> io::Result<Guarded> {
        let device = ghost_sys::fuse::mount_for_all(&paths.view(), SOURCE)?;
        let (port, theirs) = Port::pair()?;
        let figures = figures.try_clone()?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--run").arg(paths.run()).stdin(Stdio::null()).process_group(0);
        for (flag, descriptor) in
            [("--device", device.as_fd()), ("--figures", figures.as_fd()), ("--guard", theirs.as_fd())]
        {
            command.arg(flag).arg(keep_over_exec(descriptor)?.to_string());
        }
        let child = spawn(command, Place::here().die_with_parent())?;
        debug_assert!(device.as_raw_fd() > 2);
        Ok(Guarded { child, port, watch: Watch::new(Instant::now()), pings: 0 })
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it. From then on nobody waits for it any more.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}
