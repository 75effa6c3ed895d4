use super::*;
use std::time::{Duration, Instant};

/// Runs `child` in a fork of this process; gives the status word of its end or stop.
fn forked(child: impl FnOnce()) -> (i32, i32) {
    // SAFETY: the child runs test code, then leaves without exit handlers.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        child();
        // SAFETY: ends the child.
        unsafe { libc::_exit(99) };
    }
    (pid, wait(pid))
}

fn wait(pid: i32) -> i32 {
    let start = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: one int is written.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::WUNTRACED) } {
            0 if start.elapsed() < Duration::from_secs(20) => std::thread::sleep(Duration::from_millis(1)),
            result => {
                assert_eq!(result, pid);
                return status;
            }
        }
    }
}

#[test]
fn dying_by_a_signal_looks_like_it() {
    for signal in [1, 2, 3, 6, 9, 11, 13, 15, 34, 64] {
        let (_, status) = forked(|| {
            let _quiet = Quiet::begin();
            die_by(signal);
        });
        assert_eq!(status, signal, "signal {signal}");
    }
    assert_eq!(forked(|| die_by(libc::SIGWINCH)).1, (128 + libc::SIGWINCH) << 8);
}

#[test]
fn blocked_and_ignored_signals_are_read_all_the_same() {
    let (_, status) = forked(|| {
        let Ok(mut quiet) = Quiet::begin() else { return };
        let signals = [libc::SIGINT, libc::SIGPIPE, 32, 33, 64, libc::SIGWINCH, libc::SIGCONT];
        for signal in signals {
            raise(signal);
        }
        let mut got: Vec<i32> = std::iter::from_fn(|| quiet.read()).map(|received| received.signal).collect();
        got.sort_unstable();
        let mut expected = signals.to_vec();
        expected.sort_unstable();
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(got != expected)) };
    });
    assert_eq!(status, 0);
}

#[test]
fn what_came_before_it_was_ignored_is_not_lost() {
    let (_, status) = forked(|| {
        let _ = set_blocked(u64::MAX);
        raise(libc::SIGTERM);
        let Ok(mut quiet) = Quiet::begin() else { return };
        let term = quiet.read().is_some_and(|received| received.signal == libc::SIGTERM);
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!term)) };
    });
    assert_eq!(status, 0);
}

#[test]
fn stopping_shows_the_signal_and_ends_with_cont() {
    for (signal, orphaned, seen) in [
        (libc::SIGTSTP, false, libc::SIGTSTP),
        (libc::SIGTTOU, false, libc::SIGTTOU),
        (libc::SIGSTOP, false, libc::SIGSTOP),
        (libc::SIGTSTP, true, libc::SIGSTOP),
    ] {
        let (pid, status) = forked(|| {
            // SAFETY: no memory is passed. A group below a parent of the same session is not orphaned, a session is.
            unsafe { if orphaned { libc::setsid() } else { libc::setpgid(0, 0) } };
            let _quiet = Quiet::begin();
            stop_by(signal, || true);
            // SAFETY: ends the child.
            unsafe { libc::_exit(5) };
        });
        assert_eq!(status, seen << 8 | 0x7f, "signal {signal}, orphaned {orphaned}");
        send(pid, libc::SIGCONT).expect("kill");
        assert_eq!(wait(pid), 5 << 8);
    }
}

#[test]
fn what_was_inherited_is_known_in_spite_of_the_runtime() {
    // The runtime ignores SIGPIPE in this process; the test's parent did not, unless it says so.
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let now = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("SigIgn");
    let now = u64::from_str_radix(now, 16).expect("mask");
    assert_ne!(now & bit(libc::SIGPIPE), 0);
    let output = std::process::Command::new("env")
        .arg("--ignore-signal=USR1")
        .arg("--default-signal=PIPE")
        .arg(std::env::current_exe().expect("path"))
        .args(["--exact", "quiet::tests::prints_what_was_inherited", "--nocapture"])
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("inherited: usr1 true, pipe false"), "{text}");
}

/// Run by the test above in a process of its own.
#[test]
fn prints_what_was_inherited() {
    let ignored = inherited().ignored;
    println!("inherited: usr1 {}, pipe {}", ignored & bit(libc::SIGUSR1) != 0, ignored & bit(libc::SIGPIPE) != 0);
}
