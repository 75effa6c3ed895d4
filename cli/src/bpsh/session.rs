//! One launch from the request to the last rank's end: the loop that moves everything.
//!
//! ```text
//! ask --> Launched --> clone ghosts --> run: streams, signals, ends --> drain what is left --> verdict
//! ```
//! Invariants:
//! - Nothing but poll(2) ever waits here, so a full pipe, a stopped terminal or a busy node holds up only itself.
//! - A rank is complete when it has ended and each of its forwarded outputs has come to its end. The session is over when all
//!   ranks are complete, their output has been written, and their ghosts are reaped.

mod asking;
mod beginning;
mod ends;
mod progress;
mod serving;
mod streams;
mod terminal;

use std::collections::VecDeque;
use std::io::{self, Stderr, Stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ghost_proto::client::{self, ClientToMaster, GhostDied, Launch, Launched};
use ghost_proto::frame::MAX_CONTROL;
use ghost_proto::launch::{HOST, ProgramSpec, Stdio};
use ghost_proto::status::Usage;
use ghost_proto::stream::Receiver;
use ghost_proto::terminal::FEATURE;
use ghost_sys::quiet::{self, Inherited, Quiet};
use ghost_sys::ring::RingReader;
use nix::poll::{PollFd, PollFlags};
use nix::sys::resource::{Resource, getrlimit};
use prost::Message;

use super::detach::Report;
use super::flags::{Form, Request, Task};
use super::ghosts::{Died, Flock};
use super::halt::{Count, HaltRule};
use super::input_ring::InputRing;
use super::outcome::{ExitRule, NOT_RUN, Outcome, Verdict, describe, verdict};
use super::output::{Channel, Output};
use super::plan;
use super::program;
use super::progress_line::Pace;
use super::received::{Meaning, is_for_programs, meaning};
use super::report::Event;
use super::resume::Home;
use super::stdin::{Broadcast, Source};
use super::winding_down::WindingDown;
use crate::connection::{Connection, instance};
use crate::node_list::NodeList;
use terminal::Window;

use asking::{await_launch, happened, wait};

/// How often a terminal is looked at in whose background we are.
const TERMINAL_TICK: Duration = Duration::from_millis(250);
/// SIGCHLD does not come once for each child: all are looked at this long after one.
const CHILDREN_TICK: Duration = Duration::from_millis(100);
/// How long it may take SIGCONT that was sent to this process to reach its ghosts, too, by way of their nodes.
const CONTINUE_TIME: Duration = Duration::from_millis(100);
/// How long ghosts may take to go after all has ended.
const GHOSTS_GRACE: Duration = Duration::from_secs(1);

/// Who sends one of these means the launch.
const ENDS_ALL: [i32; 4] = [nix::libc::SIGINT, nix::libc::SIGQUIT, nix::libc::SIGTERM, nix::libc::SIGHUP];

/// Why nothing (more) is run, for standard error.
#[derive(Debug)]
pub struct Failure {
    pub text: String,
    /// How bpsh exits because of it.
    pub code: u8,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        failure(&error.to_string())
    }
}

pub(super) fn failure(text: &str) -> Failure {
    Failure { text: text.to_owned(), code: NOT_RUN }
}

/// When everything is to be over.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    /// How long that is from the start.
    after: Duration,
}

/// Open files that a process must be allowed at least for output to come in shared memory: each such stream needs a number
/// for a moment.
const SPARE_DESCRIPTORS: u64 = 128;

/// Runs what was asked for; gives how bpsh ends.
///
/// # Errors
/// The launch was refused, or ghostd cannot be talked to (any more).
pub fn run(request: &Request, start: Instant) -> Result<Verdict, Failure> {
    let program = program::describe(request);
    program.check().map_err(failure)?;
    if program.encoded_len() > MAX_CONTROL - 4096 {
        return Err(failure(&describe(nix::libc::E2BIG)));
    }
    let deadline = request.timeout.and_then(|after| Some(Deadline { at: start.checked_add(after)?, after }));
    let instance = instance(request.instance.as_deref())?;
    let nodes = NodeList::read(&request.nodes, &instance)?;
    let mut connection = Connection::open(&instance, "bpsh")?;
    offer_memory(&mut connection);
    let (list, plain) = (nodes.text().to_owned(), request.is_plain());
    connection.queue(ClientToMaster::Launch(Launch { nodes: list, program: Some(program.clone()), plain }));
    let mut quiet = Quiet::begin()?;
    if request.style.sorted {
        ghost_sys::inherit::raise_descriptor_limit();
    }
    connection.set_nonblocking()?;
    let (launched, features) = await_launch(&mut connection, &mut quiet, &nodes, deadline)?;
    let has = |name| features.iter().any(|feature| feature == name);
    if request.terminal && launched.ranks.len() != 1 {
        return Err(failure("a terminal is for one process: name one node, or leave --tty out"));
    }
    if request.terminal && !has(FEATURE) {
        return Err(failure("--tty: this ghostd is older than bpsh and knows no terminals"));
    }
    if request.host && !has(HOST) {
        return Err(failure("--host: this ghostd is older than bpsh and does not know it"));
    }
    if request.task == Task::DryRun {
        // Without ghosts nothing is started, and with the connection the launch is over.
        return plan::show(&launched, &program);
    }
    let home = Home { instance, launch: launched.launch, resumes: has(client::RESUME), away: None };
    let mut session = Session::new(request, program, (connection, home), quiet, &launched);
    session.deadline = deadline;
    if session.pace.is_some() {
        session.output.allow_below(progress::terminals());
    }
    let result = session.begin(&launched).and_then(|()| session.run());
    if result.is_err() {
        session.flock.kill();
        session.write_output();
    }
    session.end_progress();
    result
}

/// Takes output in shared memory, where there are numbers for the descriptors that this needs.
pub(super) fn offer_memory(connection: &mut Connection) {
    if getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(soft, _)| soft >= SPARE_DESCRIPTORS) {
        connection.offer();
    }
}

/// Where the two outputs go.
#[derive(Debug)]
enum Standard {
    Out(Stdout),
    Error(Stderr),
}

impl AsFd for Standard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Standard::Out(stream) => stream.as_fd(),
            Standard::Error(stream) => stream.as_fd(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RankState {
    pub node: i32,
    pub outcome: Option<Outcome>,
    /// Outputs from which nothing more comes, or is wanted.
    pub done: [bool; 2],
    pub receivers: [Receiver; 2],
    /// Memory in which output comes, once there is much of it.
    pub rings: [Option<Rc<RingReader>>; 2],
    complete: bool,
    name: String,
    started: bool,
    /// The number of its ghost, once it has started.
    ghost: Option<i32>,
    /// It is being ended here: what it then counts as.
    early: Option<Outcome>,
    usage: Option<Usage>,
}

pub(super) struct Session {
    pub connection: Connection,
    pub home: Home,
    quiet: Quiet,
    inherited: Inherited,
    pub program: ProgramSpec,
    pub ranks: Vec<RankState>,
    /// How many ranks are not complete, and how many have not ended.
    pub incomplete: usize,
    running: usize,
    pub flock: Flock,
    served: serving::Served,
    output: Output<Standard>,
    /// Output could not be written, for another reason than that nobody reads it.
    output_lost: bool,
    pub broadcast: Broadcast,
    source: Source,
    source_ready: bool,
    buffer: BytesMut,
    pub input_ring: Option<InputRing>,
    look_at_children: Option<Instant>,
    /// The ghosts have stopped, and SIGCONT has come, nobody knows in which order: when to see, and by which signal to stop.
    doubtful_stop: Option<(Instant, u8)>,
    /// The pin is kept as long as ghosts are to be made; those ranks that wait for that, and how many of them may begin.
    pin: Option<OwnedFd>,
    waiting: VecDeque<u32>,
    vacancies: usize,
    fanout: usize,
    /// Ranks in the order of their ends.
    order: Vec<usize>,
    exit: ExitRule,
    halt: Option<HaltRule>,
    count: Count,
    deadline: Option<Deadline>,
    winding_down: Option<WindingDown>,
    /// Everything is told as events; else in words.
    tells_events: bool,
    /// Somebody waits for the ghosts' numbers.
    detached: Option<Report>,
    /// A terminal on the node is behind the one here.
    window: Option<Window>,
    /// There may be a progress line.
    pace: Option<Pace>,
}

impl Session {
    fn new(
        request: &Request,
        program: ProgramSpec,
        (connection, home): (Connection, Home),
        quiet: Quiet,
        launched: &Launched,
    ) -> Session {
        let named: Vec<(i32, String)> = launched.ranks.iter().map(|plan| (plan.node, plan.name.clone())).collect();
        let done = [1, 2].map(|fd| program.descriptor(fd) == Stdio::Null);
        let receivers = [Receiver::new(launched.window), Receiver::new(launched.window)];
        let rank = |(node, name): &(i32, String)| RankState {
            node: *node,
            outcome: None,
            done,
            receivers,
            rings: [None, None],
            complete: false,
            name: name.clone(),
            started: false,
            ghost: None,
            early: None,
            usage: None,
        };
        let ranks: Vec<RankState> = named.iter().map(rank).collect();
        let readers = if program.descriptor(0) == Stdio::Stream { ranks.len() } else { 0 };
        let (stdout, stderr) = (Standard::Out(io::stdout()), Standard::Error(io::stderr()));
        Session {
            connection,
            home,
            quiet,
            inherited: quiet::inherited(),
            program,
            incomplete: ranks.len(),
            running: ranks.len(),
            flock: Flock::default(),
            served: serving::Served::default(),
            output: Output::new(request.style, named, stdout, stderr),
            output_lost: false,
            broadcast: Broadcast::new(readers, launched.window),
            source: Source::new(),
            source_ready: false,
            buffer: BytesMut::new(),
            input_ring: None,
            look_at_children: None,
            doubtful_stop: None,
            pin: None,
            waiting: VecDeque::new(),
            vacancies: 0,
            fanout: request.fanout.unwrap_or(usize::MAX),
            order: Vec::new(),
            exit: request.exit,
            halt: request.halt,
            count: Count { ranks: ranks.len(), ..Count::default() },
            deadline: None,
            winding_down: None,
            tells_events: request.style.form == Form::Events,
            detached: (request.task == Task::Detached).then(Report::new),
            window: request.terminal.then(Window::default),
            pace: progress::pace(request, ranks.len()),
            ranks,
        }
    }

    fn run(&mut self) -> Result<Verdict, Failure> {
        let (mut deadline, mut end) = (None, None);
        loop {
            self.come_back()?;
            self.attend_terminal();
            if self.incomplete > 0 && !self.is_away() {
                self.handle_frames()?;
            }
            self.fill_vacancies();
            self.report_detached();
            self.write_output();
            self.read_input()?;
            self.look_at_the_clock();
            // What is to be killed is killed before bpsh goes.
            let is_over = self.incomplete == 0 && self.winding_down.is_none_or(|down| down.has_killed());
            if is_over && end.is_none() {
                let outcomes: Vec<Outcome> = self.ranks.iter().filter_map(|rank| rank.outcome).collect();
                let verdict = verdict(self.exit, &outcomes, &self.order);
                self.output.event(&Event::End { status: verdict.into() });
                end = Some(verdict);
                self.write_output();
            }
            let to_send = self.incomplete > 0 || (self.winding_down.is_some() && self.connection.backlog() > 0);
            let all_out = if to_send { self.flush()? } else { true };
            if is_over && self.output.is_drained() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + GHOSTS_GRACE);
                if (self.flock.is_empty() && all_out) || Instant::now() >= deadline {
                    break;
                }
            }
            self.show_progress();
            self.sleep(all_out, deadline)?;
        }
        Ok(match end.unwrap_or(Verdict::Exit(NOT_RUN)) {
            Verdict::Exit(0) if self.output_lost => Verdict::Exit(NOT_RUN),
            verdict => verdict,
        })
    }

    /// Waits until something is to be done, and does what signals ask for.
    fn sleep(&mut self, all_out: bool, deadline: Option<Instant>) -> Result<(), Failure> {
        let input_wanted = self.input_wanted();
        let input_allowed = input_wanted && self.source.allowed();
        let now = Instant::now();
        let timeout = [
            deadline.map(|at| at.saturating_duration_since(now)),
            self.look_at_children.map(|at| at.saturating_duration_since(now)),
            self.doubtful_stop.map(|(at, _)| at.saturating_duration_since(now)),
            (input_wanted && !input_allowed).then_some(TERMINAL_TICK),
            self.next_attempt().map(|at| at.saturating_duration_since(now)),
            self.deadline.map(|deadline| deadline.at.saturating_duration_since(now)),
            self.pace.as_ref().and_then(Pace::next).map(|at| at.saturating_duration_since(now)),
            self.winding_down.map(|down| down.next().saturating_duration_since(now)),
        ];
        let listens = self.incomplete > 0 && !self.is_away();
        let timeout = timeout.into_iter().flatten().min();

        let (mut from_ghostd, mut from_input, mut signals) = (false, false, false);
        let mut room: [bool; 2] = [false; 2];
        {
            let stdin = io::stdin();
            let mut fds = vec![PollFd::new(self.quiet.as_fd(), PollFlags::POLLIN)];
            if listens {
                let wanted = if all_out { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
                fds.push(PollFd::new(self.connection.as_fd(), wanted));
            }
            let input_at = fds.len();
            if input_allowed {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            let outputs_at = fds.len();
            let channels: Vec<Channel> = self
                .output
                .waiting()
                .map(|(channel, fd)| {
                    fds.push(PollFd::new(fd, PollFlags::POLLOUT));
                    channel
                })
                .collect();
            wait(&mut fds, timeout)?;
            signals |= happened(&fds[0], PollFlags::POLLIN);
            from_ghostd |= listens && happened(&fds[1], PollFlags::POLLIN);
            from_input |= input_allowed && happened(&fds[input_at], PollFlags::POLLIN);
            for (channel, fd) in channels.into_iter().zip(&fds[outputs_at..]) {
                room[channel] = happened(fd, PollFlags::POLLOUT);
            }
        }
        for channel in (0..2).filter(|channel| room[*channel]) {
            self.output.room(channel);
        }
        self.source_ready |= from_input;
        if from_ghostd {
            self.fill()?;
        }
        if signals {
            self.handle_signals();
        }
        if let Some((_, signal)) = self.doubtful_stop.take_if(|(at, _)| Instant::now() >= *at) {
            self.stop(signal);
        }
        if self.look_at_children.is_some_and(|at| Instant::now() >= at) {
            let died = self.flock.look_at_all();
            self.look_at_children = self.flock.has_dead().then(|| Instant::now() + CHILDREN_TICK);
            self.report(died);
        }
        Ok(())
    }

    fn handle_signals(&mut self) {
        let own = std::process::id().cast_signed();
        let (mut stop, mut continued) = (None, false);
        while let Some(received) = self.quiet.read() {
            if self.terminal_signal(received.signal, self.inherited) {
                continue;
            }
            if ENDS_ALL.contains(&received.signal) && (self.inherited.ignored >> (received.signal - 1)) & 1 == 0 {
                // Those that run decide for themselves, those that do not are not begun.
                self.begin_no_more(Outcome::Halted);
            }
            if self.flock.is_elsewhere() && self.running > 0 && is_for_programs(received, self.inherited, own) {
                self.signal_ranks(None, received.signal);
            }
            match meaning(received, self.inherited, self.running > 0, own) {
                Meaning::Nothing => {}
                // That the terminal's foreground may be ours again is seen by the next sleep.
                Meaning::Continued => continued = true,
                Meaning::Child(pid) => {
                    self.served.reap();
                    stop = self.flock.stop_now().or(stop);
                    let died = self.flock.look_at(pid);
                    self.report(died);
                    self.look_at_children.get_or_insert_with(|| Instant::now() + CHILDREN_TICK);
                }
                Meaning::Stop(signal) => {
                    self.end_progress();
                    quiet::stop_by(signal, || true);
                }
                Meaning::Die(signal) => {
                    self.end_progress();
                    self.leave_terminal();
                    quiet::die_by(signal)
                }
            }
        }
        match stop {
            // They are read by number, not by age. If SIGCONT is the younger, the ghosts go on as soon as it has reached them.
            Some(signal) if continued => self.doubtful_stop = Some((Instant::now() + CONTINUE_TIME, signal)),
            Some(signal) => {
                self.doubtful_stop = None;
                self.stop(signal);
            }
            None => {}
        }
    }

    /// Stops as the ghosts have stopped: who waits for bpsh waits for them.
    fn stop(&mut self, signal: u8) {
        self.write_output();
        self.acknowledge_all();
        // An error comes again when bpsh goes on.
        let _ = self.flush();
        self.end_progress();
        self.leave_terminal();
        let (flock, mut died) = (&mut self.flock, Vec::new());
        quiet::stop_by(i32::from(signal), || {
            let still;
            (still, died) = flock.still_stopped();
            still
        });
        self.report(died);
    }

    /// Tells who waits for the ghosts' numbers, when they are known.
    fn report_detached(&mut self) {
        if self.ranks.iter().any(|state| !state.started && state.outcome.is_none()) {
            return;
        }
        if let Some(report) = self.detached.take() {
            self.write_output();
            let began = (0..self.ranks.len()).filter(|rank| self.ranks[*rank].started);
            let pids = began.filter_map(|rank| self.ranks[rank].ghost).collect::<Vec<i32>>();
            let codes = self.ranks.iter().filter(|state| !state.started).filter_map(|state| state.outcome?.code());
            report.give(&pids, codes.max().unwrap_or(0));
        }
    }

    pub(super) fn report(&mut self, died: impl IntoIterator<Item = Died>) {
        for Died { rank, status } in died {
            let rank = u32::try_from(rank).unwrap_or(u32::MAX);
            self.connection.queue(ClientToMaster::GhostDied(GhostDied { rank, status }));
        }
    }
}
