//! The view's guard: a child of ghostd, started again when it ends.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use ghost_host::companion;
use ghost_host::view::{Paths, Port, start_in_stat};
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::view_port::{GhostdToGuard, GhostdToServer, GuardToGhostd, Hide, Show};
use ghost_sys::namespace::keep_over_exec;
use ghost_sys::pidfd;
use tokio::io::unix::AsyncFd;

use super::kernel::pollable;
use super::{Driver, Shared};
use crate::core::Event;

/// Before a guard that has ended is started again.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of figures that may wait for the view's server: those of many thousand ghosts come within a moment.
const FIGURES_ON_THE_WAY: usize = 16 * 1024 * 1024;
/// Between two looks at whether one that was killed has gone.
const GOING: Duration = Duration::from_millis(20);

/// A guard that runs.
pub(super) struct Guard {
    port: Port,
    figures: Port,
    paths: Paths,
}

/// Keeps a guard running, for ever.
pub(super) async fn keep(shared: Shared, run: PathBuf) {
    let mut last = String::new();
    loop {
        match start(&run) {
            Ok((guard, mut child)) => {
                let why = match watch(&shared, guard).await {
                    Ok(()) => "the view's guard has ended: it is started again".to_owned(),
                    Err(why) => format!("the view's guard: {why:#}"),
                };
                {
                    let mut driver = shared.borrow_mut();
                    driver.view = None;
                    driver.turn(Event::ViewDown);
                }
                tracing::warn!("{why}");
                // Killed without being waited for in this thread's turn.
                let _ = child.kill();
                while let Ok(None) = child.try_wait() {
                    tokio::time::sleep(GOING).await;
                }
                last.clear();
            }
            Err(why) => {
                let text = format!("{why:#}");
                if text != last {
                    tracing::warn!("ghosts' /proc cannot show their processes: {text}");
                    last = text;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn start(run: &Path) -> Result<(Guard, Child)> {
    let (port, theirs) = Port::pair().context("no connection to the view's guard")?;
    let (figures, their_figures) = Port::pair().context("no connection to the view's server")?;
    figures.make_room(FIGURES_ON_THE_WAY);
    let program = companion::path("ghost-view");
    let mut command = Command::new(&program);
    command.arg("guard").arg("--run").arg(run).stdin(Stdio::null()).process_group(0);
    for (flag, descriptor) in [("--ghostd", &theirs), ("--figures", &their_figures)] {
        command.arg(flag).arg(keep_over_exec(descriptor)?.to_string());
    }
    let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
    Ok((Guard { port, figures, paths: Paths::new(run) }, child))
}

/// Until the guard closes its end.
async fn watch(shared: &Shared, guard: Guard) -> Result<()> {
    let port = pollable(guard.port.descriptor()?)?;
    let figures = pollable(guard.figures.descriptor()?)?;
    {
        let mut driver = shared.borrow_mut();
        driver.view = Some(guard);
        driver.turn(Event::ViewUp);
    }
    tokio::select! {
        ended = listen(&port, shared, Driver::guard_said) => ended,
        ended = listen(&figures, shared, Driver::server_said) => ended,
    }
}

/// Takes what comes on a port, until its other end is gone.
async fn listen(
    fd: &AsyncFd<OwnedFd>,
    shared: &Shared,
    take: impl Fn(&mut Driver) -> std::io::Result<bool>,
) -> Result<()> {
    loop {
        let mut ready = fd.readable().await?;
        // Cleared first: what comes from here on makes it ready again.
        ready.clear_ready();
        drop(ready);
        loop {
            let taken = take(&mut shared.borrow_mut());
            match taken {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                Err(why) if why.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(why) => return Err(why.into()),
            }
        }
    }
}

impl Driver {
    fn guard_said(&mut self) -> std::io::Result<bool> {
        let Some(guard) = &mut self.view else { return Ok(false) };
        match guard.port.receive()? {
            Some(GuardToGhostd::Hidden(Hide { proc })) => {
                self.turn(Event::GhostHidden { process: ProcId(proc) });
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn server_said(&mut self) -> std::io::Result<bool> {
        let Some(guard) = &mut self.view else { return Ok(false) };
        match guard.figures.receive()? {
            Some(what) => {
                self.turn(Event::Looked(what));
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Lets a ghost's /proc show its process, if the number is still that ghost's.
    pub(super) fn show_ghost(&mut self, process: ProcId, pid: u32, (uid, gid): (u32, u32), node: NodeNumber) {
        let Some(guard) = &self.view else { return };
        let is_ghost = |pidfd: &OwnedFd| matches!(self.programs.state(pidfd.as_fd()), Ok(Some(state)) if state.ghost == process.0 && !state.exited());
        let Some(_pidfd) = pidfd::open(pid).ok().filter(is_ghost) else { return };
        let line = std::fs::read(guard.paths.of_process(pid, "stat")).unwrap_or_default();
        let Some(start) = start_in_stat(&line) else { return };
        let show = Show { proc: process.0, pid, start, uid, gid, node: node.0 };
        if let Err(why) = guard.port.send(GhostdToGuard::Show(show)) {
            tracing::debug!(pid, "a ghost is shown later: {why}");
            self.events.push_back(Event::GhostNotShown { process });
        }
    }

    pub(super) fn hide_ghost(&mut self, process: ProcId) {
        let sent = match &self.view {
            Some(guard) => guard.port.send(GhostdToGuard::Hide(Hide { proc: process.0 })).is_ok(),
            None => false,
        };
        if !sent {
            self.events.push_back(Event::GhostHidden { process });
        }
    }

    pub(super) fn tell_view(&self, message: GhostdToServer) {
        let Some(guard) = &self.view else { return };
        if let Err(why) = guard.figures.send(message) {
            // Whoever looks next asks again.
            tracing::debug!("what a node said is dropped: {why}");
        }
    }
}

/// Keeps [`keep`] going beside everything else.
pub(super) fn begin(shared: &Shared, run: &Path) {
    tokio::task::spawn_local(keep(Rc::clone(shared), run.to_owned()));
}
