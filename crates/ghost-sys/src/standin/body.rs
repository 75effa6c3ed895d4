//! What runs in a stand-in. Raw system calls only: no libc, no allocation, nothing that can panic (see the parent module).

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use super::{DONE, Orders, POSTED, Report, TAKEN};
use crate::spawn::raw::{clone3, syscall};

static CHILD: u64 = 1 << (libc::SIGCHLD - 1);
/// Kept at 0: root's rights, for the programs that it makes.
const ROOT: usize = 0;
const UNCHANGED: usize = u32::MAX as usize;

/// # Safety
/// `orders` points to [`Orders`] that live as long as this process; to be called in a fresh child only.
pub(super) unsafe extern "C" fn run(orders: *const c_void) -> ! {
    // SAFETY: the caller's contract. The maker changes its atomics only.
    let orders = unsafe { &*orders.cast::<Orders>() };
    take_place(orders);
    if orders.at_once {
        become_users(orders);
        say(orders, DONE);
    }
    let mut made = orders.at_once;
    loop {
        if obey(orders) && !made {
            made = true;
            become_users(orders);
        }
        while tell(orders) {}
        // SAFETY: the kernel reads 8 bytes. SIGCHLD says that there is an order, or that a child has changed; it stays pending
        // while this process does something else.
        unsafe {
            syscall(libc::SYS_rt_sigtimedwait, [(&raw const CHILD) as usize, 0, 0, 8, 0, 0]);
        }
    }
}

fn take_place(orders: &Orders) {
    let [what, which] = orders.place;
    // SAFETY: no memory is passed but the name, which ends with NUL, a priority, and a mask of 8 bytes.
    unsafe {
        match what {
            1 => syscall(libc::SYS_setsid, [0; 6]),
            4 => {
                syscall(libc::SYS_setsid, [0; 6]);
                syscall(libc::SYS_ioctl, [which as usize, libc::TIOCSCTTY as usize, 0, 0, 0, 0])
            }
            2 => syscall(libc::SYS_setpgid, [0; 6]),
            3 => syscall(libc::SYS_setpgid, [0, which as usize, 0, 0, 0, 0]),
            _ => 0,
        };
        // What it has to do is short, and a program's start and end wait for it. Where it may not, they wait their turn. A program does
        // not begin with that (kernel/sched/core.c, sched_fork()): it would run before it is known to be there. Stand-ins do.
        let priority = 1i32;
        let at = (&raw const priority) as usize;
        let policy = if what == 1 { libc::SCHED_FIFO } else { libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK };
        syscall(libc::SYS_sched_setscheduler, [0, policy as usize, at, 0, 0, 0]);
        syscall(libc::SYS_prctl, [libc::PR_SET_NAME as usize, orders.comm.as_ptr() as usize, 0, 0, 0, 0]);
        let how = libc::SIG_SETMASK as usize;
        syscall(libc::SYS_rt_sigprocmask, [how, (&raw const CHILD) as usize, 0, 8, 0, 0]);
    }
}

fn become_users(orders: &Orders) {
    let uid = orders.uid as usize;
    // SAFETY: no memory is passed.
    unsafe {
        syscall(libc::SYS_setresuid, [uid, UNCHANGED, uid, 0, 0, 0]);
        // A change of user sets it to the sysctl fs.suid_dumpable (kernel/cred.c, commit_creds()), which may be 1.
        syscall(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, ROOT, 0, 0, 0, 0]);
    }
}

/// Makes a process, if that is ordered.
fn obey(orders: &Orders) -> bool {
    if orders.state.compare_exchange(POSTED, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    let entry = orders.entry.load(Ordering::Relaxed) as usize as *const ();
    let arguments = orders.arguments.load(Ordering::Relaxed) as usize as *const libc::clone_args;
    let argument = orders.argument.load(Ordering::Relaxed) as usize as *const c_void;
    // SAFETY: whoever posted the order has put a function, arguments of clone3 and an argument there, which it leaves alone until the
    // order is done.
    let result = unsafe {
        let entry = std::mem::transmute::<*const (), unsafe extern "C" fn(*const c_void) -> !>(entry);
        clone3(&*arguments, entry, argument)
    };
    orders.result.store(result as i64, Ordering::Relaxed);
    say(orders, DONE);
    true
}

fn say(orders: &Orders, state: u32) {
    orders.state.store(state, Ordering::Release);
    let operation = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
    // SAFETY: the kernel uses the address to find who waits.
    unsafe { syscall(libc::SYS_futex, [orders.state.as_ptr() as usize, operation, 1, 0, 0, 0]) };
}

/// The head of siginfo_t as waitid(2) fills it in (include/uapi/asm-generic/siginfo.h, _sigchld).
#[repr(C)]
struct ChildInfo {
    signo: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    status: i32,
    rest: [i32; 25],
}

/// Reports a child's change, then takes it from the kernel.
fn tell(orders: &Orders) -> bool {
    const ALL: i32 = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
    const NOW: i32 = libc::WNOHANG | libc::__WALL;
    let mut info = ChildInfo { signo: 0, errno: 0, code: 0, padding: 0, pid: 0, uid: 0, status: 0, rest: [0; 25] };
    // struct rusage: two timevals, then fourteen longs, of which the first is the largest resident set.
    let mut usage = [0u64; 18];
    let (at, used) = ((&raw mut info) as usize, (&raw mut usage) as usize);
    // SAFETY: the kernel fills in both structs, which have its sizes.
    unsafe {
        syscall(libc::SYS_waitid, [libc::P_ALL as usize, 0, at, (ALL | NOW | libc::WNOWAIT) as usize, used, 0]);
    }
    if info.pid == 0 {
        return false;
    }
    let [user_s, user_us, system_s, system_us, resident, ..] = usage;
    let report = Report {
        pid: info.pid,
        code: info.code,
        status: info.status,
        padding: 0,
        usage: [
            user_s.wrapping_mul(1_000_000).wrapping_add(user_us),
            system_s.wrapping_mul(1_000_000).wrapping_add(system_us),
            resident,
        ],
    };
    let kind = match info.code {
        libc::CLD_STOPPED | libc::CLD_TRAPPED => libc::WSTOPPED,
        libc::CLD_CONTINUED => libc::WCONTINUED,
        _ => libc::WEXITED,
    };
    // SAFETY: the kernel reads the report; one of this size is written whole (pipe(7), PIPE_BUF).
    unsafe {
        let (from, size) = ((&raw const report) as usize, size_of::<Report>());
        syscall(libc::SYS_write, [orders.reports as usize, from, size, 0, 0, 0]);
        syscall(libc::SYS_waitid, [libc::P_PID as usize, info.pid as usize, at, (kind | NOW) as usize, 0, 0]);
    }
    true
}
