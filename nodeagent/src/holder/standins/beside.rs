//! Stand-ins of a launch's ranks that run on other nodes: children of the launcher's, like the ranks that run here, and in its group.

use std::time::Duration;

use bytes::Bytes;
use ghost_proto::ids::LaunchId;
use ghost_proto::standin::{Original, Other};
use ghost_sys::standin::Place;

use super::{StandIns, log};

/// Made in one round of the holder, some tens of microseconds each.
const AT_ONCE: usize = 8;

impl StandIns {
    /// The launch has these ranks on other nodes.
    pub fn beside(&mut self, launch: LaunchId, others: &[Other], now: Duration) {
        self.wanted.retain(|(_, of, _)| *of != launch);
        let Some(family) = self.launches.get_mut(&launch).filter(|family| family.parent != 0) else { return };
        let over = family.beside.extract_if(.., |pid, _| !others.iter().any(|other| other.pid == *pid));
        for id in over.map(|(_, id)| id) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.users = 0;
                entry.end();
            }
        }
        let new = others.iter().filter(|other| other.pid > 1 && !family.beside.contains_key(&other.pid));
        self.wanted.extend(new.map(|other| (now, launch, *other)));
    }

    /// Makes some of those that are still wanted.
    pub fn make_beside(&mut self) {
        for _ in 0..AT_ONCE {
            let Some((_, launch, other)) = self.wanted.pop_front() else { return };
            self.make_one_beside(launch, other);
        }
    }

    fn make_one_beside(&mut self, launch: LaunchId, other: Other) {
        let Some(parent) = self.launches.get(&launch).map(|family| family.parent) else { return };
        let Some(entry) = self.entries.get(&parent).filter(|entry| !entry.ending) else { return };
        let (uid, group, place) = (entry.uid, entry.group, Place::Group(entry.pgid));
        let original = Original { pid: other.pid, uid, comm: Bytes::from(format!("rank {}", other.rank)) };
        let made = match self.make(Some(parent), &original, place, group, false) {
            Ok(made) => made,
            Err(why) => {
                log(&format!("no stand-ins for the ranks of a launch on other nodes: {why}"));
                self.wanted.retain(|(_, of, _)| *of != launch);
                return;
            }
        };
        let Some(entry) = self.entries.get_mut(&made) else { return };
        if entry.process.pid() != other.pid {
            // The number is somebody else's: nobody would find it under another one.
            return entry.end();
        }
        entry.users = 1;
        if let Some(family) = self.launches.get_mut(&launch) {
            family.beside.insert(other.pid, made);
        }
    }
}
