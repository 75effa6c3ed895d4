//! Signals: from the ghost to the process, and stops and continues back to the ghost.

use std::collections::BTreeSet;

use ghost_abi::{Scope as Aim, SignalFlags, SignalRecord};
use ghost_proto::ids::{LaunchId, ProcId};
use ghost_proto::node::{self, MasterToNode, Scope};
use ghost_sys::ghost::Answer;
use nix::libc;

use super::signal_queue::MOST;
use super::tree::GroupCall;
use super::types::{Ghost, Remote};
use super::{Action, Core};

/// SI_KERNEL, include/uapi/asm-generic/siginfo.h.
const SI_KERNEL: i32 = 0x80;
const SI_TKILL: i32 = -6;
const SI_USER: i32 = 0;

/// Numbers from here on name signals that no record tells of.
const UNRECORDED: u64 = 1 << 63;
/// So far below the oldest unconfirmed signal records are taken to be in order.
const DISORDER: u64 = 1024;

/// A signal on its way to a process.
pub(super) struct Forward {
    /// The record's that tells of it, or of the call whose first record it was; 0: no record does.
    number: u64,
    signal: u32,
    scope: Scope,
    code: i32,
    value: u64,
    sender_pid: u32,
    sender_uid: u32,
    sender_euid: u32,
    privileged: bool,
}

impl Forward {
    /// What the kernel itself sends here.
    pub(super) const fn from_kernel(signal: u32, scope: Scope) -> Forward {
        Forward {
            number: 0,
            signal,
            scope,
            code: SI_KERNEL,
            value: 0,
            sender_pid: 0,
            sender_uid: 0,
            sender_euid: 0,
            privileged: true,
        }
    }

    pub(super) const fn kill() -> Forward {
        Forward::from_kernel(libc::SIGKILL as u32, Scope::Process)
    }

    /// What a user's process has sent that nobody here has seen.
    pub(super) const fn from_user(signal: u32, scope: Scope, pid: u32, uid: u32) -> Forward {
        let kernels = Forward::from_kernel(signal, scope);
        Forward { code: SI_USER, sender_pid: pid, sender_uid: uid, sender_euid: uid, privileged: false, ..kernels }
    }

    pub(super) fn of(record: &SignalRecord, scope: Scope) -> Forward {
        Forward {
            number: if scope == Scope::Group && record.call != 0 { record.call } else { record.seq },
            signal: u32::from(record.sig),
            scope,
            code: record.si_code,
            value: record.value,
            sender_pid: u32::try_from(record.sender_pid).unwrap_or(0),
            sender_uid: record.sender_uid,
            sender_euid: record.sender_euid,
            privileged: record.has(SignalFlags::KERNEL) || record.has(SignalFlags::PRIVILEGED),
        }
    }
}

/// Ticks at which a launcher is continued again.
const WAKES: u8 = 8;

pub(super) const fn bit(signal: u16) -> u64 {
    1 << (signal - 1)
}

/// Adds a signal to those that wait: SIGCONT takes away the stops that wait, a stop takes away SIGCONT (kernel/signal.c,
/// prepare_signal()).
pub(super) const fn forestalled_with(waiting: u64, signal: u16) -> u64 {
    const CONT: u64 = bit(libc::SIGCONT as u16);
    const STOPS: u64 =
        bit(libc::SIGSTOP as u16) | bit(libc::SIGTSTP as u16) | bit(libc::SIGTTIN as u16) | bit(libc::SIGTTOU as u16);
    let new = bit(signal);
    if new == CONT {
        waiting & !STOPS | new
    } else if new & STOPS != 0 {
        waiting & !CONT | new
    } else {
        waiting | new
    }
}

impl Core {
    pub(super) fn signal_seen(&mut self, record: SignalRecord) {
        if !(1..=64).contains(&record.sig) {
            return;
        }
        self.last_record = self.last_record.max(record.seq);
        if record.has(SignalFlags::LAUNCHER) {
            return self.launcher_signalled(&record);
        }
        let id = ProcId(record.ghost);
        let Some(process) = self.processes.get_mut(&id) else { return };
        if record.has(SignalFlags::DELIVERED) && process.forestalled & bit(record.sig) != 0 {
            // It was forwarded when the launcher's group got it, because this ghost was not watched yet.
            process.forestalled &= !bit(record.sig);
            return;
        }
        let forestalled = &mut process.forestalled_realtime;
        if record.has(SignalFlags::DELIVERED)
            && let Some(at) = forestalled.iter().position(|one| *one == (record.sig, record.value))
        {
            forestalled.remove(at);
            return;
        }
        if let Some(held_back) = &mut process.held_back
            && ghost_abi::is_realtime(usize::from(record.sig))
            && !record.has(SignalFlags::DELIVERED)
        {
            if held_back.len() < MOST {
                held_back.push(record);
            }
            return;
        }
        self.ghost_signalled(id, record.sig);
        self.forward_record(id, &record);
        self.launcher_there_signalled(id, &record);
    }

    /// The ghost has acted on all that was sent to it while it had its signals blocked.
    pub(super) fn release_held_back(&mut self, id: ProcId) {
        let held_back = self.processes.get_mut(&id).and_then(|process| process.held_back.take());
        for record in held_back.unwrap_or_default() {
            self.forward_record(id, &record);
        }
    }

    fn forward_record(&mut self, id: ProcId, record: &SignalRecord) {
        if self.is_of_the_window_here(id, record) {
            return;
        }
        if record.scope() != Aim::Group {
            // Of a ghost's threads there is only one: it stands for the process's first.
            let scope = if record.si_code == SI_TKILL { Scope::Thread } else { Scope::Process };
            return self.forward(id, Forward::of(record, scope));
        }
        // Each ghost of the group has its own record of the call; the node gets it once, for all that are in the group there. The ghost
        // of a dead process, a zombie among them, has one too, and speaks for nobody.
        if !self.processes.get(&id).is_some_and(|process| process.remote.is_live()) {
            return;
        }
        let mut signal = Forward::of(record, Scope::Group);
        match self.group_call(id, record.call) {
            GroupCall::New => {}
            GroupCall::Known => return,
            GroupCall::Again => signal.number = record.seq,
        }
        // Where the sender is, the kernel has done that part.
        if !self.has_it_already(id, record) {
            self.forward(id, signal);
        }
        self.forestall_group(id, record.sig, record.value);
    }

    /// What a signal has done to the ghost itself.
    pub(super) fn ghost_signalled(&mut self, id: ProcId, signal: u16) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        match i32::from(signal) {
            libc::SIGKILL => process.killed = true,
            libc::SIGSTOP => {
                process.ghost_stopped = true;
                self.waking.remove(&process.launch);
            }
            libc::SIGCONT => {
                process.ghost_stopped = false;
                self.wake_launcher_of(id);
                self.maker_comes(id);
            }
            _ => {}
        }
    }

    /// A launcher stops itself when all its ghosts are stopped. One of them is not any more, and the launcher can see it:
    /// the ghost's own SIGCONT, or its death, comes before this one.
    pub(super) fn wake_launcher(&mut self, launch: LaunchId) {
        if self.is_to_end(launch) {
            return;
        }
        // SIGSTOP to oneself cannot be made to wait for anything: the launcher may be about to send it.
        self.waking.insert(launch, WAKES);
        self.wake_launcher_now(launch);
    }

    /// Of the processes only those that were launched keep their launcher from stopping.
    pub(super) fn wake_launcher_of(&mut self, id: ProcId) {
        if let Some(process) = self.processes.get(&id)
            && process.is_launched()
        {
            let launch = process.launch;
            self.wake_launcher(launch);
        }
    }

    fn wake_launcher_now(&mut self, id: LaunchId) {
        if let Some(launch) = self.launches.get(&id)
            && !launch.launcher_stopped
            && !launch.ended
        {
            if let Some(via) = launch.via {
                return self.wake_launcher_there(via);
            }
            // One that is stopped cannot come back before it goes on.
            let action = match launch.absent {
                true => Action::ContinueAbsent { launch: id, pid: launch.user.pid },
                false => Action::ContinueLauncher { client: launch.client },
            };
            self.act(action);
        }
    }

    /// At each tick: launchers that may have missed that they are to go on.
    pub(super) fn wake_launchers_again(&mut self) {
        for launch in self.waking.keys().copied().collect::<Vec<_>>() {
            self.wake_launcher_now(launch);
        }
        self.waking.retain(|_, left| {
            *left -= 1;
            *left > 0
        });
    }

    /// A signal to the launcher itself. Sent to it alone it is meant for what it launched; of one for its group each
    /// ghost has its own record, unless it is not watched yet.
    fn launcher_signalled(&mut self, record: &SignalRecord) {
        let Some(launch) = self.launches.get_mut(&LaunchId(record.ghost)) else { return };
        match i32::from(record.sig) {
            // Of its own stop its processes know nothing, as a stopped parent's children.
            libc::SIGSTOP => {
                launch.launcher_stopped = true;
                return;
            }
            libc::SIGKILL => return,
            libc::SIGCONT => launch.launcher_stopped = false,
            _ => {}
        }
        let ranks: Vec<ProcId> = launch.ranks.iter().flatten().copied().collect();
        let alone = record.scope() == Aim::Process;
        let mut shared = Vec::new();
        for id in ranks {
            let Some(process) = self.processes.get_mut(&id) else { continue };
            let unwatched = matches!(process.ghost, Ghost::Awaited | Ghost::Arriving);
            if unwatched && process.remote == Remote::Planned {
                process.forestalled = forestalled_with(process.forestalled, record.sig);
            } else if alone {
                let (node, group) = (process.node, self.group_there(id));
                if self.shares_group(id) && !shared.contains(&(node, group)) {
                    shared.push((node, group));
                }
                self.forward(id, Forward::of(record, self.scope_of_own(id)));
            }
        }
        // What they have forked, as far as it is still in their group, which is not theirs alone.
        for id in self.forked_in(LaunchId(record.ghost), &shared) {
            self.forward(id, Forward::of(record, Scope::Process));
        }
    }

    /// What came for the launcher's group before this ghost was watched.
    pub(super) fn forward_forestalled(&mut self, id: ProcId) {
        let Some(process) = self.processes.get(&id) else { return };
        for signal in (1..=64).filter(|signal| process.forestalled & bit(*signal) != 0).collect::<Vec<u16>>() {
            self.forward(id, Forward::from_kernel(u32::from(signal), self.scope_of_own(id)));
        }
    }

    pub(super) fn forward(&mut self, id: ProcId, signal: Forward) {
        let seq = if signal.number == 0 { self.unrecorded_number() } else { signal.number };
        let (settled, group) = (self.settled, self.group_there(id));
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.remote.is_live() {
            return;
        }
        let number = process.node;
        let Some(node) = self.nodes.get(&number) else { return };
        let message = node::Signal {
            proc: id.0,
            seq,
            signal: signal.signal,
            scope: signal.scope as i32,
            value: signal.value,
            sender_pid: signal.sender_pid,
            sender_uid: signal.sender_uid,
            sender_euid: signal.sender_euid,
            privileged: signal.privileged,
            code: signal.code,
            confirm: true,
            group: if signal.scope == Scope::Group { group } else { 0 },
            settled,
        };
        // One of a ghost that was found may have been dealt with already: it must not stand for a later one.
        let now = self.now;
        self.counts.signals_forwarded += 1;
        if process.signals.push(message.clone(), now, node.link.is_some() || process.found) {
            self.tell_node(number, MasterToNode::Signal(message));
        }
        self.settle_interrupt(id);
    }

    /// Never 0, and never given by a ghostd before this one (but by a chance of one in 2^62).
    fn unrecorded_number(&mut self) -> u64 {
        self.unrecorded = self.unrecorded.wrapping_add(1);
        self.unrecorded | UNRECORDED
    }

    /// Numbers of signals of which records tell and which are not confirmed yet.
    pub fn open_signals(&self) -> BTreeSet<u64> {
        let queued = self.processes.values().flat_map(|p| p.signals.iter().map(|signal| signal.seq));
        let held_back = self.processes.values().flat_map(|p| p.held_back.iter().flatten().map(|record| record.seq));
        queued.chain(held_back).filter(|number| *number < UNRECORDED).collect()
    }

    /// Nodes have been told, or may be, that no signal below this number comes again.
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// From now on nodes are told that what was settled the last time this was called does not come again.
    pub(super) fn settle_signals(&mut self) {
        self.settled = self.next_settled;
        let oldest = self.open_signals().first().copied().unwrap_or(self.last_record);
        self.next_settled = self.settled.max(oldest.min(self.last_record).saturating_sub(DISORDER));
    }

    pub(super) fn signal_done(&mut self, id: ProcId, seq: u64, errno: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let done = process.signals.confirm(seq).map(|(signal, since)| {
            self.counts.signal_time.observe(self.now.saturating_sub(since));
            let outcome =
                if errno == 0 { &mut self.counts.signals_delivered } else { &mut self.counts.signals_refused };
            *outcome += 1;
            signal
        });
        if errno == 0 && done.as_ref().is_some_and(|signal| signal.signal == libc::SIGCONT as u32) {
            process.stopped = false;
        }
        let refused = errno != 0 && done.is_some_and(|signal| signal.signal == libc::SIGSTOP as u32);
        self.settle_interrupt(id);
        if refused
            && let Some(process) = self.processes.get_mut(&id)
            && std::mem::take(&mut process.ghost_stopped)
        {
            // The process has become somebody else's and runs on: so does its ghost.
            self.restless.insert(id);
        }
    }

    /// Ends an interrupted read when no stop is on its way any more. A killed ghost's does not end before its process.
    fn settle_interrupt(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.interrupt_wanted && !process.killed && !process.signals.holds_stop() {
            self.interrupt_ghost(id);
        }
    }

    /// A process has stopped. Its ghost stops by the same signal, unless SIGSTOP has stopped it already.
    pub(super) fn stopped(&mut self, id: ProcId, signal: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.remote.is_live() {
            return;
        }
        process.stopped = true;
        self.tell_standing_still(id, Some(signal));
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.signals.holds_continue() {
            // Over already: the ghost has its SIGCONT, and would stop once more, seen by everybody.
            return;
        }
        self.waking.remove(&process.launch);
        self.restless.remove(&id);
        if !process.ghost_stopped && !process.killed {
            let signal = u8::try_from(signal).unwrap_or(libc::SIGSTOP as u8);
            process.stop_later = Some(signal);
            // First into its group, and to whom it has to wait for: stopped it would do nothing any more.
            self.stop_now(id);
        }
    }

    /// A stopped process's ghost stops, if it is where it belongs and has waited for whom it has to.
    pub(super) fn stop_now(&mut self, id: ProcId) {
        if self.strays.contains_key(&id) || self.has_to_reap(id) {
            return;
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        if let Some(signal) = process.stop_later.take()
            && process.stopped
            && process.remote.is_live()
            && !process.killed
        {
            self.answer_ghost(id, Answer::Stop(signal));
        }
    }

    /// A ghost reads though its process is stopped, and nobody has told either to go on: the kernel has, when it took its group here
    /// for orphaned (kernel/exit.c, `kill_orphaned_pgrp()`). What is true of the process its node's kernel has said.
    pub(super) fn should_stop(&self, id: ProcId) -> bool {
        self.processes.get(&id).is_some_and(|process| {
            (!process.is_launched() || process.leads_session)
                && process.stopped
                && !process.killed
                && !process.ghost_stopped
                && process.stop_later.is_none()
                && process.remote.is_live()
                && !process.signals.holds_continue()
        })
    }

    /// A process goes on. Its ghost, if it is stopped, does too.
    pub(super) fn continued(&mut self, id: ProcId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.remote.is_live() {
            return;
        }
        process.stopped = false;
        process.ghost_stopped = false;
        process.stop_later = None;
        if let Ghost::Awake { next } | Ghost::Expected { next } = &mut process.ghost
            && matches!(next, Some(Answer::Stop(_)))
        {
            *next = None;
        }
        if let Ghost::Awake { .. } = process.ghost {
            self.restless.insert(id);
            self.continue_ghost(id);
        }
        self.tell_standing_still(id, None);
        self.wake_launcher_of(id);
        self.maker_comes(id);
    }
}
