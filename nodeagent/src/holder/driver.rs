//! The holder's one thread: waits for anything, tells the core, does what it says.
//!
//! Invariants:
//! - After waking it looks at the time before anything else: a holder that was stopped past its lease does nothing but
//!   what the lease's end asks for.
//! - All actions of an event are carried out before the next event is taken.
//! - No call here waits, except for the next event, and for some microseconds while a fast writer's output gathers.

mod above;
mod agent;
mod commands;
mod standing;
mod streams;
mod terminals;
mod tree;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context, Result};
use ghost_host::programs::tree::TreePrograms;
use ghost_proto::client::StartStage;
use ghost_proto::ids::ProcId;
use ghost_proto::instance::Instance;
use ghost_proto::node::{NodeToMaster, Scope};
use ghost_proto::status::Usage;
use ghost_sys::reaper::{self, Change, Wait};
use ghost_sys::ring::Budget;
use ghost_sys::spawn::{Namespaces, Outcome, Place, Stage};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::cgroup::Cgroups;
use super::connection::Connection;
use super::core::Core;
use super::deliver;
use super::event::{Action, Creation, Event};
use super::handles::{Handles, Pipes};
use super::launch_end::LaunchEnds;
use super::load::Load;
use super::numbers::Numbers;

use super::relays::{self, Relays};
use super::rings::ALL_RINGS;
use super::setup::log;
use super::standins::StandIns;
use super::terminal::Line;

/// Descriptors that a process may take: its own, three pipes, two rings, and two of its launch's cgroup.
const DESCRIPTORS_EACH: u64 = 8;
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
    Tree,
    /// Stand-ins tell of their children.
    Reports,
    /// Signals to stand-ins.
    Upwards,
    /// Commands that connect.
    Commands,
    Command(u64),
    Start(u64),
    Stdin(u64),
    Stdout(u64),
    Stderr(u64),
}

/// Numbers of commands' connections begin here.
const FIRST_COMMAND: u64 = 16;

impl Source {
    fn number(self) -> u64 {
        match self {
            Source::Listener => 0,
            Source::Agent => 1,
            Source::Child => 2,
            Source::Timer => 3,
            Source::Tree => 1 << 3,
            Source::Reports => 2 << 3,
            Source::Upwards => 3 << 3,
            Source::Commands => 4 << 3,
            Source::Command(id) => (id + FIRST_COMMAND) << 3,
            Source::Start(process) => process << 3 | 4,
            Source::Stdin(process) => process << 3 | 5,
            Source::Stdout(process) => process << 3 | 6,
            Source::Stderr(process) => process << 3 | 7,
        }
    }

    fn of(number: u64) -> Source {
        let process = number >> 3;
        match number & 7 {
            0 if process == 1 => Source::Tree,
            0 if process == 2 => Source::Reports,
            0 if process == 3 => Source::Upwards,
            0 if process == 4 => Source::Commands,
            0 if process >= FIRST_COMMAND => Source::Command(process - FIRST_COMMAND),
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
pub struct Driver {
    core: Core,
    epoll: Epoll,
    listener: UnixListener,
    children: SignalFd,
    timer: TimerFd,
    armed: Option<Duration>,
    agent: Option<Connection>,
    commands: UnixListener,
    relays: Relays,
    sockets: HashMap<u64, commands::Command>,
    last_command: u64,
    load: Load,
    /// How many connections there were.
    connections: u64,
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
    rings: Budget,
    actions: VecDeque<Action>,
    /// `None`: this kernel does not let us see what processes fork.
    programs: Option<TreePrograms>,
    /// `None`: this kernel does not let us see signals to them.
    standins: Option<StandIns>,
    /// The node's own. `None`: they could not be opened.
    namespaces: Option<Namespaces>,
    /// `None`: not known yet, or this kernel has no numbers for it.
    slice: Option<Numbers>,
    /// Processes that may have stopped: when to look, at which, by which signal, and how often still.
    looks: Vec<tree::Look>,
    /// When it is to be looked for processes that were reaped; unless none is awaited.
    overdue: Option<Duration>,
    standing: standing::Standing,
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
    pub fn new(
        core: Core,
        listener: UnixListener,
        commands: UnixListener,
        (instance, namespaces): (&Instance, Option<Namespaces>),
    ) -> Result<Driver> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let children =
            SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("signalfd")?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .context("timerfd")?;
        listener.set_nonblocking(true).context("the holder's socket")?;
        commands.set_nonblocking(true).context("the socket for commands")?;
        let input = |source: Source| EpollEvent::new(EpollFlags::EPOLLIN, source.number());
        epoll.add(&listener, input(Source::Listener)).context("epoll")?;
        epoll.add(&commands, input(Source::Commands)).context("epoll")?;
        epoll.add(&children, input(Source::Child)).context("epoll")?;
        epoll.add(&timer, input(Source::Timer)).context("epoll")?;
        let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of open files")?;
        let cgroups = Cgroups::new(instance).unwrap_or_else(|why| {
            log(&format!("launches get no cgroups of their own: {why}"));
            Cgroups::default()
        });
        let programs = TreePrograms::load()
            .map_err(|why| {
                log(&format!("the master sees no forked processes of this node: {:#}", anyhow::Error::from(why)))
            })
            .ok();
        if let Some(programs) = &programs {
            epoll.add(programs.event_fd(), input(Source::Tree)).context("epoll")?;
        }
        let standins = StandIns::new()
            .map_err(|why| log(&format!("processes of this node do not see the master's above them: {why:#}")))
            .ok();
        let mut core = core;
        if namespaces.is_some() {
            core.enter_host();
        }
        if let Some(standins) = &standins {
            core.stand_in();
            epoll.add(standins.reports_fd(), input(Source::Reports)).context("epoll")?;
            epoll.add(standins.signals_fd(), input(Source::Upwards)).context("epoll")?;
        }
        Ok(Driver {
            programs,
            standins,
            namespaces,
            slice: None,
            looks: Vec::new(),
            overdue: None,
            standing: standing::Standing::default(),
            core,
            epoll,
            listener,
            children,
            timer,
            armed: None,
            agent: None,
            commands,
            relays: Relays::new(files),
            sockets: HashMap::new(),
            last_command: 0,
            load: Load::default(),
            connections: 0,
            agent_interest: EpollFlags::empty(),
            handles: HashMap::new(),
            numbers: HashMap::new(),
            by_pid: HashMap::new(),
            next: 0,
            most: usize::try_from(files.saturating_sub(DESCRIPTORS_KEPT + relays::beyond(files)) / DESCRIPTORS_EACH)
                .unwrap_or(usize::MAX),
            cgroups,
            ends: LaunchEnds::default(),
            null: File::options().read(true).write(true).open("/dev/null").context("/dev/null")?,
            scratch: Vec::new(),
            rings: Budget::new(ALL_RINGS),
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
            self.follow_tree();
            self.look_at_standing();
            // Ends first: then what is said about a process is up to date.
            let ready = || events.iter().take(count).map(|event| (Source::of(event.data()), event.events()));
            if ready().any(|(source, _)| matches!(source, Source::Child | Source::Reports)) {
                self.reap();
            }
            for (source, flags) in ready() {
                self.serve(source, flags);
            }
            if self.standins.as_ref().is_some_and(StandIns::holds_reports) {
                self.reap();
            }
            let core = &self.core;
            self.ends.step(now(), &self.cgroups, |launch| core.living(launch));
            self.flush();
            if self.untidy {
                self.untidy = false;
                let (core, ends) = (&self.core, &self.ends);
                self.cgroups.tidy(|launch| core.launch_lives(launch) || ends.is_ending(launch));
                self.tidy_standins();
            } else if self.standins_deadline().is_some_and(|due| due <= now()) {
                self.tidy_standins();
            }
            if let Some(standins) = &mut self.standins {
                standins.make_beside();
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
            Source::Commands => self.commands_connect(),
            Source::Command(id) => self.command_ready(id, flags),
            Source::Agent => self.agent_ready(flags),
            Source::Child | Source::Reports | Source::Tree | Source::Upwards => {}
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
        let due = [
            self.core.deadline(),
            self.ends.deadline(),
            self.next_look(),
            self.next_look_at_standing(),
            self.standins_deadline(),
        ];
        let due = due.into_iter().flatten().min();
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
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
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
            Action::SendPlaced(placed) => {
                let handles = self.numbers.get(&ProcId(placed.id)).and_then(|number| self.handles.get_mut(number));
                let ring = handles.and_then(|handles| handles.ring(placed.fd)?.as_mut());
                if let (Some(agent), Some(ring)) = (&mut self.agent, ring) {
                    agent.send_placed(placed, ring);
                }
            }
            Action::AckLease { seq } => {
                if let Some(agent) = &mut self.agent {
                    agent.send(NodeToMaster::LeaseAck(self.load.answer(seq, now())));
                }
            }
            Action::Disconnect(why) => {
                log(&format!("connection of the agent closed: {why}"));
                self.lose_agent();
            }
            Action::Create(creation) => return Some(self.create(*creation)),
            Action::Signal { proc, pid, order } => {
                let handles = self.numbers.get(&proc).and_then(|number| self.handles.get(number));
                let group = if order.scope == Scope::Group { order.group } else { 0 };
                let starting = if group == 0 { Vec::new() } else { self.core.starting_in(group) };
                let errno = match handles {
                    Some(handles) => deliver::deliver(pid, &handles.pidfd, &order, &starting),
                    // Forked by another process. Its number is its own as long as the core knows it: the end of a process
                    // is seen before it can be waited for, and numbers come round after tens of thousands of forks.
                    None => ghost_sys::pidfd::open(pid)
                        .map_or(libc::ESRCH, |process| deliver::deliver(pid, &process, &order, &starting)),
                };
                self.stand_ins_go_on(&order);
                return Some(Event::Signaled { proc, errno });
            }
            Action::FeedInput { proc } => return self.feed_input(proc),
            Action::ServeOutput { proc, fd } => self.serve_output(proc, fd),
            Action::Drain { proc } => self.drain(proc),
            Action::Release { proc } => self.release(proc),
            Action::Steer { node } => self.steer(node),
            Action::Renice { pid, nice } => {
                // ESRCH: it has just ended.
                let _ = ghost_sys::priority::set_nice_of(pid, nice);
            }
            Action::Beside { launch, others } => {
                if let Some(standins) = &mut self.standins {
                    standins.beside(launch, &others, now());
                }
            }
            Action::Resize { proc, size } => self.resize(proc, &size),
            Action::EndLaunch { launch, everything } => {
                let begin = if !everything && self.hang_up_all(launch) { now() + terminals::HANGING_UP } else { now() };
                self.ends.begin(launch, everything, begin);
            }
            Action::KillEverything => {
                self.relays.clear();
                self.sockets.clear();
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

    fn create(&mut self, creation: Creation) -> Event {
        let proc = creation.proc;
        match self.try_create(creation) {
            Ok((pid, [pgid, sid])) => Event::Created { proc, pid, pgid, sid },
            Err(why) => {
                let errno = why.raw_os_error().unwrap_or(libc::EINVAL).unsigned_abs();
                Event::StartFailed { proc, stage: StartStage::Create, errno }
            }
        }
    }

    /// Gives its number, its group and its session; 0: its own, the holder's.
    fn try_create(&mut self, creation: Creation) -> io::Result<(u32, [u32; 2])> {
        let Creation { proc, launch, pid, program, streams, origin, terminal, host } = creation;
        if self.handles.len() >= self.most {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let mut pipes = match &terminal {
            Some(wanted) => Pipes::of_terminal(wanted, program.uid)?,
            None => Pipes::new(streams, program.uid, program.gid)?,
        };
        let null = self.null.as_fd();
        let stdio = [0, 1, 2].map(|fd| pipes.child_end(fd, null));
        let place = Place {
            pid: (pid != 0).then_some(pid),
            cgroup: self.cgroups.of(launch),
            stdio,
            parent: None,
            foreground: false,
            namespaces: self.namespaces.as_ref().filter(|_| host),
        };
        let above = above::Above { standins: self.standins.as_mut(), launch, origin: origin.as_ref() };
        let (spawned, stands, line) = match pipes.slave() {
            Some(slave) => {
                let (spawned, stands, keeper) = above.spawn_in_terminal(program, place, slave)?;
                (spawned, stands, Some(Line::new(launch, keeper)))
            }
            None => above.spawn(program, place).map(|(spawned, stands)| (spawned, stands, None))?,
        };
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
            rings: [None, None],
            input_ring: None,
            line,
            released: false,
        };
        self.handles.insert(number, handles);
        self.numbers.insert(proc, number);
        self.by_pid.insert(spawned.pid, number);
        for fd in [1, 2] {
            self.watch_number(number, fd);
        }
        self.watch_stdin(number, EpollFlags::empty());
        Ok((spawned.pid, stands))
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
                    Stage::Directory => StartStage::Directory,
                    Stage::Root => StartStage::Root,
                    Stage::File(0) => StartStage::Stdin,
                    Stage::File(1) => StartStage::Stdout,
                    Stage::File(_) => StartStage::Stderr,
                    Stage::Exec => StartStage::Exec,
                },
                errno: errno.unsigned_abs(),
            },
        });
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.children.read_signal() {}
        loop {
            let change = reaper::next();
            // A stand-in may have reported what has become the holder's own child since: that comes first.
            while let Some(change) = self.standins.as_mut().and_then(StandIns::next_report) {
                self.changed(change);
            }
            match change {
                Ok(Wait::Change(change)) => self.changed(change),
                Ok(Wait::Nothing) => return,
                Ok(Wait::NoChildren) => {
                    self.handle(Event::NoChildren);
                    return;
                }
                Err(why) => {
                    log(&format!("children cannot be waited for: {why}"));
                    return;
                }
            }
        }
    }

    fn changed(&mut self, change: Change) {
        if self.standins.as_mut().is_some_and(|standins| standins.changed(&change)) {
            return;
        }
        // What a process has done comes before its end, or its stop: the ghosts of its children are made by its own.
        self.follow_tree();
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
                self.note_last_acts(pid);
                self.handle(Event::Stopped { pid, signal });
            }
            Change::Continued { pid } => self.handle(Event::Continued { pid }),
        }
    }

    fn release(&mut self, proc: ProcId) {
        let Some(number) = self.numbers.remove(&proc) else {
            return;
        };
        let Some(handles) = self.handles.get_mut(&number) else {
            return;
        };
        handles.close_stdin(self.agent.as_mut());
        handles.outputs = [None, None];
        terminals::end(self.standins.as_mut(), handles.line.take());
        for fd in [1, 2] {
            handles.give_up_ring(fd, self.agent.as_mut());
        }
        handles.released = true;
        if handles.starting.is_none() {
            self.handles.remove(&number);
        }
        self.untidy = true;
    }
}

/// Fails for want of kernel memory only (or of fs.epoll.max_user_watches); the stream then stands still until its end.
fn watch(epoll: &Epoll, fd: impl AsFd, flags: EpollFlags, source: Source) {
    let fd: BorrowedFd<'_> = fd.as_fd();
    if let Err(why) = epoll.add(fd, EpollEvent::new(flags, source.number())) {
        log(&format!("a descriptor cannot be watched: {why}"));
    }
}
