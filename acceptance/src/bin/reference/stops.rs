//! Stopped and continued: by itself, from outside, and as whoever waits for it learns.

use anyhow::Result;
use ghost_sys::quiet::bit;
use ghost_sys::signal::{Disposition, send, set_blocked, set_disposition};
use ghost_sys::signal_wait;

use crate::asking::{ask, read_line, then};
use crate::case::Case;
use crate::siginfo::told;

pub const CASES: &[Case] = &[
    Case::own("stops-itself", || stops_itself(19)),
    Case::own("stops-itself-by-tstp", || stops_itself(20)),
    Case::own("stops-itself-by-ttin", || stops_itself(21)),
    Case::own("stops-itself-by-ttou", || stops_itself(22)),
    Case::own("stopped-from-outside", || stopped("signal 19; stopped; state T; signal 18; continued")),
    Case::own("stopped-by-tstp-from-outside", || stopped("signal 20; stopped; state T; signal 18; continued")),
    Case::own("stopped-by-ttin-from-outside", || stopped("signal 21; stopped; state T; signal 18; continued")),
    Case::own("stopped-by-group", || stopped("group-signal 19; stopped; state T; group-signal 18; continued")),
    Case::own("stopped-by-group-tstp", || {
        stopped("group-signal 20; stopped; state T; leader; group-signal 18; continued; leader")
    }),
    Case::own("stopped-three-times", stopped_three_times),
    Case::own("stopped-twice", || stopped("signal 19; stopped; state T; signal 19; state T; signal 18; continued")),
    Case::own("continued-while-running", || stopped("signal 18; state S")),
    Case::own("stopped-then-killed", || ended("signal 19; stopped; state T; signal 9")),
    Case::own("stopped-then-terminated", || ended("signal 19; stopped; state T; signal 15; state T; signal 18")),
    Case::own("stopped-then-killed-by-group", || ended("signal 19; stopped; state T; group-signal 9")),
    Case::own("ignores-tstp", ignores_tstp),
    Case::own("blocks-tstp", blocks_tstp),
    Case::own("continue-is-seen", continue_is_seen),
    Case::own("signals-wait-while-stopped", signals_wait),
    Case::shell(
        "shell-stops-itself",
        "plan 'stopped; state T; signal 18; continued; feed go'; kill -STOP $$; read -r line; echo $line; exit 3",
    ),
];

fn stops_itself(signal: i32) -> Result<()> {
    then("stopped; state T; signal 18; continued; feed go")?;
    send(std::process::id().cast_signed(), signal)?;
    // The end of a process hides from who waits that it has been continued (kernel/exit.c, wait_consider_task()).
    say!("on again: {:?}", read_line()?);
    Ok(())
}

/// Waits while the observer does this, and goes on.
fn stopped(steps: &str) -> Result<()> {
    then(&format!("state S; {steps}; feed go"))?;
    say!("{:?}", read_line()?);
    Ok(())
}

fn ended(steps: &str) -> Result<()> {
    then(&format!("state S; {steps}"))?;
    read_line()?;
    Ok(())
}

fn stopped_three_times() -> Result<()> {
    for _ in 0..3 {
        stopped("signal 19; stopped; state T; signal 18; continued; state S")?;
    }
    stops_itself(19)
}

fn ignores_tstp() -> Result<()> {
    for signal in [20, 21, 22] {
        set_disposition(signal, Disposition::Ignore)?;
    }
    stopped("signal 20; signal 21; signal 22; state S")
}

fn blocks_tstp() -> Result<()> {
    set_blocked(bit(20) | bit(60))?;
    ask("signal 20; queue 60 0; state S")?;
    say!("{}", told(&signal_wait::next(bit(60))?));
    say!("pending: {}", ghost_sys::quiet::pending() & bit(20) != 0);
    // SIGCONT takes it away (kernel/signal.c, prepare_signal()).
    ask("signal 18; queue 60 1")?;
    say!("{}", told(&signal_wait::next(bit(60))?));
    say!("pending: {}", ghost_sys::quiet::pending() & bit(20) != 0);
    Ok(())
}

fn continue_is_seen() -> Result<()> {
    set_blocked(bit(18))?;
    then("state S; signal 19; stopped; signal 18; continued; feed go")?;
    say!("{}", told(&signal_wait::next(bit(18))?));
    say!("{:?}", read_line()?);
    Ok(())
}

fn signals_wait() -> Result<()> {
    set_blocked(bit(10) | bit(40) | bit(60))?;
    then(
        "state S; signal 19; stopped; state T; signal 10; queue 40 5; queue 60 6; state T; signal 18; continued; feed go",
    )?;
    say!("{:?}", read_line()?);
    say!("{}", told(&signal_wait::next(bit(60))?));
    say!("{}", told(&signal_wait::next(bit(10))?));
    say!("{}", told(&signal_wait::next(bit(40))?));
    Ok(())
}
