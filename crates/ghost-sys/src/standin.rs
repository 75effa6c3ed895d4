//! A stand-in: a tiny process on a node that has the number of a process of the master, so that a launched program finds there
//! the parent, the process group and the session that it has on the master.
//!
//! ```text
//!             clone3                 first order (as root)              SIGKILL
//! (holder) ---------> stands where --------------------> the user's ------------> dead: its children are its parent's,
//!                     it is to stand                       sleeps, waits for children    or the holder's
//! ```
//! It shares the holder's memory and descriptors (CLONE_VM, CLONE_FILES), makes the programs that are to be its children,
//! and passes on what wait(2) tells it of them. Invariants:
//! - What runs in it (`body`) makes raw system calls only, as in a [`crate::ghost`]. It has all signals ignored, and SIGCHLD
//!   blocked: that wakes it. Its maker must have them so.
//! - Its real and saved user are the master's process's, so that the kernel's own rule says who may signal it; its effective
//!   user stays root, whose rights it needs to make programs. The memory is not dumpable (the holder's `PR_SET_DUMPABLE`),
//!   and a user never is the same as it in all three: nobody may trace it (kernel/ptrace.c, `__ptrace_may_access()`).
//! - Its user may stop it or kill it at any instant. Nobody waits longer than [`PATIENCE`] for it to begin what it is ordered. One that has
//!   begun and is not done by then is killed and waited for, which no user can delay: it is in clone(2), where the caller would wait as long
//!   itself, or runs no further instruction (kernel/signal.c, `get_signal()`). So an order is over when its poster goes on: the process is
//!   there, or will never be, and nobody uses the order's memory any more.
//! - A child's change is reported before it is taken from the kernel (WNOWAIT): killed in between, a stand-in leaves the
//!   change to whoever inherits the child, and it is told twice, never not at all.

mod body;

use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::pidfd;
use crate::reaper::{Change, Usage};
use crate::spawn::Stack;
use crate::spawn::raw;

/// How long a stand-in may take to begin what it is ordered to.
const PATIENCE: Duration = Duration::from_millis(200);
/// So long its orderer stays awake: it runs at once, and is done before another process of this one's turn would be.
const SPIN: Duration = Duration::from_micros(100);
/// A stopped one is continued this often.
const NUDGE: Duration = Duration::from_millis(2);

/// Where a stand-in stands from its birth on; its session is otherwise its maker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Leads a session, and a group in it.
    LeadsSession,
    /// Leads a session whose terminal is this descriptor of its maker's, which is to stay open until it has made its first process.
    Terminal(i32),
    /// Leads a group.
    LeadsGroup,
    /// In this group.
    Group(u32),
    /// In its maker's group.
    Same,
}

/// Whom it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// The number that it gets if that is free.
    pub pid: u32,
    pub uid: u32,
    /// What it is called.
    pub comm: [u8; 15],
}

/// What becomes of an order: 0 nothing is ordered, then in this order.
const POSTED: u32 = 1;
const TAKEN: u32 = 2;
const DONE: u32 = 3;

/// Shared with the stand-in, in memory that lives until it is dead.
#[derive(Debug, Default)]
struct Orders {
    place: [u32; 2],
    uid: u32,
    comm: [u8; 16],
    reports: i32,
    /// It is to be the user's at once: nothing will be ordered first.
    at_once: bool,
    state: AtomicU32,
    arguments: AtomicI64,
    entry: AtomicI64,
    argument: AtomicI64,
    result: AtomicI64,
    /// Of the process that it makes, written by the kernel.
    made: AtomicI32,
    /// 1: it lives; cleared by the kernel when it is gone from this memory.
    alive: AtomicU32,
}

/// A stand-in that has not been seen dead.
#[derive(Debug)]
pub struct StandIn {
    pid: u32,
    pidfd: OwnedFd,
    orders: ManuallyDrop<Box<Orders>>,
    stack: ManuallyDrop<Stack>,
}

/// A process to be made by another one, as raw::clone3 wants it.
pub(crate) struct Making<'a> {
    pub arguments: &'a mut libc::clone_args,
    pub entry: unsafe extern "C" fn(*const c_void) -> !,
    pub argument: *const c_void,
}

impl StandIn {
    /// Makes one: a child of `maker` and in its session, or the caller's own. What it has to report of its children goes to
    /// `reports`, a pipe. `busy`: it makes processes itself, the first as its first order.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM of clone3(2). ETIMEDOUT, ESRCH, ECHILD: the maker is stopped or dead.
    pub fn new(
        maker: Option<&StandIn>,
        original: &Original,
        place: Place,
        reports: BorrowedFd<'_>,
        busy: bool,
    ) -> io::Result<StandIn> {
        let stack = Stack::take()?;
        let mut comm = [0; 16];
        comm[..15].copy_from_slice(&original.comm);
        let orders = Box::new(Orders {
            place: match place {
                Place::LeadsSession => [1, 0],
                Place::LeadsGroup => [2, 0],
                Place::Group(pgid) => [3, pgid],
                Place::Same => [0, 0],
                Place::Terminal(fd) => [4, fd.cast_unsigned()],
            },
            uid: original.uid,
            comm,
            reports: reports.as_raw_fd(),
            at_once: !busy,
            alive: AtomicU32::new(1),
            ..Orders::default()
        });
        let mut pidfd: libc::c_int = -1;
        let mut wanted = [original.pid as libc::pid_t];
        // SAFETY: a struct of integers, for which zero is a value.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID) as u64;
        arguments.exit_signal = libc::SIGCHLD as u64;
        arguments.pidfd = (&raw mut pidfd) as u64;
        arguments.child_tid = orders.alive.as_ptr() as u64;
        arguments.stack = stack.base() as u64;
        arguments.stack_size = stack.size() as u64;
        if original.pid != 0 {
            arguments.set_tid = (&raw mut wanted) as u64;
            arguments.set_tid_size = 1;
        }
        let argument = (&raw const *orders).cast::<c_void>();
        let mut making = Making { arguments: &mut arguments, entry: body::run, argument };
        let mut result = make(maker, &mut making);
        if result.as_ref().is_err_and(is_taken) && original.pid != 0 {
            making.arguments.set_tid = 0;
            making.arguments.set_tid_size = 0;
            result = make(maker, &mut making);
        }
        let pid = result?;
        // SAFETY: the kernel has just made this descriptor, in the table that the maker shares with us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let new = StandIn { pid, pidfd, orders: ManuallyDrop::new(orders), stack: ManuallyDrop::new(stack) };
        if !busy {
            // Others may be sent to its group at once. Who is busy obeys only when it has its place.
            new.take_place();
        }
        Ok(new)
    }

    /// In the caller's PID namespace.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets it go on after a stop signal.
    pub fn go_on(&self) {
        // ESRCH: it is dead.
        let _ = pidfd::signal(&self.pidfd, libc::SIGCONT);
    }

    /// Ends it. Its end is reported like any other child's.
    pub fn end(&self) {
        let _ = pidfd::signal(&self.pidfd, libc::SIGKILL);
    }

    /// It has been waited for: its memory is free.
    pub fn gone(mut self) {
        if self.orders.alive.load(Ordering::Acquire) == 0 {
            // SAFETY: the kernel clears the word when the process leaves this memory (kernel/fork.c, mm_release()), and both
            // are taken here only, where `self` ends.
            unsafe {
                ManuallyDrop::drop(&mut self.orders);
                ManuallyDrop::drop(&mut self.stack);
            }
        }
    }

    fn take_place(&self) {
        let begun = Instant::now();
        while self.orders.state.load(Ordering::Acquire) != DONE && begun.elapsed() < PATIENCE {
            wait(&self.orders.state, 0, NUDGE);
        }
    }

    /// Has it clone.
    fn make(&self, making: &mut Making<'_>) -> io::Result<isize> {
        let orders = &**self.orders;
        orders.made.store(0, Ordering::Relaxed);
        making.arguments.flags |= libc::CLONE_PARENT_SETTID as u64;
        making.arguments.parent_tid = orders.made.as_ptr() as u64;
        orders.arguments.store((&raw const *making.arguments) as i64, Ordering::Relaxed);
        orders.entry.store(making.entry as usize as i64, Ordering::Relaxed);
        orders.argument.store(making.argument as i64, Ordering::Relaxed);
        orders.state.store(POSTED, Ordering::Release);
        let woken = pidfd::signal(&self.pidfd, libc::SIGCHLD);
        let withdraw = || orders.state.compare_exchange(POSTED, 0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if let Err(why) = woken
            && withdraw()
        {
            return Err(why);
        }
        let begun = Instant::now();
        let mut killed = false;
        loop {
            // Read in this order: who is dead says nothing more, so what was not done before is not done.
            let dead = orders.alive.load(Ordering::Acquire) == 0;
            let state = orders.state.load(Ordering::Acquire);
            if state == DONE {
                return Ok(orders.result.load(Ordering::Acquire) as isize);
            }
            let late = begun.elapsed() > PATIENCE;
            if (dead || late) && withdraw() {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            if dead {
                // Killed while it made the child: the kernel has written down whether it did (kernel/fork.c, `kernel_clone()`).
                let made = orders.made.load(Ordering::Acquire);
                return if made > 0 { Ok(made as isize) } else { Err(io::Error::from_raw_os_error(libc::ECHILD)) };
            }
            if late && !killed {
                self.end();
                killed = true;
            }
            if begun.elapsed() < SPIN {
                std::hint::spin_loop();
            } else if !wait(&orders.state, state, NUDGE) {
                self.go_on();
            }
        }
    }
}

fn is_taken(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::EEXIST | libc::EINVAL | libc::EPERM))
}

/// Has a process cloned by `maker`, or by the caller.
///
/// # Safety
/// Not marked so that errors can be told: `making` is as [`raw::clone3`] asks, which the two callers in this crate see to.
pub(crate) fn make(maker: Option<&StandIn>, making: &mut Making<'_>) -> io::Result<u32> {
    let result = match maker {
        Some(maker) => maker.make(making)?,
        // SAFETY: see above.
        None => unsafe { raw::clone3(making.arguments, making.entry, making.argument) },
    };
    if result < 0 { Err(io::Error::from_raw_os_error(-result as i32)) } else { Ok(result as u32) }
}

/// Sleeps while `word` is `value`; `false`: until the time was over.
fn wait(word: &AtomicU32, value: u32, time: Duration) -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word and the time.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, &raw const time) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ETIMEDOUT)
}

/// Makes the calling process such that stand-ins can be born of it: all signals blocked and ignored but SIGCHLD, which is only
/// blocked.
///
/// # Errors
/// None but those of a broken system.
pub fn prepare() -> io::Result<()> {
    crate::signal::set_blocked(u64::MAX)?;
    for signal in crate::signal::catchable() {
        if signal != libc::SIGCHLD {
            crate::signal::set_disposition(signal, crate::signal::Disposition::Ignore)?;
        }
    }
    Ok(())
}

/// What a stand-in writes into the pipe, in one piece.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Report {
    pid: i32,
    /// As si_code of SIGCHLD says it.
    code: i32,
    status: i32,
    padding: i32,
    /// User and system time in microseconds, largest resident set in KiB.
    usage: [u64; 3],
}

/// The next report, if there is one. `reports` does not wait.
pub fn next_report(reports: &OwnedFd) -> Option<Change> {
    let mut bytes = [0u8; size_of::<Report>()];
    let read = loop {
        match nix::unistd::read(reports, &mut bytes) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other,
        }
    };
    if read != Ok(bytes.len()) {
        return None;
    }
    // SAFETY: a struct of integers without padding, from as many bytes as it has.
    let report: Report = unsafe { std::mem::transmute(bytes) };
    let pid = u32::try_from(report.pid).ok()?;
    let [user_us, system_us, max_rss_kib] = report.usage;
    Some(match report.code {
        libc::CLD_STOPPED | libc::CLD_TRAPPED => Change::Stopped { pid, signal: report.status as u8 },
        libc::CLD_CONTINUED => Change::Continued { pid },
        code => {
            let status = match code {
                libc::CLD_EXITED => (report.status & 0xff) << 8,
                libc::CLD_DUMPED => report.status | 0x80,
                _ => report.status,
            };
            Change::Ended { pid, status, usage: Usage { user_us, system_us, max_rss_kib } }
        }
    })
}
