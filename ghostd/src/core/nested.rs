//! Launches whose launcher runs on a node: it cannot make ghosts here, so its own ghost does.
//!
//! ```text
//! bpsh on node 1            ghostd                                       bpsh's ghost
//!   Launch         ->
//!                  <-       Launched, without a pin
//!   MakeGhost      ->       the rank is expected (as a forked process)   -> "fork"
//!                           the rank's ghost reads: Adopt, Spawn          a child of bpsh's ghost
//!                  <-       Started, …
//! ```
//! The ghosts of such a launch live in the memory of the one that the launcher itself was started by, its *host*: they have their stacks
//! there, sleep on its pin file, and are known in it by their seats.
//!
//! Invariants:
//! - A rank is a child of its launcher's ghost as long as that is there, and is waited for by it as soon as it is dead.
//! - A launch ends with its launcher's process.

use ghost_proto::client::{self, MasterToClient, StartStage};
use ghost_proto::ids::{LaunchId, ProcId};
use ghost_proto::node::Scope;
use ghost_proto::standin::Origin;
use nix::libc;

use super::births::PATIENCE;
use super::signals::{Forward, forestalled_with};
use super::types::{Fork, Ghost, Making, Parent, Process, Remote};
use super::{Action, ClientId, Core};

/// Makers that may fail before a rank is given up.
const MOST_FAILURES: u32 = 4;

impl Process {
    /// It is a rank of its launch; else it was forked by what is.
    pub(super) fn is_launched(&self) -> bool {
        self.fork.as_ref().is_none_or(|fork| fork.launched)
    }
}

impl Core {
    /// The launch in whose memory the ghosts of this one live.
    pub(super) fn host_of(&self, launch: LaunchId) -> LaunchId {
        self.launches.get(&launch).and_then(|launch| launch.host).unwrap_or(launch)
    }

    /// The launcher's process of a launch, if that runs on a node.
    pub(super) fn launcher_there(&self, launch: LaunchId) -> Option<ProcId> {
        self.launches.get(&launch).and_then(|launch| launch.via)
    }

    /// Launches whose launcher this process is.
    pub(super) fn launched_by(&self, process: ProcId) -> Vec<LaunchId> {
        self.commands_of(process).filter_map(|client| self.clients.get(&client)?.launch).collect()
    }

    /// Gives a process a seat in its launch's host, by which its ghost is known there; `None`: there are too many.
    pub(super) fn seat(&mut self, launch: LaunchId, process: ProcId) -> Option<u32> {
        let host = self.host_of(launch);
        let of_host = self.launches.get_mut(&host)?;
        if of_host.forked.len() >= super::births::MOST {
            return None;
        }
        let seat = of_host.next_rank;
        of_host.next_rank = seat.wrapping_add(1);
        of_host.forked.insert(seat, process);
        if host != launch {
            self.launches.get_mut(&launch)?.forked.insert(seat, process);
        }
        Some(seat)
    }

    pub(super) fn leave_seat(&mut self, launch: LaunchId, seat: u32) {
        for launch in [launch, self.host_of(launch)] {
            if let Some(launch) = self.launches.get_mut(&launch) {
                launch.forked.remove(&seat);
            }
        }
    }

    /// The launcher wants a rank to begin.
    pub(super) fn make_ghost(&mut self, client: ClientId, rank: u32) {
        let Some(id) = self.rank_of(client, rank) else { return };
        let Some(process) = self.processes.get(&id) else { return };
        let launch = process.launch;
        let Some(via) = self.launcher_there(launch) else { return };
        if !matches!(process.ghost, Ghost::Awaited) || process.remote != Remote::Planned {
            return;
        }
        let Some(seat) = self.seat(launch, id) else {
            let text = "there are too many processes below this program on the master".to_owned();
            return self.start_failed(id, StartStage::Create, 0, text);
        };
        let comm = self.launches.get(&launch).map(|launch| name_of_program(&launch.program.argv)).unwrap_or_default();
        let fork = Fork {
            origin: Some(via),
            creator: None,
            parent: Parent::Init,
            making: Making::Nobody,
            place: None,
            comm,
            due: self.now + PATIENCE,
            since: self.now,
            failures: 0,
            reaped: false,
            heir: None,
            seat,
            launched: true,
        };
        if let Some(process) = self.processes.get_mut(&id) {
            process.fork = Some(fork);
            process.ghost = Ghost::Expected { next: None };
        }
        self.unborn.insert(id);
        self.ask_for_birth(id);
    }

    /// A rank's ghost is about to be made: who is above its launch is looked for, before the node is asked for the process.
    pub(super) fn look_above(&mut self, child: ProcId) {
        let Some(process) = self.processes.get(&child).filter(|process| process.is_launched()) else { return };
        let id = process.launch;
        let Some(via) = self.launcher_there(id) else { return };
        let Some(pid) = self.processes.get(&via).map(|via| via.pid).filter(|pid| *pid != 0) else { return };
        let Some(launch) = self.launches.get_mut(&id).filter(|launch| launch.origin.is_none()) else { return };
        launch.user.pid = pid;
        let uid = launch.user.uid;
        self.act(Action::LookAbove { launch: id, pid, uid });
    }

    pub(super) fn above_launch(&mut self, id: LaunchId, origin: Origin) {
        if let Some(launch) = self.launches.get_mut(&id) {
            launch.origin = Some(origin);
        }
    }

    /// Nobody makes a rank's ghost: it is not started. `true`: so it is.
    pub(super) fn is_not_made(&mut self, id: ProcId, errno: u32, last: bool) -> bool {
        let Some(process) = self.processes.get(&id).filter(|process| process.is_launched()) else { return false };
        let failures = process.fork.as_ref().map_or(0, |fork| fork.failures);
        if process.remote != Remote::Planned || !(last || failures >= MOST_FAILURES) {
            return false;
        }
        let text = if errno == 0 { "no process could be made on the master".to_owned() } else { String::new() };
        self.start_failed(id, StartStage::Create, errno, text);
        true
    }

    /// A rank is over: its launcher's ghost is to wait for its ghost, as the launcher itself would.
    pub(super) fn is_waited_for(&mut self, id: ProcId) {
        if self.processes.get(&id).is_some_and(|process| process.fork.as_ref().is_some_and(|fork| fork.launched)) {
            self.reaped(id);
        }
    }

    /// A launcher there is told what one here sees of its ghosts.
    pub(super) fn tell_standing_still(&mut self, id: ProcId, signal: Option<u32>) {
        let Some(process) = self.processes.get(&id).filter(|process| process.is_launched()) else { return };
        let (launch, rank) = (process.launch, process.rank);
        if self.launcher_there(launch).is_some() {
            let told = match signal {
                Some(signal) => MasterToClient::RankStopped(client::RankStopped { rank, signal }),
                None => MasterToClient::RankContinued(client::RankContinued { rank }),
            };
            self.tell_launcher(launch, told);
        }
    }

    /// A launcher there has got a signal that is meant for what it launched, or wants one sent; to all its ranks: `None`.
    pub(super) fn signal_ranks(&mut self, client: ClientId, rank: Option<u32>, signal: u32) {
        let Some(id) = self.clients.get(&client).and_then(|client| client.launch) else { return };
        if self.launcher_there(id).is_none() || !(1..=64).contains(&signal) {
            return;
        }
        let Some(launch) = self.launches.get(&id) else { return };
        let (uid, pid) = (launch.user.uid, launch.user.pid);
        let wanted = |at: &usize| rank.is_none_or(|rank| *at == rank as usize);
        let ranks: Vec<ProcId> =
            launch.ranks.iter().enumerate().filter(|(at, _)| wanted(at)).filter_map(|(_, rank)| *rank).collect();
        for id in ranks {
            let scope = if rank.is_some() { Scope::Process } else { self.scope_of_own(id) };
            self.forward(id, Forward::from_user(signal, scope, pid, uid));
        }
    }

    /// A signal to a launcher's ghost. To it alone it is meant for what it launched, as one to a launcher here; of one for its group
    /// each ghost has its own record, if it is there.
    pub(super) fn launcher_there_signalled(&mut self, id: ProcId, record: &ghost_abi::SignalRecord) {
        if matches!(i32::from(record.sig), libc::SIGSTOP | libc::SIGKILL) {
            return;
        }
        let alone = record.scope() == ghost_abi::Scope::Process;
        for launch in self.launched_by(id) {
            let ranks = self.launches.get(&launch).map(|launch| launch.ranks.clone()).unwrap_or_default();
            for rank in ranks.into_iter().flatten() {
                let Some(process) = self.processes.get_mut(&rank) else { continue };
                if process.remote == Remote::Planned {
                    process.forestalled = forestalled_with(process.forestalled, record.sig);
                } else if alone {
                    self.forward(rank, Forward::of(record, self.scope_of_own(rank)));
                }
            }
        }
    }

    /// A launcher there has stopped because all that it launched had, and one of them has not any more.
    pub(super) fn wake_launcher_there(&mut self, via: ProcId) {
        let is_stopped =
            |process: &Process| process.stopped && process.remote.is_live() && !process.signals.holds_continue();
        if self.processes.get(&via).is_some_and(is_stopped) {
            self.forward(via, Forward::from_kernel(libc::SIGCONT as u32, Scope::Process));
        }
    }
}

fn name_of_program(argv: &[bytes::Bytes]) -> [u8; 15] {
    let path = argv.first().map_or(&[][..], |path| path);
    super::tree::name_of(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path))
}
