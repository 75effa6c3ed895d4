//! Leaders of terminals' sessions: stand-ins for the launcher a second time, each the parent of one program in a terminal.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use ghost_proto::ids::LaunchId;
use ghost_proto::standin::{Origin, Original};
use ghost_sys::standin::{Place, StandIn};

use super::StandIns;

impl StandIns {
    /// Makes one for a program of this launch and user; gives its name. Its session's terminal is `slave`, which is to stay open until
    /// the program is made.
    ///
    /// # Errors
    /// Those of [`StandIn::new`].
    pub fn keep_terminal(
        &mut self,
        launch: LaunchId,
        origin: Option<&Origin>,
        uid: u32,
        slave: BorrowedFd<'_>,
    ) -> io::Result<u64> {
        if let Some(origin) = origin {
            // They are made with the launch's first process.
            let _ = self.parent(launch, origin);
        }
        let above = self.launches.get(&launch).map(|family| family.parent).filter(|id| self.entries.contains_key(id));
        let original = match origin {
            Some(origin) => Original { uid, ..origin.parent.clone() },
            None => Original { pid: 0, uid, comm: "bpsh".into() },
        };
        let (place, group) = (Place::Terminal(slave.as_raw_fd()), origin.map_or(0, |origin| origin.group.pid));
        // Its number here is its own: the original's is that of another stand-in.
        let id = self.make(above, &Original { pid: 0, ..original.clone() }, place, group, true)?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.original = original.pid;
            entry.users = 1;
        }
        Ok(id)
    }

    /// The stand-in with this name, and its number.
    pub fn keeper(&self, id: u64) -> Option<(&StandIn, u32)> {
        self.entries.get(&id).map(|entry| (&entry.process, entry.sid))
    }

    /// Ends it, and with it its session: the kernel hangs up the terminal.
    pub fn end_keeper(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !entry.ending
        {
            entry.users = 0;
            entry.end();
        }
    }
}
