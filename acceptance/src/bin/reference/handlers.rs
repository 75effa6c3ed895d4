//! Handlers: when they run, what they interrupt, and what they see.

use anyhow::Result;
use ghost_sys::quiet::bit;
use ghost_sys::signal::{Disposition, send, set_blocked, set_disposition};
use ghost_sys::trials::{How, entries, handle};
use nix::libc::{SA_NODEFER, SA_RESETHAND, SA_RESTART};

use crate::asking::{ask, just, read_line, then};
use crate::case::Case;
use crate::siginfo::told;

pub const CASES: &[Case] = &[
    Case::own("handles-a-signal", || handles("signal 10", 10)),
    Case::own("handles-a-queued-signal", || handles("queue 41 4242", 41)),
    Case::own("handles-term", || handles("signal 15", 15)),
    Case::own("interrupts-a-read", || interrupts(0)),
    Case::own("restarts-a-read", || interrupts(SA_RESTART)),
    Case::own("interrupts-a-sleep", interrupts_a_sleep),
    Case::own("handled-once", handled_once),
    Case::own("does-not-nest", || nests(0)),
    Case::own("nests-if-wanted", || nests(SA_NODEFER)),
    Case::own("mask-of-a-handler", mask_of_a_handler),
    Case::own("handles-and-stops", handles_and_stops),
    Case::own("child-forgets-pending", child_forgets),
    Case::shell(
        "trap-and-wait",
        "trap 'echo usr1; exit 3' USR1; trap 'echo exit' EXIT; plan 'signal 10'; while :; do sleep .05 & wait; done",
    ),
    Case::shell("trap-term", "trap 'echo term; exit 9' TERM; plan 'state S; signal 15'; while :; do sleep .05; done"),
];

fn tell() -> Result<()> {
    for entry in entries() {
        say!("handler, inside {}: {}", entry.inside, told(&entry.info));
    }
    Ok(())
}

fn until(count: usize) {
    while entries().len() < count {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn handles(steps: &str, signal: i32) -> Result<()> {
    handle(signal, How::default())?;
    ask(steps)?;
    until(1);
    tell()
}

/// Has a thread ask the observer for this as soon as the main thread is in the system call, and then for what comes after.
fn when_in(call: i64, steps: &'static str, after: &'static str) -> std::thread::JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        set_blocked(u64::MAX)?;
        let path = format!("/proc/self/task/{}/syscall", std::process::id());
        // The number of the system call in which it waits, or `running`.
        while !std::fs::read_to_string(&path)?.starts_with(&format!("{call} ")) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        just(steps)?;
        until(1);
        just(after)
    })
}

fn interrupts(flags: i32) -> Result<()> {
    handle(10, How { flags, ..How::default() })?;
    let helper = when_in(nix::libc::SYS_read, "signal 10", "feed x");
    let mut byte = [0];
    say!("read: {:?}", nix::unistd::read(std::io::stdin(), &mut byte));
    let _ = helper.join();
    tell()
}

fn interrupts_a_sleep() -> Result<()> {
    handle(12, How { flags: SA_RESTART, ..How::default() })?;
    let helper = when_in(nix::libc::SYS_ppoll, "signal 12", "feed x");
    // poll(2) is never restarted (signal(7)).
    let ready = nix::poll::ppoll(&mut [], Some(nix::sys::time::TimeSpec::new(15, 0)), None);
    say!("{ready:?}");
    let _ = helper.join();
    tell()
}

fn handled_once() -> Result<()> {
    handle(10, How { flags: SA_RESETHAND, ..How::default() })?;
    ask("signal 10")?;
    until(1);
    tell()?;
    then("signal 10")?;
    std::thread::sleep(std::time::Duration::from_secs(20));
    Ok(())
}

fn nests(flags: i32) -> Result<()> {
    handle(10, How { flags, sends: 10, ..How::default() })?;
    ask("signal 10")?;
    until(2);
    // The second one is the handler's own.
    for entry in entries() {
        say!("inside {}: signal {}", entry.inside, entry.info.signal);
    }
    Ok(())
}

fn mask_of_a_handler() -> Result<()> {
    handle(12, How::default())?;
    handle(10, How { blocked: bit(12), sends: 12, ..How::default() })?;
    ask("signal 10")?;
    until(2);
    for entry in entries() {
        say!("inside {}: signal {}", entry.inside, entry.info.signal);
    }
    Ok(())
}

fn handles_and_stops() -> Result<()> {
    handle(20, How::default())?;
    ask("signal 20")?;
    until(1);
    tell()?;
    // What a program with a handler for it does to stop after all.
    then("stopped; state T; signal 18; continued; feed go")?;
    set_disposition(20, Disposition::Default)?;
    send(std::process::id().cast_signed(), 20)?;
    say!("{:?}", read_line()?);
    Ok(())
}

fn child_forgets() -> Result<()> {
    handle(10, How::default())?;
    set_blocked(bit(10))?;
    send(std::process::id().cast_signed(), 10)?;
    let child = ghost_sys::trials::fork(|| {
        let _ = set_blocked(0);
        entries().len() as u8
    })?;
    crate::fork::waited(child, 0)?;
    set_blocked(0)?;
    until(1);
    say!("here: {}", entries().len());
    Ok(())
}
