//! Threads: one process to everybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Result, bail};
use ghost_sys::quiet::bit;
use ghost_sys::signal::set_blocked;
use ghost_sys::signal_wait;

use crate::asking::{ask, then};
use crate::case::Case;
use crate::siginfo::told;

pub const CASES: &[Case] = &[
    Case::own("main-thread-is-the-process", main_thread),
    Case::own("threads-share-the-number", share_the_number),
    Case::own("signal-goes-to-who-waits", signal_goes_to_who_waits),
    Case::own("signal-for-a-thread-alone", signal_for_a_thread),
    Case::own("masks-are-the-threads-own", own_masks),
    Case::own("thread-ends-alone", thread_ends_alone),
    Case::own("stops-with-threads", stops_with_threads),
    Case::own("killed-with-threads", killed_with_threads),
    Case::own("hundred-threads", hundred_threads),
    Case::own("fork-in-a-thread", fork_in_a_thread),
];

fn join<T>(thread: std::thread::JoinHandle<Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread panicked"),
    }
}

fn main_thread() -> Result<()> {
    say!("gettid is getpid: {}", nix::unistd::gettid() == nix::unistd::getpid());
    Ok(())
}

fn share_the_number() -> Result<()> {
    let own = nix::unistd::getpid();
    let thread = std::thread::spawn(move || {
        say!("the same process: {}", nix::unistd::getpid() == own);
        say!("another thread: {}", nix::unistd::gettid() != own);
        Ok(())
    });
    join(thread)
}

fn signal_goes_to_who_waits() -> Result<()> {
    set_blocked(bit(10) | bit(50))?;
    let waiting = std::thread::spawn(|| {
        say!("{}", told(&signal_wait::next(bit(10))?));
        Ok(())
    });
    ask("signal 10")?;
    join(waiting)
}

fn signal_for_a_thread() -> Result<()> {
    set_blocked(bit(10))?;
    let tid = Arc::new(AtomicI32::new(0));
    let theirs = Arc::clone(&tid);
    let thread = std::thread::spawn(move || {
        theirs.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
        say!("{}", told(&signal_wait::next(bit(10))?));
        Ok(())
    });
    ask("thread-signal 10")?;
    // It was for the main thread, which has it; the other one still waits.
    say!("{}", told(&signal_wait::next(bit(10))?));
    ask("signal 10")?;
    join(thread)
}

fn own_masks() -> Result<()> {
    set_blocked(bit(12))?;
    let thread = std::thread::spawn(|| {
        let inherited = set_blocked(bit(10))?;
        say!("inherited 12: {}", inherited & bit(12) != 0);
        Ok(())
    });
    join(thread)?;
    say!("10 is blocked here: {}", set_blocked(0)? & bit(10) != 0);
    Ok(())
}

fn thread_ends_alone() -> Result<()> {
    join(std::thread::spawn(|| Ok(())))?;
    say!("still here");
    Ok(())
}

fn sleepers(count: usize) {
    for _ in 0..count {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
    }
}

fn stops_with_threads() -> Result<()> {
    sleepers(3);
    then("state S; signal 19; stopped; state T; signal 18; continued; state S; feed go")?;
    say!("{:?}", crate::asking::read_line()?);
    Ok(())
}

fn killed_with_threads() -> Result<()> {
    sleepers(3);
    then("state S; signal 9")?;
    std::thread::sleep(std::time::Duration::from_secs(20));
    Ok(())
}

fn hundred_threads() -> Result<()> {
    let threads: Vec<_> = (0..100).map(|number| std::thread::spawn(move || Ok(number))).collect();
    let mut sum = 0;
    for thread in threads {
        sum += join(thread)?;
    }
    say!("{sum}");
    Ok(())
}

fn fork_in_a_thread() -> Result<()> {
    let thread = std::thread::spawn(|| {
        let status =
            std::process::Command::new("/bin/sh").args(["-c", "echo \"child of <$PPID>\"; exit 4"]).status()?;
        say!("{}", crate::fork::ended(status));
        Ok(())
    });
    join(thread)
}
