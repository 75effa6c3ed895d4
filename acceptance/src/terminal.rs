//! A person at a terminal: a program that leads a session of its own on a real pseudo-terminal, typed at and watched from
//! its other end.
//!
//! ```text
//!   test ── master side ──(kernel's line discipline)── slave side ── bash, its jobs
//! ```
//! Invariants:
//! - Nothing waits without a deadline, and a wait that fails shows everything that the screen has shown.
//! - What is expected is looked for only in what came after the last thing that was found.
//! - When a [`Terminal`] is dropped no process of its session is left.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ghost_sys::namespace::{Place, spawn};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the screen may take to show what it must show: generous, the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What bash prints when it waits for a command: the exit status of the last one in a form that nothing else prints.
const PROMPT: &str = "PS1=<<$?>>";
const PROMPT_BEGIN: &str = "<<";
const PROMPT_END: &str = ">>";

/// A session on a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    /// `None` once it was hung up.
    screen: Option<File>,
    leader: Child,
    shown: Vec<u8>,
    /// Up to here what was shown has been found by an earlier expectation.
    found: usize,
    ended: Option<ExitStatus>,
}

impl Terminal {
    /// Starts `command` at `place` as leader of a new session whose controlling terminal is new. util-linux's setsid(1)
    /// makes the session.
    ///
    /// # Errors
    /// Those of openpty(3) and of starting a program.
    pub fn start(command: &Command, place: Place) -> Result<Terminal> {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).context("no pseudo-terminal")?;
        // openpty(3) cannot be told: a copy of the master side in any program would keep the line from being hung up.
        fcntl(&pair.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        fcntl(&pair.slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let slave = |fd: &OwnedFd| fd.try_clone().map(Stdio::from);
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        leader.stdin(slave(&pair.slave)?).stdout(slave(&pair.slave)?).stderr(Stdio::from(pair.slave));
        let leader = spawn(leader, place).context("cannot start a program on a terminal")?;
        Ok(Terminal { screen: Some(pair.master.into()), leader, shown: Vec::new(), found: 0, ended: None })
    }

    /// An interactive bash that has shown its first prompt. The terminal does not echo, so that what is shown is what
    /// programs print.
    ///
    /// # Errors
    /// Those of [`Terminal::start`]; no prompt came.
    pub fn bash(place: Place, path: &str) -> Result<Terminal> {
        let mut bash = Command::new("env");
        bash.args(["TERM=dumb", "HISTFILE=", PROMPT, "PS2=", &format!("PATH={path}")]);
        bash.args(["bash", "--norc", "--noprofile", "--noediting", "-i"]);
        let mut terminal = Terminal::start(&bash, place)?;
        terminal.prompt()?;
        terminal.line("stty -echo")?;
        terminal.prompt()?;
        Ok(terminal)
    }

    /// The session leader as this process sees it.
    pub fn leader(&self) -> u32 {
        self.leader.id()
    }

    /// Types a line.
    ///
    /// # Errors
    /// The line was hung up.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.send(format!("{text}\n").as_bytes())
    }

    /// Types a character with the control key held: `'c'`, `'z'`, `'\\'`, `'d'`.
    ///
    /// # Errors
    /// The line was hung up.
    pub fn control(&mut self, key: char) -> Result<()> {
        self.send(&[key.to_ascii_uppercase() as u8 & 0x1f])
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let screen = self.screen.as_mut().context("the line was hung up")?;
        screen.write_all(bytes).context("typing")
    }

    /// Waits until `text` is shown; gives what was shown before it since the last thing that was found.
    ///
    /// # Errors
    /// It is not shown within [`PATIENCE`], or the session ends before.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = find(&self.shown[self.found..], text.as_bytes()) {
                let before = String::from_utf8_lossy(&self.shown[self.found..self.found + at]).into_owned();
                self.found += at + text.len();
                return Ok(before);
            }
            if !self.watch(until)? {
                bail!("{text:?} was not shown; the screen:\n{}", self.screen());
            }
        }
    }

    /// Waits for bash's next prompt; gives `$?` and what was shown before it.
    ///
    /// # Errors
    /// Those of [`Terminal::expect`].
    pub fn prompt(&mut self) -> Result<(i32, String)> {
        let before = self.expect(PROMPT_BEGIN)?;
        let status = self.expect(PROMPT_END)?;
        let status =
            status.parse().with_context(|| format!("{status:?} in a prompt; the screen:\n{}", self.screen()))?;
        Ok((status, before))
    }

    /// Types a line and waits for the prompt after it.
    ///
    /// # Errors
    /// Those of [`Terminal::expect`].
    pub fn run(&mut self, line: &str) -> Result<(i32, String)> {
        self.line(line)?;
        self.prompt()
    }

    /// All that was shown, for messages.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown).replace('\r', "")
    }

    /// Reads what is shown next; false: nothing came until then, or nothing will come any more.
    fn watch(&mut self, until: Instant) -> Result<bool> {
        let Some(screen) = &mut self.screen else { return Ok(false) };
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(screen.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout)? == 0 {
            return Ok(false);
        }
        let mut buffer = [0; 4096];
        // EIO: nobody has the slave side open any more (drivers/tty/n_tty.c, n_tty_read() on an "other end closed").
        let n = std::io::Read::read(screen, &mut buffer).unwrap_or(0);
        self.shown.extend_from_slice(&buffer[..n]);
        Ok(n > 0)
    }

    /// The terminal's window is closed: the kernel hangs the line up.
    pub fn hang_up(&mut self) {
        self.screen = None;
    }

    /// Waits for the session leader's end.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended.or(self.leader.try_wait()?) {
                self.ended = Some(status);
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("process {} does not end; the screen:\n{}", self.leader.id(), self.screen());
            }
            // Else a full screen would hold up what is to end.
            if self.screen.is_some() {
                self.watch(Instant::now() + Duration::from_millis(10))?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the screen of a terminal:\n{}\n(end of screen)", self.screen());
        }
        for pid in members_of_session(self.leader.id()) {
            // ESRCH: it has ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.screen = None;
        if self.ended.is_none() {
            let _ = self.leader.kill();
            let _ = self.leader.wait();
        }
    }
}

/// What a shell shows for an exit status: the code, or 128 and the signal.
pub fn shell_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Processes of a session that have not ended, by the kernel's list. Their ends are not waited for.
pub fn members_of_session(leader: u32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may contain anything: state ppid pgrp session (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        let member = fields.get(3).and_then(|session| session.parse().ok()) == Some(leader);
        member && !matches!(fields.first(), Some(&"Z" | &"X"))
    })
    .collect()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Terminal {
        let path = std::env::var("PATH").expect("PATH");
        Terminal::bash(Place::here(), &path).expect("bash")
    }

    #[test]
    fn a_shell_has_job_control_here() {
        let mut terminal = here();
        assert_eq!(terminal.run("exit_with() { return $1; }; exit_with 7").expect("status").0, 7);
        terminal.line("sleep 1000; echo after").expect("typing");
        while members_of_session(terminal.leader()).len() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        terminal.control('z').expect("typing");
        let (_, shown) = terminal.prompt().expect("prompt");
        assert!(shown.contains("Stopped"), "{shown}");
        terminal.line("fg").expect("typing");
        terminal.expect("sleep 1000").expect("fg names the job");
        terminal.control('c').expect("typing");
        assert_eq!(terminal.prompt().expect("prompt").0, 130);
    }

    #[test]
    fn what_is_missing_on_the_screen_is_missed() {
        let mut terminal = here();
        terminal.line("echo first; exit").expect("typing");
        let why = terminal.expect("second").expect_err("never printed");
        assert!(why.to_string().contains("first"), "{why}");
    }

    #[test]
    fn nothing_of_a_dropped_session_is_left() {
        let mut terminal = here();
        terminal.run("trap '' HUP; sleep 1000 & (trap '' TERM; sleep 1001) & :").expect("prompt");
        let leader = terminal.leader();
        assert!(members_of_session(leader).len() >= 3);
        drop(terminal);
        let until = Instant::now() + PATIENCE;
        while !members_of_session(leader).is_empty() {
            assert!(Instant::now() < until, "{:?}", members_of_session(leader));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
