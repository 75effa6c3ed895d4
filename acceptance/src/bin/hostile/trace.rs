//! A user who traces his own ghost, with every right to do so: it is his process.

use std::time::{Duration, Instant};

use acceptance::random::Random;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Traces a ghost and does something to it; what became of it is printed, and does not matter here.
pub fn run(ghost: i32, deed: &str, seed: u64) -> Result<()> {
    let (ghost, mut random) = (Pid::from_raw(ghost), Random::new(seed));
    ptrace::attach(ghost).context("attach")?;
    let stop = wait_for_stop(ghost, Duration::from_secs(30))?;
    println!("{stop:?}");
    match deed {
        "detach" => {}
        "kill" => {
            ptrace::kill(ghost).context("PTRACE_KILL")?;
            return Ok(());
        }
        // Until this program is killed.
        "hold" => std::thread::sleep(Duration::from_secs(1000)),
        "answer" => spoil_stack(ghost, &mut random)?,
        "registers" => {
            let mut registers = ptrace::getregs(ghost).context("registers")?;
            for register in [&mut registers.rip, &mut registers.rsp, &mut registers.rax, &mut registers.rdi] {
                if random.below(2) == 0 {
                    *register = random.next();
                }
            }
            let _ = ptrace::setregs(ghost, registers);
        }
        "call" => inject(ghost, &mut random)?,
        other => bail!("{other}: no such deed"),
    }
    let _ = ptrace::detach(ghost, None);
    Ok(())
}

/// A read that was taken up ends only when ghostd lets it.
fn wait_for_stop(ghost: Pid, within: Duration) -> Result<WaitStatus> {
    let until = Instant::now() + within;
    loop {
        match waitpid(ghost, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            Ok(stopped @ (WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..))) => return Ok(stopped),
            Ok(other) => bail!("the ghost: {other:?}"),
            Err(why) => return Err(why).context("waiting for the ghost"),
        }
        anyhow::ensure!(Instant::now() < until, "the ghost does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Random words over what lies on its stack, among it the place where the answer to its read comes.
fn spoil_stack(ghost: Pid, random: &mut Random) -> Result<()> {
    let registers = ptrace::getregs(ghost).context("registers")?;
    // The second argument of read and pread is where the answer goes.
    for base in [registers.rsi, registers.rsp] {
        for _ in 0..64 {
            let address = (base & !7) + 8 * random.below(64);
            let word = if random.below(2) == 0 { random.next().cast_signed() } else { random.below(16).cast_signed() };
            let _ = ptrace::write(ghost, address as ptrace::AddressType, word);
        }
    }
    Ok(())
}

/// Has it make calls that no ghost makes, in the ghost's own name.
fn inject(ghost: Pid, random: &mut Random) -> Result<()> {
    let before = ptrace::getregs(ghost).context("registers")?;
    // It stands right behind the instruction of its read.
    let call_again = before.rip - 2;
    for _ in 0..20 {
        let mut registers = before;
        registers.rip = call_again;
        // getpid, read, fork, close of everything, kill of its group by 0, setsid, exit_group only at the end.
        (registers.rax, registers.rdi) =
            *random.choose(&[(39, 0), (0, 3), (57, 0), (3, 0), (3, 1), (3, 3), (62, 0), (112, 0)]);
        (registers.rsi, registers.rdx) = (before.rsi, 8);
        // No system call is to be started again in its place (arch/x86/kernel/signal.c, `orig_rax`).
        registers.orig_rax = u64::MAX;
        if ptrace::setregs(ghost, registers).is_err() || ptrace::step(ghost, None::<Signal>).is_err() {
            return Ok(());
        }
        // A read may be taken up by ghostd and sleep: then it is not stopped any more.
        if wait_for_stop(ghost, Duration::from_millis(500)).is_err() {
            return Ok(());
        }
    }
    let _ = ptrace::setregs(ghost, before);
    Ok(())
}
