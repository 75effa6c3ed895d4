//! How a program ends, as whoever waits for it learns.

use std::process::Command;

use anyhow::Result;
use ghost_sys::signal::{Disposition, send, set_blocked, set_disposition};
use ghost_sys::trials::{Fault, fault};
use nix::sys::resource::{Resource, setrlimit};

use crate::asking::then;
use crate::case::Case;

pub const CASES: &[Case] = &[
    Case::own("exit-by-return", || Ok(())),
    Case::shell("exit-7", "exit 7"),
    Case::shell("exit-255", "exit 255"),
    Case::shell("exit-256-is-0", "exit 256"),
    Case::plain("exit-of-false", &["/bin/false"]),
    Case::shell("exit-127-of-its-own", "exit 127"),
    Case::shell("exit-137-is-not-a-signal", "exit 137"),
    Case::own("dies-by-hup", dies::<1>),
    Case::own("dies-by-int", dies::<2>),
    Case::own("dies-by-kill", dies::<9>),
    Case::own("dies-by-pipe", dies::<13>),
    Case::own("dies-by-term", dies::<15>),
    Case::own("dies-by-usr1", dies::<10>),
    Case::own("dies-by-33", dies::<33>),
    Case::own("dies-by-64", dies::<64>),
    Case::own("dies-by-quit-without-core", dies::<3>).after(no_core),
    Case::own("aborts", || std::process::abort()).after(no_core),
    Case::own("faults-by-address", || faults(Fault::Unmapped)).after(no_core),
    Case::own("faults-beyond-a-file", || faults(Fault::BeyondFile)).after(no_core),
    Case::own("faults-by-instruction", || faults(Fault::Instruction)).after(no_core),
    Case::own("faults-by-division", || faults(Fault::Division)).after(no_core),
    Case::own("dumps-core", || faults(Fault::Unmapped)).after(with_core),
    Case::own("alarm-ends-it", alarm_ends_it),
    Case::own("killed-from-outside", || waits("signal 9")),
    Case::own("terminated-from-outside", || waits("signal 15")),
    Case::own("ended-by-a-real-time-signal", || waits("queue 40 1")),
    Case::own("killed-by-group", || waits("group-signal 9")),
    Case::own("terminated-by-group", || waits("group-signal 15; leader")),
    Case::own("killed-behind-a-blocked-signal", killed_behind),
    Case::own("exit-from-a-thread", exit_from_a_thread),
    Case::own("exit-beside-threads", exit_beside_threads),
    Case::own("uses-time", uses_time),
];

fn no_core(_: &mut Command) -> Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

fn with_core(_: &mut Command) -> Result<()> {
    std::env::set_current_dir("/tmp")?;
    Ok(setrlimit(Resource::RLIMIT_CORE, nix::libc::RLIM_INFINITY, nix::libc::RLIM_INFINITY)?)
}

fn dies<const SIGNAL: i32>() -> Result<()> {
    if SIGNAL != 9 {
        set_disposition(SIGNAL, Disposition::Default)?;
    }
    set_blocked(0)?;
    say!("now");
    send(std::process::id().cast_signed(), SIGNAL)?;
    say!("still there");
    Ok(())
}

fn faults(which: Fault) -> Result<()> {
    say!("now");
    fault(which);
    say!("still there");
    Ok(())
}

fn alarm_ends_it() -> Result<()> {
    nix::unistd::alarm::set(1);
    std::thread::sleep(std::time::Duration::from_secs(20));
    Ok(())
}

/// Sleeps; the observer ends it.
fn waits(steps: &str) -> Result<()> {
    then(&format!("state S; {steps}"))?;
    std::thread::sleep(std::time::Duration::from_secs(20));
    Ok(())
}

fn killed_behind() -> Result<()> {
    set_blocked(ghost_sys::quiet::bit(15))?;
    waits("signal 15; signal 9")
}

fn exit_from_a_thread() -> Result<()> {
    let thread = std::thread::spawn(|| std::process::exit(23));
    let _ = thread.join();
    Ok(())
}

fn exit_beside_threads() -> Result<()> {
    for _ in 0..3 {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
    }
    std::process::exit(24)
}

fn uses_time() -> Result<()> {
    crate::asking::ask("usage")?;
    let mut x = 1u64;
    loop {
        for _ in 0..1_000_000 {
            x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
        if usage.user_time().tv_sec() > 0 || usage.user_time().tv_usec() > 100_000 {
            return Ok(());
        }
    }
}
