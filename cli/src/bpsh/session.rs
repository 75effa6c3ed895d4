//! One launch from the request to the last rank's end: the loop that moves everything.
//!
//! ```text
//! ask --> Launched --> clone ghosts --> run: streams, signals, ends --> drain what is left --> verdict
//! ```
//! Invariants:
//! - Nothing but poll(2) ever waits here, so a full pipe, a stopped terminal or a busy node holds up only itself.
//! - A rank is complete when it has ended and each of its forwarded outputs has come to its end. The session is over when all
//!   ranks are complete, their output has been written, and their ghosts are reaped.

use std::io::{self, Stderr, Stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ghost_proto::client::{
    self, Ack, ClientToMaster, CloseStream, Ended, GhostDied, Launch, Launched, MasterToClient, NoGhost, StartFailed,
    Started,
};
use ghost_proto::frame::{ALL_RANKS, Data, MAX_CONTROL, MAX_DATA, Placed};
use ghost_proto::launch::{ProgramSpec, Stdio};
use ghost_proto::status::WaitStatus;
use ghost_proto::stream::Receiver;
use ghost_sys::quiet::{self, Inherited, Quiet};
use ghost_sys::ring::RingReader;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use prost::Message;

use super::flags::Request;
use super::ghosts::{Died, Flock};
use super::outcome::{NOT_RUN, Outcome, Verdict, describe, not_started, verdict};
use super::output::{Broken, Channel, Content, Credit, Output};
use super::program;
use super::received::{Meaning, meaning};
use super::resume::Home;
use super::stdin::{Broadcast, Read, Source};
use crate::connection::{Connection, Incoming, instance};
use crate::node_list::NodeList;

/// Input is not read on while this much waits to be sent, in bytes.
const BACKLOG: usize = 512 * 1024;
/// How often a terminal is looked at in whose background we are.
const TERMINAL_TICK: Duration = Duration::from_millis(250);
/// SIGCHLD does not come once for each child: all are looked at this long after one.
const CHILDREN_TICK: Duration = Duration::from_millis(100);
/// How long it may take SIGCONT that was sent to this process to reach its ghosts, too, by way of their nodes.
const CONTINUE_TIME: Duration = Duration::from_millis(100);
/// How long ghosts may take to go after all has ended.
const GHOSTS_GRACE: Duration = Duration::from_secs(1);

/// Why nothing (more) is run, for standard error.
#[derive(Debug)]
pub struct Failure {
    pub text: String,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { text: error.to_string() }
    }
}

/// Open files that a process must be allowed at least for output to come in shared memory: each such stream needs a number
/// for a moment.
const SPARE_DESCRIPTORS: u64 = 128;
const NO_DESCRIPTOR: &str = "output was lost: no number was left for a descriptor (see `ulimit -n`)";

fn failure(text: &str) -> Failure {
    Failure { text: text.to_owned() }
}

/// Runs what was asked for; gives how bpsh ends.
///
/// # Errors
/// The launch was refused, or ghostd cannot be talked to (any more).
pub fn run(request: &Request) -> Result<Verdict, Failure> {
    let program = program::describe(request);
    program.check().map_err(|reason| Failure { text: reason.to_owned() })?;
    if program.encoded_len() > MAX_CONTROL - 4096 {
        return Err(Failure { text: describe(nix::libc::E2BIG) });
    }
    let instance = instance(request.instance.as_deref())?;
    let nodes = NodeList::read(&request.nodes, &instance)?;
    let mut connection = Connection::open(&instance, "bpsh")?;
    offer_memory(&mut connection);
    connection.queue(ClientToMaster::Launch(Launch { nodes: nodes.text().to_owned(), program: Some(program.clone()) }));
    let mut quiet = Quiet::begin()?;
    if request.style.sorted {
        ghost_sys::inherit::raise_descriptor_limit();
    }
    connection.set_nonblocking()?;
    let (launched, resumes) = await_launch(&mut connection, &mut quiet, &nodes)?;
    let home = Home { instance, launch: launched.launch, resumes, away: None };
    let mut session = Session::new(request, program, (connection, home), quiet, &launched);
    session.clone_ghosts(&launched)?;
    let result = session.run();
    if result.is_err() {
        session.flock.kill();
        session.write_output();
    }
    result
}

/// Takes output in shared memory, where there are numbers for the descriptors that this needs.
pub(super) fn offer_memory(connection: &mut Connection) {
    if getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(soft, _)| soft >= SPARE_DESCRIPTORS) {
        connection.offer();
    }
}

/// Waits for ghostd's answer; tells also whether ghostd may be started again meanwhile. Signals mean what they mean to any program:
/// nothing has been started.
fn await_launch(connection: &mut Connection, quiet: &mut Quiet, nodes: &NodeList) -> Result<(Launched, bool), Failure> {
    let mut resumes = false;
    // The descriptor does not tell of those that came before it was there.
    react_alone(quiet);
    loop {
        let all_out = connection.flush()?;
        let (mut readable, mut signaled) = (false, false);
        {
            let wanted = if all_out { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
            let mut fds = [PollFd::new(connection.as_fd(), wanted), PollFd::new(quiet.as_fd(), PollFlags::POLLIN)];
            wait(&mut fds, None)?;
            readable |= happened(&fds[0], PollFlags::POLLIN);
            signaled |= happened(&fds[1], PollFlags::POLLIN);
        }
        if signaled {
            react_alone(quiet);
        }
        if readable {
            connection.fill()?;
        }
        while let Some(incoming) = connection.next_frame()? {
            match incoming {
                Incoming::Message(MasterToClient::Launched(launched)) => return Ok((launched, resumes)),
                Incoming::Message(MasterToClient::Hello(hello)) => {
                    resumes = hello.features.iter().any(|feature| feature == client::RESUME);
                }
                Incoming::Message(MasterToClient::Refused(refused)) => {
                    return Err(Failure { text: nodes.explain(&refused) });
                }
                Incoming::Message(_) | Incoming::Data(_) | Incoming::Placed(..) => {}
            }
        }
    }
}

/// Signals while no program runs that could decide.
fn react_alone(quiet: &mut Quiet) {
    while let Some(received) = quiet.read() {
        match meaning(received, quiet::inherited(), false, std::process::id().cast_signed()) {
            Meaning::Die(signal) => quiet::die_by(signal),
            Meaning::Stop(signal) => quiet::stop_by(signal, || true),
            Meaning::Nothing | Meaning::Child(_) | Meaning::Continued => {}
        }
    }
}

fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Failure> {
    // Rounded up: a timeout of 0 would spin until the moment has come.
    let timeout = timeout.map_or(PollTimeout::NONE, |t| {
        PollTimeout::try_from(t.as_millis().saturating_add(1).min(60_000)).unwrap_or(PollTimeout::ZERO)
    });
    match poll(fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(Failure { text: format!("poll: {}", error.desc()) }),
    }
}

/// Whether poll(2) has told this, or that something is wrong (which the next call will find out).
fn happened(fd: &PollFd<'_>, what: PollFlags) -> bool {
    fd.revents()
        .is_some_and(|events| events.intersects(what | PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
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
    output: Output<Standard>,
    /// Output could not be written, for another reason than that nobody reads it.
    output_lost: bool,
    pub broadcast: Broadcast,
    source: Source,
    source_ready: bool,
    buffer: Vec<u8>,
    look_at_children: Option<Instant>,
    /// The ghosts have stopped, and SIGCONT has come, nobody knows in which order: when to see, and by which signal to stop.
    doubtful_stop: Option<(Instant, u8)>,
}

impl Session {
    fn new(
        request: &Request,
        program: ProgramSpec,
        (connection, home): (Connection, Home),
        quiet: Quiet,
        launched: &Launched,
    ) -> Session {
        let nodes: Vec<i32> = launched.ranks.iter().map(|plan| plan.node).collect();
        let done = [1, 2].map(|fd| program.descriptor(fd) == Stdio::Null);
        let receivers = [Receiver::new(launched.window), Receiver::new(launched.window)];
        let ranks: Vec<RankState> = nodes
            .iter()
            .map(|node| RankState { node: *node, outcome: None, done, receivers, rings: [None, None], complete: false })
            .collect();
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
            output: Output::new(request.style, &nodes, stdout, stderr),
            output_lost: false,
            broadcast: Broadcast::new(readers, launched.window),
            source: Source::new(),
            source_ready: false,
            buffer: Vec::new(),
            look_at_children: None,
            doubtful_stop: None,
            ranks,
        }
    }

    /// Makes a ghost for every rank that can start. A signal that comes meanwhile is seen by ghostd, who passes it on to the
    /// ranks whose ghosts were not there yet to hear it.
    fn clone_ghosts(&mut self, launched: &Launched) -> Result<(), Failure> {
        let name = program::name(&self.program);
        let pin = self.connection.take_descriptor();
        for (rank, plan) in (0u32..).zip(&launched.ranks) {
            if !plan.reason.is_empty() {
                self.not_started(rank as usize, &plan.reason, NOT_RUN);
                continue;
            }
            let Some(pin) = &pin else {
                return Err(Failure { text: "ghostd sent no pin: is its version another one?".to_owned() });
            };
            if let Err(error) = self.flock.spawn(pin.as_fd(), rank, &name) {
                let errno = error.raw_os_error().unwrap_or(0);
                self.connection.queue(ClientToMaster::NoGhost(NoGhost { rank, errno: errno.unsigned_abs() }));
                self.not_started(rank as usize, &format!("cannot make a ghost here: {}", describe(errno)), NOT_RUN);
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<Verdict, Failure> {
        let mut deadline = None;
        loop {
            self.come_back()?;
            if self.incomplete > 0 && !self.is_away() {
                self.handle_frames()?;
            }
            self.write_output();
            self.read_input();
            if self.incomplete == 0 && self.output.is_drained() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + GHOSTS_GRACE);
                if self.flock.is_empty() || Instant::now() >= deadline {
                    break;
                }
            }
            let all_out = if self.incomplete > 0 { self.flush()? } else { true };
            self.sleep(all_out, deadline)?;
        }
        let outcomes: Vec<Outcome> = self.ranks.iter().filter_map(|rank| rank.outcome).collect();
        Ok(match verdict(&outcomes) {
            Verdict::Exit(0) if self.output_lost => Verdict::Exit(1),
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
            match meaning(received, self.inherited, self.running > 0, own) {
                Meaning::Nothing => {}
                // That the terminal's foreground may be ours again is seen by the next sleep.
                Meaning::Continued => continued = true,
                Meaning::Child(pid) => {
                    stop = self.flock.stop_now().or(stop);
                    let died = self.flock.look_at(pid);
                    self.report(died);
                    self.look_at_children.get_or_insert_with(|| Instant::now() + CHILDREN_TICK);
                }
                Meaning::Stop(signal) => quiet::stop_by(signal, || true),
                Meaning::Die(signal) => quiet::die_by(signal),
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
        let (flock, mut died) = (&mut self.flock, Vec::new());
        quiet::stop_by(i32::from(signal), || {
            let still;
            (still, died) = flock.still_stopped();
            still
        });
        self.report(died);
    }

    pub(super) fn report(&mut self, died: impl IntoIterator<Item = Died>) {
        for Died { rank, status } in died {
            let rank = u32::try_from(rank).unwrap_or(u32::MAX);
            self.connection.queue(ClientToMaster::GhostDied(GhostDied { rank, status }));
        }
    }

    pub(super) fn handle_frames(&mut self) -> Result<(), Failure> {
        while let Some(incoming) = self.connection.next_frame()? {
            match incoming {
                Incoming::Data(data) => self.data(data)?,
                Incoming::Placed(placed, descriptor) => self.placed(&placed, descriptor)?,
                Incoming::Message(message) => self.message(message)?,
            }
        }
        Ok(())
    }

    fn message(&mut self, message: MasterToClient) -> Result<(), Failure> {
        match message {
            MasterToClient::Started(Started { rank, cwd_errno, .. }) => {
                if cwd_errno != 0
                    && let Some(state) = self.ranks.get(rank as usize)
                {
                    let directory = String::from_utf8_lossy(&self.program.cwd);
                    let reason = describe(i32::try_from(cwd_errno).unwrap_or(0));
                    let text = format!("{}: warning: {directory}: {reason}; running in /", state.node);
                    self.output.message(&text);
                }
            }
            MasterToClient::StartFailed(failure) => {
                self.start_failed(&failure);
                self.note(failure.rank);
            }
            MasterToClient::Ended(ended) => {
                self.ended(&ended);
                self.note(ended.rank);
            }
            MasterToClient::Ack(Ack { rank, offset, .. }) => self.broadcast.acknowledge(rank as usize, offset),
            MasterToClient::StdinGone(gone) => self.broadcast.leave(gone.rank as usize),
            MasterToClient::Refused(refused) => return Err(Failure { text: refused.text }),
            MasterToClient::Reap(reap) => {
                self.flock.foster(reap.pid.cast_signed());
                self.look_at_children.get_or_insert_with(|| Instant::now() + CHILDREN_TICK);
            }
            MasterToClient::Hello(_)
            | MasterToClient::Resumed(_)
            | MasterToClient::Launched(_)
            | MasterToClient::Nodes(_)
            | MasterToClient::Processes(_)
            | MasterToClient::Admin(_) => {}
        }
        Ok(())
    }

    fn data(&mut self, data: Data) -> Result<(), Failure> {
        let Some((rank, channel)) = self.stream(data.id, data.fd) else { return Ok(()) };
        self.arrived(rank, channel, data.offset, data.bytes.into(), data.eof)
    }

    fn placed(&mut self, placed: &Placed, descriptor: Option<OwnedFd>) -> Result<(), Failure> {
        let Some((rank, channel)) = self.stream(placed.id, placed.fd) else { return Ok(()) };
        let place = &mut self.ranks[rank].rings[channel];
        if placed.new_ring {
            let Some(descriptor) = descriptor else { return Err(failure(NO_DESCRIPTOR)) };
            *place = Some(Rc::new(RingReader::open(&descriptor)?));
        }
        let length = placed.length as usize;
        let Some(ring) = place.clone().filter(|ring| length <= ring.size()) else {
            return Err(failure("ghostd refers to memory that it has not shared"));
        };
        if placed.last_of_ring {
            *place = None;
        }
        let content = Content::Ring { ring, offset: placed.offset, length };
        self.arrived(rank, channel, placed.offset, content, placed.eof)
    }

    /// The stream that a frame is about, if there is one.
    fn stream(&self, id: u64, fd: u8) -> Option<(usize, Channel)> {
        let (rank, channel) = (usize::try_from(id).ok()?, usize::from(fd).checked_sub(1)?);
        (rank < self.ranks.len() && channel < 2).then_some((rank, channel))
    }

    fn arrived(
        &mut self,
        rank: usize,
        channel: Channel,
        offset: u64,
        mut content: Content,
        eof: bool,
    ) -> Result<(), Failure> {
        let state = &mut self.ranks[rank];
        let skip = state.receivers[channel].receive(offset, content.len())?;
        if !state.done[channel] {
            content.advance(skip);
            if !content.is_empty() {
                self.output.push(rank, channel, content);
            }
            if eof {
                self.ranks[rank].done[channel] = true;
                self.check_complete(rank);
            }
        }
        Ok(())
    }

    fn ended(&mut self, ended: &Ended) {
        let rank = ended.rank as usize;
        let Some(state) = self.ranks.get_mut(rank).filter(|state| state.outcome.is_none()) else { return };
        if ended.lost {
            // Its outputs have no end but this.
            state.done = [true; 2];
            let text = format!("{}: lost", state.node);
            self.output.message(&text);
        }
        let status = WaitStatus::from_raw(ended.status).unwrap_or(WaitStatus::KILLED);
        self.settle(rank, Outcome::Ended(status));
    }

    fn start_failed(&mut self, failure: &StartFailed) {
        let program = String::from_utf8_lossy(self.program.argv.first().map(Bytes::as_ref).unwrap_or_default());
        let (reason, outcome) = not_started(failure, &program);
        let code = if let Outcome::NotStarted(code) = outcome { code } else { NOT_RUN };
        self.not_started(failure.rank as usize, &reason, code);
    }

    fn not_started(&mut self, rank: usize, reason: &str, code: u8) {
        let Some(state) = self.ranks.get_mut(rank).filter(|state| state.outcome.is_none()) else { return };
        state.done = [true; 2];
        let text = format!("{}: {reason}", state.node);
        self.output.message(&text);
        self.settle(rank, Outcome::NotStarted(code));
    }

    /// A rank's outcome is known: its ghost may go.
    fn settle(&mut self, rank: usize, outcome: Outcome) {
        if self.ranks[rank].outcome.is_some() {
            return;
        }
        self.ranks[rank].outcome = Some(outcome);
        self.running -= 1;
        self.broadcast.leave(rank);
        if let Some(signal) = self.flock.release(rank) {
            self.stop(signal);
        }
        self.check_complete(rank);
    }

    fn check_complete(&mut self, rank: usize) {
        let state = &mut self.ranks[rank];
        if !state.complete && state.outcome.is_some() && state.done == [true; 2] {
            state.complete = true;
            self.incomplete -= 1;
            self.output.finish(rank);
        }
    }

    /// Writes what goes; acknowledges what went.
    fn write_output(&mut self) {
        loop {
            let mut broken = Vec::new();
            for credit in self.output.write(&mut broken) {
                self.acknowledge(credit);
            }
            if broken.is_empty() {
                return;
            }
            // May have something to say, which is to be written as well.
            for Broken { channel, error } in broken {
                self.close(channel, &error);
            }
        }
    }

    fn acknowledge(&mut self, Credit { rank, channel, bytes }: Credit) {
        let Some(state) = self.ranks.get_mut(rank) else { return };
        let receiver = &mut state.receivers[channel];
        receiver.consume(bytes);
        if !state.done[channel]
            && let Some(offset) = receiver.ack_due(false)
        {
            let (rank, fd) = (u32::try_from(rank).unwrap_or(u32::MAX), channel as u32 + 1);
            self.connection.queue(ClientToMaster::Ack(Ack { rank, fd, offset }));
        }
    }

    /// An output's reader is gone: the programs' writers get EPIPE, and it is for them to end.
    fn close(&mut self, channel: Channel, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.output_lost = true;
            // To a standard error that is itself what broke, it goes nowhere.
            self.output.message(&format!("bpsh: cannot write output: {}", crate::connection::plain(error)));
        }
        for rank in 0..self.ranks.len() {
            if !std::mem::replace(&mut self.ranks[rank].done[channel], true) {
                let (id, fd) = (u32::try_from(rank).unwrap_or(u32::MAX), channel as u32 + 1);
                self.connection.queue(ClientToMaster::CloseStream(CloseStream { rank: id, fd }));
                self.check_complete(rank);
            }
        }
    }

    fn input_wanted(&self) -> bool {
        !self.is_away() && self.broadcast.room().is_some_and(|room| room > 0) && self.connection.backlog() < BACKLOG
    }

    /// Reads input as long as somebody takes it.
    fn read_input(&mut self) {
        while self.input_wanted() && (self.source_ready || self.source.always_ready()) && self.source.allowed() {
            let room = self.broadcast.room().unwrap_or(0).min(MAX_DATA);
            if self.buffer.is_empty() {
                self.buffer = vec![0; MAX_DATA];
            }
            match self.source.read(&mut self.buffer[..room], self.source_ready) {
                Read::Bytes(n) => {
                    let offset = self.broadcast.send(n);
                    if self.home.resumes {
                        self.broadcast.keep(&self.buffer[..n]);
                    }
                    self.send_input(offset, n, false);
                    self.source_ready = false;
                }
                Read::Nothing => self.source_ready = false,
                Read::End => {
                    let offset = self.broadcast.end();
                    self.send_input(offset, 0, true);
                }
            }
        }
    }

    fn send_input(&mut self, offset: u64, n: usize, eof: bool) {
        let bytes = Bytes::copy_from_slice(&self.buffer[..n]);
        self.connection.queue_data(&Data { id: ALL_RANKS, offset, fd: 0, eof, bytes });
    }
}
