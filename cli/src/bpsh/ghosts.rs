//! The ghosts of a launch, as bpsh sees them: its children.
//!
//! Invariant: a ghost is reaped only after ghostd has agreed ([`Flock::release`]). One that was killed stays a zombie until
//! then, so that its number is not used again while its process lives.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use ghost_sys::ghost::{Change, Ghosts};

/// Which ghosts are stopped, and what follows for bpsh. Pure.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    /// Live ghosts by rank; the signal of those that are stopped.
    live: BTreeMap<usize, Option<u8>>,
    stopped: usize,
}

impl Stops {
    pub fn born(&mut self, rank: usize) {
        self.live.insert(rank, None);
    }

    /// A ghost has stopped. `Some`: all that live are stopped now, by this signal at last, so bpsh is to stop as well: who
    /// waits for it must learn.
    pub fn stop(&mut self, rank: usize, signal: u8) -> Option<u8> {
        let state = self.live.get_mut(&rank)?;
        if state.replace(signal).is_none() {
            self.stopped += 1;
        }
        (self.stopped == self.live.len()).then_some(signal)
    }

    pub fn go_on(&mut self, rank: usize) {
        if self.live.get_mut(&rank).and_then(Option::take).is_some() {
            self.stopped -= 1;
        }
    }

    /// There are live ghosts, and all of them are stopped.
    pub fn all_stopped(&self) -> bool {
        !self.live.is_empty() && self.stopped == self.live.len()
    }

    /// A ghost is dead; `Some` as with [`Stops::stop`]: those that are left are all stopped.
    pub fn die(&mut self, rank: usize) -> Option<u8> {
        if self.live.remove(&rank)?.is_some() {
            self.stopped -= 1;
            return None;
        }
        let signal = self.live.values().flatten().next().copied();
        signal.filter(|_| self.stopped == self.live.len())
    }
}

/// A ghost that died before ghostd said so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Died {
    pub rank: usize,
    /// wait(2)'s status word.
    pub status: i32,
}

#[derive(Debug)]
struct Ghost {
    pid: i32,
    released: bool,
    /// Its death has been seen.
    dead: bool,
}

/// All ghosts of a launch.
#[derive(Debug, Default)]
pub struct Flock {
    /// They are on the master, and no children of this process: ghostd says what becomes of them.
    elsewhere: bool,
    ghosts: Ghosts,
    by_rank: BTreeMap<usize, Ghost>,
    by_pid: BTreeMap<i32, usize>,
    stops: Stops,
    /// Children that a ghost has made, for processes that are siblings of a rank (CLONE_PARENT), and that have ended.
    fostered: Vec<i32>,
}

impl Flock {
    pub fn elsewhere() -> Flock {
        Flock { elsewhere: true, ..Flock::default() }
    }

    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// ghostd is asked to make a rank's ghost.
    pub fn expect(&mut self, rank: u32) {
        let rank = rank as usize;
        self.by_rank.insert(rank, Ghost { pid: 0, released: false, dead: false });
        self.stops.born(rank);
    }

    /// ghostd says that a rank has stopped (by this signal), or goes on; gives the signal to stop by when now all are stopped.
    pub fn told(&mut self, rank: usize, stopped: Option<u8>) -> Option<u8> {
        match stopped {
            Some(signal) => self.stops.stop(rank, signal),
            None => {
                self.stops.go_on(rank);
                None
            }
        }
    }

    /// Makes the ghost of a rank.
    ///
    /// # Errors
    /// EAGAIN: too many processes of this user. ENOMEM.
    pub fn spawn(&mut self, pin: BorrowedFd<'_>, rank: u32, name: &CStr) -> io::Result<()> {
        let pid = self.ghosts.spawn(pin, rank, name)?;
        let rank = rank as usize;
        self.by_rank.insert(rank, Ghost { pid, released: false, dead: false });
        self.by_pid.insert(pid, rank);
        self.stops.born(rank);
        Ok(())
    }

    /// ghostd agrees that this rank's ghost goes; it is reaped when it has. Gives the signal to stop by, if the others are
    /// all stopped.
    pub fn release(&mut self, rank: usize) -> Option<u8> {
        let ghost = self.by_rank.get_mut(&rank)?;
        ghost.released = true;
        let stop = self.stops.die(rank);
        self.reap(rank);
        stop
    }

    /// The number of a rank's ghost.
    pub fn pid(&self, rank: usize) -> Option<i32> {
        self.by_rank.get(&rank).map(|ghost| ghost.pid).filter(|pid| *pid != 0)
    }

    /// Signals the ghost of a rank, if it has one.
    pub fn signal(&self, rank: usize, signal: i32) {
        if let Some(pid) = self.pid(rank) {
            // ESRCH: already a zombie.
            let _ = ghost_sys::signal::send(pid, signal);
        }
    }

    /// ghostd says that a child has ended which a ghost has made.
    pub fn foster(&mut self, pid: i32) {
        self.fostered.push(pid);
        self.reap_fostered();
    }

    /// There are children that are about to be dead.
    pub fn has_dead(&self) -> bool {
        !self.fostered.is_empty()
    }

    fn reap_fostered(&mut self) {
        self.fostered.retain(|pid| matches!(ghost_sys::ghost::wait_for(*pid), Ok(false)));
    }

    /// Looks at one child after SIGCHLD: reaps it if it may go, or tells that it died before its time.
    pub fn look_at(&mut self, pid: i32) -> Option<Died> {
        let rank = *self.by_pid.get(&pid)?;
        self.look(rank)
    }

    /// The same for all children: SIGCHLD does not come once for each.
    pub fn look_at_all(&mut self) -> Vec<Died> {
        self.reap_fostered();
        let ranks: Vec<usize> = self.by_rank.keys().copied().collect();
        ranks.into_iter().filter_map(|rank| self.look(rank)).collect()
    }

    fn look(&mut self, rank: usize) -> Option<Died> {
        self.reap(rank);
        let ghost = self.by_rank.get_mut(&rank)?;
        if ghost.released || ghost.dead || self.elsewhere {
            return None;
        }
        let status = self.ghosts.peek(ghost.pid).ok()??;
        ghost.dead = true;
        self.stops.die(rank);
        Some(Died { rank, status })
    }

    fn reap(&mut self, rank: usize) {
        let Some(ghost) = self.by_rank.get(&rank).filter(|ghost| ghost.released) else { return };
        // An error means that it is not there any more.
        if self.elsewhere || !matches!(self.ghosts.reap(ghost.pid), Ok(None)) {
            self.by_pid.remove(&ghost.pid);
            self.by_rank.remove(&rank);
        }
    }

    /// Takes note of who has stopped and who goes on; gives the signal to stop by when now all are stopped.
    pub fn stop_now(&mut self) -> Option<u8> {
        if self.elsewhere {
            return None;
        }
        let mut stop = None;
        while let Ok(Some((pid, change))) = self.ghosts.next_change() {
            let Some(rank) = self.by_pid.get(&pid).copied() else { continue };
            match change {
                Change::Stopped(signal) => stop = self.stops.stop(rank, signal),
                Change::Continued => {
                    self.stops.go_on(rank);
                    stop = None;
                }
            }
        }
        stop
    }

    /// Looks again whether all that live are stopped; gives also who died before its time.
    pub fn still_stopped(&mut self) -> (bool, Vec<Died>) {
        self.stop_now();
        let died = self.look_at_all();
        (self.stops.all_stopped(), died)
    }

    /// Those that died before their time and are not released, as if they had done so just now.
    pub fn dead(&self) -> Vec<Died> {
        let dead = self.by_rank.iter().filter(|(_, ghost)| !ghost.released && ghost.dead);
        dead.filter_map(|(&rank, ghost)| Some(Died { rank, status: self.ghosts.peek(ghost.pid).ok()?? })).collect()
    }

    /// Whether none lives of those that are not released.
    pub fn all_dead(&self) -> bool {
        let mut waited_for = self.by_rank.values().filter(|ghost| !ghost.released);
        waited_for.all(|ghost| !self.elsewhere && !matches!(self.ghosts.peek(ghost.pid), Ok(None)))
    }

    /// All have been reaped.
    pub fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// Ends what is left of them, when there is no ghostd to do it.
    pub fn kill(&self) {
        for pid in self.ghosts.pids() {
            // ESRCH: already a zombie.
            let _ = ghost_sys::signal::send(pid, nix::libc::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpsh_stops_when_the_last_running_ghost_stops() {
        let mut stops = Stops::default();
        (0..3).for_each(|rank| stops.born(rank));
        assert_eq!(stops.stop(0, 20), None);
        assert_eq!(stops.stop(0, 20), None);
        assert_eq!(stops.stop(1, 20), None);
        stops.go_on(1);
        assert_eq!(stops.stop(2, 19), None);
        assert_eq!(stops.stop(1, 21), Some(21));
        // Continued together: nothing; stopped together again: once more.
        (0..3).for_each(|rank| stops.go_on(rank));
        stops.go_on(0);
        assert_eq!((stops.stop(0, 20), stops.stop(1, 20), stops.stop(2, 20)), (None, None, Some(20)));
    }

    #[test]
    fn the_end_of_the_last_running_one_counts_too() {
        let mut stops = Stops::default();
        (0..3).for_each(|rank| stops.born(rank));
        stops.stop(0, 20);
        assert_eq!(stops.die(1), None);
        assert_eq!(stops.die(2), Some(20));
        assert_eq!(stops.die(2), None);
        assert_eq!(stops.die(0), None);
        assert_eq!(stops.stop(0, 20), None);
    }
}
