//! What comes with a signal: code, sender, user, value, order, and how many.

use anyhow::{Context, Result};
use ghost_sys::pidfd::SignalInfo;
use ghost_sys::quiet::bit;
use ghost_sys::signal::{queue, send, send_to_thread, set_blocked};
use ghost_sys::signal_wait;

use crate::asking::{ask, sender};
use crate::case::Case;

pub const CASES: &[Case] = &[
    Case::own("killed-with-sender", || from_observer("signal 10", 10)),
    Case::own("queued-with-value", || from_observer("queue 12 81985529216486895", 12)),
    Case::own("queued-real-time-with-value", || from_observer("queue 40 7", 40)),
    Case::own("thread-killed-with-sender", || from_observer("thread-signal 10", 10)),
    Case::own("killed-by-32", || from_observer("signal 32", 32)),
    Case::own("killed-by-64", || from_observer("signal 64", 64)),
    Case::own("killed-by-root", || from_observer("signal 15", 15)).root(),
    Case::own("real-time-in-order", real_time_in_order),
    Case::own("standard-coalesce", standard_coalesce),
    Case::own("lowest-first", lowest_first),
    Case::own("by-itself", by_itself),
    Case::own("queued-by-itself", queued_by_itself),
    Case::own("by-its-child", by_its_child),
    Case::own("by-an-alarm", by_an_alarm),
    Case::own("child-exited", child_exited),
    Case::own("child-killed", child_killed),
    Case::own("child-stopped-and-continued", child_stopped),
    Case::own("group-signal-with-sender", || from_observer("group-signal 10; leader", 10)),
];

/// Name of a si_code of a signal that a process has sent, or the kernel.
pub fn code(info: &SignalInfo) -> String {
    match (info.code, info.signal) {
        (0, _) => "SI_USER".into(),
        (-1, _) => "SI_QUEUE".into(),
        (-6, _) => "SI_TKILL".into(),
        (128, _) => "SI_KERNEL".into(),
        (1, 17) => "CLD_EXITED".into(),
        (2, 17) => "CLD_KILLED".into(),
        (5, 17) => "CLD_STOPPED".into(),
        (6, 17) => "CLD_CONTINUED".into(),
        (other, _) => format!("code {other}"),
    }
}

/// A signal as it came.
pub fn told(info: &SignalInfo) -> String {
    let value = match info.code {
        -1 => format!(", value {}", info.value),
        _ if info.signal == 17 && info.code > 0 => format!(", status {}", info.value as u32),
        _ => String::new(),
    };
    format!("signal {} {} from {} of user {}{value}", info.signal, code(info), sender(info.pid), info.uid)
}

fn from_observer(steps: &str, signal: i32) -> Result<()> {
    set_blocked(bit(signal))?;
    ask(steps)?;
    say!("{}", told(&signal_wait::next(bit(signal))?));
    Ok(())
}

/// Takes so many signals of these.
fn take(mask: u64, count: usize) -> Result<()> {
    for _ in 0..count {
        say!("{}", told(&signal_wait::next(mask)?));
    }
    Ok(())
}

fn real_time_in_order() -> Result<()> {
    set_blocked(bit(50) | bit(60))?;
    let steps: Vec<String> = (0..20).map(|value| format!("queue 50 {value}")).collect();
    ask(&steps.join("; "))?;
    // The last one comes after all others, which have come by then.
    ask("queue 60 99")?;
    take(bit(60), 1)?;
    take(bit(50), 20)
}

fn standard_coalesce() -> Result<()> {
    set_blocked(bit(10) | bit(60))?;
    ask("signal 10; signal 10; signal 10; queue 60 1")?;
    take(bit(60), 1)?;
    take(bit(10), 1)?;
    let pending = ghost_sys::quiet::pending();
    say!("pending after one: {}", pending & bit(10) != 0);
    Ok(())
}

fn lowest_first() -> Result<()> {
    let all = [60, 12, 45, 1, 10, 33];
    let mask = all.iter().fold(0, |mask, signal| mask | bit(*signal)) | bit(64);
    set_blocked(mask)?;
    let steps: Vec<String> = all.iter().map(|signal| format!("signal {signal}")).collect();
    ask(&steps.join("; "))?;
    ask("signal 64")?;
    take(bit(64), 1)?;
    take(mask, all.len())
}

fn by_itself() -> Result<()> {
    let own = std::process::id().cast_signed();
    set_blocked(bit(10) | bit(12))?;
    send(own, 10)?;
    send_to_thread(own, 12)?;
    take(bit(10), 1)?;
    take(bit(12), 1)
}

fn queued_by_itself() -> Result<()> {
    let own = std::process::id().cast_signed();
    set_blocked(bit(44))?;
    for value in [3, 1, 2] {
        queue(own, 44, value)?;
    }
    take(bit(44), 3)
}

fn by_its_child() -> Result<()> {
    set_blocked(bit(10) | bit(17))?;
    let own = std::process::id().cast_signed();
    let child = ghost_sys::trials::fork(|| u8::from(send(own, 10).is_err()))?;
    let info = signal_wait::next(bit(10))?;
    say!("signal {} {} from its child: {}", info.signal, code(&info), info.pid == child);
    signal_wait::next(bit(17))?;
    Ok(())
}

fn by_an_alarm() -> Result<()> {
    set_blocked(bit(14))?;
    nix::unistd::alarm::set(1);
    take(bit(14), 1)
}

fn child_told(mask: u64, child: i32) -> Result<()> {
    let info = signal_wait::next(mask)?;
    say!("signal {} {} status {} child {}", info.signal, code(&info), info.value as u32, info.pid == child);
    Ok(())
}

fn child_exited() -> Result<()> {
    set_blocked(bit(17))?;
    let child = ghost_sys::trials::fork(|| 77)?;
    child_told(bit(17), child)
}

fn child_killed() -> Result<()> {
    set_blocked(bit(17))?;
    let child = ghost_sys::trials::fork(sleeps)?;
    send(child, 9)?;
    child_told(bit(17), child)
}

fn child_stopped() -> Result<()> {
    set_blocked(bit(17))?;
    let child = ghost_sys::trials::fork(sleeps)?;
    for signal in [19, 18, 9] {
        send(child, signal).with_context(|| format!("signal {signal}"))?;
        child_told(bit(17), child)?;
    }
    Ok(())
}

/// A child that is there until it is killed.
pub fn sleeps() -> u8 {
    std::thread::sleep(std::time::Duration::from_secs(60));
    1
}
