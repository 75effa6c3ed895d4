//! The holder on the real kernel: signals.

mod support;

use ghost_proto::node::*;
use support::*;

/// Prints signal, code, sender and value of what it gets, as python sees them.
const RECORDER: &str = "
import signal, os, sys
mask = set(range(1, 65)) - {9, 19, 32, 33}
signal.pthread_sigmask(signal.SIG_BLOCK, mask)
print('ready', flush=True)
while True:
    info = signal.sigwaitinfo(mask)
    print('%d %d %d %d' % (info.si_signo, info.si_code, info.si_pid, info.si_uid), flush=True)
    if info.si_signo == 15: break
";

fn python() -> bool {
    let there = std::process::Command::new("python3").arg("-c").arg("").status().is_ok_and(|status| status.success());
    if !there {
        println!("Skipped(no python3): nothing here records signals with their sender");
    }
    there
}

#[test]
fn every_catchable_signal_arrives_with_its_sender() {
    if !root() || !python() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["python3", "-c", RECORDER]), 4321);
    link.started(1);
    link.wait_output(1, "ready");
    let numbers: Vec<i32> = (1..=64).filter(|n| ![9, 15, 19, 32, 33].contains(n)).chain([15]).collect();
    for &number in &numbers {
        assert_eq!(link.signal(signal(1, number)), 0, "signal {number}");
        link.wait_output(1, &format!("{number} -1 777 4321\n"));
    }
    assert_eq!(link.ended(1), 0);
}

#[test]
fn a_queued_signals_code_is_kept() {
    if !root() || !python() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["python3", "-c", RECORDER]), 4321);
    link.started(1);
    link.wait_output(1, "ready");
    // SI_USER and SI_TKILL cannot be claimed, SI_MESGQ can.
    for (code, seen) in [(0, -1), (-6, -1), (0x80, -1), (-3, -3)] {
        assert_eq!(link.signal(Signal { code, ..signal(1, 10) }), 0);
        link.wait_output(1, &format!("10 {seen} 777 4321\n"));
    }
}

#[test]
fn real_time_signals_are_counted_and_in_order_also_before_the_start() {
    if !root() || !python() {
        return;
    }
    const COUNTER: &str = "
import signal, ctypes
mask = set(range(34, 65))
class Info(ctypes.Structure):
    _fields_ = [('a', ctypes.c_int * 6), ('value', ctypes.c_uint64), ('rest', ctypes.c_uint64 * 12)]
libc = ctypes.CDLL(None)
info = Info()
words = (ctypes.c_ulong * 16)(*([~0 & (2**64 - 1)] * 16))
for i in range(3000):
    libc.sigwaitinfo(ctypes.byref(words), ctypes.byref(info))
    assert info.a[0] == 40 and info.value == i, (info.a[0], info.value, i)
print('all')
";
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let mut spec = program(&["python3", "-c", COUNTER]);
    spec.blocked = u64::MAX;
    link.spawn(1, spec, 4321);
    for value in 0..3000 {
        link.send(MasterToNode::Signal(Signal { value, ..signal(1, 40) }));
    }
    let ran = link.follow(1);
    assert_eq!((ran.stdout().as_str(), ran.stderr().as_str()), ("all\n", ""));
}

#[test]
fn the_senders_rights_count_against_the_process_as_it_is() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["/bin/sleep", "100"]), 4321);
    // A program of the user that has become root's: its real and saved user are not his.
    link.spawn(2, program(&["/bin/sleep", "100"]), 0);
    link.started(1);
    link.started(2);
    let foreign = Signal { sender_uid: 5000, sender_euid: 5001, ..signal(1, 15) };
    assert_eq!(link.signal(foreign), libc::EPERM.unsigned_abs());
    assert_eq!(link.signal(signal(2, 15)), libc::EPERM.unsigned_abs());
    assert_eq!(link.signal(Signal { privileged: true, ..signal(2, 15) }), 0);
    assert_eq!(link.signal(Signal { sender_uid: 5000, ..signal(1, 15) }), 0, "the effective user counts, too");
    assert_eq!(link.ended(1), 15);
    assert_eq!(link.ended(2), 15);
    assert_eq!(link.signal(signal(1, 15)), libc::ESRCH.unsigned_abs());
}

#[test]
fn a_group_signal_reaches_every_member_once() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let script = "trap 'echo parent; kill $!; exit 5' USR1; (trap 'echo child; exit' USR1; while :; do sleep 0.01; done) & \
                  echo ready; wait; wait";
    for (proc, privileged) in [(1, false), (2, true)] {
        link.spawn(proc, shell(script), 4321);
        link.started(proc);
        link.wait_output(proc, "ready");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let order = Signal { scope: Scope::Group.into(), privileged, ..signal(proc, libc::SIGUSR1) };
        assert_eq!(link.signal(order), 0);
        let ended = link.ended(proc);
        // sh's child `sleep` is a member as well and dies by it: the shells' traps run after that.
        assert_eq!(ended, 5 << 8);
    }
}

#[test]
fn of_a_mixed_group_only_those_who_may_be_are_reached() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let script = "setpriv --reuid 5000 --clear-groups sleep 100 & sleep 0.3; echo ready; exec sleep 100";
    if !std::path::Path::new("/usr/bin/setpriv").exists() {
        println!("Skipped(no setpriv): nothing here changes its user");
        return;
    }
    link.spawn(1, shell(script), 0);
    link.started(1);
    link.wait_output(1, "ready");
    let group = Scope::Group.into();
    assert_eq!(link.signal(Signal { scope: group, ..signal(1, 15) }), libc::EPERM.unsigned_abs());
    let of_5000 = Signal { scope: group, sender_uid: 5000, sender_euid: 5000, ..signal(1, 15) };
    assert_eq!(link.signal(of_5000), 0);
    // The other is a zombie, which its parent does not wait for: it has no command line.
    let alive = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    eventually("root's own process alone lives", || holder.processes().iter().filter(|pid| alive(pid)).count() == 1);
    assert_eq!(link.signal(Signal { privileged: true, ..signal(1, 9) }), 0);
    assert_eq!(link.ended(1), 9);
}

/// 200 starts, each with a signal right behind it: what kills, kills; what stops can be continued.
#[test]
fn signals_on_the_heels_of_a_start() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    for proc in 1..=200 {
        link.spawn(proc, program(&["/bin/sleep", "100"]), 4321);
        match proc % 3 {
            0 => {
                link.send(MasterToNode::Signal(signal(proc, libc::SIGKILL)));
                assert_eq!(link.ended(proc), libc::SIGKILL);
            }
            1 => {
                link.send(MasterToNode::Signal(signal(proc, libc::SIGSTOP)));
                link.send(MasterToNode::Signal(signal(proc, libc::SIGCONT)));
                link.send(MasterToNode::Signal(signal(proc, libc::SIGTERM)));
                assert_eq!(link.ended(proc), libc::SIGTERM);
            }
            _ => {
                link.send(MasterToNode::Signal(signal(proc, libc::SIGSTOP)));
                link.wait_for(|got| {
                    matches!(got, Got::Message(NodeToMaster::Stopped(stopped)) if stopped.proc == proc).then_some(())
                });
                link.send(MasterToNode::Signal(signal(proc, libc::SIGKILL)));
                assert_eq!(link.ended(proc), libc::SIGKILL);
            }
        }
        link.send(MasterToNode::Forget(Forget { proc }));
    }
    eventually("nothing is left", || holder.processes().is_empty());
}
