//! Finding this node's holder, or starting one.
//!
//! Invariant: a holder is started only when nobody answers on its socket, so that the processes of a living one are never
//! left without their keeper.

use std::env;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ghost_host::companion;
use ghost_proto::instance::{self, Instance};
use ghost_sys::namespace::{Place, spawn};
use ghost_sys::pidfd;
use nix::sched::CloneFlags;
use nix::sys::socket::{getsockopt, sockopt};
use tracing::{info, warn};

/// How long a new holder may take to answer.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// The holder of an instance on this node.
#[derive(Debug)]
pub struct HolderProcess {
    instance: Instance,
    /// If it was started by this process, and so is to be waited for.
    child: Option<Child>,
}

impl HolderProcess {
    pub fn new(instance: &Instance) -> HolderProcess {
        HolderProcess { instance: instance.clone(), child: None }
    }

    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// A new connection to the holder, which is started if there is none; then `started` is called. Takes some milliseconds then.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn connect(&mut self, started: impl FnOnce()) -> Result<UnixStream> {
        self.look_after();
        let socket = self.instance.holder_socket();
        match UnixStream::connect(&socket) {
            Ok(stream) => return Ok(stream),
            Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(why) => return Err(why).with_context(|| format!("{}: no connection to the holder", socket.display())),
        }
        let mut child = self.start()?;
        let begin = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                info!(holder = child.id(), "holder started");
                self.child = Some(child);
                started();
                return Ok(stream);
            }
            if let Some(status) = child.try_wait().context("the holder cannot be waited for")? {
                bail!("the holder could not begin its work ({status}); its own message stands before this one");
            }
            if begin.elapsed() > START {
                child.kill().and_then(|()| child.wait()).context("the holder cannot be ended")?;
                bail!("the holder does not answer on {} within {} s", socket.display(), START.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn start(&self) -> Result<Child> {
        let program = companion::path("ghost-holder");
        let mut command = Command::new(&program);
        command.args(["--instance", self.instance.as_str()]).stdin(Stdio::null()).stdout(Stdio::null());
        // It serves every user's processes: nothing of who started the daemon is to get there.
        let path = env::var_os("PATH").map(|path| ("PATH", path));
        command.env_clear().envs(path).env(instance::ENVIRONMENT, self.instance.as_str());
        let place = Place::new(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).new_session();
        spawn(command, place).with_context(|| {
            format!("the holder, {}, cannot be started in a new PID namespace; are you root?", program.display())
        })
    }

    /// Takes note of the end of a holder that was started here.
    pub fn look_after(&mut self) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            warn!(%status, "the holder has ended, and with it all cluster processes of this node");
            self.child = None;
        }
    }

    /// Ends the holder, and by that all cluster processes of this node.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn end(&mut self) -> Result<()> {
        let Ok(stream) = UnixStream::connect(self.instance.holder_socket()) else {
            return Ok(());
        };
        // Who listens there, as the kernel knows it (net/unix/af_unix.c, unix_listen()).
        let pid = getsockopt(&stream, sockopt::PeerCredentials).context("the holder's PID")?.pid();
        pidfd::kill(pid, libc::SIGKILL).with_context(|| format!("the holder, process {pid}, cannot be ended"))?;
        if let Some(mut child) = self.child.take() {
            child.wait().context("the holder cannot be waited for")?;
        }
        Ok(())
    }
}
