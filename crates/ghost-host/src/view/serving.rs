//! The server's part for [`super::snapshots`], and for readers that are interrupted while they wait.
//!
//! A reader that waits for an answer cannot be ended before it has it (fs/fuse/dev.c `request_wait_answer`). When a signal
//! comes for it, the kernel says so once: if it is a deadly one, it is answered at once; else it goes on waiting, as it would
//! for a file of the kernel's own, and is looked at again and again.

use std::io;
use std::time::{Duration, Instant};

use ghost_proto::view::Part;
use ghost_proto::view_port::{Fetch, ServerToGhostd};

use super::files::Place;
use super::rendering::now_ns;
use super::server::Server;
use super::snapshots::{Answer, Known, Wanted};
use super::stat;
use crate::fuse::{self, Attr, Request, Validity};

/// Between two looks at whether a reader that was interrupted has been killed since.
const LOOK: Duration = Duration::from_millis(50);
/// Bit of SIGKILL in a set of signals of `/proc/PID/status`: what kills a process is turned into it for each of its threads
/// (kernel/signal.c `complete_signal`).
const DEADLY: u64 = 1 << 8;

/// Somebody who waits for a snapshot's attributes.
#[derive(Debug)]
pub(super) struct Opening {
    unique: u64,
    ghost: u32,
    snapshot: u32,
    pid: u32,
    interrupted: bool,
}

impl Server {
    /// Answers a look-up with a file of its own, or with one that is young enough.
    pub(super) fn name_snapshot(&mut self, unique: u64, ghost: u32, of: Place, file: &str) -> io::Result<()> {
        let Some(snapshot) = self.snapshots.look_up(ghost, of, file, Instant::now()) else {
            return self.fail(unique, libc::ENOMEM);
        };
        let Some(node) = Place::Snapshot(snapshot).node(ghost) else { return self.fail(unique, libc::ENOENT) };
        let attr = Attr { node, mode: of.mode(), links: 1, time_ns: now_ns(), ..Attr::default() };
        let told = self.reply(unique, &fuse::entry_reply(&attr, Validity::NONE, Validity::NONE));
        if told.is_err() {
            self.snapshots.forget(snapshot, 1);
        }
        told
    }

    pub(super) fn forget(&mut self, node: u64, lookups: u64) {
        if let Some((_, Place::Snapshot(snapshot))) = Place::of_node(node) {
            self.snapshots.forget(snapshot, lookups);
        }
    }

    /// Somebody asks for attributes: has it read if that has not been done.
    pub(super) fn open_snapshot(&mut self, request: &Request<'_>, ghost: u32, snapshot: u32) -> io::Result<()> {
        let answer = self.snapshots.attributes(snapshot, Instant::now());
        if let Answer::Ask(wanted) = answer {
            self.fetch(wanted);
        }
        let opening = Opening { unique: request.unique, ghost, snapshot, pid: request.pid, interrupted: false };
        if self.answer_opening(&opening)? {
            return Ok(());
        }
        // The host's init must not wait for anything that hangs on this cluster; and nobody waits for a node that lets
        // everybody wait. It is asked all the same: what comes is there for who asks next.
        let is_late = self.ghosts.get(&ghost).is_some_and(|ghost| self.late.contains(&ghost.show.node));
        if request.pid == 1 || is_late {
            return self.fail(request.unique, libc::ETIMEDOUT);
        }
        self.openings.push(opening);
        Ok(())
    }

    fn fetch(&mut self, wanted: Wanted) {
        let Wanted { ghost, file, reading, offset } = wanted;
        let sent = self.ghosts.get(&ghost).is_some_and(|ghost| {
            let fetch = Fetch { node: ghost.show.node, proc: ghost.show.proc, file, reading, offset };
            self.ghostd.send(ServerToGhostd::Fetch(fetch)).is_ok()
        });
        if !sent {
            self.snapshots.fail(reading, libc::ETIMEDOUT);
        }
    }

    pub(super) fn take_part(&mut self, node: i32, mut part: Part) {
        let (reading, now) = (part.reading, Instant::now());
        self.late.remove(&node);
        // Its first line is in its first part, which with this file is all of it.
        if part.last
            && part.offset == 0
            && let Some((ghost, "sched")) = self.snapshots.read_by(reading)
            && let Some(ghost) = self.ghosts.get(&ghost)
        {
            part.content = stat::sched(&part.content, ghost.show.pid).into();
        }
        let Some(wanted) = self.snapshots.take(part, now_ns(), now) else { return };
        if self.ghosts.get(&wanted.ghost).is_some_and(|ghost| ghost.show.node == node) {
            self.fetch(wanted);
        } else {
            self.snapshots.fail(reading, libc::ESRCH);
        }
    }

    /// Answers those who wait for what is there now, or will not come.
    pub(super) fn look_after_snapshots(&mut self) {
        for ghost in self.snapshots.expire(Instant::now()) {
            if let Some(ghost) = self.ghosts.get(&ghost) {
                self.late.insert(ghost.show.node);
            }
        }
        for opening in std::mem::take(&mut self.openings) {
            let killed = opening.interrupted && self.is_killed(opening.pid);
            let answered = if killed {
                self.fail(opening.unique, libc::EINTR).map(|()| true)
            } else {
                self.answer_opening(&opening)
            };
            // ENOENT: the reader is gone.
            if matches!(answered, Ok(false)) {
                self.openings.push(opening);
            }
        }
        if !self.no_one_interrupted() {
            self.end_killed();
        }
    }

    /// Whether it could be answered.
    fn answer_opening(&mut self, opening: &Opening) -> io::Result<bool> {
        match self.snapshots.attributes(opening.snapshot, Instant::now()) {
            Answer::Wait | Answer::Ask(_) => Ok(false),
            Answer::Fail(errno) => self.fail(opening.unique, errno).map(|()| true),
            Answer::Known(Known { place, size, owner, time_ns }) => {
                let Some(show) = self.ghosts.get(&opening.ghost).map(|ghost| &ghost.show) else {
                    return self.fail(opening.unique, libc::ESRCH).map(|()| true);
                };
                let mode = place.mode();
                // As with other files: what everybody may read is the user's, what is private his whose process it was.
                let (uid, gid) = if mode & 0o044 != 0 || owner == show.uid { (show.uid, show.gid) } else { (0, 0) };
                let node = Place::Snapshot(opening.snapshot).node(opening.ghost).unwrap_or_default();
                let attr = Attr { node, size, time_ns, mode, links: 1, uid, gid };
                self.reply(opening.unique, &fuse::attr_reply(&attr, Validity::FOR_EVER)).map(|()| true)
            }
        }
    }

    pub(super) fn read_snapshot(&mut self, unique: u64, snapshot: u32, offset: u64, size: u32) -> io::Result<()> {
        match self.snapshots.content(snapshot, Instant::now()) {
            Ok(content) => {
                let begin = usize::try_from(offset).map_or(content.len(), |offset| offset.min(content.len()));
                let end = content.len().min(begin.saturating_add(size as usize));
                self.reply(unique, content.get(begin..end).unwrap_or_default())
            }
            Err(errno) => self.fail(unique, errno),
        }
    }

    /// A signal has come for a reader that waits.
    pub(super) fn interrupted(&mut self, target: u64) -> io::Result<()> {
        for opening in self.openings.iter_mut().filter(|opening| opening.unique == target) {
            opening.interrupted = true;
        }
        self.mark_interrupted(target);
        self.look_after_snapshots();
        Ok(())
    }

    /// When somebody who waits for a snapshot is to be looked at.
    pub(super) fn next_of_snapshots(&self) -> Option<Instant> {
        let interrupted = self.openings.iter().any(|opening| opening.interrupted) || !self.no_one_interrupted();
        let look = interrupted.then(|| Instant::now() + LOOK);
        look.into_iter().chain(self.snapshots.next_expiry()).min()
    }

    /// Whether a thread's process is being killed. One that cannot be seen is not waited for, either.
    pub(super) fn is_killed(&self, pid: u32) -> bool {
        let Ok(status) = std::fs::read_to_string(self.paths.of_process(pid, "status")) else { return true };
        pending(&status) & DEADLY != 0
    }
}

/// Signals that wait for a thread or its process.
fn pending(status: &str) -> u64 {
    let sets = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    sets.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok()).fold(0, |all, set| all | set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadly_signal_is_seen_in_status() {
        let status = "Name:\tcat\nSigQ:\t1/100\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000004000\nSigBlk:\t00ff\n";
        assert_eq!(pending(status), 0x4100);
        assert_ne!(pending(status) & DEADLY, 0);
        assert_eq!(pending("SigPnd:\t0000000000002000\nShdPnd:\t0\n") & DEADLY, 0);
    }
}
