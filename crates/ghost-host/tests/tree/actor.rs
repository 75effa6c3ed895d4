//! The init of a namespace that is followed: it makes processes as its scenario says, and reaps them. What it prints, a line
//! each, is for the test: `PID STATUS` of each child that it waited for, and `here` when the test is to look.
//!
//! It has one thread, as fork needs it.

use std::io::{self, BufRead, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};
use std::time::Duration;

use ghost_sys::signal;
use ghost_sys::trials::{self, Fault, Kind, end_thread, fork, fork_of};
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Pid, Uid, setpgid, setsid};

/// First argument of an actor; the second is the name of its scenario.
pub const ARGUMENT: &str = "actor";

/// A command that plays `scenario`.
pub fn playing(scenario: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args([ARGUMENT, scenario]);
    command
}

/// An actor's own main function.
pub fn main(scenario: &str) -> ExitCode {
    match told().and_then(|()| play(scenario)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actor {scenario}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(scenario: &str) -> io::Result<()> {
    match scenario {
        "double_fork" => {
            reap(fork(|| {
                code(fork(|| {
                    let own_session = setsid().is_ok();
                    code(fork(|| 3 + u8::from(!own_session)))
                }))
            })?)?;
            reap_all()
        }
        "own_group" => reap(fork(|| {
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            code(fork(|| 0).and_then(reap))
        })?),
        "spawn" => Command::new("/bin/true").spawn()?.wait().map(drop),
        "threads" => reap(fork(|| {
            let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(|| ())).collect();
            u8::from(!threads.into_iter().all(|thread| thread.join().is_ok()))
        })?),
        "exec_in_thread" => reap(fork(|| {
            let _other = std::thread::spawn(forever);
            let thread = std::thread::spawn(|| Command::new("/bin/sh").args(["-c", ":; exit 8"]).exec());
            let _ = thread.join();
            1
        })?),
        "fork_in_thread" => reap(fork(|| {
            let thread = std::thread::spawn(|| Command::new("/bin/true").spawn()?.wait());
            u8::from(thread.join().is_err())
        })?),
        "leader_ends_first" => reap(fork(|| {
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                end_thread(9)
            });
            end_thread(5)
        })?),
        "leader_then_process" => reap(fork(|| {
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                std::process::exit(6)
            });
            end_thread(5)
        })?),
        "threads_end_at_once" => (0..300).try_for_each(|round| {
            reap(fork(|| {
                for _ in 0..4 {
                    std::thread::spawn(|| end_thread(250));
                }
                end_thread((round % 200) as u8 + 1)
            })?)
        }),
        "sibling" => {
            reap(fork(|| code(fork_of(Kind::Sibling, || 4)))?)?;
            reap_all()
        }
        "silent" => {
            let child = fork_of(Kind::EndsWith(0), || 11)?;
            wait(child, libc::__WALL)
        }
        "shares" => reap(fork_of(Kind::Shares, || 12)?),
        "nested" => reap(fork(|| {
            let made = nix::sched::unshare(CloneFlags::CLONE_NEWPID).is_ok();
            let inner = || u8::from(std::process::id() != 1).wrapping_add(code(fork(|| 2).and_then(reap)));
            u8::from(!made).wrapping_add(code(fork(inner).and_then(reap)))
        })?),
        "codes" => (0..=255).try_for_each(|code| reap(fork(|| code)?)),
        "signals" => {
            // Where the cores go.
            let directory = std::env::temp_dir().join(format!("ghost-tree-{}", std::process::id()));
            std::fs::create_dir_all(&directory)?;
            std::env::set_current_dir(&directory)?;
            let outcome = die_of_signals();
            std::fs::remove_dir_all(directory)?;
            outcome
        }
        "zombie" => {
            let child = fork(|| 13)?;
            say("here");
            told()?;
            reap(child)
        }
        "unwanted" => {
            signal::set_disposition(libc::SIGCHLD, signal::Disposition::Ignore)?;
            fork(|| 14)?;
            say("here");
            told()
        }
        "stops" => stops(false),
        "stops_unseen" => stops(true),
        "users" => reap(fork(|| {
            let [group, user] = [1234, 4321];
            let (real, effective) = (Uid::from_raw(user), Uid::from_raw(user + 1));
            let changed = nix::unistd::setgid(Gid::from_raw(group)).is_ok()
                && nix::unistd::setresuid(real, effective, effective).is_ok();
            u8::from(!changed).wrapping_add(code(fork(|| 0).and_then(reap)))
        })?),
        "older" => {
            let zombie = fork(|| 15)?;
            let living = fork(|| code(told()))?;
            std::thread::sleep(Duration::from_millis(50));
            say("here");
            reap(living)?;
            reap(zombie)
        }
        "storm" => (0..20_000).try_for_each(|_| quietly(fork(|| 0)?)),
        "many_alive" => {
            let children = (0..2_000).map(|_| fork(forever)).collect::<io::Result<Vec<i32>>>()?;
            for _ in 0..8_000 {
                quietly(fork(|| 0)?)?;
            }
            say("here");
            told()?;
            children.iter().try_for_each(|child| signal::send(*child, libc::SIGKILL))?;
            children.into_iter().try_for_each(quietly)
        }
        "killed" => {
            for _ in 0..5 {
                fork(forever)?;
            }
            say("here");
            forever();
            Ok(())
        }
        _ => Err(io::Error::other("unknown scenario")),
    }
}

/// A child that dies of each signal.
fn die_of_signals() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, libc::RLIM_INFINITY, libc::RLIM_INFINITY)?;
    for sig in 1..=64 {
        let child = fork(|| {
            let _ = signal::set_blocked(0);
            // Rust's own program start handles two of them.
            let _ = signal::set_disposition(sig, signal::Disposition::Default);
            let _ = signal::send(std::process::id().cast_signed(), sig);
            forever()
        })?;
        if matches!(sig, 17..=23 | 28) {
            // Those that do not kill.
            std::thread::sleep(Duration::from_millis(2));
            signal::send(child, libc::SIGKILL)?;
        }
        reap(child)?;
    }
    reap(fork(|| {
        trials::fault(Fault::Unmapped);
        0
    })?)
}

/// A child that is stopped and continued in several ways, and killed when it is stopped.
fn stops(unseen: bool) -> io::Result<()> {
    if unseen {
        trials::handle(libc::SIGCHLD, trials::How { flags: libc::SA_NOCLDSTOP, ..Default::default() })?;
    }
    let child = fork(|| {
        let _ = signal::set_blocked(0);
        // In a group that is not orphaned, or the terminal's signals would do nothing.
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        std::thread::spawn(forever);
        forever()
    })?;
    std::thread::sleep(Duration::from_millis(30));
    for sig in [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        signal::send(child, sig)?;
        if unseen {
            std::thread::sleep(Duration::from_millis(30));
        } else {
            wait(child, libc::WUNTRACED)?;
        }
        signal::send(child, libc::SIGCONT)?;
    }
    // Runs already: nothing changes. The process that ignores the signal does not stop.
    std::thread::sleep(Duration::from_millis(30));
    signal::send(child, libc::SIGWINCH)?;
    signal::send(child, libc::SIGKILL)?;
    reap(child)
}

fn forever() -> u8 {
    std::thread::sleep(Duration::from_secs(60));
    99
}

/// What a child exits with: 0 if it did what it was to do.
fn code<T>(outcome: io::Result<T>) -> u8 {
    u8::from(outcome.is_err())
}

fn reap(child: i32) -> io::Result<()> {
    wait(child, 0)
}

fn wait(child: i32, flags: i32) -> io::Result<()> {
    if let Some((pid, status)) = trials::wait(child, flags)? {
        say(&format!("{pid} {}", status.into_raw()));
    }
    Ok(())
}

fn quietly(child: i32) -> io::Result<()> {
    trials::wait(child, 0).map(drop)
}

fn reap_all() -> io::Result<()> {
    loop {
        match reap(-1) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    // The test misses it if it cannot be told.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// Waits for the test to say that this goes on.
fn told() -> io::Result<()> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 { Err(io::Error::other("the test is gone")) } else { Ok(()) }
}
