//! One virtual machine: its process, its console, and running commands in it.

mod agent;
mod console;
mod qemu;
mod qmp;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::network::Network;
use crate::protocol::{Reply, Request};
use crate::root::recipe::Seat;
use agent::Agent;
use console::Console;
pub use console::last_lines;
pub use qemu::Hardware;
use qmp::Monitor;

/// For a command that does not say otherwise; one that takes seconds on hardware may take so long when it is emulated on a
/// busy machine.
pub const LIMIT: Duration = Duration::from_secs(300);
/// From the power button to the agent.
const BOOT: Duration = Duration::from_secs(600);
/// How often somebody who waits looks after the machine.
const LOOK: Duration = Duration::from_millis(200);

pub struct Machine {
    pub seat: Seat,
    process: Mutex<Child>,
    console: Console,
    agent: Agent,
    monitor: Mutex<Monitor>,
}

/// How a command has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// A command that runs. Who drops it leaves it running.
pub struct Running<'a> {
    machine: &'a Machine,
    id: u64,
    line: String,
    replies: Receiver<Reply>,
    pub out: String,
    pub err: String,
    status: Option<i32>,
}

impl Machine {
    /// Starts the machine; it boots until [`Machine::boots`] says so. To be called in the main thread (see `qemu`).
    pub fn start(hardware: &Hardware, network: &Network, seat: Seat) -> Result<Self> {
        let console = Console::follow(seat.name, &Hardware::file(seat, "console"))?;
        let mut process = hardware.start(seat, &network.port()?)?;
        let connected = || -> Result<_> {
            Ok((
                Agent::new(connect(&Hardware::file(seat, "agent"))?)?,
                Monitor::new(connect(&Hardware::file(seat, "qmp"))?)?,
            ))
        };
        match connected() {
            Ok((agent, monitor)) => {
                Ok(Self { seat, process: Mutex::new(process), console, agent, monitor: Mutex::new(monitor) })
            }
            Err(why) => {
                process.kill()?;
                process.wait()?;
                let said = std::fs::read_to_string(Hardware::file(seat, "qemu")).unwrap_or_default();
                Err(why.context(format!("{}: {said}", seat.name)))
            }
        }
    }

    pub fn name(&self) -> &'static str {
        self.seat.name
    }

    /// Why nothing more can be expected of this machine, if so.
    fn check(&self) -> Result<()> {
        if let Some(alarm) = self.console.alarm() {
            bail!("{}: the kernel says: {alarm}", self.name());
        }
        let ended = self.process.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.try_wait()?;
        ensure!(ended.is_none(), "{}: QEMU has ended: {ended:?}", self.name());
        Ok(())
    }

    /// The kernel has cried out.
    pub fn is_broken(&self) -> bool {
        self.check().is_err()
    }

    pub fn console(&self) -> String {
        self.console.last_lines()
    }

    /// Waits until the agent answers in another life than `before`, and returns the name of this life.
    pub fn boots(&self, before: Option<&str>) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < BOOT {
            let nonce = agent::next_number();
            let replies = self.agent.listen(nonce);
            self.agent.say(&Request::Hello { nonce })?;
            let reply = replies.recv_timeout(Duration::from_secs(2));
            self.agent.forget(nonce);
            self.check()?;
            match reply {
                Ok(Reply::Here { boot, .. }) if Some(boot.as_str()) != before => return Ok(boot),
                _ => std::thread::sleep(LOOK),
            }
        }
        bail!("{}: not up after {} s", self.name(), BOOT.as_secs())
    }

    /// The reset button.
    pub fn reset(&self) -> Result<()> {
        self.monitor.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.execute("system_reset")
    }

    fn begin(&self, line: &str, terminal: bool) -> Result<Running<'_>> {
        let id = agent::next_number();
        let replies = self.agent.listen(id);
        self.agent.say(&Request::Start { id, line: line.to_owned(), terminal })?;
        let (out, err) = (String::new(), String::new());
        Ok(Running { machine: self, id, line: line.to_owned(), replies, out, err, status: None })
    }

    /// Starts a line of bash as root, with nothing on its standard input but what [`Running::input`] says.
    pub fn spawn(&self, line: &str) -> Result<Running<'_>> {
        self.begin(line, false)
    }

    /// The same with a terminal of its own.
    pub fn terminal(&self, line: &str) -> Result<Running<'_>> {
        self.begin(line, true)
    }

    /// Runs a line of bash as root to its end.
    pub fn try_run(&self, line: &str) -> Result<Output> {
        let running = self.begin(line, false)?;
        self.agent.say(&Request::EndInput { id: running.id })?;
        running.wait(LIMIT)
    }

    /// The same, which must succeed; returns what it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.try_run(line)?;
        ensure!(
            output.status == 0,
            "{}: `{line}`: exit status {}\n{}{}",
            self.name(),
            output.status,
            output.out,
            output.err
        );
        Ok(output.out)
    }

    /// The same, told to who watches the run.
    pub fn types(&self, line: &str) -> Result<()> {
        let began = Instant::now();
        self.run(line)?;
        println!("  {}# {line}  ({} s)", self.name(), began.elapsed().as_secs());
        Ok(())
    }

    /// Runs a line again and again until it succeeds and `holds` of what it printed.
    pub fn until_with(&self, limit: Duration, line: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        let began = Instant::now();
        loop {
            let output = self.try_run(line)?;
            if output.status == 0 && holds(&output.out) {
                return Ok(output.out);
            }
            ensure!(
                began.elapsed() < limit,
                "{}: `{line}`: not after {} s: exit status {}\n{}{}",
                self.name(),
                limit.as_secs(),
                output.status,
                output.out,
                output.err
            );
            std::thread::sleep(LOOK);
        }
    }

    pub fn until(&self, line: &str) -> Result<String> {
        self.until_with(LIMIT, line, |_| true)
    }

    /// Copies a file to the machine's `/root`.
    pub fn put(&self, name: &str, contents: &str) -> Result<()> {
        let running = self.begin(&format!("umask 077; cat > {name}"), false)?;
        running.input(contents)?;
        self.agent.say(&Request::EndInput { id: running.id })?;
        let output = running.wait(LIMIT)?;
        ensure!(output.status == 0, "{}: {name}: {}", self.name(), output.err);
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(process) = self.process.get_mut() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Running<'_> {
    pub fn input(&self, text: &str) -> Result<()> {
        self.machine.agent.say(&Request::Input { id: self.id, text: text.to_owned() })
    }

    pub fn kill(&self) -> Result<()> {
        self.machine.agent.say(&Request::Kill { id: self.id })
    }

    /// Takes what has come, waiting at most [`LOOK`] for more.
    fn look(&mut self) -> Result<()> {
        match self.replies.recv_timeout(LOOK) {
            Ok(Reply::Output { error: false, text, .. }) => self.out += &text,
            Ok(Reply::Output { error: true, text, .. }) => self.err += &text,
            Ok(Reply::Exit { status, .. }) => self.status = Some(status),
            Ok(Reply::Here { .. }) => {}
            Err(RecvTimeoutError::Timeout) => self.machine.check()?,
            Err(RecvTimeoutError::Disconnected) => bail!("{}: the agent's port is closed", self.machine.name()),
        }
        Ok(())
    }

    /// Waits until what it has printed since then holds `text`; takes all up to its end away.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            if let Some(at) = self.out.find(text) {
                let rest = self.out.split_off(at + text.len());
                return Ok(std::mem::replace(&mut self.out, rest));
            }
            ensure!(
                self.status.is_none(),
                "{}: `{}` has ended without {text:?}:\n{}",
                self.machine.name(),
                self.line,
                self.out
            );
            ensure!(began.elapsed() < LIMIT, "{}: `{}`: no {text:?} in:\n{}", self.machine.name(), self.line, self.out);
            self.look()?;
        }
    }

    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let began = Instant::now();
        while self.status.is_none() {
            self.look()?;
            if self.status.is_none() && began.elapsed() > limit {
                self.kill()?;
                bail!(
                    "{}: `{}`: not done after {} s; so far:\n{}{}",
                    self.machine.name(),
                    self.line,
                    limit.as_secs(),
                    self.out,
                    self.err
                );
            }
        }
        let status = self.status.unwrap_or(125);
        Ok(Output { status, out: std::mem::take(&mut self.out), err: std::mem::take(&mut self.err) })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.machine.agent.forget(self.id);
    }
}

/// QEMU makes its sockets when it has started.
fn connect(path: &Path) -> Result<UnixStream> {
    let began = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(why) if began.elapsed() > Duration::from_secs(60) => {
                return Err(why).with_context(|| format!("QEMU has made no {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
