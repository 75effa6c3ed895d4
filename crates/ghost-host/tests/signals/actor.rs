//! A process that does what it is told: it sends signals, or ignores them like a ghost.
//!
//! Commands are lines on its standard input, words apart by blanks; each is answered by a line: `ok`, or the error number.
//! At the end of its input it exits with 0.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ghost_host::programs::{Event, Programs, SignalRecord};
use ghost_sys::signal::{self, Disposition};
use nix::sched::CloneFlags;
use nix::unistd::{Pid, Uid};

/// First argument of an actor.
pub const ARGUMENT: &str = "actor";

/// An actor's own main function.
pub fn main() -> ExitCode {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return ExitCode::FAILURE };
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match obey(&words) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), |number| number.to_string()),
        };
        if writeln!(io::stdout(), "{answer}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn obey(words: &[&str]) -> io::Result<()> {
    let number = |index: usize| -> io::Result<i32> {
        let word = words.get(index).ok_or_else(|| io::Error::other("too few words"))?;
        word.parse().map_err(io::Error::other)
    };
    match words[0] {
        "ignore" => signal::catchable().try_for_each(|sig| signal::set_disposition(sig, Disposition::Ignore)),
        "default" => signal::set_disposition(number(1)?, Disposition::Default),
        "block" => signal::set_blocked(u64::MAX).map(drop),
        "unblock" => signal::set_blocked(0).map(drop),
        "kill" => signal::send(number(1)?, number(2)?),
        "tgkill" => signal::send_to_thread(number(1)?, number(2)?),
        // queue PID SIGNAL FIRST-VALUE COUNT
        "queue" => {
            let first = words[3].parse::<u64>().map_err(io::Error::other)?;
            let count = words[4].parse::<u64>().map_err(io::Error::other)?;
            let (process, sig) = (number(1)?, number(2)?);
            (first..first + count).try_for_each(|value| signal::queue(process, sig, value))
        }
        "queue-group" => signal::queue_to_group(pidfd(number(1)?)?.as_fd(), number(2)?, 7),
        // forge SIGNAL CODE UID
        "forge" => signal::queue_to_self(number(1)?, number(2)?, number(3)?.cast_unsigned()),
        // Whether the child can be waited for depends on what is done with SIGCHLD.
        "child" => Command::new("/bin/true").spawn().map(|mut child| drop(child.wait())),
        "pgid" => Ok(nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(number(1)?))?),
        "setsid" => Ok(nix::unistd::setsid().map(drop)?),
        // Without O_NOCTTY: a session leader without a terminal gets this one.
        "terminal" => {
            let terminal = File::options().read(true).write(true).open(words[1])?;
            let _keep_open: &'static mut File = Box::leak(Box::new(terminal));
            Ok(())
        }
        // uids REAL EFFECTIVE
        "uids" => {
            let id = |value: i32| Uid::from_raw(value.cast_unsigned());
            let (real, effective) = (id(number(1)?), id(number(2)?));
            Ok(nix::unistd::setresuid(real, effective, effective)?)
        }
        "user-namespace" => Ok(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?),
        "exit" => std::process::exit(number(1)?),
        _ => Err(io::Error::other("unknown command")),
    }
}

/// An actor, as the test sees it. Killed and reaped when dropped.
pub struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Its PID where the test runs.
    pub pid: i32,
}

impl Actor {
    /// Starts an actor in a process group of its own.
    pub fn new() -> Self {
        let mut actor = Self::without_group();
        actor.does("pgid 0");
        actor
    }

    /// Starts an actor in the test's process group.
    pub fn without_group() -> Self {
        let mut command = Command::new(own_path());
        command.arg(ARGUMENT);
        Self::start(command)
    }

    /// Starts an actor in a PID namespace of its own, as its init.
    pub fn in_new_pid_namespace() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(own_path()).arg(ARGUMENT);
        Self::start_child(command)
    }

    /// Starts an actor in this one's PID namespace.
    pub fn neighbour(&self) -> Self {
        let mut command = Command::new("nsenter");
        command.args(["--pid", "--target", &self.pid.to_string()]).arg(own_path()).arg(ARGUMENT);
        let mut actor = Self::start_child(command);
        actor.does("pgid 0");
        actor
    }

    /// Starts a command whose only child is the actor.
    fn start_child(command: Command) -> Self {
        let mut actor = Self::start(command);
        // It answers, so it is there.
        actor.does("unblock");
        let children = children_of(actor.pid);
        assert_eq!(children.len(), 1, "children of {}", actor.pid);
        actor.pid = children[0];
        actor
    }

    /// Its PID in its own namespace.
    pub fn inner_pid(&self) -> i32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("status of an actor");
        let line = status.lines().find(|line| line.starts_with("NSpid:")).expect("NSpid");
        line.split_whitespace().last().and_then(|word| word.parse().ok()).expect("a number")
    }

    /// Starts a command that becomes an actor, or starts one.
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start an actor");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let pid = child.id().cast_signed();
        Self { child, input, output, pid }
    }

    /// An actor that ignores all signals, attached under `ghost`.
    pub fn ghost(programs: &Programs, ghost: u64) -> Self {
        Self::new().into_ghost(programs, ghost)
    }

    /// Makes this one a ghost.
    pub fn into_ghost(mut self, programs: &Programs, ghost: u64) -> Self {
        self.does("ignore");
        programs.attach_ghost(self.pidfd().as_fd(), ghost, false).expect("attach");
        self
    }

    /// Gives a command without waiting for its answer.
    pub fn begins(&mut self, command: &str) {
        writeln!(self.input.as_mut().expect("open"), "{command}").expect("the actor lives");
    }

    /// The answer to a command.
    pub fn answer(&mut self) -> String {
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the actor answers");
        answer.trim_end().to_owned()
    }

    /// The answer to `command`.
    pub fn tries(&mut self, command: &str) -> String {
        self.begins(command);
        self.answer()
    }

    /// Has a command done, which must succeed.
    pub fn does(&mut self, command: &str) {
        assert_eq!(self.tries(command), "ok", "actor {}: {command}", self.pid);
    }

    pub fn pidfd(&self) -> OwnedFd {
        pidfd(self.pid).expect("pidfd of an actor")
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.input = None;
        self.child.wait().expect("wait for an actor")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may be a grandchild, whose parent then ends too.
            let _ = signal::send(self.pid, 9);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// From `status`, not `stat`: the latter waits for processes that are in exec, and any may be.
fn children_of(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let line = format!("PPid:\t{parent}");
    pids.filter(|pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|other| other == line)
    })
    .collect()
}

/// The test program.
pub fn own_path() -> PathBuf {
    std::env::current_exe().expect("own path")
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    ghost_sys::pidfd::open(pid.cast_unsigned())
}

/// The signal records that are there, waiting until there are at least `count` events; others are not expected.
pub fn signals(programs: &mut Programs, count: usize) -> Vec<SignalRecord> {
    let events = events(programs, count).into_iter();
    events
        .map(|event| match event {
            Event::Signal(record) => record,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Events that are there, waiting until there are at least `count`.
pub fn events(programs: &mut Programs, count: usize) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut events = Vec::new();
    loop {
        while let Some(event) = programs.next_event() {
            events.push(event);
        }
        if events.len() >= count {
            return events;
        }
        assert!(Instant::now() < deadline, "{} of {count} events: {events:?}", events.len());
        wait_readable(programs.event_fd());
    }
}

fn wait_readable(fd: BorrowedFd<'_>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = PollTimeout::from(1000u16);
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout).expect("poll");
}
