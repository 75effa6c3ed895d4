//! Children of the program and the ways to wait for them, as the program sees them.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use ghost_sys::signal::{Disposition, send, set_blocked, set_disposition};
use ghost_sys::trials::{Kind, fork, fork_of, wait};
use nix::libc::{__WALL, __WCLONE, WCONTINUED, WNOHANG, WUNTRACED};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::asking::process;
use crate::case::Case;
use crate::siginfo::sleeps;

pub const CASES: &[Case] = &[
    Case::own("child-exits", || child(|| 7)),
    Case::own("child-dies", || child(dies)),
    Case::own("child-stops", child_stops),
    Case::own("wait-without-hanging", wait_without_hanging),
    Case::own("wait-and-leave", wait_and_leave),
    Case::own("wait-without-children", wait_without_children),
    Case::own("wait-for-group", wait_for_group),
    Case::own("wait-for-clones", wait_for_clones),
    Case::own("children-ignored", children_ignored),
    Case::own("fifty-children", fifty_children),
    Case::own("four-generations", || generations(4)),
    Case::own("orphan-has-init", orphan),
    Case::own("subreaper", subreaper),
    Case::own("parent-death-signal", parent_death),
    Case::own("shares-directory", shares),
    Case::own("vfork-and-exec", vfork),
    Case::own("zombie-in-its-own-proc", zombie),
    Case::own("child-has-its-own-number", own_number),
    Case::shell(
        "subshells",
        "(exit 3); echo $?; (kill -9 $(exec sh -c 'echo $PPID')); echo $?; sleep 0 & wait $!; echo $?",
    ),
    Case::shell("pipeline", "printf 'b\\na\\n' | sort | tr a-z A-Z"),
];

/// A status in words.
pub fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal(), status.stopped_signal()) {
        (Some(code), _, _) => format!("exited with {code}"),
        (_, Some(signal), _) => format!("killed by {signal}"),
        (_, _, Some(signal)) => format!("stopped by {signal}"),
        _ => "continued".into(),
    }
}

/// Waits for a child's next change, and says what it was.
pub fn waited(pid: i32, flags: i32) -> Result<()> {
    match wait(pid, flags) {
        Ok(Some((who, status))) => say!("waited for {}: {}", if who == pid { "it" } else { "another" }, ended(status)),
        Ok(None) => say!("nothing yet"),
        Err(why) => say!("wait: {why}"),
    }
    Ok(())
}

fn dies() -> u8 {
    let _ = send(std::process::id().cast_signed(), 15);
    1
}

fn child(body: fn() -> u8) -> Result<()> {
    waited(fork(body)?, 0)
}

fn child_stops() -> Result<()> {
    let child = fork(sleeps)?;
    for signal in [19, 18, 20, 18, 9] {
        send(child, signal)?;
        waited(child, WUNTRACED | WCONTINUED)?;
    }
    Ok(())
}

fn wait_without_hanging() -> Result<()> {
    let child = fork(sleeps)?;
    waited(child, WNOHANG)?;
    send(child, 9)?;
    waited(child, 0)?;
    waited(child, WNOHANG)
}

fn wait_and_leave() -> Result<()> {
    let child = fork(|| 5)?;
    for _ in 0..2 {
        let status = waitid(Id::Pid(Pid::from_raw(child)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        say!("left: {}", matches!(status, nix::sys::wait::WaitStatus::Exited(_, 5)));
    }
    waited(child, 0)?;
    waited(child, 0)
}

fn wait_without_children() -> Result<()> {
    waited(-1, 0)?;
    waited(1, 0)
}

fn wait_for_group() -> Result<()> {
    let (one, other) = (fork(sleeps)?, fork(|| 3)?);
    nix::unistd::setpgid(Pid::from_raw(one), Pid::from_raw(0))?;
    send(one, 9)?;
    let (who, status) = wait(-one, 0)?.context("a child of its group")?;
    say!("of its group: {} {}", who == one, ended(status));
    let (who, status) = wait(0, 0)?.context("a child of our group")?;
    say!("of our group: {} {}", who == other, ended(status));
    Ok(())
}

fn wait_for_clones() -> Result<()> {
    set_blocked(ghost_sys::quiet::bit(10))?;
    let silent = fork_of(Kind::EndsWith(0), || 8)?;
    waited(silent, WNOHANG)?;
    waited(silent, __WCLONE)?;
    let telling = fork_of(Kind::EndsWith(10), || 9)?;
    waited(telling, __WALL)?;
    let info = ghost_sys::signal_wait::next(ghost_sys::quiet::bit(10))?;
    say!("told by {} about it: {}", info.signal, info.pid == telling);
    Ok(())
}

fn children_ignored() -> Result<()> {
    set_disposition(17, Disposition::Ignore)?;
    let child = fork(|| 5)?;
    waited(child, 0)
}

fn fifty_children() -> Result<()> {
    let children = (0..50u8).map(|code| fork(move || code)).collect::<std::io::Result<Vec<i32>>>()?;
    for child in children {
        waited(child, 0)?;
    }
    waited(-1, 0)
}

fn generations(left: u8) -> Result<()> {
    if left == 0 {
        return Ok(());
    }
    let child = fork(move || if generations(left - 1).is_ok() { left } else { 99 })?;
    waited(child, 0)
}

/// Runs `last` in a grandchild whose parent has ended, and passes on what it says.
fn orphaned(last: fn() -> Result<()>) -> Result<()> {
    let (mut done, ended) = std::io::pipe()?;
    let child = fork(move || {
        let born = fork(move || {
            let parent = nix::unistd::getppid();
            while nix::unistd::getppid() == parent && parent.as_raw() != 1 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let result = last();
            drop(ended);
            u8::from(result.is_err())
        });
        // Not before the child has asked who its parent is.
        std::thread::sleep(std::time::Duration::from_millis(30));
        u8::from(born.is_err())
    })?;
    // The grandchild's own end of the pipe is the last.
    std::io::copy(&mut done, &mut std::io::sink())?;
    waited(child, 0)
}

fn orphan() -> Result<()> {
    orphaned(|| {
        say!("its parent is {}", process(nix::unistd::getppid()));
        Ok(())
    })
}

fn subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    orphaned(|| {
        say!("its parent is {}", process(nix::unistd::getppid()));
        Ok(())
    })?;
    let (_, status) = wait(-1, 0)?.context("the orphan is ours")?;
    say!("waited for it: {}", ended(status));
    Ok(())
}

fn parent_death() -> Result<()> {
    let (mut done, ended) = std::io::pipe()?;
    let child = fork(move || {
        let born = fork(move || {
            let _keep = &ended;
            let _ = set_blocked(ghost_sys::quiet::bit(12));
            let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGUSR2);
            match ghost_sys::signal_wait::next(ghost_sys::quiet::bit(12)) {
                Ok(info) => u8::from(crate::asking::say(&format!("told by {}", info.signal)).is_err()),
                Err(_) => 1,
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        u8::from(born.is_err())
    })?;
    // The end of the pipe comes with the end of the last process.
    std::io::copy(&mut done, &mut std::io::sink())?;
    waited(child, 0)
}

fn shares() -> Result<()> {
    let child = fork_of(Kind::Shares, || u8::from(std::env::set_current_dir("/usr").is_err()))?;
    waited(child, __WALL)?;
    say!("now in {}", std::env::current_dir()?.display());
    let child = fork(|| u8::from(std::env::set_current_dir("/bin").is_err()))?;
    waited(child, 0)?;
    say!("still in {}", std::env::current_dir()?.display());
    Ok(())
}

fn vfork() -> Result<()> {
    // std's way is posix_spawn(3), which is CLONE_VM | CLONE_VFORK (glibc, sysdeps/unix/sysv/linux/spawni.c).
    let status = Command::new("reference").args(["say", "from", "the", "child"]).status()?;
    say!("{}", ended(status));
    let missing = Command::new("/no/such/program").status();
    say!("{}", missing.map_or_else(|why| why.to_string(), ended));
    Ok(())
}

fn zombie() -> Result<()> {
    let child = fork(|| 0)?;
    let state = acceptance::poll_until(std::time::Duration::from_secs(5), || {
        acceptance::process::state_of(child.cast_unsigned()).filter(|state| *state == 'Z')
    });
    say!("it becomes {state:?}");
    waited(child, 0)?;
    say!("there: {}", std::path::Path::new(&format!("/proc/{child}")).exists());
    Ok(())
}

fn own_number() -> Result<()> {
    let own = std::process::id();
    let (mut said, say) = std::io::pipe()?;
    let child = fork(move || {
        use std::io::Write;
        let words = format!("{} {}", std::process::id(), nix::unistd::getppid());
        u8::from((&say).write_all(words.as_bytes()).is_err())
    })?;
    waited(child, 0)?;
    let mut text = vec![0; 100];
    let length = std::io::Read::read(&mut said, &mut text)?;
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    say!("what fork gave and getpid says: {}", text == format!("{child} {own}"));
    Ok(())
}
