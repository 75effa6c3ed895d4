//! Beginning where another ghostd has left off: with its pin, its kernel programs, its listening sockets.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result};
use ghost_abi::GhostState;
use ghost_host::pin::Pin;
use ghost_host::programs::Programs;
use ghost_proto::ids::{LaunchId, ProcId};
use ghost_sys::{identity, pidfd};
use tokio::net::{TcpListener, UnixListener};

use super::Driver;
use super::kernel::pollable;
use super::store::{self, Noted, Store};
use crate::core::{ClientId, Event, Found, FoundGhost, FoundLauncher};

/// What ghostd stands on.
pub(super) struct Begun {
    pub pin: Pin,
    pub programs: Programs,
    /// What else the service manager has kept.
    pub kept: BTreeMap<String, OwnedFd>,
    pub store: Store,
    /// What the one before has noted, if this one goes on in its place.
    pub before: Option<Noted>,
}

pub(super) fn begin(directory: &Path) -> Result<Begun> {
    let mut kept = store::inherited()?;
    let names: Vec<String> = kept.keys().cloned().collect();
    if kept.contains_key(store::PIN) {
        let (store, before) = Store::open(&mut kept)?;
        let programs = Programs::take_over(&mut kept, before.pid).context("its kernel programs");
        let pin = take_over_pin(directory, &mut kept, &store);
        let why = match (programs, pin) {
            (Ok(programs), Ok(pin)) => {
                tracing::info!(
                    generation = store.generation(),
                    before = before.pid,
                    "taken over from the ghostd before"
                );
                return Ok(Begun { pin, programs, kept, store, before: Some(before) });
            }
            (Ok(programs), Err(why)) => {
                let_go(&programs);
                why
            }
            (Err(why), _) => why,
        };
        // With the last copy of its descriptor the pin goes, and with it every ghost; the nodes end what they run when they hear of
        // another epoch.
        tracing::warn!("all remote processes end, what the ghostd before has left is of no use: {why:#}");
    }
    // Its sockets do as well for a new beginning, and their addresses would not be free before the service manager has let go of them.
    let sockets = |name: &str| name == store::TCP || name == store::UNIX;
    for name in names.iter().filter(|name| !sockets(name)) {
        store::forget(name);
    }
    kept.retain(|name, _| sockets(name));
    let (store, _) = Store::open(&mut BTreeMap::new())?;
    let programs = Programs::load().context("the kernel programs cannot be loaded")?;
    let pin = mount_pin(directory)?;
    store::keep(store::PIN, pin.as_fd());
    for (name, fd) in programs.descriptors()? {
        store::keep(&name, fd.as_fd());
    }
    Ok(Begun { pin, programs, kept, store, before: None })
}

fn take_over_pin(directory: &Path, kept: &mut BTreeMap<String, OwnedFd>, store: &Store) -> Result<Pin> {
    let device = kept.remove(store::PIN).context("its pin")?;
    let mounts = ghost_sys::mount::mounts().context("mounts")?;
    anyhow::ensure!(mounts.iter().any(|mount| mount.point == directory), "its pin is not mounted any more");
    Pin::take_over(device, directory, store.generation() << 40).context("its pin (which needs Linux 6.9 or later)")
}

/// Ghosts and launchers that stand still would not see that their ghostd is gone for good.
fn let_go(programs: &Programs) {
    // A launcher looks whether its ghosts stand still: they come first.
    for launchers in [false, true] {
        let Ok(tasks) = tasks(programs) else { return };
        for task in tasks.filter(|task| task.state.launcher() == launchers) {
            if let Err(error) = pidfd::signal(&task.pidfd, nix::libc::SIGCONT) {
                tracing::debug!(task.pid, "could not be continued: {error}");
            }
        }
    }
}

/// A task that the kernel has under a process or a launch.
pub(super) struct Task {
    pid: u32,
    pidfd: OwnedFd,
    pub(super) state: GhostState,
}

/// All of them, one after the other: each takes a descriptor.
pub(super) fn tasks(programs: &Programs) -> std::io::Result<impl Iterator<Item = Task>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let pidfd = pidfd::open(pid).ok()?;
        let state = programs.state(pidfd.as_fd()).ok()??;
        Some(Task { pid, pidfd, state })
    }))
}

/// Nothing is left to be gone on with.
pub(super) fn forget_all(programs: &Programs) {
    let own = programs.descriptors().unwrap_or_default();
    for name in own.iter().map(|(name, _)| name.as_str()).chain(store::ALL) {
        store::forget(name);
    }
}

fn mount_pin(directory: &Path) -> Result<Pin> {
    // A predecessor that was killed has left its mount.
    while ghost_sys::fuse::unmount(directory).is_ok() {}
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("directory {}", directory.display()))?;
    Pin::mount(directory).with_context(|| format!("cannot mount the ghosts' file system on {}", directory.display()))
}

/// The socket for nodes, if it listens where it is to.
pub(super) fn tcp(kept: &mut BTreeMap<String, OwnedFd>, address: SocketAddr) -> Option<TcpListener> {
    let listener = std::net::TcpListener::from(kept.remove(store::TCP)?);
    let own = listener.local_addr().ok()?;
    if own.ip() != address.ip() || address.port() != 0 && own.port() != address.port() {
        store::forget(store::TCP);
        return None;
    }
    listener.set_nonblocking(true).ok()?;
    TcpListener::from_std(listener).ok()
}

/// The socket for commands, if it still has its name.
pub(super) fn unix(kept: &mut BTreeMap<String, OwnedFd>, path: &Path) -> Option<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(kept.remove(store::UNIX)?);
    if !path.exists() {
        store::forget(store::UNIX);
        return None;
    }
    listener.set_nonblocking(true).ok()?;
    UnixListener::from_std(listener).ok()
}

/// The ghostd before was this very process ([`super::handover`]): its children are this one's, and are waited for here.
pub(super) fn adopt_children() {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for pid in children.split_whitespace().filter_map(|word| word.parse().ok()) {
        let Ok(ended) = pidfd::open(pid).and_then(pollable) else { continue };
        tokio::task::spawn_local(async move {
            let _ = ended.readable().await;
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid.cast_signed()), None);
        });
    }
}

impl Driver {
    /// Finds out what there is.
    pub(super) fn recover(&mut self, before: &Noted) -> Result<()> {
        let (mut found, states) = self.look_around().context("the processes of this host")?;
        found.nodes = before.nodes.iter().map(|(&number, node)| (number, node.epoch, node.holder)).collect();
        found.stages = before.stages.iter().map(|(&number, stage)| (number, stage.clone())).collect();
        tracing::info!(
            ghosts = found.ghosts.len(),
            launches = found.launchers.len(),
            nodes = found.nodes.len(),
            "found"
        );
        self.turn(Event::Found(found));
        for record in self.store.signals().context("the signals that were not confirmed")? {
            self.replayed.insert(record.seq);
            self.turn(Event::Signal(record));
        }
        if before.dropped == self.programs.dropped() {
            // What was dropped of these has been seen to.
            self.dropped = states;
        } else {
            self.read_dropped();
        }
        Ok(())
    }

    fn look_around(&mut self) -> std::io::Result<(Found, HashMap<ProcId, GhostState>)> {
        let (mut found, mut states) = (Found::default(), HashMap::new());
        for Task { pid, pidfd, state } in tasks(&self.programs)? {
            let Ok(who) = identity::of(&pidfd, pid) else { continue };
            if state.launcher() {
                let launch = LaunchId(state.ghost);
                let exited = state.exited();
                found.launchers.push(FoundLauncher { launch, pid, uid: who.uid, gid: who.uid, exited, origin: None });
            } else {
                states.insert(ProcId(state.ghost), state);
                found.ghosts.push(FoundGhost {
                    process: ProcId(state.ghost),
                    tag: state.tag,
                    pid,
                    ppid: who.ppid,
                    pgid: identity::group(pid).unwrap_or(0),
                    killed: state.killed(),
                    exited: state.exited(),
                });
            }
        }
        for launcher in &mut found.launchers {
            launcher.origin = self.origin_of(launcher.pid, launcher.uid);
        }
        Ok((found, states))
    }

    pub(super) fn signal_launcher(&self, client: ClientId, signal: i32) {
        if let Some(port) = self.clients.get(&client)
            && let Some(pidfd) = &port.pidfd
            && let Err(error) = pidfd::signal(pidfd, signal)
        {
            tracing::debug!(signal, "a launcher could not be signalled: {error}");
        }
    }

    pub(super) fn continue_absent(&self, launch: LaunchId, pid: u32) {
        let Ok(pidfd) = pidfd::open(pid) else { return };
        let state = self.programs.state(pidfd.as_fd());
        if matches!(state, Ok(Some(state)) if state.launcher() && state.ghost == launch.0)
            && let Err(error) = pidfd::signal(&pidfd, nix::libc::SIGCONT)
        {
            tracing::debug!(pid, "a launcher could not be continued: {error}");
        }
    }

    /// Lets go of the records that nobody waits for any more.
    pub(super) fn settle_signals(&mut self) {
        if self.store.has_signals() {
            self.store.settle(&self.core.open_signals(), self.core.settled());
        }
    }
}
