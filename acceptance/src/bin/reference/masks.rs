//! Signals that are blocked or ignored from the start.

use std::process::Command;

use anyhow::Result;
use ghost_sys::quiet::bit;
use ghost_sys::signal::{Disposition, catchable, queue, send, set_blocked, set_disposition};
use ghost_sys::signal_wait;

use crate::asking::{ask, then};
use crate::case::Case;
use crate::siginfo::told;

const MASKS: &[&str] = &["/bin/grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"];

pub const CASES: &[Case] = &[
    Case::plain("nothing-special", MASKS),
    Case::plain("some-ignored", MASKS).after(|_| ignore(&[1, 2, 3, 13, 15, 20, 40])),
    Case::plain("children-ignored-from-the-start", MASKS).after(|_| ignore(&[17])),
    Case::plain("all-ignored", MASKS).after(|_| ignore(&catchable().collect::<Vec<_>>())),
    Case::plain("some-blocked", MASKS).after(|_| block(bit(2) | bit(17) | bit(50))),
    Case::plain("all-blocked", MASKS).after(|_| block(u64::MAX)),
    Case::own("ignored-does-not-end-it", ignored).after(|_| ignore(&[15])),
    Case::own("blocked-from-the-start-comes", blocked).after(|_| block(bit(15) | bit(60))),
    Case::own("pending-is-not-for-a-child", pending_child),
    Case::own("handled-again-after-ignored", handled_again).after(|_| ignore(&[12])),
    Case::shell("nohup", "plan 'state S; signal 1; feed on'; read -r line; echo $line").after(|_| ignore(&[1])),
    Case::shell("trap-of-a-shell", "trap 'echo caught; exit 2' USR1; plan 'signal 10'; while :; do sleep .05; done"),
];

fn ignore(signals: &[i32]) -> Result<()> {
    for signal in signals {
        set_disposition(*signal, Disposition::Ignore)?;
    }
    Ok(())
}

fn block(mask: u64) -> Result<()> {
    set_blocked(mask)?;
    Ok(())
}

fn ignored() -> Result<()> {
    set_blocked(bit(60))?;
    ask("signal 15; signal 15; queue 60 0")?;
    say!("{}", told(&signal_wait::next(bit(60))?));
    say!("pending: {}", ghost_sys::quiet::pending() & bit(15) != 0);
    Ok(())
}

fn blocked() -> Result<()> {
    ask("signal 15; queue 60 0")?;
    say!("{}", told(&signal_wait::next(bit(60))?));
    say!("{}", told(&signal_wait::next(bit(15))?));
    then("signal 15")?;
    set_blocked(0)?;
    std::thread::sleep(std::time::Duration::from_secs(20));
    Ok(())
}

fn pending_child() -> Result<()> {
    set_blocked(bit(10) | bit(44))?;
    let own = std::process::id().cast_signed();
    send(own, 10)?;
    queue(own, 44, 4)?;
    let status = Command::new("/bin/grep").args(["-E", "SigBlk|ShdPnd", "/proc/self/status"]).status()?;
    say!("{}", crate::fork::ended(status));
    say!("here: {}", ghost_sys::quiet::pending() == bit(10) | bit(44));
    Ok(())
}

fn handled_again() -> Result<()> {
    ghost_sys::trials::handle(12, ghost_sys::trials::How::default())?;
    set_blocked(bit(60))?;
    ask("signal 12; queue 60 0")?;
    say!("{}", told(&signal_wait::next(bit(60))?));
    for entry in ghost_sys::trials::entries() {
        say!("handler: {}", told(&entry.info));
    }
    Ok(())
}
