//! A kernel's process table, as far as groups and sessions go (kernel/sys.c, `setpgid()` and `ksys_setsid()`; kernel/exit.c,
//! `will_become_orphaned_pgrp()`).

use std::collections::{BTreeMap, BTreeSet};

pub const EPERM: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Runs,
    Stopped,
    Zombie,
}

#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub parent: u32,
    pub pgid: u32,
    pub sid: u32,
    pub life: Life,
}

pub struct Kernel {
    pub tasks: BTreeMap<u32, Task>,
    next: u32,
}

/// What the end of a process has led to.
pub struct End {
    /// Zombies that init has waited for.
    pub reaped: Vec<u32>,
    /// Members of groups that were orphaned with somebody stopped in them: SIGHUP and SIGCONT.
    pub hung_up: Vec<u32>,
}

impl Kernel {
    /// With an init, which leads a group and a session; new numbers are above `next`.
    pub fn new(next: u32) -> Kernel {
        let init = Task { parent: 0, pgid: 1, sid: 1, life: Life::Runs };
        Kernel { tasks: BTreeMap::from([(1, init)]), next }
    }

    pub fn is(&self, pid: u32, life: Life) -> bool {
        self.tasks.get(&pid).is_some_and(|task| task.life == life)
    }

    fn is_in_use(&self, number: u32) -> bool {
        self.tasks.iter().any(|(&pid, task)| pid == number || task.pgid == number || task.sid == number)
    }

    /// A new process with the groups of `like`; with another number if the wanted one (0: any) is in use.
    pub fn fork(&mut self, parent: u32, like: u32, wanted: u32) -> u32 {
        let mut pid = wanted;
        while pid == 0 || self.is_in_use(pid) {
            self.next += 1;
            pid = self.next;
        }
        let Task { pgid, sid, .. } = self.tasks[&like];
        self.tasks.insert(pid, Task { parent, pgid, sid, life: Life::Runs });
        pid
    }

    /// Gives an errno, or 0.
    pub fn setpgid(&mut self, pid: u32, pgid: u32) -> u32 {
        let task = self.tasks[&pid];
        let same = |other: &Task| other.pgid == pgid && other.sid == task.sid;
        if task.sid == pid || pgid != pid && !self.tasks.values().any(same) {
            return EPERM;
        }
        self.task(pid).pgid = pgid;
        0
    }

    pub fn setsid(&mut self, pid: u32) -> u32 {
        if self.tasks.values().any(|task| task.pgid == pid) {
            return EPERM;
        }
        let task = self.task(pid);
        (task.pgid, task.sid) = (pid, pid);
        0
    }

    /// As a ghost does it: into the group of a child that has ended.
    pub fn found(&mut self, pid: u32, wanted: u32) -> u32 {
        if self.tasks[&pid].sid == pid {
            return EPERM;
        }
        let child = self.fork(pid, pid, wanted);
        self.tasks.remove(&child);
        self.task(pid).pgid = child;
        0
    }

    /// As a ghost does it: if it is in a group with its own number, it leaves that first.
    pub fn leave_and_setsid(&mut self, pid: u32) -> u32 {
        if self.setsid(pid) == EPERM {
            self.found(pid, 0);
        }
        if self.tasks[&pid].sid == pid { 0 } else { self.setsid(pid) }
    }

    fn is_orphaned(&self, pgid: u32) -> bool {
        let holds = |task: &Task| {
            let Some(parent) = self.tasks.get(&task.parent) else { return false };
            task.life != Life::Zombie && parent.pgid != task.pgid && parent.sid == task.sid
        };
        !self.tasks.values().any(|task| task.pgid == pgid && holds(task))
    }

    /// It becomes a zombie, its children init's.
    pub fn exit(&mut self, pid: u32) -> End {
        let groups: BTreeSet<u32> = self
            .tasks
            .iter()
            .filter(|(number, task)| **number == pid || task.parent == pid)
            .map(|(_, task)| task.pgid)
            .filter(|pgid| !self.is_orphaned(*pgid))
            .collect();
        self.task(pid).life = Life::Zombie;
        let mut reaped = Vec::new();
        for (&number, task) in &mut self.tasks {
            if task.parent == pid {
                task.parent = 1;
            }
            if task.parent == 1 && task.life == Life::Zombie {
                reaped.push(number);
            }
        }
        for number in &reaped {
            self.tasks.remove(number);
        }
        let mut hung_up = Vec::new();
        for pgid in groups.into_iter().filter(|pgid| self.is_orphaned(*pgid)) {
            let members = || self.tasks.iter().filter(|(_, task)| task.pgid == pgid);
            if members().any(|(_, task)| task.life == Life::Stopped) {
                hung_up.extend(members().filter(|(_, task)| task.life != Life::Zombie).map(|(&number, _)| number));
            }
        }
        End { reaped, hung_up }
    }

    /// Stops it, or has it go on; nothing if it is dead.
    pub fn set(&mut self, pid: u32, life: Life) {
        if let Some(task) = self.tasks.get_mut(&pid).filter(|task| task.life != Life::Zombie) {
            task.life = life;
        }
    }

    pub fn reap(&mut self, pid: u32) {
        assert!(self.is(pid, Life::Zombie), "{pid} is waited for before it is dead");
        self.tasks.remove(&pid);
    }

    fn task(&mut self, pid: u32) -> &mut Task {
        self.tasks.get_mut(&pid).unwrap_or_else(|| panic!("no process {pid}"))
    }
}
