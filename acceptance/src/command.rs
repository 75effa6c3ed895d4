//! Programs inside a member, each with a time limit: who exceeds it is killed with all its descendants, and the test
//! fails.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ghost_sys::namespace::{Credentials, Place, spawn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid};

use crate::process::descendants_of;
use crate::{Member, until};

/// How long a program may take if nothing else is said.
const LIMIT: Duration = Duration::from_secs(60);

/// How long after its end a program's output may stay open: what is left then keeps it open.
const OUTPUT_GRACE: Duration = Duration::from_secs(10);

/// Where members have the product, the probe and everything else.
pub const PATH: &str = "/opt/ghostproc/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whose identity a program gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl User {
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, groups: vec![0] }
    }

    /// An ordinary user with groups of his own: 1000, 1000, and 1000, 2000, 3000.
    pub fn ordinary() -> Self {
        Self { uid: 1000, gid: 1000, groups: vec![1000, 2000, 3000] }
    }

    /// Another ordinary user, who shares no group with the first.
    pub fn other() -> Self {
        Self { uid: 1001, gid: 1001, groups: vec![1001] }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Signaled(signal),
            (None, None) => unreachable!("a status of wait is one or the other: {status:?}"),
        }
    }
}

enum Input {
    Nothing,
    Bytes(Vec<u8>),
    Pipe,
    From(Stdio),
}

enum Output {
    Collected,
    Pipe,
    To(Stdio),
}

/// A program to be run.
#[must_use = "nothing runs before run() or start()"]
pub struct Cmd {
    what: String,
    init: u32,
    cgroup: PathBuf,
    command: Command,
    user: User,
    directory: Option<PathBuf>,
    limit: Duration,
    input: Input,
    stdout: Output,
    stderr: Output,
}

impl Cmd {
    pub(crate) fn new(member: &Member, program: &str) -> Self {
        let mut command = Command::new(program);
        command.env_clear().envs([("PATH", PATH), ("HOME", "/"), ("LC_ALL", "C"), ("TZ", "UTC"), ("TERM", "dumb")]);
        Self {
            what: format!("{}: {program}", member.name),
            init: member.init_pid,
            cgroup: member.cgroup.join("user.slice"),
            command,
            user: User::root(),
            directory: None,
            limit: LIMIT,
            input: Input::Nothing,
            stdout: Output::Collected,
            stderr: Output::Collected,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.what = format!("{} {}", self.what, argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    pub fn args<A: AsRef<std::ffi::OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// As somebody else than root.
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// Working directory, as the member sees it; default `/`.
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.directory = Some(path.as_ref().to_owned());
        self
    }

    /// From start to end.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What it finds on standard input; default: nothing (/dev/null).
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Standard input is a pipe, to be had by [`Running::take_stdin`].
    pub fn input_pipe(mut self) -> Self {
        self.input = Input::Pipe;
        self
    }

    pub fn input_from(mut self, source: impl Into<Stdio>) -> Self {
        self.input = Input::From(source.into());
        self
    }

    /// Standard output is a pipe that nobody reads but who takes it with [`Running::take_stdout`].
    pub fn stdout_pipe(mut self) -> Self {
        self.stdout = Output::Pipe;
        self
    }

    pub fn stdout_to(mut self, target: impl Into<Stdio>) -> Self {
        self.stdout = Output::To(target.into());
        self
    }

    pub fn stderr_to(mut self, target: impl Into<Stdio>) -> Self {
        self.stderr = Output::To(target.into());
        self
    }

    /// Its standard descriptors are this terminal's, which becomes the controlling one of a new session.
    pub(crate) fn in_terminal(mut self, terminal: &OwnedFd) -> std::io::Result<Self> {
        self.input = Input::From(terminal.try_clone()?.into());
        self.stdout = Output::To(terminal.try_clone()?.into());
        self.stderr = Output::To(terminal.try_clone()?.into());
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(self.command.get_program()).args(self.command.get_args()).env_clear();
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        self.command = command;
        Ok(self)
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.start().wait()
    }

    /// Starts it. It dies when the calling thread ends, or when the result is dropped.
    #[track_caller]
    pub fn start(self) -> Running {
        let Self { what, init, cgroup, mut command, user, directory, limit, input, stdout, stderr } = self;
        command.stdin(match &input {
            Input::Nothing => Stdio::null(),
            Input::Bytes(_) | Input::Pipe => Stdio::piped(),
            Input::From(_) => Stdio::null(),
        });
        let (input, source) = match input {
            Input::From(source) => (Input::Nothing, Some(source)),
            other => (other, None),
        };
        if let Some(source) = source {
            command.stdin(source);
        }
        let collect = [matches!(stdout, Output::Collected), matches!(stderr, Output::Collected)];
        let stdio = |output| match output {
            Output::Collected | Output::Pipe => Stdio::piped(),
            Output::To(target) => target,
        };
        command.stdout(stdio(stdout)).stderr(stdio(stderr));
        let place = || -> std::io::Result<Place> {
            let mut place = place(init, &cgroup, &user)?;
            if let Some(directory) = &directory {
                place = place.directory(directory);
            }
            Ok(place.die_with_parent())
        };
        let started = place().and_then(|place| {
            if command.get_program() != "setsid" {
                // Of its own, so that it has a number inside; setsid(1) sees to it itself, and forks if it has one.
                command.process_group(0);
            }
            spawn(command, place)
        });
        let mut child = started.unwrap_or_else(|why| panic!("{what}: {why}"));
        let pidfd = ghost_sys::pidfd::open(child.id()).unwrap_or_else(|why| panic!("{what}: pidfd: {why}"));
        if let Input::Bytes(bytes) = input
            && let Some(mut stdin) = child.stdin.take()
        {
            // By a thread: whoever does not read must not hang us. A closed pipe is the reader's decision.
            std::thread::spawn(move || stdin.write_all(&bytes));
        }
        let stdout = if collect[0] { child.stdout.take().map(Collected::begin) } else { None };
        let stderr = if collect[1] { child.stderr.take().map(Collected::begin) } else { None };
        Running { what, child, pidfd, began: Instant::now(), limit, stdout, stderr, ended: None }
    }
}

/// Inside the member of this init, in a cgroup of it, as this user.
pub(crate) fn place(init: u32, cgroup: &Path, user: &User) -> std::io::Result<Place> {
    let credentials = Credentials {
        uid: Uid::from_raw(user.uid),
        gid: Gid::from_raw(user.gid),
        groups: user.groups.iter().copied().map(Gid::from_raw).collect(),
    };
    Ok(Place::inside(init)?.cgroup(cgroup)?.user(credentials))
}

/// Output as it comes, collected by a thread.
#[derive(Clone, Default)]
pub(crate) struct Collected {
    shared: Arc<(Mutex<Collection>, Condvar)>,
}

#[derive(Default)]
pub(crate) struct Collection {
    pub bytes: Vec<u8>,
    pub closed: bool,
}

impl Collected {
    fn begin(mut from: impl Read + Send + 'static) -> Self {
        let collected = Self::default();
        let theirs = collected.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => theirs.add(&buffer[..n]),
                    Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            theirs.close();
        });
        collected
    }

    pub fn add(&self, bytes: &[u8]) {
        self.lock().bytes.extend_from_slice(bytes);
        self.shared.1.notify_all();
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.1.notify_all();
    }

    pub fn lock(&self) -> MutexGuard<'_, Collection> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Waits until `look` finds something in what has come so far; None when the time is over, or nothing more comes.
    pub fn wait_for<T>(&self, within: Duration, mut look: impl FnMut(&Collection) -> Option<T>) -> Option<T> {
        let until = Instant::now() + within;
        let mut collection = self.lock();
        loop {
            if let Some(found) = look(&collection) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || collection.closed {
                return None;
            }
            let waited = self.shared.1.wait_timeout(collection, left).unwrap_or_else(PoisonError::into_inner);
            collection = waited.0;
        }
    }
}

/// A running program, killed with its descendants when dropped.
pub struct Running {
    what: String,
    child: Child,
    pidfd: OwnedFd,
    began: Instant,
    limit: Duration,
    stdout: Option<Collected>,
    stderr: Option<Collected>,
    ended: Option<Ended>,
}

impl Running {
    /// In the host's numbers.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("input_pipe() was asked for, and nobody took it yet")
    }

    #[track_caller]
    pub fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("stdout_pipe() was asked for, and nobody took it yet")
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.as_ref().map(Collected::bytes).unwrap_or_default()
    }

    pub fn stderr(&self) -> Vec<u8> {
        self.stderr.as_ref().map(Collected::bytes).unwrap_or_default()
    }

    pub(crate) fn collected(&self) -> &Collected {
        self.stdout.as_ref().expect("output is collected")
    }

    /// Waits until its output contains so many whole lines, and returns these.
    #[track_caller]
    pub fn lines(&self, count: usize, within: Duration) -> Vec<String> {
        let found = self.collected().wait_for(within, |collection| {
            let whole = collection.bytes.iter().filter(|&&byte| byte == b'\n').count();
            (whole >= count).then(|| {
                let text = String::from_utf8_lossy(&collection.bytes);
                text.lines().take(count).map(str::to_owned).collect::<Vec<_>>()
            })
        });
        found.unwrap_or_else(|| self.fail(&format!("did not print {count} lines within {} ms", within.as_millis())))
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<Ended> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.ended = Some(status.into());
        }
        self.ended
    }

    /// Waits for its end, not longer than `within`; it goes on running after that.
    pub fn ended_within(&mut self, within: Duration) -> Option<Ended> {
        let until = Instant::now() + within;
        loop {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            // Interrupted or not, the loop looks again.
            let _ = poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    /// Waits for its end and for the end of its output.
    #[track_caller]
    pub fn wait(mut self) -> Finished {
        drop(self.child.stdin.take());
        let left = self.limit.saturating_sub(self.began.elapsed());
        let Some(ended) = self.ended_within(left) else {
            self.fail(&format!("has not ended after {} ms", self.limit.as_millis()));
        };
        let took = self.began.elapsed();
        let close = |stream: &Option<Collected>| {
            let Some(stream) = stream else { return Some(Vec::new()) };
            let closed = stream.wait_for(OUTPUT_GRACE, |collection| collection.closed.then_some(()));
            (closed.is_some() || stream.lock().closed).then(|| stream.bytes())
        };
        let (Some(stdout), Some(stderr)) = (close(&self.stdout), close(&self.stderr)) else {
            self.fail("has ended, but somebody still holds its output open");
        };
        Finished { what: self.what.clone(), ended, stdout, stderr, took }
    }

    /// SIGKILL, to this process only.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
    }

    /// Fails the test with what the program has printed.
    #[track_caller]
    pub fn fail(&self, why: &str) -> ! {
        panic!(
            "{} (process {} of the host) {why}\n--- its stdout:\n{}\n--- its stderr:\n{}",
            self.what,
            self.pid(),
            end_of(&self.stdout()),
            end_of(&self.stderr())
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let family = descendants_of(self.pid());
        let _ = self.child.kill();
        for pid in family {
            // Gone already, most of them.
            let _ = ghost_sys::pidfd::kill(pid.cast_signed(), 9);
        }
        // A process in an uninterruptible sleep is left to the end of the cluster.
        let _ = until::poll_until(Duration::from_secs(5), || self.ended());
    }
}

/// The last part of an output, for messages.
fn end_of(bytes: &[u8]) -> String {
    const MOST: usize = 4000;
    let shown = &bytes[bytes.len().saturating_sub(MOST)..];
    let cut = if shown.len() < bytes.len() { "[…]" } else { "" };
    format!("{cut}{}", String::from_utf8_lossy(shown))
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    what: String,
    pub ended: Ended,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl Finished {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// It must have ended so.
    #[track_caller]
    pub fn expect(self, wanted: Ended) -> Self {
        if self.ended != wanted {
            panic!(
                "{}: {:?} instead of {wanted:?}\n--- its stdout:\n{}\n--- its stderr:\n{}",
                self.what,
                self.ended,
                end_of(&self.stdout),
                end_of(&self.stderr)
            );
        }
        self
    }

    /// It must have exited with 0; returns what it printed.
    #[track_caller]
    pub fn success(self) -> String {
        self.expect(Ended::Exited(0)).text()
    }
}
