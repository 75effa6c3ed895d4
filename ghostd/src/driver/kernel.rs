//! Events from the kernel: reads and interrupts on the pin, records of the kernel programs.
//!
//! Before anything from the pin is handled the ring of records is drained: the record of a signal precedes the interrupt
//! that it causes.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ghost_abi::{GhostState, SignalFlags, SignalRecord};
use ghost_host::pin;
use ghost_host::programs;
use ghost_proto::ids::ProcId;
use ghost_sys::pidfd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{Driver, Shared, takeover};
use crate::core::Event;

/// Records or requests that are handled before others have their turn.
const AT_ONCE: usize = 256;
/// What is left then waits for the next turn: on a slow machine hundreds of ghosts take seconds, and the nodes' leases do not wait.
pub(super) const TURN: Duration = Duration::from_millis(20);
/// include/uapi/asm-generic/siginfo.h
const SI_USER: i32 = 0;

/// Begins to listen to the kernel. What comes out of the channel is the end of it.
pub(super) fn watch(shared: &Shared) -> Result<mpsc::Receiver<anyhow::Error>> {
    let (failed, receiver) = mpsc::channel(2);
    let (pin_fd, ring_fd) = {
        let driver = shared.borrow();
        (driver.pin.as_fd().try_clone_to_owned()?, driver.programs.event_fd().try_clone_to_owned()?)
    };
    // Registered now, so that nothing between here and the tasks' first turn is missed.
    let pin_fd = pollable(pin_fd).context("the pin cannot be polled")?;
    let ring_fd = pollable(ring_fd).context("the ring buffer cannot be polled")?;
    let (pin_failed, ring_failed) = (failed.clone(), failed);
    let (pin_shared, ring_shared) = (Rc::clone(shared), Rc::clone(shared));
    tokio::task::spawn_local(async move {
        let error = watch_pin(pin_fd, &pin_shared).await;
        let _ = pin_failed.send(error.context("the ghosts' file system has gone")).await;
    });
    tokio::task::spawn_local(async move {
        let error = watch_ring(ring_fd, &ring_shared).await;
        let _ = ring_failed.send(error.context("the kernel programs have gone")).await;
    });
    Ok(receiver)
}

#[expect(deprecated, reason = "its successor is unsafe for types whose descriptor may change; an OwnedFd's does not")]
pub(super) fn pollable(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

async fn watch_pin(fd: AsyncFd<OwnedFd>, shared: &Shared) -> anyhow::Error {
    loop {
        let mut ready = match fd.readable().await {
            Ok(ready) => ready,
            Err(error) => return error.into(),
        };
        match shared.borrow_mut().serve_pin() {
            Ok(true) => {}
            Ok(false) => ready.clear_ready(),
            Err(error) => return error.into(),
        }
        drop(ready);
        tokio::task::yield_now().await;
    }
}

async fn watch_ring(fd: AsyncFd<OwnedFd>, shared: &Shared) -> anyhow::Error {
    loop {
        let mut ready = match fd.readable().await {
            Ok(ready) => ready,
            Err(error) => return error.into(),
        };
        // Cleared first: what comes from here on makes it ready again.
        ready.clear_ready();
        drop(ready);
        while shared.borrow_mut().drain_ring(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
}

impl Driver {
    /// Whether there may be more.
    fn serve_pin(&mut self) -> std::io::Result<bool> {
        let began = Instant::now();
        for _ in 0..AT_ONCE {
            if began.elapsed() >= TURN {
                break;
            }
            let event = self.pin.next_event()?;
            while self.drain_ring(AT_ONCE) {}
            match event {
                Some(pin::Event::Read { token, file, pid, offset, .. }) => {
                    self.look_above();
                    self.turn(Event::PinRead { token, file, pid, offset });
                }
                Some(pin::Event::Interrupted { unique }) => self.turn(Event::PinInterrupted { unique }),
                None => {
                    self.hand_out_pins();
                    self.settle();
                    return Ok(false);
                }
            }
        }
        self.hand_out_pins();
        self.settle();
        Ok(true)
    }

    /// Whether there may be more.
    fn drain_ring(&mut self, at_most: usize) -> bool {
        for _ in 0..at_most {
            let (store, replayed) = (&mut self.store, &self.replayed);
            let note = |record: &SignalRecord| {
                if !replayed.contains(&record.seq) && !is_our_own(record) {
                    store.signal(record);
                }
            };
            match self.programs.next_event_noted(note) {
                Some(programs::Event::Signal(record)) if is_our_own(&record) => {}
                Some(programs::Event::Signal(record)) if self.replayed.remove(&record.seq) => {}
                Some(programs::Event::Signal(record)) => self.turn(Event::Signal(record)),
                Some(programs::Event::Exit(record)) => {
                    let launcher = record.flags & ghost_abi::GhostFlags::LAUNCHER != 0;
                    let pid = u32::try_from(record.pid).unwrap_or(0);
                    self.turn(Event::GhostExited { ghost: record.ghost, launcher, pid });
                }
                Some(programs::Event::Dropped) => self.read_dropped(),
                None => return false,
            }
        }
        true
    }

    /// Records were lost: what the kernel counted instead, ghost by ghost.
    pub(super) fn read_dropped(&mut self) {
        let seen_to = self.programs.dropped();
        let ghosts = self.core.watched_ghosts();
        self.dropped.retain(|process, _| ghosts.iter().any(|(id, _)| id == process));
        for (process, pid) in ghosts {
            let Ok(state) = self.state_of(pid) else { continue };
            let Some(state) = state.filter(|state| state.ghost == process.0) else {
                // Dead, and waited for already: its number is nobody's, or another's.
                self.turn(Event::GhostExited { ghost: process.0, launcher: false, pid });
                continue;
            };
            let earlier = self.dropped.get(&process).copied().unwrap_or(GhostState::new(process.0, false));
            let signals = state.dropped_since(&earlier);
            let queued = state.dropped_realtime_since(&earlier);
            if queued > 0 {
                tracing::warn!(pid, queued, "queued real-time signals to a flooded ghost were lost");
            }
            self.dropped.insert(process, state);
            if signals != 0 || state.exited() {
                self.turn(Event::GhostState { process, signals, exited: state.exited() });
            }
        }
        for process in self.unborn_and_dead() {
            self.turn(Event::GhostExited { ghost: process.0, launcher: false, pid: 0 });
        }
        for (launch, pid) in self.core.absent_launchers() {
            let state = self.state_of(pid);
            let lives = |state: GhostState| state.launcher() && state.ghost == launch.0 && !state.exited();
            if state.is_ok_and(|state| !state.is_some_and(lives)) {
                self.turn(Event::GhostExited { ghost: launch.0, launcher: true, pid });
            }
        }
        self.store.note_dropped(seen_to);
    }

    /// Ghosts that were stopped before they came, and are dead. Their numbers are not known yet.
    fn unborn_and_dead(&self) -> Vec<ProcId> {
        let mut unborn = self.core.stopped_unborn();
        if !unborn.is_empty() {
            // Without a list of the tasks they are waited for.
            let Ok(tasks) = takeover::tasks(&self.programs) else { return Vec::new() };
            let living: HashSet<u64> = tasks.filter(|task| !task.state.exited()).map(|task| task.state.ghost).collect();
            unborn.retain(|process| !living.contains(&process.0));
        }
        unborn
    }

    /// What the kernel programs know of a task; nothing of one that is gone.
    fn state_of(&self, pid: u32) -> std::io::Result<Option<GhostState>> {
        match pidfd::open(pid) {
            Ok(pidfd) => self.programs.state(pidfd.as_fd()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A ghost has unblocked the SIGCONT by which this process had it go on. The kernel programs leave out what they see us send; this one was
/// sent while the ghost had its signals blocked, and nobody but us can have sent it (kernel/signal.c, `do_rt_sigqueueinfo()`: only
/// to oneself with this code).
fn is_our_own(record: &SignalRecord) -> bool {
    record.has(SignalFlags::DELIVERED)
        && i32::from(record.sig) == nix::libc::SIGCONT
        && record.si_code == SI_USER
        && record.sender_pid.unsigned_abs() == std::process::id()
}
