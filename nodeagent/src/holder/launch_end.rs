//! Ending a launch: SIGKILL for its processes and what descends from them.
//!
//! ```text
//! begun ── freeze ── frozen, or 100 ms ── kill what is there ── thaw ──┬── a process of the launch lives: again
//!                                                                       └── none: done
//! ```
//! The cgroup is frozen so that no child is made, and no parent dies, while the tree is read: what is the child of a dead
//! process belongs to init, and is spared, unless everything that is in the launch's cgroup is to die. A frozen process dies by SIGKILL all the same (kernel/cgroup/freezer.c).
//! Without a cgroup the tree is read as it runs, and again.

use std::time::Duration;

use ghost_proto::ids::LaunchId;
use ghost_sys::pidfd;

use super::cgroup::Cgroups;
use super::processes;

const FREEZING: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(1);
/// What does not die in this time sits in a system call that nothing breaks; it was sent its SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Ending {
    launch: LaunchId,
    everything: bool,
    freeze_until: Duration,
    give_up: Duration,
    next: Duration,
}

/// Launches that are being ended.
#[derive(Debug, Default)]
pub struct LaunchEnds(Vec<Ending>);

impl LaunchEnds {
    pub fn begin(&mut self, launch: LaunchId, everything: bool, now: Duration) {
        match self.0.iter_mut().find(|ending| ending.launch == launch) {
            Some(ending) => ending.everything |= everything,
            None => {
                let (freeze_until, give_up) = (now + FREEZING, now + PATIENCE);
                self.0.push(Ending { launch, everything, freeze_until, give_up, next: now });
            }
        }
    }

    pub fn is_ending(&self, launch: LaunchId) -> bool {
        self.0.iter().any(|ending| ending.launch == launch)
    }

    /// When [`LaunchEnds::step`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.0.iter().map(|ending| ending.next).min()
    }

    /// Does what is due. `living` gives the launch's own processes.
    pub fn step(&mut self, now: Duration, cgroups: &Cgroups, living: impl Fn(LaunchId) -> Vec<u32>) {
        self.0.retain_mut(|ending| {
            if ending.next > now {
                return true;
            }
            let mut roots = living(ending.launch);
            if ending.everything {
                roots.extend(cgroups.members(ending.launch).unwrap_or_default());
            }
            if roots.is_empty() || now >= ending.give_up {
                cgroups.freeze(ending.launch, false);
                return false;
            }
            ending.next = now + STEP;
            let freezing = now < ending.freeze_until && cgroups.freeze(ending.launch, true);
            if freezing && !cgroups.is_frozen(ending.launch) {
                return true;
            }
            let members = cgroups.members(ending.launch).unwrap_or_else(processes::all);
            for pid in processes::descendants(&roots, &members).into_iter().chain(roots) {
                // A number could be another's by now only if its process was reaped in between, which its parent, frozen or
                // killed, does not do, and the holder does not while it is here. The holder itself is never in the list: no
                // chain of parents from a launched process leads down to it.
                if pid > 1 {
                    let _ = pidfd::kill(pid.cast_signed(), libc::SIGKILL);
                }
            }
            cgroups.freeze(ending.launch, false);
            // Only once: a second freeze would keep the killed from going.
            ending.freeze_until = now;
            true
        });
    }
}
