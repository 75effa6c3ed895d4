//! nodeagent as a service: reconnects for ever, tells the service manager how it is.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result};
use ghost_proto::instance::Instance;
use ghost_trust::tls::node_client_config;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info, warn};

use super::census::Census;
use super::holder_process::HolderProcess;
use super::pulse::Pulse;
use super::session::{self, Progress};
use crate::config::Config;
use crate::identity::Store;

/// First and longest pause before the next attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Between two looks at how much runs here.
const COUNT: Duration = Duration::from_secs(2);

/// Whether [`run`] could begin.
///
/// # Errors
/// This machine is no node, or its configuration has a mistake.
pub fn check(instance: &Instance, store: &Store) -> Result<()> {
    node_client_config(&store.load()?.tls).context("this node's certificate cannot be used")?;
    Config::load(instance)?;
    Ok(())
}

/// Works until SIGTERM, which leaves the holder and its processes, or SIGINT, which ends them.
///
/// # Errors
/// This machine is no node, or the holder cannot be started.
pub fn run(instance: &Instance, store: &Store) -> Result<()> {
    let mut identity = store.load()?;
    // It is read anew for each order; a mistake is better known now.
    let mut config = Config::load(instance)?;
    let mut holder = HolderProcess::new(instance);
    // Before any thread is there, and before it is said that all is well.
    drop(holder.connect(|| {})?);
    ghost_sys::heap::keep_freed_memory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
        // This one must not be lost.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        let census = Census::of(instance);
        let status = StatusLine::default();
        info!(node = identity.tls.number().0, master = %identity.master, "nodeagent works");
        let renewed = Notify::new();
        let serial = Cell::new(identity.tls.serial());
        let sessions = async {
            let mut pauses = Pauses::new();
            let mut last = String::new();
            let mut known = Vec::new();
            let pulse = Pulse::new();
            loop {
                // It may have been renewed. One that cannot be read is not worse than the one before.
                if let Ok(new) = store.load() {
                    identity = new;
                }
                let number = identity.tls.number();
                serial.set(identity.tls.serial());
                status.link_is(format!("node {number}: connecting to {}", identity.master));
                let session = session::run(&identity, &mut holder, &pulse, &mut known, || {
                    info!(node = number.0, master = %identity.master, "connected");
                    status.link_is(format!("node {number}: connected to {}", identity.master));
                });
                let (progress, why) = tokio::select! {
                    ended = session => ended,
                    () = renewed.notified() => {
                        info!(node = number.0, "the certificate is another one: connecting anew");
                        continue;
                    }
                };
                if progress == Progress::Welcomed {
                    pauses = Pauses::new();
                    last.clear();
                }
                let text = format!("{why:#}");
                status.link_is(format!("node {number}: not connected to {}: {text}", identity.master));
                if text == last {
                    debug!("{text}");
                } else {
                    warn!(master = %identity.master, "not connected: {text}");
                    last = text;
                }
                sleep(pauses.next()).await;
            }
        };
        let watchdog = async {
            let Some(period) = sd_notify::watchdog_enabled() else {
                return std::future::pending().await;
            };
            let mut ticks = interval(period / 2);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                tell(NotifyState::Watchdog);
            }
        };
        let counts = async {
            loop {
                sleep(COUNT).await;
                status.processes_are(census.count());
            }
        };
        let reloads = async {
            while hangup.recv().await.is_some() {
                if store.load().is_ok_and(|new| new.tls.serial() != serial.get()) {
                    renewed.notify_one();
                }
                match Config::load(instance) {
                    Ok(new) => {
                        let changes = config.changes(&new);
                        if changes.is_empty() {
                            info!("the configuration was read again: nothing has changed");
                        }
                        for change in changes {
                            info!("configuration: {change}");
                        }
                        config = new;
                    }
                    Err(mistake) => error!("the configuration has a mistake: {mistake:#}"),
                }
            }
        };
        // Everything else goes on meanwhile: the master is to hear how they ended.
        let end = async {
            interrupt.recv().await;
            tell(NotifyState::Stopping);
            census.end().await;
        };
        let end_holder = tokio::select! {
            () = sessions => false,
            () = watchdog => false,
            () = reloads => false,
            () = counts => false,
            _ = terminate.recv() => false,
            () = end => true,
        };
        if end_holder {
            holder.end()?;
        } else {
            tell(NotifyState::Stopping);
        }
        Ok(())
    })
}

/// Pauses that double, each shortened by chance so that the nodes of a cluster do not come all at once.
#[derive(Debug)]
struct Pauses(Duration);

impl Pauses {
    fn new() -> Pauses {
        Pauses(PAUSES.0)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES.1);
        // Half of it is certain.
        pause / 2 + pause.mul_f64(f64::from(chance()) / 512.0)
    }
}

/// 0 to 255; without a source of chance in the middle.
fn chance() -> u8 {
    let mut byte = [127];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut byte));
    read.map_or(127, |()| byte[0])
}

/// What `systemctl status nodeagent` shows: the link to the master, and how much runs here.
#[derive(Debug, Default)]
struct StatusLine {
    link: RefCell<String>,
    processes: Cell<usize>,
}

impl StatusLine {
    fn link_is(&self, link: String) {
        self.link.replace(link);
        self.tell();
    }

    fn processes_are(&self, processes: usize) {
        if self.processes.replace(processes) != processes {
            self.tell();
        }
    }

    fn text(&self) -> String {
        let (link, processes) = (self.link.borrow(), self.processes.get());
        format!("{link}; {processes} {}", if processes == 1 { "process" } else { "processes" })
    }

    fn tell(&self) {
        tell(NotifyState::Status(&self.text()));
    }
}

/// Tells the service manager (sd_notify(3)). One that does not listen, or stands still, is its own affair.
fn tell(state: NotifyState<'_>) {
    let _ = ghost_sys::notify::tell(&state.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_tells_of_the_link_and_of_what_runs() {
        let status = StatusLine::default();
        status.link_is("node 3: connected to head:2223".to_owned());
        assert_eq!(status.text(), "node 3: connected to head:2223; 0 processes");
        status.processes_are(1);
        assert_eq!(status.text(), "node 3: connected to head:2223; 1 process");
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut pauses = Pauses::new();
        let taken: Vec<Duration> = (0..20).map(|_| pauses.next()).collect();
        assert!(taken.iter().all(|pause| *pause >= PAUSES.0 / 2 && *pause <= PAUSES.1));
        assert!(taken[19] >= PAUSES.1 / 2);
    }
}
