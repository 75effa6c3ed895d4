//! The life of a member's daemon, as systemd would manage it: `Type=notify`, `Restart=always`, watchdog,
//! `KillMode=process`, file descriptor store. Pure: events and the time go in, actions come out.
//!
//! ```text
//!            start              READY=1
//!   Dead ───────────▶ Starting ─────────▶ Running
//!    ▲ ▲                 │  ▲                │ exits, or watchdog: SIGABRT, then exits
//!    │ └──── exits ──────┘  │ 100 ms         ▼
//!    │   (asked for: fails) └─────────── Waiting
//!    │ exits
//!   Stopping ◀── stop, restart (then Starting again)
//! ```
//!
//! A start that somebody asked for and that fails is reported and not tried again; a restart after an unexpected end
//! is tried for ever. Stored descriptors survive restarts of every kind, not a stop.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// RestartSec= of systemd.
const PAUSE: Duration = Duration::from_millis(100);
/// TimeoutStartSec=, shorter than systemd's 90 s: somebody sits in front of it.
const START_LIMIT: Duration = Duration::from_secs(30);
/// TimeoutStopSec=, likewise.
const STOP_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Dead,
    Starting { since: Instant, asked: bool },
    Running { heard: Instant },
    Stopping { since: Instant, again: bool },
    Waiting { until: Instant },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Spawn,
    Signal(Signal),
    /// The descriptor store is emptied.
    Forget,
    /// To all whose start, stop or restart is under way.
    Answer(Result<(), String>),
}

#[derive(Debug)]
pub struct Service {
    pub state: State,
    /// How often it was started again after an unexpected end.
    pub restarts: u32,
    /// What it last said with STATUS=.
    pub status: String,
    /// Silence after which it is killed.
    pub watchdog: Option<Duration>,
    /// Whether the watchdog has already struck this run.
    struck: bool,
    /// RestartKillSignal= of systemd: what it is told when another one comes.
    pub restart_signal: Signal,
}

impl Service {
    pub fn new(watchdog: Option<Duration>) -> Self {
        Self {
            state: State::Dead,
            restarts: 0,
            status: String::new(),
            watchdog,
            struck: false,
            restart_signal: Signal::SIGTERM,
        }
    }

    pub fn name(&self) -> &'static str {
        match self.state {
            State::Dead => "dead",
            State::Starting { .. } => "starting",
            State::Running { .. } => "running",
            State::Stopping { .. } => "stopping",
            State::Waiting { .. } => "waiting",
        }
    }

    pub fn start(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Dead => self.spawn(now, true),
            State::Running { .. } => vec![Action::Answer(Ok(()))],
            State::Starting { .. } | State::Waiting { .. } => vec![],
            State::Stopping { since, .. } => {
                self.state = State::Stopping { since, again: true };
                vec![]
            }
        }
    }

    pub fn stop(&mut self, now: Instant) -> Vec<Action> {
        self.end(now, false)
    }

    pub fn restart(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Dead => self.spawn(now, true),
            _ => self.end(now, true),
        }
    }

    fn end(&mut self, now: Instant, again: bool) -> Vec<Action> {
        match self.state {
            State::Dead => vec![Action::Forget, Action::Answer(Ok(()))],
            State::Waiting { .. } if again => self.spawn(now, true),
            State::Waiting { .. } => self.die(Ok(())),
            State::Starting { .. } | State::Running { .. } => {
                self.state = State::Stopping { since: now, again };
                vec![Action::Signal(if again { self.restart_signal } else { Signal::SIGTERM })]
            }
            State::Stopping { since, .. } => {
                self.state = State::Stopping { since, again };
                vec![]
            }
        }
    }

    /// The daemon's process has ended, or could not be started; `how` says in which way.
    pub fn exited(&mut self, how: &str, now: Instant) -> Vec<Action> {
        match self.state {
            State::Dead | State::Waiting { .. } => vec![],
            State::Starting { asked: true, .. } => self.die(Err(format!("it {how} before it was ready"))),
            State::Starting { asked: false, .. } | State::Running { .. } => {
                self.state = State::Waiting { until: now + PAUSE };
                vec![]
            }
            State::Stopping { again: true, .. } => self.spawn(now, true),
            State::Stopping { again: false, .. } => self.die(Ok(())),
        }
    }

    pub fn ready(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Starting { .. } => {
                self.state = State::Running { heard: now };
                vec![Action::Answer(Ok(()))]
            }
            _ => vec![],
        }
    }

    /// WATCHDOG=1.
    pub fn alive(&mut self, now: Instant) {
        if let State::Running { heard } = &mut self.state {
            *heard = now;
        }
    }

    /// When [`Service::tick`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Dead => None,
            State::Starting { since, .. } => Some(since + START_LIMIT),
            State::Running { .. } if self.struck => None,
            State::Running { heard } => self.watchdog.map(|limit| heard + limit),
            State::Stopping { .. } if self.struck => None,
            State::Stopping { since, .. } => Some(since + STOP_LIMIT),
            State::Waiting { until } => Some(until),
        }
    }

    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return vec![];
        }
        match self.state {
            State::Waiting { .. } => {
                self.restarts += 1;
                self.spawn(now, false)
            }
            State::Starting { .. } => {
                self.state = State::Stopping { since: now, again: false };
                self.struck = true;
                let why = format!("not ready after {} s; killed", START_LIMIT.as_secs());
                vec![Action::Answer(Err(why)), Action::Signal(Signal::SIGKILL)]
            }
            State::Running { .. } => {
                self.struck = true;
                vec![Action::Signal(Signal::SIGABRT)]
            }
            State::Stopping { .. } => {
                self.struck = true;
                vec![Action::Signal(Signal::SIGKILL)]
            }
            State::Dead => vec![],
        }
    }

    fn spawn(&mut self, now: Instant, asked: bool) -> Vec<Action> {
        self.state = State::Starting { since: now, asked };
        self.struck = false;
        self.status.clear();
        vec![Action::Spawn]
    }

    fn die(&mut self, answer: Result<(), String>) -> Vec<Action> {
        self.state = State::Dead;
        self.struck = false;
        vec![Action::Forget, Action::Answer(answer)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn running(watchdog: Option<Duration>, now: Instant) -> Service {
        let mut service = Service::new(watchdog);
        assert_eq!(service.start(now), [Action::Spawn]);
        assert_eq!(service.ready(now), [Action::Answer(Ok(()))]);
        service
    }

    #[test]
    fn a_start_that_fails_is_reported_once_and_not_repeated() {
        let now = Instant::now();
        let mut service = Service::new(None);
        service.start(now);
        let actions = service.exited("exited with status 1", now);
        assert_eq!(
            actions,
            [Action::Forget, Action::Answer(Err("it exited with status 1 before it was ready".to_owned()))]
        );
        assert_eq!(service.state, State::Dead);
        assert_eq!(service.deadline(), None);
    }

    #[test]
    fn an_unexpected_end_is_followed_by_a_start_until_it_holds() {
        let now = Instant::now();
        let mut service = running(None, now);
        for round in 1..=3 {
            assert_eq!(service.exited("was killed", now), []);
            assert_eq!(service.tick(now), [], "not before the pause is over");
            assert_eq!(service.tick(now + PAUSE), [Action::Spawn], "descriptors are kept: no Forget");
            assert_eq!(service.restarts, round);
        }
        service.ready(now);
        assert_eq!(service.name(), "running");
    }

    #[test]
    fn silence_is_punished_once_and_a_sign_of_life_resets_it() {
        let now = Instant::now();
        let mut service = running(Some(SECOND), now);
        service.alive(now + SECOND / 2);
        assert_eq!(service.tick(now + SECOND), []);
        assert_eq!(service.tick(now + 2 * SECOND), [Action::Signal(Signal::SIGABRT)]);
        assert_eq!(service.tick(now + 3 * SECOND), []);
        service.exited("was killed", now + 3 * SECOND);
        assert_eq!(service.tick(now + 4 * SECOND), [Action::Spawn]);
        service.ready(now + 4 * SECOND);
        assert_eq!(service.tick(now + 6 * SECOND), [Action::Signal(Signal::SIGABRT)], "the next run is guarded too");
    }

    #[test]
    fn a_stop_forgets_the_descriptors_and_a_restart_keeps_them() {
        let now = Instant::now();
        let mut service = running(None, now);
        service.restart_signal = Signal::SIGUSR2;
        assert_eq!(service.restart(now), [Action::Signal(Signal::SIGUSR2)]);
        assert_eq!(service.exited("exited", now), [Action::Spawn]);
        assert_eq!(service.restarts, 0, "a restart that was asked for is not counted");
        service.ready(now);
        assert_eq!(service.stop(now), [Action::Signal(Signal::SIGTERM)]);
        assert_eq!(service.tick(now + STOP_LIMIT), [Action::Signal(Signal::SIGKILL)]);
        assert_eq!(service.exited("was killed", now), [Action::Forget, Action::Answer(Ok(()))]);
    }

    #[test]
    fn a_stop_during_the_pause_is_final() {
        let now = Instant::now();
        let mut service = running(None, now);
        service.exited("was killed", now);
        assert_eq!(service.stop(now), [Action::Forget, Action::Answer(Ok(()))]);
        assert_eq!(service.tick(now + SECOND), []);
    }
}
