//! The ghosts' side of the driver.

use std::os::fd::AsFd;

use ghost_host::pin::ReadToken;
use ghost_proto::ids::ProcId;
use ghost_sys::ghost::{Answer, Birth, Kin};
use ghost_sys::{identity, pidfd};
use nix::libc;

use super::Driver;
use crate::core::Event;

impl Driver {
    /// The sleeper's read is not answered yet, so its number cannot go to another process meanwhile.
    pub(super) fn adopt(
        &mut self,
        process: ProcId,
        token: ReadToken,
        pid: u32,
        parent: Option<u32>,
        uid: u32,
        tag: u32,
    ) {
        let mut pgid = 0;
        let watched = pidfd::open(pid).and_then(|pidfd| {
            let who = identity::of(&pidfd, pid)?;
            // The kernel has made it this process's ghost when its maker forked: whose child it is now does not matter.
            let born = self.programs.state(pidfd.as_fd())?.is_some_and(|state| state.ghost == process.0);
            if who.uid != uid || !born && parent.is_some_and(|parent| who.ppid != parent) {
                return Err(std::io::Error::from_raw_os_error(libc::EPERM));
            }
            pgid = identity::group(pid).unwrap_or(0);
            if born { Ok(()) } else { self.programs.attach_tagged(pidfd.as_fd(), process.0, tag) }
        });
        let ok = match watched {
            Ok(()) => {
                self.answer(token, Answer::Armed);
                true
            }
            Err(error) => {
                tracing::warn!(pid, parent, uid, "a process that is no ghost of this launch read its pin: {error}");
                self.refuse(token, libc::EPERM);
                false
            }
        };
        self.events.push_back(Event::Adopted { process, ok, pgid });
    }

    /// Has a ghost make another one, which the kernel makes `process`'s at the fork.
    pub(super) fn beget(&self, token: ReadToken, maker: u32, process: ProcId, birth: Birth, tag: u32) {
        // An orphan is made by a process in between.
        let generations = if birth.kin == Kin::Orphan { 2 } else { 1 };
        let announced =
            pidfd::open(maker).and_then(|pidfd| self.programs.expect_ghost(pidfd.as_fd(), process.0, tag, generations));
        if let Err(error) = announced {
            // It is watched from its first read on, then.
            tracing::debug!(maker, "a ghost's child is not expected: {error}");
        }
        self.answer(token, Answer::Fork(birth));
    }

    /// Tells a maker off that has not made `process`'s ghost.
    pub(super) fn withdraw(&mut self, process: ProcId, maker: u32) {
        let in_time = match pidfd::open(maker) {
            Ok(pidfd) => self.programs.forget_expected(pidfd.as_fd(), process.0).unwrap_or(false),
            // Dead, and its last act is not known: should it have made it, that will come, or its end be seen.
            Err(_) => false,
        };
        self.events.push_back(Event::Withdrawn { process, in_time });
    }

    /// The ghost has just come back from what it did: its number is its own.
    pub(super) fn ask_group(&mut self, process: ProcId, pid: u32) {
        let pgid = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid.cast_signed())));
        let pgid = pgid.map_or(0, |pgid| pgid.as_raw().unsigned_abs());
        self.events.push_back(Event::GroupIs { process, pgid });
    }

    pub(super) fn answer(&self, token: ReadToken, answer: Answer) {
        if let Err(error) = self.pin.answer(token, &answer.encode()) {
            // ENOENT: it was killed before its read was taken up.
            tracing::debug!("a ghost was not there for its answer: {error}");
        }
    }

    pub(super) fn refuse(&self, token: ReadToken, errno: i32) {
        if let Err(error) = self.pin.refuse(token, errno) {
            tracing::debug!("a ghost was not there for its answer: {error}");
        }
    }

    pub(super) fn continue_ghost(&mut self, process: ProcId, pid: u32) {
        let there = match pidfd::open(pid) {
            Ok(pidfd) => match self.programs.state(pidfd.as_fd()) {
                Ok(Some(state)) if state.ghost == process.0 && !state.exited() => {
                    if let Err(error) = pidfd::signal(&pidfd, libc::SIGCONT) {
                        tracing::debug!(pid, "a ghost could not be continued: {error}");
                    }
                    true
                }
                Ok(_) => false,
                Err(_) => true,
            },
            Err(error) => error.raw_os_error() != Some(libc::ESRCH),
        };
        if !there {
            // It is dead, and the record of that was lost or is still to come.
            self.events.push_back(Event::GhostExited { ghost: process.0, launcher: false, pid });
        }
    }

    /// Gives pin files to launches that wait for one.
    pub(super) fn hand_out_pins(&mut self) {
        while let Some(&(client, launch)) = self.pins_wanted.front() {
            if !self.clients.contains_key(&client) {
                self.pins_wanted.pop_front();
                continue;
            }
            let Some(file) = self.pin.take_file() else { return };
            self.pins_wanted.pop_front();
            let Some(port) = self.clients.get_mut(&client) else { continue };
            // ENOENT: the command is already gone; EEXIST: it has a launch on another connection, which is watched.
            if let Some(pidfd) = &port.pidfd
                && let Err(error) = self.programs.attach_ghost(pidfd.as_fd(), launch.0, true)
            {
                tracing::debug!("a launcher is not watched: {error}");
            }
            let number = file.number;
            port.pin = Some(file);
            self.events.push_back(Event::PinOpened { client, file: number });
        }
    }
}
