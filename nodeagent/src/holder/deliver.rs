//! Sending a signal as if a process of the master had sent it.
//!
//! kill(2)'s rule is asked of the process as it is at this moment: the sender's real or effective user must be its real or
//! saved one. The answer can be out of date when the signal goes out; what a sender can reach by that is a signal to a
//! process that becomes another user's a moment later, which he could have sent a moment earlier, too.

use std::os::fd::OwnedFd;

use ghost_proto::node::Scope;
use ghost_sys::pidfd::{self, SignalInfo, Target};

use super::event::Order;
use super::processes;

const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;

/// Sends `order` to a process that the caller has not yet reaped, so that its number is still its own. Gives 0 or an errno.
/// `starting`: members of its group that get the group's signals by themselves.
pub fn deliver(pid: u32, process: &OwnedFd, order: &Order, starting: &[u32]) -> i32 {
    let info = SignalInfo {
        signal: i32::from(order.signal),
        code: if order.code < 0 && order.code != SI_TKILL { order.code } else { SI_QUEUE },
        pid: order.sender_pid.cast_signed(),
        uid: order.sender_uid,
        value: order.value,
    };
    let result = match order.scope {
        Scope::Process | Scope::Thread if !may(order, pid) => Err(libc::EPERM),
        Scope::Thread => match errno(pidfd::send(process, info, Target::Thread)) {
            // Before Linux 6.9.
            Err(libc::EINVAL) => errno(pidfd::send(process, info, Target::Process)),
            sent => sent,
        },
        Scope::Process => errno(pidfd::send(process, info, Target::Process)),
        Scope::Group => deliver_group(pid, process, info, order, starting),
    };
    result.err().unwrap_or(0)
}

fn deliver_group(pid: u32, process: &OwnedFd, info: SignalInfo, order: &Order, starting: &[u32]) -> Result<(), i32> {
    let pgid = processes::stat(pid).ok_or(libc::ESRCH)?.pgid;
    // SIGKILL cannot reach anybody twice, and is to reach all at once.
    let without = if info.signal == libc::SIGKILL { &[] } else { starting };
    if !order.privileged || !without.is_empty() {
        let members: Vec<u32> = processes::all()
            .into_iter()
            .filter(|&pid| processes::stat(pid).is_some_and(|stat| stat.pgid == pgid) && !without.contains(&pid))
            .collect();
        let allowed: Vec<u32> = members.iter().copied().filter(|&pid| may(order, pid)).collect();
        if allowed.len() < members.len() || !without.is_empty() {
            return deliver_each(&allowed, info);
        }
    }
    let sent = if pgid == pid {
        errno(pidfd::send(process, info, Target::Group))
    } else {
        // Its leader may be gone, and its descriptor with it.
        pidfd::open(pgid).map_or(Err(libc::EINVAL), |leader| errno(pidfd::send(&leader, info, Target::Group)))
    };
    match sent {
        // Before Linux 6.9 there is no such flag. The sender is not told then.
        Err(libc::EINVAL) => errno(pidfd::kill(-pgid.cast_signed(), info.signal)),
        sent => sent,
    }
}

/// As kill(2) to a group does it: some are not allowed, at least one must be.
fn deliver_each(allowed: &[u32], info: SignalInfo) -> Result<(), i32> {
    let mut result = Err(libc::EPERM);
    for &pid in allowed {
        let sent =
            pidfd::open(pid).map_or(Err(libc::ESRCH), |member| errno(pidfd::send(&member, info, Target::Process)));
        if sent.is_ok() || result == Err(libc::EPERM) {
            result = sent;
        }
    }
    result
}

/// kill(2), "Permissions". SIGCONT passes within a session, which the master's kernel has seen to: it let the signal reach
/// the ghost.
fn may(order: &Order, pid: u32) -> bool {
    let same = |user: u32| user == order.sender_uid || user == order.sender_euid;
    order.privileged
        || i32::from(order.signal) == libc::SIGCONT
        || processes::users(pid).is_some_and(|users| users.into_iter().any(same))
}

fn errno(result: std::io::Result<()>) -> Result<(), i32> {
    result.map_err(|why| why.raw_os_error().unwrap_or(libc::EINVAL))
}
