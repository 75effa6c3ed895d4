//! Who leads the tree: chooses what happens, and knows when nothing happens any more.
//!
//! A round has three parts, each done before the next begins: actors that change themselves (all at once), signals, and a
//! look at who is still there. Only in the first part are there processes that the conductor does not know yet, so no signal
//! hits a process that is about to say hello.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use acceptance::random::Random;
use anyhow::{Context, Result, bail};
use ghost_sys::signal::send;
use ghost_sys::trials::{fork, wait};
use nix::libc::{__WALL, SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, WNOHANG};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::actor::{self, NAMES, SOCKET};

/// How deep the tree may be, the conductor's children being 1.
const DEEPEST: u32 = 6;
/// How long an actor may take for an order.
const PATIENCE: Duration = Duration::from_secs(20);

struct Actor {
    stream: BufReader<UnixStream>,
    depth: u32,
    /// An order that it has not answered.
    busy: bool,
    /// That order makes a process.
    makes: bool,
    stopped: bool,
}

struct Conductor {
    listener: UnixListener,
    /// By PID.
    actors: BTreeMap<i32, Actor>,
    /// Connected, without a name yet.
    strangers: Vec<BufReader<UnixStream>>,
    /// Processes that are made and have not said hello.
    expected: usize,
    most: usize,
    random: Random,
}

/// Conducts rounds until standard input ends.
pub fn conduct(most: usize) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("tree-soak-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let own = std::env::current_exe()?;
    for name in NAMES {
        std::os::unix::fs::symlink(&own, directory.join(name))?;
    }
    std::env::set_current_dir(&directory)?;
    let listener = UnixListener::bind(SOCKET)?;
    let mut conductor = Conductor {
        listener,
        actors: BTreeMap::new(),
        strangers: Vec::new(),
        expected: 0,
        most,
        random: Random::new(0),
    };
    // Nodes do different things though they are told the same.
    let place = nix::unistd::gethostname()?;
    let mix =
        place.as_encoded_bytes().iter().fold(0u64, |mix, byte| mix.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let result = conductor.rounds(mix);
    for pid in conductor.actors.keys() {
        // ESRCH: dead by now.
        let _ = send(*pid, SIGKILL);
    }
    std::fs::remove_dir_all(&directory)?;
    result
}

impl Conductor {
    fn rounds(&mut self, mix: u64) -> Result<()> {
        for line in std::io::stdin().lines() {
            let line = line?;
            let seed: u64 = line.strip_prefix("round ").context("not a round")?.parse()?;
            self.random = Random::new(seed ^ mix);
            self.round().with_context(|| format!("round {seed}"))?;
            let mut out = std::io::stdout().lock();
            // Of the stopped ones some are dead: the kernel ends those whose group is orphaned.
            let running = self.actors.values().filter(|actor| !actor.stopped).count();
            out.write_all(format!("quiet {seed} {running}\n").as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    fn round(&mut self) -> Result<()> {
        self.go_on()?;
        self.changes()?;
        self.settle()?;
        self.signals()?;
        self.roll_call()
    }

    /// All that are stopped go on.
    fn go_on(&mut self) -> Result<()> {
        for (pid, actor) in &mut self.actors {
            if std::mem::take(&mut actor.stopped) {
                let _ = send(*pid, SIGCONT);
            }
        }
        self.roll_call()
    }

    /// Every actor gets at most one order, all at the same time.
    fn changes(&mut self) -> Result<()> {
        let mut room = self.most.saturating_sub(self.actors.len());
        let few = self.actors.len() < self.most / 4;
        for _ in 0..if self.actors.is_empty() { 4 } else { 0 } {
            self.child()?;
            room = room.saturating_sub(1);
        }
        let pids: Vec<i32> = self.actors.keys().copied().collect();
        for pid in &pids {
            let depth = self.actors[pid].depth;
            let may_fork = room > 0 && depth < DEEPEST;
            // A small tree grows, a large one changes.
            let order = match self.random.below(if few { 10 } else { 24 }) {
                0..=5 if may_fork => {
                    room -= 1;
                    self.expected += 1;
                    let kinds = ["usual", "usual", "usual", "silent", "shares", "sibling"];
                    format!("fork {}", self.random.choose(&kinds))
                }
                6..=7 if may_fork => {
                    room -= 1;
                    self.expected += 1;
                    format!("spawn {}", self.random.choose(&NAMES))
                }
                8..=10 => format!("exec {}", self.random.choose(&NAMES)),
                11 => "session".into(),
                12 => "group 0".into(),
                13 => format!("group {}", self.random.choose(&pids)),
                14..=15 => "reap".into(),
                16..=17 => format!("exit {}", self.random.below(256)),
                18 => "ignore 15".into(),
                _ => continue,
            };
            self.order(*pid, &order);
        }
        Ok(())
    }

    /// A child of the conductor's own.
    fn child(&mut self) -> Result<()> {
        self.expected += 1;
        fork(|| actor::begin(1))?;
        Ok(())
    }

    /// Signals from actors, and from here, to actors and groups.
    fn signals(&mut self) -> Result<()> {
        let pids: Vec<i32> = self.actors.keys().copied().collect();
        if pids.is_empty() {
            return Ok(());
        }
        for _ in 0..1 + pids.len() / 20 {
            let (from, to) = (*self.random.choose(&pids), *self.random.choose(&pids));
            match self.random.below(10) {
                0..=2 => self.order(from, &format!("kill {to} {SIGTERM}")),
                3..=4 => {
                    let _ = send(to, SIGKILL);
                }
                5..=7 => {
                    let _ = send(to, SIGSTOP);
                    if let Some(actor) = self.actors.get_mut(&to) {
                        actor.stopped = true;
                    }
                }
                8 => self.order(from, &format!("kill {to} {SIGUSR1}")),
                // A whole group, if it is one's own: the conductor's has us in it.
                _ => {
                    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(to)));
                    if group.is_ok_and(|group| group != nix::unistd::getpgrp()) {
                        self.order(from, &format!("kill -{to} {SIGTERM}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Who answers is there; who is gone has closed its socket. The stopped ones say nothing.
    fn roll_call(&mut self) -> Result<()> {
        // First what was ordered before.
        self.settle()?;
        let pids: Vec<i32> = self.actors.keys().copied().collect();
        for pid in pids {
            self.order(pid, "ping");
        }
        self.settle()?;
        // Our own children that have ended; actors leave theirs as zombies until they are told.
        while matches!(wait(-1, WNOHANG | __WALL), Ok(Some(_))) {}
        Ok(())
    }

    /// Gives an order to an actor that can hear it.
    fn order(&mut self, pid: i32, order: &str) {
        if let Some(actor) = self.actors.get_mut(&pid)
            && !actor.busy
            && !actor.stopped
        {
            actor.makes = order.starts_with("fork") || order.starts_with("spawn");
            actor.busy = actor.stream.get_mut().write_all(format!("{order}\n").as_bytes()).is_ok();
            if !actor.busy {
                self.actors.remove(&pid);
            }
        }
    }

    /// Waits until nobody has an order, and everybody who was made has said hello.
    fn settle(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.expected > 0 || self.actors.values().any(|actor| actor.busy && !actor.stopped) {
            if Instant::now() > until {
                let busy: Vec<_> = self.actors.iter().filter(|(_, actor)| actor.busy).map(|(pid, _)| pid).collect();
                bail!("{} processes have not said hello, {busy:?} are busy", self.expected);
            }
            self.listen()?;
        }
        Ok(())
    }

    /// Takes what has come: new connections, hellos, answers, ends.
    fn listen(&mut self) -> Result<()> {
        let busy: Vec<i32> = self.actors.iter().filter(|(_, actor)| actor.busy).map(|(pid, _)| *pid).collect();
        let (mut calls, mut said, mut hellos) = (false, Vec::new(), Vec::new());
        {
            let mut fds = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            fds.extend(
                busy.iter().map(|pid| PollFd::new(self.actors[pid].stream.get_ref().as_fd(), PollFlags::POLLIN)),
            );
            fds.extend(self.strangers.iter().map(|stream| PollFd::new(stream.get_ref().as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::from(100u8)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(why) => bail!("poll: {why}"),
            }
            let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
            calls |= ready(&fds[0]);
            said.extend(busy.iter().zip(&fds[1..]).filter(|(_, fd)| ready(fd)).map(|(pid, _)| *pid));
            hellos.extend(fds[1 + busy.len()..].iter().map(ready));
        }
        for pid in said {
            self.answer(pid);
        }
        for at in (0..hellos.len()).rev().filter(|at| hellos[*at]) {
            let stream = self.strangers.swap_remove(at);
            self.hello(stream)?;
        }
        if calls {
            let (stream, _) = self.listener.accept()?;
            self.strangers.push(BufReader::new(stream));
        }
        Ok(())
    }

    fn hello(&mut self, mut stream: BufReader<UnixStream>) -> Result<()> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["hello", pid, depth] = words.as_slice() else { bail!("`{line}` is no hello") };
        let actor = Actor { stream, depth: depth.parse()?, busy: false, makes: false, stopped: false };
        self.actors.insert(pid.parse()?, actor);
        self.expected = self.expected.saturating_sub(1);
        Ok(())
    }

    fn answer(&mut self, pid: i32) {
        let Some(actor) = self.actors.get_mut(&pid) else { return };
        let mut line = String::new();
        match actor.stream.read_line(&mut line) {
            Ok(0) | Err(_) => {
                self.actors.remove(&pid);
            }
            Ok(_) => {
                actor.busy = false;
                if std::mem::take(&mut actor.makes) && line == "refused\n" {
                    self.expected = self.expected.saturating_sub(1);
                }
            }
        }
    }
}
