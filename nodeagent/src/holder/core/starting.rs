//! Signals to a group some of whose members have not executed their programs yet: below a stand-in they are in its group from the
//! first.
//!
//! Until then such a process ignores what the stand-in ignores, and has the holder's rights: whatever it were sent would be lost, or refused.
//! So it gets a group's signal by itself, as soon as it can, and the others get it without it.

use ghost_proto::ids::ProcId;
use ghost_proto::node::Scope;

use super::super::event::{Action, Order};
use super::super::heard::Name;
use super::{Core, KILL, MOST_SIGNALS, Pending, Process};

impl Process {
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.life, super::Life::Starting)
    }

    /// One that has not executed its program gets a signal when it has. SIGKILL does not wait, if the sender may send it.
    fn start_with(&mut self, proc: ProcId, order: Order, confirm: Option<(u64, Name)>, actions: &mut Vec<Action>) {
        let mut order =
            Order { scope: if order.scope == Scope::Group { Scope::Process } else { order.scope }, ..order };
        let own = order.sender_uid == self.uid || order.sender_euid == self.uid;
        if order.signal == KILL && self.pid != 0 && (own || order.privileged) {
            // It has the holder's own rights until it has the user's, so the rule cannot be asked of the kernel.
            order.privileged = true;
            self.signals.push_front(Pending { order, confirm, give_up: None });
            self.sending = true;
            actions.push(Action::Signal { proc, pid: self.pid, order });
        } else {
            self.signals.push_back(Pending { order, confirm, give_up: None });
        }
    }
}

impl Core {
    /// Numbers of those of a group that have not executed their programs.
    pub fn starting_in(&self, group: u32) -> Vec<u32> {
        let starting = self.processes.values().filter(|process| process.is_starting() && process.group() == group);
        starting.map(|process| process.pid).filter(|pid| *pid != 0).collect()
    }

    /// A signal for one that has not executed its program; of one to its group another member that has takes care.
    pub(super) fn signal_starting(
        &mut self,
        proc: ProcId,
        order: Order,
        confirm: Option<(u64, Name)>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(process) = self.processes.get_mut(&proc) {
            process.start_with(proc, order, confirm, actions);
        }
        self.pass_on(proc, order, actions);
    }

    /// Those of a group that have not executed their programs get its signal by themselves, but for the one that has it already.
    pub(super) fn signal_other_starting(&mut self, but: ProcId, order: Order, actions: &mut Vec<Action>) {
        if order.scope != Scope::Group || order.group == 0 {
            return;
        }
        let others = self.processes.iter_mut().filter(|(id, process)| {
            **id != but
                && process.is_starting()
                && process.group() == order.group
                && process.signals.len() < MOST_SIGNALS
        });
        for (&id, process) in others {
            process.start_with(id, order, None, actions);
        }
    }
}
