//! The command: runs on the master (or outside) with the caller's terminal and standard descriptors as they are.
//!
//! It has a process group of its own, because a group that reaches out of its PID namespace has the number 0 inside,
//! and because `kill 0` must not reach the runner. With a terminal the runner plays the shell for that group: gives it
//! the foreground, stops itself when the group stops, takes the terminal back.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ghost_sys::namespace::{Place, spawn};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, raise, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use super::ClusterArgs;
use super::description::{Description, VARIABLE};
use super::member::Member;
use super::setup::processors;
use super::signals::Signals;
use super::user;
use crate::init::PROGRAMS;

/// How long the command may take to end when the runner was told to end by SIGTERM or SIGHUP.
const GRACE: Duration = Duration::from_secs(2);

/// Shown before an interactive shell.
const HINT: &str = "This is the master; leave with `exit`, and everything is gone. Try:
  bpstat; bpsh -a hostname; bpsh 0 sleep 60 &
  ps xf | bpstat -P; kill -9 %1; bpsh -a -p -s -d ls /tmp";

/// What cargo adds to the environment of a program it runs.
const CARGOS: [&str; 5] = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(Signal),
}

impl Ended {
    /// Ends this program in the same way; returns only where that is an exit.
    pub fn end_likewise(self) -> Result<ExitCode> {
        match self {
            Self::Exited(code) => Ok(ExitCode::from(code as u8)),
            Self::Signaled(signal) => {
                // The command has dumped its core; ours says nothing.
                nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
                let mut mask = SigSet::empty();
                mask.add(signal);
                raise(signal)?;
                sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&mask), None)?;
                // Ignored, as after nohup: say it as a shell would.
                Ok(ExitCode::from(128 + signal as u8))
            }
        }
    }
}

pub fn run(args: &ClusterArgs, description: &Path, members: &mut [Member], signals: &mut Signals) -> Result<Ended> {
    // What its descendants leave behind outside is reparented to us: a process that was started in a member from
    // outside must be reaped for the member's PID 1 to end.
    nix::sys::prctl::set_child_subreaper(true).context("subreaper")?;
    let terminal = File::options().read(true).write(true).open("/dev/tty").ok();
    let in_foreground = |tty: &File| tcgetpgrp(tty) == Ok(getpgrp());
    let terminal = terminal.filter(in_foreground);
    let (command, place) = command(args, description, members)?;
    let mut place = place.blocked(signals.before);
    if let Some(terminal) = &terminal
        && std::io::stdin().is_terminal()
        && std::io::stdout().is_terminal()
    {
        place = place.foreground_of(terminal.as_raw_fd());
    }
    let what = command.get_program().to_string_lossy().into_owned();
    crate::machine::run_on(&processors(args, true)).context("--apart")?;
    let child = match spawn(command, place) {
        Ok(child) => child,
        Err(why) => {
            eprintln!("xtask: {what}: {why}");
            let code = if why.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            return Ok(Ended::Exited(code));
        }
    };
    let watched = Watched { group: Pid::from_raw(child.id() as i32), terminal };
    let ended = watched.watch(members, signals);
    watched.take_terminal_back();
    ended
}

struct Watched {
    /// Of the command, and its PID.
    group: Pid,
    /// Where the runner was in the foreground.
    terminal: Option<File>,
}

impl Watched {
    fn watch(&self, members: &mut [Member], signals: &mut Signals) -> Result<Ended> {
        let mut patience: Option<Instant> = None;
        loop {
            if let Some(ended) = self.look(members)? {
                return Ok(ended);
            }
            let left = patience.map(|until| until.saturating_duration_since(Instant::now()));
            match signals.next(left)? {
                Some(signal @ (Signal::SIGINT | Signal::SIGQUIT)) => self.signal(signal)?,
                Some(signal @ (Signal::SIGTERM | Signal::SIGHUP)) => {
                    self.signal(signal)?;
                    patience.get_or_insert(Instant::now() + GRACE);
                }
                Some(_) => {}
                None => {
                    self.signal(Signal::SIGKILL)?;
                    patience = None;
                }
            }
        }
    }

    /// Sees what has become of the children.
    fn look(&self, members: &mut [Member]) -> Result<Option<Ended>> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return Ok(Some(Ended::Exited(1))),
                Err(why) => return Err(why).context("waitpid"),
            };
            match status {
                WaitStatus::StillAlive => return Ok(None),
                WaitStatus::Exited(pid, code) if pid == self.group => return Ok(Some(Ended::Exited(code))),
                WaitStatus::Signaled(pid, signal, _) if pid == self.group => return Ok(Some(Ended::Signaled(signal))),
                WaitStatus::Stopped(pid, signal) if pid == self.group => self.stopped(signal)?,
                status => {
                    for member in members.iter_mut().filter(|member| !member.is_gone()) {
                        member.note(status);
                        if member.is_gone() {
                            eprintln!("xtask: {} is gone: {status:?}", member.name());
                        }
                    }
                }
            }
        }
    }

    /// The command has stopped: it wanted the terminal, or somebody wanted it to stop.
    fn stopped(&self, signal: Signal) -> Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let ours = tcgetpgrp(terminal) == Ok(getpgrp());
        let wants_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        if !(ours && wants_terminal) {
            let had_it = tcgetpgrp(terminal) == Ok(self.group);
            self.take_terminal_back();
            // To our own group, as the terminal would have done: the shell sees the whole job stopped.
            killpg(getpgrp(), Signal::SIGTSTP)?;
            // Continued. In the background the terminal is not ours to give.
            if had_it && tcgetpgrp(terminal) == Ok(getpgrp()) {
                tcsetpgrp(terminal, self.group)?;
            }
        } else {
            tcsetpgrp(terminal, self.group)?;
        }
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match killpg(self.group, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(why) => Err(why).with_context(|| format!("{signal} to the command")),
        }
    }

    fn take_terminal_back(&self) {
        if let Some(terminal) = &self.terminal
            && tcgetpgrp(terminal) != Ok(getpgrp())
        {
            // It may have been hung up; then there is nothing to take.
            let _ = tcsetpgrp(terminal, getpgrp());
        }
    }
}

fn command(args: &ClusterArgs, description: &Path, members: &[Member]) -> Result<(Command, Place)> {
    let user = args.user.map(user::look_up).transpose()?;
    let mut words = args.command.iter();
    let mut command = match words.next() {
        Some(program) => Command::new(program),
        None => {
            eprintln!("{HINT}");
            let own = std::env::var_os("SHELL").filter(|shell| Path::new(shell).exists());
            let theirs = user.as_ref().map(|user| user.shell.clone().into());
            Command::new(theirs.or(own).unwrap_or_else(|| "/bin/sh".into()))
        }
    };
    command.args(words).process_group(0);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO" || CARGOS.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    let ours = if args.outside { Description::read(description)?.bin_dir } else { PROGRAMS.into() };
    let path = std::env::var_os("PATH").unwrap_or_else(|| crate::init::PATH.into());
    let path = std::env::join_paths(std::iter::once(ours).chain(std::env::split_paths(&path)))?;
    command.env("PATH", path);
    if args.outside {
        command.env(VARIABLE, description);
        return Ok((command, Place::here().die_with_parent()));
    }
    let master = members.first().context("no master")?;
    let mut place = master.place("user.slice")?;
    if let Ok(directory) = std::env::current_dir() {
        place = place.directory(&directory);
    }
    if let Some(user) = user {
        command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
        place = place.directory(Path::new(&user.home)).user(user.credentials);
    }
    Ok((command, place))
}
