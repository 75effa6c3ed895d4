//! What the kernel programs tell of the namespace's processes, for the core.

use std::collections::HashSet;
use std::time::Duration;

use ghost_abi::tree::{Change, Process, Record};
use ghost_host::programs::tree::Event as Seen;

use super::{Driver, now};
use ghost_proto::ids::NodeNumber;

use crate::holder::event::{Event, TreeEvent};
use crate::holder::numbers::{self, Numbers};
use crate::holder::processes;
use crate::holder::setup::log;

/// Records of one wake-up, so that everything else gets its turn.
const RECORDS: usize = 4096;
/// A process that takes a stop signal stops when all its threads have come to it, unless its group is orphaned.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(4), Duration::from_millis(20), Duration::from_millis(200)];

/// How often it is looked for processes that were reaped without a record of it.
const OVERDUE: Duration = Duration::from_secs(1);

/// A process that is to be looked at: has it stopped?
#[derive(Debug)]
pub(super) struct Look {
    due: Duration,
    key: u64,
    signal: u8,
    tries: usize,
}

/// Without it the numbers here and on the master differ, and nothing else.
fn set_cursor(cursor: u32) {
    if let Err(why) = numbers::set_cursor(cursor) {
        log(&format!("numbers of forked processes cannot be steered: {why}"));
    }
}

impl Driver {
    pub(super) fn steer(&mut self, node: NodeNumber) {
        if self.slice.is_none() {
            self.slice = Numbers::of(node, numbers::pid_max());
            if let Some(slice) = &self.slice {
                set_cursor(slice.begin());
            }
        }
    }

    pub(super) fn next_look(&self) -> Option<Duration> {
        self.looks.iter().map(|look| look.due).chain(self.overdue).min()
    }

    /// Takes what the kernel programs have to tell.
    ///
    /// What somebody has sent is told after his fork and before his end: of signals seen before the tree is looked at, the
    /// sender's fork is in the tree's ring, and whose end is in it has no more to send.
    pub(super) fn follow_tree(&mut self) {
        self.see_sent();
        for _ in 0..RECORDS {
            match self.programs.as_mut().and_then(|programs| programs.next_event()) {
                Some(Seen::Record(record)) => self.tree_record(&record),
                Some(Seen::Dropped) => self.compare_tree(),
                None => {
                    self.tell_sent(true);
                    break;
                }
            }
        }
        self.look();
        self.look_for_reaped();
    }

    /// Few are overdue, and only where the kernel could not tell (see `ghost_abi::tree::Reaped`).
    fn look_for_reaped(&mut self) {
        let Some(programs) = self.programs.as_mut().filter(|programs| programs.awaits_reaping()) else {
            self.overdue = None;
            return;
        };
        let now = now();
        if self.overdue.is_none_or(|due| due <= now) {
            let first = self.overdue.is_none();
            self.overdue = Some(now + OVERDUE);
            if first {
                return;
            }
            match programs.overdue() {
                Ok(reaped) => {
                    for reaped in reaped {
                        self.handle(Event::Tree(TreeEvent::Reaped { key: reaped.key }));
                    }
                }
                Err(why) => log(&format!("the namespace's processes cannot be listed: {why}")),
            }
        }
    }

    fn tree_record(&mut self, record: &Record) {
        match record {
            Record::Fork(process) => {
                self.tree_forked(*process);
                self.look_again();
            }
            Record::Exec(process) => {
                // Of a launched one it is told first that it has begun.
                if let Some(&number) = self.by_pid.get(&process.pid.unsigned_abs()) {
                    self.look_at_start(number);
                }
                self.handle(Event::Tree(TreeEvent::Executed(*process)));
                self.look_again();
            }
            Record::Exit(exit) => {
                self.see_sent();
                self.tell_sent(false);
                let (pid, pgid, sid) = (exit.pid.unsigned_abs(), exit.pgid.unsigned_abs(), exit.sid.unsigned_abs());
                if exit.pgid != 0 {
                    self.handle(Event::Tree(TreeEvent::Stands { pid, pgid, sid }));
                }
                self.handle(Event::Tree(TreeEvent::Ended {
                    key: exit.key,
                    status: exit.status.cast_signed(),
                    heir: exit.heir_key,
                }));
            }
            Record::Reaped(reaped) => self.handle(Event::Tree(TreeEvent::Reaped { key: reaped.key })),
            Record::Changed(changed) => {
                let (key, signal) = (changed.key, u8::try_from(changed.sig).unwrap_or(0));
                if !self.core.tree().knows(key) {
                    return;
                }
                self.looks.retain(|look| look.key != key);
                match changed.change() {
                    Change::Stopped => {
                        self.note_last_acts(changed.pid.unsigned_abs());
                        self.handle(Event::Tree(TreeEvent::Stopped { key, signal: Some(signal) }));
                    }
                    Change::Continued => self.handle(Event::Tree(TreeEvent::Stopped { key, signal: None })),
                    Change::Stopping => self.looks.push(Look { due: now() + LOOKS[0], key, signal, tries: 0 }),
                }
            }
        }
    }

    /// Of a process that is stopped: what it did before comes first. Its ghost will do nothing until it goes on.
    pub(super) fn note_last_acts(&mut self, pid: u32) {
        if let Some(stat) = processes::stat(pid) {
            self.handle(Event::Tree(TreeEvent::Stands { pid, pgid: stat.pgid, sid: stat.sid }));
        }
        for (key, child) in self.core.tree().dead_children(pid) {
            // That it was waited for is told a grace period later (`ghost_abi::tree::Reaped`); its number is gone at once.
            if processes::state(child).is_none() {
                self.handle(Event::Tree(TreeEvent::Reaped { key }));
            }
        }
    }

    fn tree_forked(&mut self, process: Process) {
        // The children of the holder and of stand-ins are launched, or belong to a launch by their cgroup.
        let pid = process.pid.unsigned_abs();
        if self.is_stand_in(pid) {
            return;
        }
        let by_us = self.is_above(process.parent.unsigned_abs());
        // Who the holder starts has a number that was chosen.
        if !by_us && let Some(cursor) = self.slice.as_mut().and_then(|slice| slice.seen(pid)) {
            set_cursor(cursor);
        }
        let launch = if by_us && !self.by_pid.contains_key(&pid) { self.cgroups.launch_of(pid) } else { None };
        self.handle(Event::Tree(TreeEvent::Forked { process, by_us, launch }));
    }

    fn look(&mut self) {
        let now = now();
        let (due, later): (Vec<Look>, Vec<Look>) =
            std::mem::take(&mut self.looks).into_iter().partition(|look| look.due <= now);
        self.looks = later;
        for mut look in due {
            let Some(pid) = self.core.tree().number_of(look.key) else { continue };
            match processes::state(pid) {
                Some('T') => {
                    self.note_last_acts(pid);
                    self.handle(Event::Tree(TreeEvent::Stopped { key: look.key, signal: Some(look.signal) }));
                }
                Some(_) => {
                    look.tries += 1;
                    if let Some(pause) = LOOKS.get(look.tries) {
                        look.due = now + *pause;
                        self.looks.push(look);
                    }
                }
                None => {}
            }
        }
    }

    /// Records were lost: what is there now tells what has happened.
    fn compare_tree(&mut self) {
        let listed = match self.programs.as_mut().map(|programs| programs.list()) {
            Some(Ok(listed)) => listed,
            Some(Err(why)) => return log(&format!("the namespace's processes cannot be listed: {why}")),
            None => return,
        };
        let present: HashSet<u64> = listed.iter().map(|process| process.key).collect();
        for process in listed {
            if self.core.tree().knows(process.key) {
                self.handle(Event::Tree(TreeEvent::Executed(process)));
            } else if process.flags & Process::ENDED == 0 {
                self.tree_forked(process);
            }
            if process.flags & Process::ENDED != 0 {
                let status = process.status.cast_signed();
                self.handle(Event::Tree(TreeEvent::Ended { key: process.key, status, heir: 0 }));
            }
        }
        for key in self.core.tree().keys() {
            if !present.contains(&key) {
                // Its status is lost. Only its parent there has seen it.
                self.handle(Event::Tree(TreeEvent::Ended { key, status: 0, heir: 0 }));
                self.handle(Event::Tree(TreeEvent::Reaped { key }));
            }
        }
    }
}
