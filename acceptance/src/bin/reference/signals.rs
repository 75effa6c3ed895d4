//! Sending signals: who may, to whom, and what comes back.

use anyhow::Result;
use ghost_sys::quiet::bit;
use ghost_sys::signal::{send, send_to_thread, set_blocked};
use ghost_sys::signal_wait;
use ghost_sys::trials::fork;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::asking::{ask, read_line, then};
use crate::case::Case;
use crate::fork::waited;
use crate::siginfo::sleeps;

pub const CASES: &[Case] = &[
    Case::own("every-signal-to-a-child", every_signal_to_a_child),
    Case::own("signal-zero", signal_zero),
    Case::own("no-such-signal", no_such_signal),
    Case::own("not-to-init", not_to_init),
    Case::own("to-a-zombie", to_a_zombie),
    Case::own("signalfd", signalfd),
    Case::own("pipe-without-a-reader", pipe_without_a_reader),
    Case::own("catches-all-62", catches_all),
    Case::own("thousand-queued", thousand_queued),
    Case::own("ordinary-ones-do-nothing", ordinary_ones),
    Case::own("interval-timer", interval_timer),
    Case::own("ping-pong", ping_pong),
];

fn every_signal_to_a_child() -> Result<()> {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
    // Those that end it; 32 and 33 may be ignored by inheritance from a C library's spawn.
    let harmless = [17, 18, 19, 20, 21, 22, 23, 28, 32, 33];
    for signal in (1..=64).filter(|signal| !harmless.contains(signal)) {
        let child = fork(move || {
            if signal != 9 {
                let _ = ghost_sys::signal::set_disposition(signal, ghost_sys::signal::Disposition::Default);
            }
            let _ = send(std::process::id().cast_signed(), signal);
            99
        })?;
        waited(child, 0)?;
    }
    Ok(())
}

fn signal_zero() -> Result<()> {
    let child = fork(sleeps)?;
    say!("{:?}", send(child, 0).map_err(|why| why.kind()));
    send(child, 9)?;
    waited(child, 0)?;
    say!("{:?}", send(child, 0).map_err(|why| why.raw_os_error()));
    Ok(())
}

fn no_such_signal() -> Result<()> {
    let own = std::process::id().cast_signed();
    for signal in [65, -1, 1000] {
        say!("{:?}", send(own, signal).map_err(|why| why.raw_os_error()));
    }
    Ok(())
}

fn not_to_init() -> Result<()> {
    say!("{:?}", send(1, 0).map_err(|why| why.raw_os_error()));
    say!("{:?}", send(1, 15).map_err(|why| why.raw_os_error()));
    say!("{:?}", send_to_thread(1, 15).map_err(|why| why.raw_os_error()));
    Ok(())
}

fn to_a_zombie() -> Result<()> {
    let child = fork(|| 0)?;
    let state = || acceptance::process::state_of(child.cast_unsigned()).filter(|state| *state == 'Z');
    acceptance::poll_until(std::time::Duration::from_secs(5), state);
    say!("{:?}", send(child, 9).map_err(|why| why.kind()));
    waited(child, 0)
}

fn signalfd() -> Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    set.thread_block()?;
    let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;
    ask("signal 10")?;
    let Some(info) = descriptor.read_signal()? else { anyhow::bail!("no signal") };
    say!("{} of user {} from {}", info.ssi_signo, info.ssi_uid, crate::asking::sender(info.ssi_pid));
    Ok(())
}

fn pipe_without_a_reader() -> Result<()> {
    let child = fork(|| {
        let _ = ghost_sys::signal::set_disposition(13, ghost_sys::signal::Disposition::Default);
        let Ok((reader, mut writer)) = std::io::pipe() else { return 1 };
        drop(reader);
        u8::from(std::io::Write::write_all(&mut writer, b"x").is_err()) + 1
    })?;
    waited(child, 0)
}

fn catches_all() -> Result<()> {
    set_blocked(u64::MAX)?;
    for signal in ghost_sys::signal::catchable() {
        ask(&format!("signal {signal}"))?;
        say!("{}", crate::siginfo::told(&signal_wait::next(bit(signal))?));
    }
    Ok(())
}

fn thousand_queued() -> Result<()> {
    set_blocked(bit(50) | bit(51))?;
    let steps: Vec<String> = (0..1000).map(|value| format!("queue 50 {value}")).collect();
    then(&steps.join(";"))?;
    let mut sum = 0;
    for wanted in 0..1000 {
        let info = signal_wait::next(bit(50))?;
        anyhow::ensure!(info.value == wanted, "{} instead of {wanted}", info.value);
        sum += info.value;
    }
    say!("{sum}, pending: {}", ghost_sys::quiet::pending());
    Ok(())
}

fn ordinary_ones() -> Result<()> {
    then("state S; signal 17; signal 23; signal 28; signal 18; state S; feed go")?;
    say!("{:?}", read_line()?);
    Ok(())
}

fn interval_timer() -> Result<()> {
    ghost_sys::trials::handle(14, ghost_sys::trials::How::default())?;
    for _ in 0..2 {
        nix::unistd::alarm::set(1);
        let before = ghost_sys::trials::entries().len();
        let result = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(10_000u16));
        say!("{result:?}, {} more", ghost_sys::trials::entries().len() - before);
    }
    Ok(())
}

fn ping_pong() -> Result<()> {
    set_blocked(bit(10) | bit(12))?;
    let own = std::process::id().cast_signed();
    let child = fork(move || {
        for _ in 0..200 {
            if signal_wait::next(bit(10)).is_err() || send(own, 12).is_err() {
                return 1;
            }
        }
        0
    })?;
    for _ in 0..200 {
        send(child, 10)?;
        signal_wait::next(bit(12))?;
    }
    waited(child, 0)
}
