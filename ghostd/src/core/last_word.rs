//! The end of a launcher that stands still and has nothing more to tell.
//!
//! A stopped program that is killed is dead for whoever waits for it, and was not seen to continue before. Its launcher, which stopped
//! with it, would have to be continued to end; so it is killed in the same way, as soon as it has got all output.

use ghost_proto::ids::LaunchId;
use ghost_proto::status::WaitStatus;

use super::types::Output;
use super::{Action, Core};

/// Ticks for which output may still be on its way. With what a killed program has forked it may never end.
const PATIENCE: u8 = 30;

impl Core {
    /// A process has ended that stood still. If its launcher has nothing to tell, it is not continued but ends with it.
    pub(super) fn is_perhaps_its_launchers_end(&mut self, launch: LaunchId, status: WaitStatus) {
        let killed = matches!(status, WaitStatus::Signaled { signal: 9, .. });
        let silent = self.launches.get(&launch).is_some_and(|launch| {
            launch.plain
                && launch.via.is_none()
                && launch.ranks.len() == 1
                && !launch.launcher_stopped
                && !launch.absent
                && !launch.ended
        });
        if killed && silent {
            self.waking.remove(&launch);
            self.dying.insert(launch, PATIENCE);
        }
    }

    /// Whether a launcher is not to be continued.
    pub(super) fn is_to_end(&self, launch: LaunchId) -> bool {
        self.dying.contains_key(&launch)
    }

    /// At each tick.
    pub(super) fn end_launchers(&mut self) {
        for id in self.dying.keys().copied().collect::<Vec<_>>() {
            let Some(launch) = self.launches.get(&id).filter(|launch| !launch.ended) else {
                self.dying.remove(&id);
                continue;
            };
            // One that is not in the table any more was done.
            let mut ranks = launch.ranks.iter().flatten().filter_map(|rank| self.processes.get(rank));
            if ranks.all(|process| process.outputs.iter().all(Output::is_done)) {
                // It stays noted until its connection has ended, which nothing keeps it from.
                let client = launch.client;
                self.act(Action::KillLauncher { client });
            } else if let Some(left) = self.dying.get_mut(&id) {
                *left -= 1;
                if *left == 0 {
                    self.dying.remove(&id);
                    self.wake_launcher(id);
                }
            }
        }
    }
}
