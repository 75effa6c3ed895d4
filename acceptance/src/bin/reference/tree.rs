//! What the processes that the program makes are on the master, and what the master's processes are to the program.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use ghost_sys::quiet::bit;
use ghost_sys::signal::{send, set_blocked};
use ghost_sys::signal_wait;
use ghost_sys::trials::{Kind, fork, fork_of};
use nix::unistd::{Pid, getpgrp, getppid, getsid, setpgid, setsid};

use crate::asking::{ask, process, read_line, sender};
use crate::case::Case;
use crate::fork::waited;
use crate::siginfo::{sleeps, told};

pub const CASES: &[Case] = &[
    Case::own("parent-group-session", parent_group_session),
    Case::own("program-on-the-master", || ask("show program")),
    Case::own("child-on-the-master", child),
    Case::own("grandchild-on-the-master", grandchild),
    Case::own("child-ends-on-the-master", child_ends),
    Case::own("zombie-on-the-master", zombie),
    Case::own("orphan-on-the-master", orphan),
    Case::own("subreaper-on-the-master", subreaper),
    Case::own("daemon-on-the-master", daemon),
    Case::own("own-group-on-the-master", own_group),
    Case::own("own-session-on-the-master", own_session),
    Case::own("name-on-the-master", name),
    Case::own("renamed-on-the-master", renamed),
    Case::own("stopped-child-on-the-master", stopped_child),
    Case::own("signal-to-a-child-from-the-master", signal_to_a_child),
    Case::own("kill-a-child-from-the-master", kill_a_child),
    Case::own("signal-to-own-group", signal_to_own_group),
    Case::own("signal-to-the-parent", signal_to_the_parent),
    Case::own("signal-to-the-groups-leader", signal_to_the_leader),
    Case::own("group-signal-reaches-children", group_signal),
    Case::own("group-kill-takes-children", group_kill),
    Case::own("group-of-the-childs-own", group_of_child),
    Case::own("sibling-has-our-parent", sibling),
    Case::own("clone-on-the-master", clone),
    Case::own("thread-is-no-child", thread_is_no_child),
    Case::own("program-ends-before-its-child", ends_before_its_child),
    Case::shell(
        "jobs-on-the-master",
        // What the shell says of a job that was killed depends on when it looks.
        "exec 2> /dev/null; sleep 30 & one=$!; sleep 31 & two=$!; sleep .3
        ask \"name $one one; name $two two; state S one; show one; state S two; show two; signal 15 one\"
        wait $one; echo $?; ask 'signal 9 two'; wait $two; echo $?; ask 'gone one; gone two'",
    ),
];

fn parent_group_session() -> Result<()> {
    say!("parent {}", process(getppid()));
    say!("group {}", process(getpgrp()));
    say!("session {}", sender(getsid(None)?));
    Ok(())
}

fn end(child: i32) -> Result<()> {
    send(child, 9)?;
    waited(child, 0)
}

fn child() -> Result<()> {
    let child = fork(sleeps)?;
    ask(&format!("name {child} child; state S child; show child"))?;
    end(child)?;
    ask("gone child")
}

/// Has a child run this, which tells its grandchild's number.
fn with_grandchild(look: fn(i32) -> Result<()>) -> Result<()> {
    let child = fork(move || {
        let result = (|| {
            let grandchild = fork(sleeps)?;
            ask(&format!("name {} child; name {grandchild} grandchild", std::process::id()))?;
            look(grandchild)
        })();
        u8::from(result.is_err())
    })?;
    waited(child, 0)
}

fn grandchild() -> Result<()> {
    with_grandchild(|grandchild| {
        ask("state S child; show child; state S grandchild; show grandchild")?;
        end(grandchild)?;
        ask("gone grandchild")
    })
}

fn child_ends() -> Result<()> {
    for code in 0..5 {
        let child = fork(move || code)?;
        waited(child, 0)?;
        ask(&format!("name {child} child{code}; gone child{code}"))?;
    }
    Ok(())
}

fn zombie() -> Result<()> {
    let child = fork(|| 3)?;
    ask(&format!("name {child} child; state Z child; show child"))?;
    waited(child, 0)?;
    ask("gone child")
}

fn orphan() -> Result<()> {
    with_grandchild(|_| Ok(()))?;
    ask("gone child; state S grandchild; show grandchild; signal 9 grandchild; gone grandchild")
}

fn subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    for _ in 0..2 {
        with_grandchild(|_| ask("state S child; state S grandchild"))?;
        ask("gone child; state S grandchild; show grandchild; signal 9 grandchild; state Z grandchild")?;
        let (_, status) = ghost_sys::trials::wait(-1, 0)?.context("the orphan is ours")?;
        say!("waited for it: {}", crate::fork::ended(status));
        ask("gone grandchild")?;
    }
    Ok(())
}

fn daemon() -> Result<()> {
    let child = fork(|| {
        let result = (|| {
            setsid()?;
            let last = fork(sleeps)?;
            ask(&format!("name {} child; name {last} daemon", std::process::id()))
        })();
        u8::from(result.is_err())
    })?;
    waited(child, 0)?;
    ask("gone child; state S daemon; show daemon; signal 15 daemon; gone daemon")
}

/// Changes of groups and sessions have no event: they are compared while somebody looks.
fn mirrored() -> Result<()> {
    for _ in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(400));
        ask("state S")?;
    }
    Ok(())
}

fn own_group() -> Result<()> {
    let child = fork(sleeps)?;
    setpgid(Pid::from_raw(child), Pid::from_raw(child))?;
    ask(&format!("name {child} child; state S child"))?;
    mirrored()?;
    ask("show child")?;
    end(child)
}

fn own_session() -> Result<()> {
    set_blocked(bit(10))?;
    let own = std::process::id().cast_signed();
    let child = fork(move || {
        let _ = setsid();
        let _ = send(own, 10);
        sleeps()
    })?;
    signal_wait::next(bit(10))?;
    mirrored()?;
    ask(&format!("name {child} child; state S child; show child"))?;
    end(child)
}

fn name() -> Result<()> {
    let mut child = std::process::Command::new("/bin/sleep").arg("30").spawn()?;
    ask(&format!("name {} child; state S child", child.id()))?;
    // A ghost has its new name within milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(300));
    ask("show child")?;
    child.kill()?;
    say!("{}", crate::fork::ended(child.wait()?));
    Ok(())
}

fn renamed() -> Result<()> {
    use std::os::unix::process::CommandExt;
    ask("show program")?;
    let why = std::process::Command::new("/bin/sh")
        .args(["-c", "echo '@do state S; show program'; read -r answer; exit 6"])
        .exec();
    Err(why.into())
}

fn stopped_child() -> Result<()> {
    let child = fork(sleeps)?;
    send(child, 19)?;
    waited(child, nix::libc::WUNTRACED)?;
    ask(&format!("name {child} child; state T child"))?;
    send(child, 18)?;
    waited(child, nix::libc::WCONTINUED)?;
    ask("state S child; signal 19 child; state T child")?;
    waited(child, nix::libc::WUNTRACED)?;
    ask("signal 18 child; state S child")?;
    waited(child, nix::libc::WCONTINUED)?;
    end(child)
}

/// A child that tells of one signal.
fn listening_child() -> Result<i32> {
    set_blocked(bit(10) | bit(12))?;
    Ok(fork(|| match signal_wait::next(bit(10) | bit(12)) {
        Ok(info) => u8::from(crate::asking::say(&format!("child: {}", told(&info))).is_err()),
        Err(_) => 9,
    })?)
}

fn signal_to_a_child() -> Result<()> {
    let child = listening_child()?;
    ask(&format!("name {child} child; state S child; signal 10 child"))?;
    waited(child, 0)?;
    ask("gone child")
}

fn kill_a_child() -> Result<()> {
    let child = fork(sleeps)?;
    ask(&format!("name {child} child; state S child; signal 9 child"))?;
    waited(child, 0)?;
    ask("gone child")
}

fn signal_to_own_group() -> Result<()> {
    set_blocked(bit(10))?;
    send(0, 10)?;
    let info = signal_wait::next(bit(10))?;
    say!("signal {} from {}", info.signal, process(info.pid));
    ask("leader")
}

fn signal_to_the_parent() -> Result<()> {
    // Its parent is the observer, or the launcher: neither is harmed by it.
    say!("{:?}", send(getppid().as_raw(), 28).map_err(|why| why.raw_os_error()));
    say!("{:?}", send(getppid().as_raw(), 0).map_err(|why| why.raw_os_error()));
    Ok(())
}

fn signal_to_the_leader() -> Result<()> {
    let leader = getpgrp().as_raw();
    say!("{:?}", send(leader, 12).map_err(|why| why.raw_os_error()));
    ask("leader")
}

fn group_signal() -> Result<()> {
    let child = listening_child()?;
    ask(&format!("name {child} child; state S child; group-signal 12; leader"))?;
    // Both get it; who says so first would be chance.
    let info = signal_wait::next(bit(12))?;
    waited(child, 0)?;
    say!("{}", told(&info));
    Ok(())
}

fn group_kill() -> Result<()> {
    for number in 0..3 {
        let child = fork(sleeps)?;
        ask(&format!("name {child} child{number}; state S child{number}"))?;
    }
    crate::asking::then("group-signal 9; gone child0; gone child1; gone child2")?;
    read_line()?;
    Ok(())
}

fn group_of_child() -> Result<()> {
    let child = fork(|| {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        sleeps()
    })?;
    ask(&format!("name {child} child; state S child"))?;
    mirrored()?;
    // To the group of the program: not to the child.
    set_blocked(bit(12))?;
    ask("group-signal 12; leader; state S child")?;
    say!("{}", told(&signal_wait::next(bit(12))?));
    end(child)
}

fn sibling() -> Result<()> {
    let (mut done, mut doing) = std::io::pipe()?;
    let child = fork_of(Kind::Sibling, move || {
        let parent = crate::asking::say(&format!("sibling's parent {}", process(getppid())));
        let told = doing.write_all(b"x");
        u8::from(parent.is_err() || told.is_err()) + sleeps()
    })?;
    done.read_exact(&mut [0])?;
    waited(child, 0)?;
    ask(&format!("name {child} sibling; state S sibling; show sibling; signal 9 sibling"))
}

fn clone() -> Result<()> {
    let child = fork_of(Kind::EndsWith(0), sleeps)?;
    ask(&format!("name {child} child; state S child; show child"))?;
    send(child, 9)?;
    waited(child, nix::libc::__WALL)?;
    ask("gone child")
}

fn thread_is_no_child() -> Result<()> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = tell.send(nix::unistd::gettid());
        std::thread::sleep(std::time::Duration::from_millis(500));
    });
    let tid = told.recv()?;
    // A thread has no directory of its own in /proc, but it can be entered by number.
    ask(&format!("name {tid} thread; threads 2"))?;
    let _ = thread.join();
    ask("threads 1")
}

fn ends_before_its_child() -> Result<()> {
    let child = fork(|| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        7
    })?;
    ask(&format!("name {child} child; state S child; show child"))
}
