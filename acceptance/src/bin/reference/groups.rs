//! Process groups and sessions, as the program itself makes them.

use anyhow::{Context, Result};
use ghost_sys::quiet::bit;
use ghost_sys::signal::{send, set_blocked};
use ghost_sys::signal_wait;
use ghost_sys::trials::fork;
use nix::libc::{WCONTINUED, WNOHANG, WUNTRACED};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getsid, setpgid, setsid};

use crate::asking::process;
use crate::case::Case;
use crate::fork::waited;
use crate::siginfo::sleeps;

pub const CASES: &[Case] = &[
    Case::own("child-in-its-own-group", child_in_its_own_group),
    Case::own("child-in-its-own-session", child_in_its_own_session),
    Case::own("leads-a-session", leads_a_session),
    Case::own("leader-stays", leader_stays),
    Case::own("group-of-two", group_of_two),
    Case::own("kill-a-group-within", kill_a_group),
    Case::own("after-exec-no-more", after_exec),
    Case::own("group-in-another-session", another_session),
    Case::own("no-such-group", no_such_group),
    Case::own("orphaned-group-hangs-up", orphaned_group_hangs_up),
    Case::own("orphaned-group-does-not-stop", orphaned_group_does_not_stop),
    Case::own("no-terminal", no_terminal),
];

fn child_in_its_own_group() -> Result<()> {
    let child = Pid::from_raw(fork(sleeps)?);
    say!("in our group: {}", getpgid(Some(child))? == getpgrp());
    setpgid(child, child)?;
    say!("in its own: {}", getpgid(Some(child))? == child);
    setpgid(child, getpgrp())?;
    say!("back: {}", getpgid(Some(child))? == getpgrp());
    send(child.as_raw(), 9)?;
    waited(child.as_raw(), 0)
}

fn child_in_its_own_session() -> Result<()> {
    let child = fork(|| match setsid() {
        Ok(session) => u8::from(session != getpid() || getpgrp() != getpid() || getsid(None) != Ok(getpid())),
        Err(_) => 2,
    })?;
    waited(child, 0)
}

fn leads_a_session() -> Result<()> {
    // The leader of a group cannot (setsid(2)); the program is none: the sentinel is.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    say!("as leader of a group: {:?}", setsid().map(|_| ()));
    let child = fork(|| {
        let first = setsid().is_ok();
        let second = setsid();
        u8::from(!first || second != Err(nix::errno::Errno::EPERM))
    })?;
    waited(child, 0)
}

fn leader_stays() -> Result<()> {
    let child = fork(|| {
        let led = setsid().is_ok();
        let moved = setpgid(Pid::from_raw(0), getpgid(Some(nix::unistd::getppid())).unwrap_or(getpid()));
        u8::from(!led || moved != Err(nix::errno::Errno::EPERM))
    })?;
    waited(child, 0)
}

fn group_of_two() -> Result<()> {
    let (one, two) = (Pid::from_raw(fork(sleeps)?), Pid::from_raw(fork(sleeps)?));
    setpgid(one, one)?;
    setpgid(two, one)?;
    say!("both: {} {}", getpgid(Some(one))? == one, getpgid(Some(two))? == one);
    send(one.as_raw(), 9)?;
    waited(one.as_raw(), 0)?;
    say!("the group outlives its leader: {}", getpgid(Some(two))? == one);
    send(-one.as_raw(), 15)?;
    waited(two.as_raw(), 0)?;
    say!("now: {:?}", send(-one.as_raw(), 0).map_err(|why| why.kind()));
    Ok(())
}

fn kill_a_group() -> Result<()> {
    let leader = Pid::from_raw(fork(sleeps)?);
    setpgid(leader, leader)?;
    let mut all = vec![leader.as_raw()];
    for _ in 0..9 {
        let member = fork(sleeps)?;
        setpgid(Pid::from_raw(member), leader)?;
        all.push(member);
    }
    send(-leader.as_raw(), 12)?;
    for member in all {
        waited(member, 0)?;
    }
    Ok(())
}

fn after_exec() -> Result<()> {
    let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    say!("{:?}", setpgid(pid, pid));
    child.kill()?;
    say!("{}", crate::fork::ended(child.wait()?));
    Ok(())
}

fn another_session() -> Result<()> {
    set_blocked(bit(10))?;
    let parent = getpid();
    let child = fork(move || {
        let _ = setsid();
        let _ = send(parent.as_raw(), 10);
        sleeps()
    })?;
    signal_wait::next(bit(10))?;
    say!("into its group: {:?}", setpgid(Pid::from_raw(0), Pid::from_raw(child)));
    say!("it into ours: {:?}", setpgid(Pid::from_raw(child), getpgrp()));
    send(child, 9)?;
    waited(child, 0)
}

fn no_such_group() -> Result<()> {
    let child = fork(|| 0)?;
    waited(child, 0)?;
    say!("{:?}", setpgid(Pid::from_raw(0), Pid::from_raw(child)));
    say!("{:?}", getpgid(Some(Pid::from_raw(child))));
    say!("{:?}", setpgid(Pid::from_raw(0), Pid::from_raw(-5)));
    Ok(())
}

/// A child that leads a session, with a stopped child of its own in another group: when it ends, that group is orphaned.
fn orphaned_group_hangs_up() -> Result<()> {
    let (mut done, ended) = std::io::pipe()?;
    let child = fork(move || {
        let result = (|| -> Result<()> {
            setsid()?;
            let stopped = fork(move || {
                let _keep = &ended;
                let result = (|| -> Result<()> {
                    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
                    set_blocked(bit(1) | bit(18))?;
                    send(getpid().as_raw(), 19)?;
                    for signal in [1, 18] {
                        let info = signal_wait::next(bit(signal))?;
                        say!("signal {} from {}", info.signal, process(info.pid));
                    }
                    Ok(())
                })();
                u8::from(result.is_err())
            })?;
            waited(stopped, WUNTRACED)
        })();
        u8::from(result.is_err())
    })?;
    // The orphan's end of the pipe is the last; it tells what came before anything else is told.
    std::io::copy(&mut done, &mut std::io::sink())?;
    waited(child, 0)
}

fn orphaned_group_does_not_stop() -> Result<()> {
    let child = fork(|| {
        let _ = (setsid(), set_blocked(bit(10)));
        for signal in [20, 21, 22] {
            let _ = send(getpid().as_raw(), signal);
        }
        // SIGSTOP does.
        let _ = send(getpid().as_raw(), 19);
        signal_wait::next(bit(10)).map_or(99, |_| 5)
    })?;
    waited(child, WUNTRACED).context("its stop")?;
    waited(child, WUNTRACED | WNOHANG)?;
    send(child, 18)?;
    waited(child, WCONTINUED)?;
    send(child, 10)?;
    waited(child, 0)
}

fn no_terminal() -> Result<()> {
    let why = std::fs::File::open("/dev/tty").err().and_then(|why| why.raw_os_error());
    say!("opening the terminal: errno {why:?}");
    say!("its group: {:?}", nix::unistd::tcgetpgrp(std::io::stdin()));
    Ok(())
}
