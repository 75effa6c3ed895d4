//! The observer: parent of what is launched, leader of its session, reader of its outputs.
//!
//! ```text
//!   observer (leads the session) ─┬─ sentinel (leads the group)
//!                                 └─ child: the program itself, or its launcher
//!   threads: one reads each output, one waits for the child; all tell the loop, which does the steps one by one
//! ```
//! The program is known by the number that it says it has: signals go there, and /proc is read there.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use acceptance::poll_until;
use anyhow::{Context, Result, bail};
use nix::libc::{WCONTINUED, WUNTRACED};
use nix::unistd::Pid;

use crate::case::Case;
use crate::sentinel::Sentinel;
use crate::steps::{self, Step};

/// How long a step waits for what it waits for, on a machine that is busy.
const STEP_TIME: Duration = Duration::from_secs(8);
/// How long a case may take.
const CASE_TIME: Duration = Duration::from_secs(25);

#[derive(Debug)]
enum Event {
    Out(Vec<u8>),
    Err(Vec<u8>),
    /// An output has come to its end.
    Closed,
    Wait(ExitStatus),
}

struct Observer {
    events: Receiver<Event>,
    /// Came while something else was waited for.
    early: VecDeque<Event>,
    sentinel: Sentinel,
    child: u32,
    stdin: Option<ChildStdin>,
    /// Makes the reader of standard output end.
    deaf: Arc<AtomicBool>,
    names: Vec<(u32, String)>,
    tracer: Option<(Sender<()>, std::thread::JoinHandle<()>)>,
    usage_wanted: bool,
    /// The observer has sent SIGCONT since the child's last stop.
    continues: bool,
    out: Vec<String>,
    err: Vec<String>,
    seen: Vec<String>,
    until: Instant,
}

/// Runs the case, launched by these words, and prints the transcript.
pub fn observe(case: &Case, launcher: &[&str]) -> Result<()> {
    let sentinel = Sentinel::start()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("start").arg(case.name).args(launcher).process_group(sentinel.group().cast_signed());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (tell, events) = channel();
    let deaf = Arc::new(AtomicBool::new(false));
    read(child.stdout.take().context("its output")?, Event::Out, &tell, Arc::clone(&deaf));
    read(child.stderr.take().context("its errors")?, Event::Err, &tell, Arc::default());
    wait(child.id(), tell);
    let observer = Observer {
        events,
        early: VecDeque::new(),
        sentinel,
        child: child.id(),
        stdin: child.stdin.take(),
        deaf,
        names: Vec::new(),
        tracer: None,
        usage_wanted: false,
        continues: false,
        out: Vec::new(),
        err: Vec::new(),
        seen: Vec::new(),
        until: Instant::now() + CASE_TIME,
    };
    observer.run()
}

fn read(from: impl Read + Send + 'static, event: fn(Vec<u8>) -> Event, to: &Sender<Event>, deaf: Arc<AtomicBool>) {
    let to = to.clone();
    let mut from = BufReader::new(from);
    std::thread::spawn(move || {
        loop {
            let mut line = Vec::new();
            match from.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) if deaf.load(Ordering::SeqCst) => break,
                Ok(_) if to.send(event(line)).is_err() => return,
                Ok(_) => {}
            }
        }
        drop(from);
        let _ = to.send(Event::Closed);
    });
}

/// Tells every change of the child's state, up to its end.
fn wait(child: u32, to: Sender<Event>) {
    std::thread::spawn(move || {
        while let Ok(Some((_, status))) = ghost_sys::trials::wait(child.cast_signed(), WUNTRACED | WCONTINUED) {
            let over = is_over(status);
            if to.send(Event::Wait(status)).is_err() || over {
                return;
            }
        }
    });
}

impl Observer {
    fn run(mut self) -> Result<()> {
        let (mut open, mut running) = (2, true);
        while open > 0 || running {
            match self.next(self.until) {
                Some(Event::Out(line)) => self.line(&line),
                Some(Event::Err(line)) => {
                    let line = self.written(&line);
                    self.err.push(line);
                }
                Some(Event::Closed) => open -= 1,
                Some(Event::Wait(status)) => {
                    running &= !is_over(status);
                    self.status_seen(status);
                }
                None => {
                    self.failed(&format!("not over after {} s", CASE_TIME.as_secs()));
                    break;
                }
            }
        }
        if running {
            // The child and whoever is in its group.
            let _ = ghost_sys::signal::send(-self.sentinel.group().cast_signed(), 9);
        }
        self.end()
    }

    /// What remains to be seen when the child has ended; then the transcript.
    fn end(mut self) -> Result<()> {
        if self.number("program").is_some() {
            self.step(&Step::Gone("program".into()));
        }
        if self.usage_wanted {
            let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
            let used = usage.user_time().tv_sec() * 1000 + usage.user_time().tv_usec() / 1000;
            self.seen.push(format!("the child has used CPU time: {}", if used >= 50 { "yes" } else { "no" }));
        }
        let all = [("out", &self.out), ("err", &self.err), ("observer", &self.seen)];
        let mut text = String::new();
        for (from, lines) in all {
            for line in lines {
                text += &format!("{from}: {line}\n");
            }
        }
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(())
    }

    fn next(&mut self, until: Instant) -> Option<Event> {
        match self.early.pop_front() {
            Some(event) => Some(event),
            None => self.fresh(until),
        }
    }

    fn fresh(&self, until: Instant) -> Option<Event> {
        let left = until.saturating_duration_since(Instant::now());
        self.events.recv_timeout(left).ok()
    }

    /// A change of the child that no step has waited for.
    fn status_seen(&mut self, status: ExitStatus) {
        let continued = "child was continued";
        if is_over(status) && self.continues && self.seen.last().is_some_and(|last| last == continued) {
            // Whether it is seen is chance: who ends hides it (kernel/exit.c, wait_consider_task()).
            self.seen.pop();
        }
        self.continues &= status.stopped_signal().is_none();
        self.seen.push(describe(status));
    }

    /// The child's next wait status.
    fn status(&mut self) -> Option<ExitStatus> {
        let early = self.early.iter().position(|event| matches!(event, Event::Wait(_)));
        if let Some(Event::Wait(status)) = early.and_then(|at| self.early.remove(at)) {
            return Some(status);
        }
        let until = Instant::now() + STEP_TIME;
        loop {
            match self.fresh(until)? {
                Event::Wait(status) => return Some(status),
                other => self.early.push_back(other),
            }
        }
    }

    /// A line of the program's standard output: for the transcript, or for the observer.
    fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let request = ["@do ", "@then ", "@just "].iter().find_map(|how| Some((*how, text.strip_prefix(how)?)));
        let Some((how, steps)) = request else {
            let line = self.written(line);
            self.out.push(line);
            return;
        };
        let steps = match steps::parse(steps.trim_end()) {
            Ok(steps) => steps,
            Err(why) => return self.failed(&format!("{why:#}")),
        };
        if how == "@then " {
            self.answer();
        }
        for step in &steps {
            self.step(step);
        }
        if how == "@do " {
            self.answer();
        }
    }

    fn answer(&mut self) {
        self.feed(b"done\n");
    }

    fn feed(&mut self, bytes: &[u8]) {
        // Whoever has ended does not read; its status tells.
        let _ = self.stdin.as_mut().map(|stdin| stdin.write_all(bytes));
    }

    fn failed(&mut self, why: &str) {
        self.seen.push(format!("failed: {why}"));
    }

    fn step(&mut self, step: &Step) {
        match self.done(step) {
            Ok(Some(line)) => self.seen.push(line),
            Ok(None) => {}
            Err(why) => self.failed(&format!("{step:?}: {why:#}")),
        }
    }

    fn done(&mut self, step: &Step) -> Result<Option<String>> {
        let line = match step {
            Step::Name(number, name) => {
                if name == "program"
                    && let Some(stat) = Stat::of(*number)
                {
                    self.names.push((stat.parent, "program's parent".into()));
                }
                self.names.push((*number, name.clone()));
                return Ok(None);
            }
            Step::Signal(signal, name) => {
                self.continues |= *signal == 18;
                ghost_sys::signal::send(self.known(name)?.cast_signed(), *signal)?;
                format!("signal {signal} is sent to {name}")
            }
            Step::GroupSignal(signal) => {
                self.continues |= *signal == 18;
                ghost_sys::signal::send(-self.sentinel.group().cast_signed(), *signal)?;
                format!("signal {signal} is sent to the group")
            }
            Step::Queue(signal, value) => {
                ghost_sys::signal::queue(self.known("program")?.cast_signed(), *signal, *value)?;
                format!("signal {signal} is queued")
            }
            Step::ThreadSignal(signal) => {
                ghost_sys::signal::send_to_thread(self.known("program")?.cast_signed(), *signal)?;
                format!("signal {signal} is sent to the thread")
            }
            Step::Stopped => match self.status().context("the child does not stop")? {
                status if status.stopped_signal().is_some() => {
                    self.continues = false;
                    describe(status)
                }
                other => bail!("the child is to stop; {}", describe(other)),
            },
            Step::Continued => match self.status().context("the child does not go on")? {
                status if status.continued() => describe(status),
                other => bail!("the child is to go on; {}", describe(other)),
            },
            Step::State(letters, name) => {
                let number = self.known(name)?;
                let mut last = None;
                let seen = poll_until(STEP_TIME, || {
                    last = Stat::of(number).map(|stat| stat.state);
                    last.filter(|state| letters.contains(*state))
                });
                match seen {
                    Some(_) => format!("{name} is in state {letters}"),
                    None => bail!("it is in state {last:?}"),
                }
            }
            Step::Threads(count) => {
                let directory = format!("/proc/{}/task", self.known("program")?);
                let there = || std::fs::read_dir(&directory).map_or(0, Iterator::count);
                poll_until(STEP_TIME, || (there() == *count).then_some(()))
                    .with_context(|| format!("it has {}", there()))?;
                format!("program has {count} threads")
            }
            Step::Show(name) => {
                let stat = Stat::of(self.known(name)?).context("it is not there")?;
                let (parent, group) = (self.name_of(stat.parent, false), self.name_of(stat.group, false));
                let session = self.name_of(stat.session, true);
                format!("{name} is called {}, child of {parent}, in group {group}, session {session}", stat.comm)
            }
            Step::Proc(file) => {
                let bytes = std::fs::read(format!("/proc/{}/{file}", self.known("program")?))?;
                format!("{file}: {}", bytes.escape_ascii())
            }
            Step::Gone(name) => {
                let path = format!("/proc/{}", self.known(name)?);
                let gone = poll_until(STEP_TIME, || (!std::path::Path::new(&path).exists()).then_some(()));
                gone.context("it is still there")?;
                format!("{name} is gone")
            }
            Step::Exists(number) => {
                let there = std::path::Path::new(&format!("/proc/{number}")).exists();
                format!("such a process exists: {}", if there { "yes" } else { "no" })
            }
            Step::Leader => {
                let (signal, from) = self.sentinel.next()?;
                format!("the leader got {signal} from {}", self.name_of(from, true))
            }
            Step::Feed(text) => {
                self.feed(format!("{text}\n").as_bytes());
                return Ok(None);
            }
            Step::Eof => {
                self.stdin = None;
                return Ok(None);
            }
            Step::CloseOutput => {
                self.deaf.store(true, Ordering::SeqCst);
                return Ok(None);
            }
            Step::Usage => {
                self.usage_wanted = true;
                return Ok(None);
            }
            Step::Trace => {
                self.trace()?;
                "program is traced".into()
            }
            Step::Untrace => {
                if let Some((release, tracer)) = self.tracer.take() {
                    drop(release);
                    let _ = tracer.join();
                }
                "program is not traced any more".into()
            }
        };
        Ok(Some(line))
    }

    /// By a thread of its own: what it traces is free when it ends (kernel/ptrace.c, exit_ptrace()).
    fn trace(&mut self) -> Result<()> {
        let program = Pid::from_raw(self.known("program")?.cast_signed());
        let (release, released) = channel::<()>();
        let (tell, told) = channel();
        let tracer = std::thread::spawn(move || {
            let seized = nix::sys::ptrace::seize(program, nix::sys::ptrace::Options::empty());
            let _ = tell.send(seized.map(|()| nix::unistd::gettid()));
            // Nothing comes: the other end is dropped.
            let _ = released.recv();
        });
        // The kernel names the thread that traces (fs/proc/array.c, task_state()).
        let tid = told.recv()??;
        self.names.push((tid.as_raw().cast_unsigned(), "observer".into()));
        self.tracer = Some((release, tracer));
        Ok(())
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.names.iter().rev().find(|(_, known)| known == name).map(|(number, _)| *number)
    }

    fn known(&self, name: &str) -> Result<u32> {
        self.number(name).with_context(|| format!("which process {name} is, it has not said"))
    }

    /// What the process is called; `as_sender`: the observer is itself, even if it is the program's parent.
    fn name_of(&self, number: u32, as_sender: bool) -> String {
        let own = std::process::id();
        if as_sender && number == own {
            return "observer".into();
        }
        if let Some((_, name)) = self.names.iter().rev().find(|(known, _)| *known == number) {
            return name.clone();
        }
        match number {
            0 => "nobody".into(),
            1 => "init".into(),
            _ if number == own => "observer".into(),
            _ if number == self.sentinel.group() => "leader".into(),
            _ if number == self.child => "child".into(),
            _ => "another".into(),
        }
    }

    /// Escaped, without the end of line (which is told if it is not there), and with names for `<NUMBER>`.
    fn written(&self, line: &[u8]) -> String {
        let (line, end) = line.strip_suffix(b"\n").map_or((line, " (no end of line)"), |line| (line, ""));
        let mut text = line.escape_ascii().to_string();
        let mut from = 0;
        while let Some(at) = text[from..].find('<').map(|at| at + from) {
            let Some(end) = text[at..].find('>').map(|end| end + at) else { break };
            let inner = &text[at + 1..end];
            let (as_sender, digits) = inner.strip_prefix('~').map_or((false, inner), |digits| (true, digits));
            from = at + 1;
            if let Ok(number) = digits.parse() {
                let name = self.name_of(number, as_sender);
                text.replace_range(at..=end, &name);
            }
        }
        text + end
    }
}

fn is_over(status: ExitStatus) -> bool {
    status.code().is_some() || status.signal().is_some()
}

fn describe(status: ExitStatus) -> String {
    let core = if status.core_dumped() { ", core dumped" } else { "" };
    match (status.code(), status.signal(), status.stopped_signal()) {
        (Some(code), _, _) => format!("child has exited with {code}"),
        (_, Some(signal), _) => format!("child was killed by {signal}{core}"),
        (_, _, Some(signal)) => format!("child was stopped by {signal}"),
        _ => "child was continued".into(),
    }
}

/// What /proc/PID/stat says.
struct Stat {
    comm: String,
    state: char,
    parent: u32,
    group: u32,
    session: u32,
}

impl Stat {
    fn of(number: u32) -> Option<Stat> {
        let text = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text.get(close + 2..)?.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(Stat {
            comm: text[open + 1..close].to_owned(),
            state: fields.first()?.chars().next()?,
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
        })
    }
}
