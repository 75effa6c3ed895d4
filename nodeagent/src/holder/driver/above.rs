//! What is above the launched processes: stand-ins of the master's, and signals to them.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ghost_proto::ids::LaunchId;
use ghost_proto::node::Scope;
use ghost_proto::standin::Origin;
use ghost_sys::spawn::{self, Place, Program, Spawned};

use super::{Driver, now};
use crate::holder::event::{Event, Order};
use crate::holder::standins::StandIns;

/// What a launch's programs are started below.
pub(super) struct Above<'a> {
    pub standins: Option<&'a mut StandIns>,
    pub launch: LaunchId,
    pub origin: Option<&'a Origin>,
}

impl Above<'_> {
    /// Starts a program below its launch's stand-ins, or below the holder. Gives also its group (0: its own) and its session (0: the holder's).
    pub(super) fn spawn(self, program: Program, place: Place<'_>) -> io::Result<(Spawned, [u32; 2])> {
        if let (Some(standins), Some(origin)) = (self.standins, self.origin)
            && let Some((parent, stands)) = standins.parent(self.launch, origin)
        {
            match spawn::spawn(program.clone(), Place { parent: Some(parent), ..place }) {
                Err(why) if is_parents_fault(&why) => standins.give_up(self.launch, &why),
                other => return other.map(|spawned| (spawned, stands)),
            }
        }
        spawn::spawn(program, place).map(|spawned| (spawned, [0; 2]))
    }

    /// The same for a program in a terminal: below a stand-in of its own, which keeps the terminal, and is named, too.
    pub(super) fn spawn_in_terminal(
        self,
        program: Program,
        place: Place<'_>,
        slave: BorrowedFd<'_>,
    ) -> io::Result<(Spawned, [u32; 2], u64)> {
        // Nobody is asked for one who does not say that there are any.
        let standins = self.standins.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
        let keeper = standins.keep_terminal(self.launch, self.origin, program.uid, slave)?;
        let gone = || io::Error::from_raw_os_error(libc::ECHILD);
        let spawned = standins.keeper(keeper).ok_or_else(gone).and_then(|(parent, sid)| {
            let spawned = spawn::spawn(program, Place { parent: Some(parent), foreground: true, ..place })?;
            Ok((spawned, [0, sid], keeper))
        });
        if spawned.is_err() {
            standins.end_keeper(keeper);
        }
        spawned
    }
}

fn is_parents_fault(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::ETIMEDOUT | libc::ESRCH | libc::ECHILD))
}

impl Driver {
    pub(super) fn standins_deadline(&self) -> Option<Duration> {
        self.standins.as_ref().and_then(StandIns::deadline)
    }

    pub(super) fn tidy_standins(&mut self) {
        let core = &self.core;
        if let Some(standins) = &mut self.standins {
            standins.tidy(now(), |launch| core.launch_lives(launch));
        }
    }

    /// A signal of the holder's to a group reaches also those of the stand-ins that are in it.
    pub(super) fn stand_ins_go_on(&self, order: &Order) {
        if order.scope == Scope::Group
            && i32::from(order.signal) == libc::SIGSTOP
            && let Some(standins) = &self.standins
        {
            standins.go_on_all();
        }
    }

    /// Whether a process is the holder or a stand-in: a parent of launched processes.
    pub(super) fn is_above(&self, pid: u32) -> bool {
        pid == std::process::id() || self.is_stand_in(pid)
    }

    pub(super) fn is_stand_in(&self, pid: u32) -> bool {
        self.standins.as_ref().is_some_and(|standins| standins.is_one(pid))
    }

    /// Takes note of signals that have been sent to stand-ins.
    pub(super) fn see_sent(&mut self) {
        if let Some(standins) = &mut self.standins {
            standins.look();
        }
    }

    /// Tells of the signals that were seen. `all`: everything has been heard of their senders.
    pub(super) fn tell_sent(&mut self, all: bool) {
        let core = &self.core;
        let Some(standins) = &mut self.standins else { return };
        for sent in standins.take_sent(|pid| core.knows_number(pid), all) {
            self.handle(Event::Sent(sent));
        }
    }
}
