//! Ghosts: their reads, and how they end.

use ghost_host::pin::ReadToken;
use ghost_proto::client;
use ghost_proto::ids::{LaunchId, ProcId};
use ghost_proto::node::Scope;
use ghost_proto::status::WaitStatus;
use ghost_sys::ghost::{Answer, RANK_SHIFT};
use nix::libc;

use super::found::tag_of;
use super::signals::Forward;
use super::types::{Ghost, Remote};
use super::{Action, ClientId, Core};

impl Core {
    /// A process sleeps on a pin file: a ghost that comes, or one that comes back, or somebody who has no business there.
    pub(super) fn pin_read(&mut self, token: ReadToken, file: u64, pid: u32, offset: u64) {
        self.know_file(file, pid);
        let Some(launch) = self.by_file.get(&file) else {
            // A ghost that was found, and whose launch only its node knows.
            return match self.by_pid.get(&pid).copied() {
                Some(id) if self.processes.get(&id).is_some_and(|p| p.found && p.launch == LaunchId::default()) => {
                    self.ghost_back(id, token, 0);
                }
                _ => self.act(Action::RefuseRead { token }),
            };
        };
        if let Some(&id) = self.by_pid.get(&pid)
            && self.processes.get(&id).is_some_and(|p| self.host_of(p.launch) == *launch)
        {
            let errno = offset & ((1 << RANK_SHIFT) - 1);
            return self.ghost_back(id, token, u32::try_from(errno).unwrap_or(0));
        }
        let rank = offset >> RANK_SHIFT;
        let Some(launch) = self.launches.get(launch) else { return self.act(Action::RefuseRead { token }) };
        let id = usize::try_from(rank).ok().and_then(|rank| launch.ranks.get(rank).copied().flatten());
        let forked = u32::try_from(rank).ok().and_then(|rank| launch.forked.get(&rank).copied());
        let (parent, uid) = (launch.user.pid, launch.user.uid);
        if let Some(id) = forked
            && pid != 0
            && offset.is_multiple_of(1 << RANK_SHIFT)
        {
            return self.forked_ghost_comes(id, token, pid, uid);
        }
        let process = id.and_then(|id| self.processes.get_mut(&id).map(|p| (id, p)));
        match process {
            Some((id, process))
                if matches!(process.ghost, Ghost::Awaited) && pid != 0 && offset.is_multiple_of(1 << RANK_SHIFT) =>
            {
                if process.remote != Remote::Planned {
                    // The rank was cancelled before its ghost came.
                    process.ghost = Ghost::Gone;
                    self.act(Action::AnswerGhost { token, answer: Answer::Exit(125) });
                    return self.clear_process(id);
                }
                process.ghost = Ghost::Arriving;
                process.pid = pid;
                let tag = tag_of(process.node, None);
                self.act(Action::Adopt { process: id, token, pid, parent: Some(parent), uid, tag });
            }
            _ => self.act(Action::RefuseRead { token }),
        }
    }

    /// The file of a launch that was there before: its ghosts sleep on it. Who sleeps on it is of this launch, also if its parent is dead.
    fn know_file(&mut self, file: u64, pid: u32) {
        if let Some(&launch) = self.by_file.get(&file)
            && let Some(&id) = self.by_pid.get(&pid)
            && self.processes.get(&id).is_some_and(|process| process.found && process.launch == LaunchId::default())
        {
            self.enlist(id, launch);
        }
        if !self.by_file.contains_key(&file)
            && let Some(process) = self.by_pid.get(&pid).and_then(|id| self.processes.get(id))
            && let Some(launch) = self.launches.get_mut(&process.launch)
            && launch.file.is_none()
        {
            launch.file = Some(file);
            self.by_file.insert(file, process.launch);
        }
    }

    /// The ghost has been told that it is watched: from now on it is the process's ghost.
    pub(super) fn ghost_adopted(&mut self, id: ProcId, ok: bool, pgid: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !ok {
            // Whoever it was, the real ghost may still come.
            process.ghost = match (&process.fork, &process.ghost) {
                (None, _) => Ghost::Awaited,
                (Some(_), Ghost::Awake { next }) => Ghost::Expected { next: *next },
                (Some(_), _) => Ghost::Expected { next: None },
            };
            process.pid = 0;
            return;
        }
        process.ghost_pgid = pgid;
        self.unborn.remove(&id);
        // What it is to be told already waits for its next read.
        if matches!(process.ghost, Ghost::Arriving) {
            process.ghost = Ghost::Awake { next: None };
        }
        let pid = process.pid;
        self.by_pid.insert(pid, id);
        self.view_born(id);
        self.place(id);
        if self.processes.get(&id).is_some_and(|p| p.remote == Remote::Planned) {
            self.spawn(id);
            self.forward_forestalled(id);
        }
    }

    /// `errno`: how it went what the ghost was told.
    fn ghost_back(&mut self, id: ProcId, token: ReadToken, errno: u32) {
        self.release_held_back(id);
        self.order_done(id, errno);
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.remote != Remote::Planned {
            // All that waited, blocked, has been seen.
            process.forestalled = 0;
            process.forestalled_realtime.clear();
        }
        match &mut process.ghost {
            Ghost::Awake { next } => {
                let next = next.take();
                self.by_read.insert(token.unique(), id);
                process.ghost = Ghost::Asleep(token);
                // What it is to do for others comes before its own end.
                let busy = self.serve_order(id);
                let strays = self.strays.contains_key(&id);
                match (next, self.processes.get_mut(&id)) {
                    // First into its group.
                    (Some(Answer::Stop(signal)), Some(process)) if strays => process.stop_later = Some(signal),
                    (Some(answer), Some(process)) if busy => process.ghost = Ghost::Awake { next: Some(answer) },
                    (Some(answer), _) => self.answer_ghost(id, answer),
                    (None, _) => {
                        self.restless.remove(&id);
                        if !busy && self.should_stop(id) {
                            self.answer_ghost(id, Answer::Stop(libc::SIGSTOP as u8));
                        } else if !busy {
                            self.maker_comes(id);
                        }
                    }
                }
            }
            Ghost::Leaving { last } => {
                let answer = *last;
                self.act(Action::AnswerGhost { token, answer });
            }
            // One read at a time: a second one is not the ghost's code.
            Ghost::Asleep(_) | Ghost::Arriving | Ghost::Awaited | Ghost::Expected { .. } | Ghost::Gone => {
                self.act(Action::RefuseRead { token });
            }
        }
    }

    /// Something wants a sleeping ghost to wake. The signals that were sent before are known already.
    pub(super) fn pin_interrupted(&mut self, unique: u64) {
        let Some(&id) = self.by_read.get(&unique) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.killed {
            // It goes when its process is dead, not before.
            return;
        }
        if process.signals.holds_stop() {
            // It stops when its process has stopped.
            process.interrupt_wanted = true;
            return;
        }
        self.interrupt_ghost(id);
    }

    pub(super) fn interrupt_ghost(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.interrupt_wanted = false;
        if let Ghost::Asleep(_) = process.ghost
            && let Ghost::Asleep(token) = std::mem::replace(&mut process.ghost, Ghost::Awake { next: None })
        {
            self.by_read.remove(&token.unique());
            self.act(Action::InterruptGhost { token });
        }
    }

    /// Awake and stopped although its process runs or is over: SIGCONT, and again at each tick until it reads or is dead.
    /// Each time its launcher, too, which stops when it sees its last ghost stopped.
    pub(super) fn continue_ghost(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        if process.pid != 0 {
            self.act(Action::ContinueGhost { process: id, pid: process.pid });
        }
        self.wake_launcher_of(id);
    }

    /// The kernel says that a ghost's or a launcher's task has ended.
    pub(super) fn ghost_exited(&mut self, ghost: u64, launcher: bool, pid: u32) {
        if launcher {
            // The end of its connection says the same, also for what it has not made ghosts of; if there is one.
            return self.launcher_gone(LaunchId(ghost));
        }
        let id = ProcId(ghost);
        if let Some(process) = self.processes.get_mut(&id) {
            if process.pid != 0 && pid != 0 && process.pid != pid {
                // One that was made besides the true one, and has been refused.
                return;
            }
            // It may have been killed before it came.
            process.pid = process.pid.max(pid);
            // What it has sent was seen before its end.
            self.acting.remove(&process.pid);
        }
        self.ghost_lost(id);
    }

    /// The client says that a ghost is dead: one that died before it was watched, or whose end was not reported.
    pub(super) fn ghost_died(&mut self, client: ClientId, message: &client::GhostDied) {
        let Some(id) = self.rank_of(client, message.rank) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        if matches!(process.ghost, Ghost::Awaited | Ghost::Arriving) && process.remote == Remote::Planned {
            process.ghost = Ghost::Gone;
            self.end_outputs(id);
            let status = WaitStatus::from_raw(message.status).unwrap_or(WaitStatus::KILLED);
            return self.ended(id, status, false, None);
        }
        if matches!(process.ghost, Ghost::Asleep(_)) {
            // Who sleeps here is not dead (a stranger's read was taken for the ghost's, or the client is wrong): it goes
            // when the process is dead.
            return self.forward(id, Forward::kill());
        }
        self.ghost_lost(id);
    }

    /// A ghost is dead. If its process is not, the process follows.
    fn ghost_lost(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let Ghost::Asleep(token) = std::mem::replace(&mut process.ghost, Ghost::Gone) {
            // Not the ghost's own code, if another thread of it is left to sleep here: no read is ever forgotten.
            self.by_read.remove(&token.unique());
            self.act(Action::AnswerGhost { token, answer: Answer::Die(libc::SIGKILL as u8) });
        }
        self.restless.remove(&id);
        self.view_over(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        if self.by_pid.get(&process.pid) == Some(&id) {
            // The number is free as soon as its parent reaps it.
            self.by_pid.remove(&process.pid);
        }
        if process.remote.is_live() {
            self.forward(id, Forward::kill());
        }
        self.ghost_of_tree_gone(id);
        self.clear_process(id);
    }

    /// Signals whose records were lost: standard ones are sent once, as the kernel itself would merge them.
    pub(super) fn ghost_state(&mut self, id: ProcId, signals: u64, exited: bool) {
        // SIGCONT last: of a stop and a continue whose order is lost, the one is believed that leaves nothing hanging.
        let cont = libc::SIGCONT as u16;
        for signal in (1..=64).filter(|&signal| signal != cont).chain([cont]) {
            if signals & (1 << (signal - 1)) != 0 {
                self.ghost_signalled(id, signal);
                self.forward(id, Forward::from_kernel(u32::from(signal), Scope::Process));
            }
        }
        if exited {
            self.ghost_lost(id);
        }
    }
}
