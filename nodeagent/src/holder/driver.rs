//! The holder's one thread: waits for anything, tells the core, does what it says.
//!
//! Invariants:
//! - After waking it looks at the time before anything else: a holder that was stopped past its lease does nothing but
//!   what the lease's end asks for.
//! - All actions of an event are carried out before the next event is taken.
//! - No call here waits, except for the next event, and for some microseconds while a fast writer's output gathers.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context, Result};
use ghost_proto::client::StartStage;
use ghost_proto::ids::ProcId;
use ghost_proto::instance::Instance;
use ghost_proto::node::{LeaseAck, NodeToMaster};
use ghost_proto::status::Usage;
use ghost_sys::reaper::{self, Change, Wait};
use ghost_sys::spawn::{self, Outcome, Place, Stage};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::cgroup::Cgroups;
use super::connection::{Connection, Received};
use super::core::Core;
use super::deliver;
use super::event::{Action, Creation, Event};
use super::handles::{Handles, Pipe, Pipes, Read};
use super::launch_end::LaunchEnds;
use super::setup::log;

/// Frames of one wake-up, so that output and ends get their turn.
const FRAMES: usize = 256;

/// Descriptors that a process may take: its own, three pipes, and two of its launch's cgroup.
const DESCRIPTORS_EACH: u64 = 6;
/// Descriptors that are kept for everything else, above all for the next agent: without a place for its connection the
/// lease would end.
const DESCRIPTORS_KEPT: u64 = 256;

/// What a descriptor that woke us is: the low three bits of epoll's number; the others count processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Listener,
    Agent,
    Child,
    Timer,
    Start(u64),
    Stdin(u64),
    Stdout(u64),
    Stderr(u64),
}

impl Source {
    fn number(self) -> u64 {
        match self {
            Source::Listener => 0,
            Source::Agent => 1,
            Source::Child => 2,
            Source::Timer => 3,
            Source::Start(process) => process << 3 | 4,
            Source::Stdin(process) => process << 3 | 5,
            Source::Stdout(process) => process << 3 | 6,
            Source::Stderr(process) => process << 3 | 7,
        }
    }

    fn of(number: u64) -> Source {
        let process = number >> 3;
        match number & 7 {
            0 => Source::Listener,
            1 => Source::Agent,
            2 => Source::Child,
            3 => Source::Timer,
            4 => Source::Start(process),
            5 => Source::Stdin(process),
            6 => Source::Stdout(process),
            _ => Source::Stderr(process),
        }
    }

    fn output(process: u64, fd: u8) -> Source {
        if fd == 1 { Source::Stdout(process) } else { Source::Stderr(process) }
    }
}

/// The holder at work.
#[derive(Debug)]
pub struct Driver {
    core: Core,
    epoll: Epoll,
    listener: UnixListener,
    children: SignalFd,
    timer: TimerFd,
    armed: Option<Duration>,
    agent: Option<Connection>,
    /// What epoll watches the agent's socket for.
    agent_interest: EpollFlags,
    /// By a number that never comes back.
    handles: HashMap<u64, Handles>,
    numbers: HashMap<ProcId, u64>,
    by_pid: HashMap<u32, u64>,
    next: u64,
    /// Processes that there may be at once.
    most: usize,
    cgroups: Cgroups,
    ends: LaunchEnds,
    null: File,
    scratch: Vec<u8>,
    actions: VecDeque<Action>,
    /// Something has ended since the cgroups were tidied.
    untidy: bool,
    /// Frames have arrived that are still to be taken.
    backlog: bool,
    /// Output bytes that were read in the last round.
    moved: usize,
}

/// Output bytes of a round that tell of a fast writer, and those at which its pieces are large enough.
const FAST: usize = 8 * 1024;
const LARGE: usize = 64 * 1024;
/// How long a fast writer's output may gather.
const GATHERING: Duration = Duration::from_micros(50);

/// CLOCK_BOOTTIME: goes on while the machine sleeps.
pub fn now() -> Duration {
    // The clock is there since Linux 2.6.39; without it the lease would stand still, and nothing else would.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

impl Driver {
    /// # Errors
    /// A descriptor cannot be made.
    pub fn new(core: Core, listener: UnixListener, instance: &Instance) -> Result<Driver> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let children =
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("signalfd")?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .context("timerfd")?;
        listener.set_nonblocking(true).context("the holder's socket")?;
        let input = |source: Source| EpollEvent::new(EpollFlags::EPOLLIN, source.number());
        epoll.add(&listener, input(Source::Listener)).context("epoll")?;
        epoll.add(&children, input(Source::Child)).context("epoll")?;
        epoll.add(&timer, input(Source::Timer)).context("epoll")?;
        let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of open files")?;
        let cgroups = Cgroups::new(instance).unwrap_or_else(|why| {
            log(&format!("launches get no cgroups of their own: {why}"));
            Cgroups::default()
        });
        Ok(Driver {
            core,
            epoll,
            listener,
            children,
            timer,
            armed: None,
            agent: None,
            agent_interest: EpollFlags::empty(),
            handles: HashMap::new(),
            numbers: HashMap::new(),
            by_pid: HashMap::new(),
            next: 0,
            most: usize::try_from(files.saturating_sub(DESCRIPTORS_KEPT) / DESCRIPTORS_EACH).unwrap_or(usize::MAX),
            cgroups,
            ends: LaunchEnds::default(),
            null: File::options().read(true).write(true).open("/dev/null").context("/dev/null")?,
            scratch: Vec::new(),
            actions: VecDeque::new(),
            untidy: false,
            backlog: false,
            moved: 0,
        })
    }

    /// Works for ever.
    ///
    /// # Errors
    /// Waiting itself fails: the system is broken.
    pub fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            self.arm();
            let timeout = if self.backlog { EpollTimeout::ZERO } else { EpollTimeout::NONE };
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(why) => return Err(why).context("epoll_wait"),
            };
            self.handle(Event::Tick);
            self.gather(&events[..count]);
            // Ends first: then what is said about a process is up to date.
            let ready = || events.iter().take(count).map(|event| (Source::of(event.data()), event.events()));
            if ready().any(|(source, _)| source == Source::Child) {
                self.reap();
            }
            for (source, flags) in ready() {
                self.serve(source, flags);
            }
            let core = &self.core;
            self.ends.step(now(), &self.cgroups, |launch| core.living(launch));
            self.flush();
            if self.untidy {
                self.untidy = false;
                let (core, ends) = (&self.core, &self.ends);
                self.cgroups.tidy(|launch| core.launch_lives(launch) || ends.is_ending(launch));
            }
        }
    }

    /// A fast writer's output is read in large pieces: what every hop costs is paid for each piece.
    fn gather(&mut self, events: &[EpollEvent]) {
        let moved = std::mem::take(&mut self.moved);
        let only_output = !events.is_empty()
            && events.iter().all(|e| matches!(Source::of(e.data()), Source::Stdout(_) | Source::Stderr(_)));
        if only_output && (FAST..LARGE).contains(&moved) {
            std::thread::sleep(GATHERING);
        }
    }

    fn serve(&mut self, source: Source, flags: EpollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Agent => self.agent_ready(flags),
            Source::Child => {}
            Source::Timer => {
                let _ = self.timer.wait();
                self.armed = None;
            }
            Source::Start(number) => self.look_at_start(number),
            Source::Stdin(number) => self.stdin_ready(number, flags),
            Source::Stdout(number) => self.read_output(number, 1),
            Source::Stderr(number) => self.read_output(number, 2),
        }
    }

    /// Sets the timer to whatever is due first.
    fn arm(&mut self) {
        let due = [self.core.deadline(), self.ends.deadline()].into_iter().flatten().min();
        if due == self.armed {
            return;
        }
        let set = match due {
            // Zero would stop it.
            Some(due) => {
                let due = TimeSpec::from(due.max(Duration::from_nanos(1)));
                self.timer.set(Expiration::OneShot(due), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.timer.unset(),
        };
        if set.is_ok() {
            self.armed = due;
        }
    }

    /// Gives an event to the core and does what follows from it.
    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.handle(event, now(), &mut actions);
        // Events that an action causes have their actions done before the rest of these.
        for action in actions.into_iter().rev() {
            self.actions.push_front(action);
        }
        while let Some(action) = self.actions.pop_front() {
            if let Some(event) = self.act(action) {
                let mut more = Vec::new();
                self.core.handle(event, now(), &mut more);
                for action in more.into_iter().rev() {
                    self.actions.push_front(action);
                }
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Send(message) => {
                if let Some(agent) = &mut self.agent {
                    agent.send(message);
                }
            }
            Action::SendData(data) => {
                if let Some(agent) = &mut self.agent {
                    agent.send_data(data);
                }
            }
            Action::AckLease { seq } => {
                if let Some(agent) = &mut self.agent {
                    agent.send(NodeToMaster::LeaseAck(load(seq)));
                }
            }
            Action::Disconnect(why) => {
                log(&format!("connection of the agent closed: {why}"));
                self.agent = None;
            }
            Action::Create(creation) => return Some(self.create(*creation)),
            Action::Signal { proc, pid, order } => {
                let handles = self.numbers.get(&proc).and_then(|number| self.handles.get(number));
                let errno = handles.map_or(libc::ESRCH, |handles| deliver::deliver(pid, &handles.pidfd, &order));
                return Some(Event::Signaled { proc, errno });
            }
            Action::FeedInput { proc } => return self.feed_input(proc),
            Action::ServeOutput { proc, fd } => self.serve_output(proc, fd),
            Action::Drain { proc } => self.drain(proc),
            Action::Release { proc } => self.release(proc),
            Action::EndLaunch { launch } => self.ends.begin(launch, now()),
            Action::KillEverything => {
                // ESRCH: there is nothing.
                let _ = ghost_sys::pidfd::kill(-1, libc::SIGKILL);
                self.untidy = true;
                if reaper::childless() {
                    return Some(Event::NoChildren);
                }
            }
        }
        None
    }

    // ---- processes

    fn create(&mut self, creation: Creation) -> Event {
        let proc = creation.proc;
        match self.try_create(creation) {
            Ok(pid) => Event::Created { proc, pid },
            Err(why) => {
                let errno = why.raw_os_error().unwrap_or(libc::EINVAL).unsigned_abs();
                Event::StartFailed { proc, stage: StartStage::Create, errno }
            }
        }
    }

    fn try_create(&mut self, creation: Creation) -> io::Result<u32> {
        let Creation { proc, launch, pid, program, streams } = creation;
        if self.handles.len() >= self.most {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let mut pipes = Pipes::new(streams, program.uid, program.gid)?;
        let null = self.null.as_fd();
        let place = Place {
            pid: (pid != 0).then_some(pid),
            cgroup: self.cgroups.of(launch),
            stdio: [0, 1, 2].map(|fd| pipes.child_end(fd, null)),
        };
        let spawned = spawn::spawn(program, place)?;
        let [stdin, stdout, stderr] = std::mem::take(&mut pipes.kept);
        drop(pipes);
        self.next += 1;
        let number = self.next;
        watch(&self.epoll, &spawned.starting, EpollFlags::EPOLLIN, Source::Start(number));
        let handles = Handles {
            proc,
            pidfd: spawned.pidfd,
            starting: Some(spawned.starting),
            stdin,
            outputs: [stdout, stderr],
            released: false,
        };
        self.handles.insert(number, handles);
        self.numbers.insert(proc, number);
        self.by_pid.insert(spawned.pid, number);
        for fd in [1, 2] {
            self.watch_number(number, fd);
        }
        self.watch_stdin(number, EpollFlags::empty());
        Ok(spawned.pid)
    }

    /// Sees whether the program was executed by now.
    fn look_at_start(&mut self, number: u64) {
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        let Some(starting) = &mut handles.starting else {
            return;
        };
        let Some(outcome) = starting.outcome() else {
            return;
        };
        let _ = self.epoll.delete(starting.as_fd());
        handles.starting = None;
        let proc = handles.proc;
        if handles.released {
            self.handles.remove(&number);
            return;
        }
        self.handle(match outcome {
            Outcome::Running { directory_errno } => {
                Event::Executed { proc, directory_errno: directory_errno.unsigned_abs() }
            }
            Outcome::Failed { stage, errno } => Event::StartFailed {
                proc,
                stage: match stage {
                    // Over the limit of processes: the number is checked at exec again (fs/exec.c, PF_NPROC_EXCEEDED).
                    _ if errno == libc::EAGAIN => StartStage::Create,
                    Stage::Prepare => StartStage::Prepare,
                    Stage::Exec => StartStage::Exec,
                },
                errno: errno.unsigned_abs(),
            },
        });
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.children.read_signal() {}
        loop {
            let change = match reaper::next() {
                Ok(Wait::Change(change)) => change,
                Ok(Wait::Nothing) => return,
                Ok(Wait::NoChildren) => {
                    self.handle(Event::NoChildren);
                    return;
                }
                Err(why) => {
                    log(&format!("children cannot be waited for: {why}"));
                    return;
                }
            };
            match change {
                Change::Ended { pid, status, usage } => {
                    self.untidy = true;
                    // Its report has come to its end with it.
                    if let Some(number) = self.by_pid.remove(&pid) {
                        self.look_at_start(number);
                    }
                    let usage =
                        Usage { user_us: usage.user_us, system_us: usage.system_us, max_rss_kib: usage.max_rss_kib };
                    self.handle(Event::Reaped { pid, status, usage });
                }
                Change::Stopped { pid, signal } => {
                    // It may have been executed and have stopped itself since we last looked: first things first.
                    if let Some(&number) = self.by_pid.get(&pid) {
                        self.look_at_start(number);
                    }
                    self.handle(Event::Stopped { pid, signal });
                }
                Change::Continued { pid } => self.handle(Event::Continued { pid }),
            }
        }
    }

    fn release(&mut self, proc: ProcId) {
        let Some(number) = self.numbers.remove(&proc) else {
            return;
        };
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        handles.stdin = None;
        handles.outputs = [None, None];
        handles.released = true;
        if handles.starting.is_none() {
            self.handles.remove(&number);
        }
        self.untidy = true;
    }

    // ---- streams

    fn watch_stdin(&mut self, number: u64, flags: EpollFlags) {
        if let Some(Handles { stdin: Some(pipe), .. }) = self.handles.get_mut(&number) {
            // EPOLLERR, "nobody reads", is always told.
            if pipe.watched {
                let mut event = EpollEvent::new(flags, Source::Stdin(number).number());
                let _ = self.epoll.modify(&pipe.fd, &mut event);
            } else {
                watch(&self.epoll, &pipe.fd, flags, Source::Stdin(number));
                pipe.watched = true;
            }
        }
    }

    fn stdin_ready(&mut self, number: u64, flags: EpollFlags) {
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        let proc = handles.proc;
        if flags.contains(EpollFlags::EPOLLERR) {
            handles.stdin = None;
            self.handle(Event::InputGone { proc });
        } else if let Some(event) = self.feed_input(proc) {
            self.handle(event);
        }
    }

    /// Writes what waits for stdin, and closes it after the last byte.
    fn feed_input(&mut self, proc: ProcId) -> Option<Event> {
        let number = *self.numbers.get(&proc)?;
        let handles = self.handles.get_mut(&number)?;
        let input = self.core.input(proc)?;
        let pipe = handles.stdin.as_ref()?;
        if !input.is_open() || input.finished() {
            handles.stdin = None;
            return None;
        }
        if input.pieces().is_empty() {
            self.watch_stdin(number, EpollFlags::empty());
            return None;
        }
        match pipe.write(input) {
            Ok(0) => {
                self.watch_stdin(number, EpollFlags::EPOLLOUT);
                None
            }
            Ok(bytes) => {
                // There may be more, or it may be the end: both are seen to next.
                self.actions.push_back(Action::FeedInput { proc });
                Some(Event::Written { proc, bytes })
            }
            Err(_) => {
                handles.stdin = None;
                Some(Event::InputGone { proc })
            }
        }
    }

    fn serve_output(&mut self, proc: ProcId, fd: u8) {
        let Some(&number) = self.numbers.get(&proc) else {
            return;
        };
        let outputs = self.handles.get(&number).map(|handles| &handles.outputs);
        let pipe = outputs.and_then(|outputs| outputs.get(usize::from(fd).checked_sub(1)?)?.as_ref());
        match pipe.map(|pipe| pipe.left.is_some()) {
            Some(true) => self.drain_output(number, fd),
            Some(false) => self.watch_number(number, fd),
            None => {}
        }
    }

    /// Lets epoll tell of an output exactly while it may be read: it would tell of a hang-up without being asked.
    fn watch_number(&mut self, number: u64, fd: u8) {
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        let output = self.core.output(handles.proc, fd);
        let Some(place) = handles.outputs.get_mut(usize::from(fd - 1)) else {
            return;
        };
        // Before the core knows the process it has room.
        let open = output.is_none_or(|output| output.is_open());
        if !open {
            *place = None;
            return;
        }
        let Some(pipe) = place else {
            return;
        };
        let wanted = output.is_none_or(|output| output.room() > 0);
        if wanted && !pipe.watched {
            watch(&self.epoll, &pipe.fd, EpollFlags::EPOLLIN, Source::output(number, fd));
        } else if !wanted && pipe.watched {
            let _ = self.epoll.delete(&pipe.fd);
        }
        pipe.watched = wanted;
    }

    fn read_output(&mut self, number: u64, fd: u8) {
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        let proc = handles.proc;
        let Some(place) = handles.outputs.get_mut(usize::from(fd - 1)) else {
            return;
        };
        let Some(pipe) = place else {
            return;
        };
        let room = self.core.output(proc, fd).map_or(0, |output| output.room());
        match pipe.read(room, &mut self.scratch) {
            Read::Bytes(bytes) => {
                let over = pipe.left == Some(0);
                self.moved += bytes.len();
                self.handle(Event::Read { proc, fd, bytes });
                if over {
                    self.output_over(number, fd);
                }
            }
            Read::Nothing => {}
            Read::Over => self.output_over(number, fd),
        }
        self.watch_number(number, fd);
    }

    fn output_over(&mut self, number: u64, fd: u8) {
        if let Some(handles) = self.handles.get_mut(&number) {
            let proc = handles.proc;
            if let Some(place) = handles.outputs.get_mut(usize::from(fd - 1)) {
                *place = None;
            }
            self.handle(Event::OutputOver { proc, fd });
        }
    }

    /// The process is dead: its outputs end with what is in them now.
    fn drain(&mut self, proc: ProcId) {
        let Some(&number) = self.numbers.get(&proc) else {
            return;
        };
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        handles.stdin = None;
        for pipe in handles.outputs.iter_mut().flatten() {
            Pipe::limit_to_present(pipe);
        }
        for fd in [1u8, 2] {
            self.drain_output(number, fd);
        }
    }

    /// Reads while there is room; the rest when there is room again.
    fn drain_output(&mut self, number: u64, fd: u8) {
        loop {
            let Some(handles) = self.handles.get_mut(&number) else {
                return;
            };
            let Some(Some(pipe)) = handles.outputs.get_mut(usize::from(fd - 1)) else {
                return;
            };
            let proc = handles.proc;
            let room = self.core.output(proc, fd).map_or(0, |output| output.room());
            match pipe.read(room, &mut self.scratch) {
                Read::Bytes(bytes) => self.follow(Event::Read { proc, fd, bytes }),
                Read::Over => {
                    if let Some(place) = handles.outputs.get_mut(usize::from(fd - 1)) {
                        *place = None;
                    }
                    self.follow(Event::OutputOver { proc, fd });
                }
                Read::Nothing => {
                    // Closed, or watched no longer until there is room.
                    self.watch_number(number, fd);
                    return;
                }
            }
        }
    }

    /// An event in the middle of an action: what follows from it comes after the other actions.
    fn follow(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.handle(event, now(), &mut actions);
        self.actions.extend(actions);
    }

    // ---- the agent

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        match Connection::new(stream) {
            Ok(connection) => {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Agent.number());
                // A new agent takes the place of an old one, whose socket leaves epoll as it is closed.
                self.agent = None;
                if self.epoll.add(&connection, event).is_ok() {
                    self.agent = Some(connection);
                    self.agent_interest = EpollFlags::EPOLLIN;
                    self.handle(Event::Linked);
                }
            }
            Err(why) => log(&format!("a connection of the agent cannot be used: {why}")),
        }
    }

    fn agent_ready(&mut self, flags: EpollFlags) {
        let reads = self.agent_interest.contains(EpollFlags::EPOLLIN);
        if !reads && flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.unlinked();
        } else if reads && flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            match self.agent.as_mut().map(Connection::fill) {
                Some(Ok(true)) => self.frames(),
                Some(Err(why)) if why.kind() == io::ErrorKind::WouldBlock => {}
                Some(Ok(false) | Err(_)) => self.unlinked(),
                None => {}
            }
        }
    }

    /// Takes frames that have arrived, a limited number of them.
    fn frames(&mut self) {
        self.backlog = false;
        for _ in 0..FRAMES {
            if !self.core.accepts() {
                return;
            }
            let Some(agent) = &mut self.agent else {
                return;
            };
            match agent.receive() {
                Ok(Some(Received::Message(message))) => self.handle(Event::Message(message)),
                Ok(Some(Received::Data(data))) => self.handle(Event::Data(data)),
                Ok(None) => return,
                Err(why) => {
                    log(&format!("connection of the agent closed: {why}"));
                    self.unlinked();
                    return;
                }
            }
        }
        self.backlog = true;
    }

    fn unlinked(&mut self) {
        self.agent = None;
        self.handle(Event::Unlinked);
    }

    fn flush(&mut self) {
        // Those that waited for the end of a purge, or for their turn.
        self.frames();
        let accepts = self.core.accepts();
        let Some(agent) = &mut self.agent else {
            return;
        };
        if agent.flush().is_err() {
            self.unlinked();
            return;
        }
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, accepts && agent.takes());
        interest.set(EpollFlags::EPOLLOUT, agent.blocked);
        if interest != self.agent_interest {
            let mut event = EpollEvent::new(interest, Source::Agent.number());
            if self.epoll.modify(&*agent, &mut event).is_ok() {
                self.agent_interest = interest;
            }
        }
    }
}

/// Fails for want of kernel memory only (or of fs.epoll.max_user_watches); the stream then stands still until its end.
fn watch(epoll: &Epoll, fd: impl AsFd, flags: EpollFlags, source: Source) {
    let fd: BorrowedFd<'_> = fd.as_fd();
    if let Err(why) = epoll.add(fd, EpollEvent::new(flags, source.number())) {
        log(&format!("a descriptor cannot be watched: {why}"));
    }
}

/// The node's load, for the answer to a lease.
fn load(seq: u64) -> LeaseAck {
    let first = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let load = first("/proc/loadavg").split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let available = first("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    LeaseAck { seq, load_centi: (load * 100.0) as u32, mem_available_kib: available }
}
