//! What happened to the caller's children: ends, stops, continuations.

use std::io;

/// What a process used, its waited-for children included (getrusage(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// Microseconds.
    pub user_us: u64,
    pub system_us: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
}

/// A change of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is gone from the process table with this; `status` is wait(2)'s word.
    Ended {
        pid: u32,
        status: i32,
        usage: Usage,
    },
    Stopped {
        pid: u32,
        signal: u8,
    },
    Continued {
        pid: u32,
    },
}

/// What there is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Change(Change),
    /// There are children, nothing happened to them.
    Nothing,
    NoChildren,
}

/// Takes the next change of any child, of whatever kind it was cloned (`__WALL`). Does not wait.
///
/// # Errors
/// None but those of a broken system.
pub fn next() -> io::Result<Wait> {
    let mut status = 0;
    // SAFETY: a struct of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | libc::__WALL;
    // SAFETY: the kernel writes an int and a struct rusage.
    let pid = unsafe { libc::wait4(-1, &raw mut status, flags, &raw mut usage) };
    if pid < 0 {
        let why = io::Error::last_os_error();
        return match why.raw_os_error() {
            Some(libc::ECHILD) => Ok(Wait::NoChildren),
            _ => Err(why),
        };
    }
    if pid == 0 {
        return Ok(Wait::Nothing);
    }
    let pid = pid as u32;
    Ok(Wait::Change(if libc::WIFSTOPPED(status) {
        Change::Stopped { pid, signal: libc::WSTOPSIG(status) as u8 }
    } else if libc::WIFCONTINUED(status) {
        Change::Continued { pid }
    } else {
        Change::Ended { pid, status, usage: Usage::from(usage) }
    }))
}

/// Takes the end of one child, if it has ended. Does not wait.
pub fn end_of(pid: u32) -> Option<Change> {
    let mut status = 0;
    // SAFETY: a struct of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes an int and a struct rusage.
    let taken =
        unsafe { libc::wait4(pid.cast_signed(), &raw mut status, libc::WNOHANG | libc::__WALL, &raw mut usage) };
    (pid > 0 && taken == pid.cast_signed()).then(|| Change::Ended { pid, status, usage: Usage::from(usage) })
}

/// Whether the caller has no children at all, zombies included. Takes nothing from [`next`].
pub fn childless() -> bool {
    // SAFETY: a struct of integers and pointers that are not looked at; zero is a value for each.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: the kernel writes a siginfo_t.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD)
}

impl From<libc::rusage> for Usage {
    fn from(raw: libc::rusage) -> Usage {
        let microseconds = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        Usage {
            user_us: microseconds(raw.ru_utime),
            system_us: microseconds(raw.ru_stime),
            max_rss_kib: raw.ru_maxrss as u64,
        }
    }
}
