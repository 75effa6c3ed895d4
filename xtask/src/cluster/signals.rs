//! The runner's signals: held back, so that a Ctrl-C at any moment leads through the cleaning up, and read where the
//! runner waits.

use std::os::fd::{AsFd, BorrowedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The runner was told to end before its command ran.
#[derive(Debug, thiserror::Error)]
#[error("interrupted by {0}")]
pub struct Interrupted(pub Signal);

/// Those that mean "end".
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

pub struct Signals {
    descriptor: SignalFd,
    /// What was blocked before: the command starts with that.
    pub before: SigSet,
}

impl Signals {
    /// Blocks them for the rest of the program.
    pub fn take() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in ENDING {
            mask.add(signal);
        }
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGCONT);
        // The runner moves the terminal between process groups from the background.
        mask.add(Signal::SIGTTOU);
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("signal mask")?;
        mask.remove(Signal::SIGTTOU);
        let descriptor = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor, before })
    }

    /// The next one, or None after `timeout`. SIGCHLD means: look at the children.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Signal>> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(info) = self.descriptor.read_signal()? {
                return Ok(Signal::try_from(info.ssi_signo as i32).ok());
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            wait_for(&[self.descriptor.as_fd()], left)?;
        }
    }

    /// Waits until `fd` can be read.
    ///
    /// # Errors
    /// [`Interrupted`], or a timeout.
    pub fn readable(&mut self, fd: BorrowedFd<'_>, until: Instant) -> Result<()> {
        loop {
            while let Some(info) = self.descriptor.read_signal()? {
                check(Signal::try_from(info.ssi_signo as i32)?)?;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("timed out");
            }
            if wait_for(&[fd, self.descriptor.as_fd()], Some(left))?[0] {
                return Ok(());
            }
        }
    }

    /// Waits.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn pause(&mut self, time: Duration) -> Result<()> {
        self.next(Some(time))?.map_or(Ok(()), check)
    }

    /// Waits for a child, which is killed when that takes too long.
    ///
    /// # Errors
    /// [`Interrupted`], a timeout, or a status other than 0.
    pub fn success(&mut self, child: &mut Child, until: Instant, what: &str) -> Result<()> {
        loop {
            if let Some(status) = child.try_wait()? {
                return if status.success() { Ok(()) } else { bail!("{what} failed: {status}") };
            }
            let left = until.saturating_duration_since(Instant::now());
            let result = match self.next(Some(left)) {
                Ok(Some(signal)) => check(signal),
                Ok(None) => Err(anyhow::anyhow!("{what} did not end in time")),
                Err(why) => Err(why),
            };
            if let Err(why) = result {
                child.kill()?;
                child.wait()?;
                return Err(why);
            }
        }
    }
}

fn check(signal: Signal) -> Result<()> {
    if ENDING.contains(&signal) { Err(Interrupted(signal).into()) } else { Ok(()) }
}

fn wait_for(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Vec<bool>> {
    let timeout = match timeout {
        None => PollTimeout::NONE,
        Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
    };
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(why) => return Err(why).context("poll"),
    }
    Ok(polled.iter().map(|polled| polled.revents().is_some_and(|events| !events.is_empty())).collect())
}
