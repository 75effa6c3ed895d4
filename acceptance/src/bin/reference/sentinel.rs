//! The leader of the program's process group: neither the program nor its launcher. It blocks all signals and tells of
//! those that come, so that what is sent to the group is seen to reach a local member as well.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a signal may take to come, in milliseconds.
const PATIENCE: u16 = 8_000;

/// Its program: `SIGNAL SENDER` for each.
pub fn run() -> Result<()> {
    ghost_sys::signal::set_blocked(u64::MAX)?;
    say!("ready");
    loop {
        let info = ghost_sys::signal_wait::next(u64::MAX)?;
        say!("{} {}", info.signal, info.pid);
    }
}

/// Killed when dropped.
pub struct Sentinel {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Sentinel {
    pub fn start() -> Result<Sentinel> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("sentinel").stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("the sentinel")?;
        let lines = BufReader::new(child.stdout.take().context("the sentinel's output")?);
        let mut sentinel = Sentinel { child, lines };
        let first = sentinel.line()?;
        if first != "ready" {
            bail!("the sentinel said {first}");
        }
        Ok(sentinel)
    }

    pub fn group(&self) -> u32 {
        self.child.id()
    }

    /// The next signal that it has got, and its sender; waits for it.
    pub fn next(&mut self) -> Result<(i32, u32)> {
        let line = self.line()?;
        let (signal, sender) = line.split_once(' ').context("two numbers")?;
        Ok((signal.parse()?, sender.parse()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut ready = [PollFd::new(self.lines.get_ref().as_fd(), PollFlags::POLLIN)];
        if self.lines.buffer().is_empty() && poll(&mut ready, PollTimeout::from(PATIENCE))? == 0 {
            bail!("the sentinel is silent");
        }
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("the sentinel has ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Dead already, if the case has killed its group.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
