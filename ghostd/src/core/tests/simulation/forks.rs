//! What processes of a node make of themselves, and what the kernel programs tell the holder of it.

use ghost_abi::tree::Process as Listed;
use ghost_proto::node::NodeToMaster;
use ghost_proto::status::WaitStatus;
use nodeagent::holder::event::{Event, TreeEvent};

use super::ghosts::Place;
use super::machine::{Life, Machine, Remote};
use super::world::{Happening, World};

/// Processes that one launch has on one node at most.
const MOST: usize = 6;

/// No other process has it: numbers are not given again here.
const fn key(pid: u32) -> u64 {
    pid as u64 | 1 << 40
}

impl Machine {
    fn listed(&self, pid: u32, process: &Remote, creator: u32) -> Listed {
        // The holder takes its own number for its own.
        let parent = process.parent.unwrap_or(std::process::id());
        Listed {
            kind: 1,
            parent: parent.cast_signed(),
            seq: 0,
            key: key(pid),
            parent_key: process.parent.map_or(0, key),
            creator_key: if creator == 0 { 0 } else { key(creator) },
            pid: pid.cast_signed(),
            pgid: process.pgid.cast_signed(),
            sid: process.sid.cast_signed(),
            uid: 1000,
            euid: 1000,
            gid: 1000,
            status: 0,
            flags: if process.is_alive() { 0 } else { Listed::ENDED },
            comm: *b"sim\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }
}

impl Machine {
    /// The nearest living ancestor that has asked for the children of its descendants: some have.
    fn heir_of(&self, pid: u32) -> Option<u32> {
        let mut at = self.processes.get(&pid)?.parent?;
        loop {
            let ancestor = self.processes.get(&at)?;
            if at.is_multiple_of(3) && ancestor.is_alive() {
                return Some(at);
            }
            at = ancestor.parent?;
        }
    }
}

impl World {
    fn tell_tree(&mut self, number: usize, event: TreeEvent) {
        self.nodes[number].machine.ring.push_back(event);
        let delay = self.random.delay();
        self.after(delay, Happening::FollowTree(number));
    }

    pub fn follow_tree(&mut self, number: usize) {
        while let Some(event) = self.nodes[number].machine.ring.pop_front() {
            self.holder_event(number, Event::Tree(event));
        }
    }

    pub fn tree_forked(&mut self, number: usize, pid: u32, creator: u32) {
        let machine = &self.nodes[number].machine;
        let process = &machine.processes[&pid];
        let launch = process.parent.is_none().then_some(process.launch);
        let process = machine.listed(pid, process, creator);
        let by_us = process.parent.unsigned_abs() == std::process::id();
        self.tell_tree(number, TreeEvent::Forked { process, by_us, launch });
    }

    pub fn tree_executed(&mut self, number: usize, pid: u32) {
        let machine = &self.nodes[number].machine;
        let process = machine.listed(pid, &machine.processes[&pid], 0);
        self.tell_tree(number, TreeEvent::Executed(process));
    }

    pub fn tree_stopped(&mut self, number: usize, pid: u32, signal: Option<u8>) {
        let process = &self.nodes[number].machine.processes[&pid];
        let (pgid, sid) = (process.pgid, process.sid);
        if process.forked {
            if signal.is_some() {
                self.tell_tree(number, TreeEvent::Stands { pid, pgid, sid });
            }
            self.tell_tree(number, TreeEvent::Stopped { key: key(pid), signal });
        }
    }

    /// A process is dead. Its children are its heir's now, or the holder's, who waits for them.
    pub fn tree_ended(&mut self, number: usize, pid: u32, status: WaitStatus) {
        let machine = &mut self.nodes[number].machine;
        let (pgid, sid) = (machine.processes[&pid].pgid, machine.processes[&pid].sid);
        let heir = machine.heir_of(pid);
        let mut orphans = Vec::new();
        for (&child, process) in machine.processes.iter_mut().filter(|(_, process)| process.parent == Some(pid)) {
            process.parent = heir;
            if let Life::Zombie(_) = process.life {
                orphans.push(child);
            }
        }
        self.tell_tree(number, TreeEvent::Stands { pid, pgid, sid });
        let (status, heir) = (status.to_raw(), heir.map_or(0, key));
        self.tell_tree(number, TreeEvent::Ended { key: key(pid), status, heir });
        for child in orphans {
            self.child_later(number, child);
        }
    }

    pub fn compare_tree(&mut self, number: usize) {
        let machine = &self.nodes[number].machine;
        let all = machine.processes.iter().filter(|(_, process)| process.life != Life::Reaped);
        let all = all.map(|(&pid, process)| machine.listed(pid, process, 0)).collect();
        // What was told before comes first.
        self.follow_tree(number);
        self.holder_event(number, Event::Tree(TreeEvent::Compared { all, seen: 0 }));
    }

    /// fork(2), sometimes with CLONE_PARENT.
    pub fn process_forks(&mut self, number: usize, pid: u32) {
        let (beside, endless, now) = (self.random.percent(15), self.random.percent(30), self.now);
        let machine = &mut self.nodes[number].machine;
        let maker = &machine.processes[&pid];
        let (launch, pgid, sid) = (maker.launch, maker.pgid, maker.sid);
        let alive = machine.processes.values().filter(|p| p.launch == launch && p.life != Life::Reaped).count();
        if alive >= MOST {
            return;
        }
        let parent = if beside { maker.parent } else { Some(pid) };
        machine.next_pid += 1;
        let child = machine.next_pid;
        let process =
            Remote { parent, pgid, sid, forked: true, life: Life::Running, born: now, ..Remote::new(launch, endless) };
        machine.processes.insert(child, process);
        self.tally.forks += 1;
        self.tree_forked(number, child, if beside { pid } else { 0 });
        self.process_later(number, child);
        self.plan_ghost_check(number, child);
    }

    /// setpgid(2) or setsid(2).
    pub fn process_regroups(&mut self, number: usize, pid: u32) {
        let (session, delay, now) = (self.random.percent(30), self.random.micros(50_000), self.now);
        let machine = &mut self.nodes[number].machine;
        machine.regrouped = Some(now);
        let leads = machine.processes.values().any(|p| p.pgid == pid && p.life != Life::Reaped);
        let Some(process) = machine.processes.get_mut(&pid) else { return };
        if session && !leads {
            (process.pgid, process.sid) = (pid, pid);
        } else if process.sid != pid {
            process.pgid = pid;
        }
        self.after(delay, Happening::CompareTree(number));
    }

    /// A parent other than the holder waits for a child.
    pub fn process_waited_for(&mut self, number: usize, pid: u32) {
        if let Some(process) = self.nodes[number].machine.processes.get_mut(&pid) {
            process.life = Life::Reaped;
        }
        self.nodes[number].machine.forget(pid);
        self.tell_tree(number, TreeEvent::Reaped { key: key(pid) });
    }

    /// The holder has waited for a process.
    pub fn tree_reaped(&mut self, number: usize, pid: u32) {
        self.tell_tree(number, TreeEvent::Reaped { key: key(pid) });
    }

    /// The holder has named a process.
    pub fn note_name(&mut self, number: usize, message: &NodeToMaster) {
        if let NodeToMaster::Forked(forked) = message {
            if let Some(process) = self.nodes[number].machine.processes.get_mut(&forked.pid) {
                process.proc = forked.proc;
            }
            self.nodes[number].told.insert(forked.proc);
        }
    }

    /// Whether somebody stands for a process here.
    fn has_ghost(&self, proc: u64) -> bool {
        self.ghosts.values().any(|ghost| ghost.process == Some(proc) && !ghost.reaped)
    }

    fn plan_ghost_check(&mut self, node: usize, pid: u32) {
        let delay = self.chances.ghost_within;
        self.after(delay, Happening::HasGhost { node, pid });
    }

    /// 8: where nothing is cut, killed or stopped a process that lives has a ghost; elsewhere as soon as that is over.
    pub fn check_ghost(&mut self, node: usize, pid: u32) {
        let Some(process) = self.nodes[node].machine.processes.get(&pid).filter(|process| process.is_alive()) else {
            return;
        };
        let (launch, proc, age) = (process.launch.0, process.proc, self.now - process.born);
        if self.has_ghost(proc) {
            self.tally.ghosts_in_time += 1;
            return;
        }
        let calm = self.now.saturating_sub(self.disturbed) > self.chances.ghost_within;
        let command = self.clients.iter().position(|client| client.launch == launch && !client.exited);
        let Some(command) = command else { return };
        // Who is to make it must be able to: not stopped, and not about to be killed. Where one is stopped, another one does, later.
        let mut ghosts = self.ghosts.values().filter(|ghost| ghost.client == command && ghost.process.is_some());
        let able = ghosts.clone().any(|ghost| matches!(ghost.place, Place::Asleep(_)) && !ghost.kill_marked);
        let able = able && ghosts.all(|ghost| ghost.place != Place::Stopped && !ghost.kill_marked);
        if !calm || !able || !self.nodes[node].link.is_some_and(|link| self.is_whole(link)) {
            return self.plan_ghost_check(node, pid);
        }
        let all = self.master.core.processes.iter().filter(|(_, process)| process.launch.0 == launch);
        let all: Vec<_> =
            all.map(|(id, p)| (id, p.pid, &p.ghost, p.remote, p.sid, p.stopped, p.killed, &p.fork)).collect();
        panic!("8: process {proc} of node {node} (number {pid}) has no ghost after {age:?}: {all:#?}");
    }
}
