//! What runs in a ghost. Raw system calls only: no libc, no allocation, nothing that can panic (see the parent module).

use super::raw::{CloneArguments, call, clone_onto};
use super::{ANSWER_SIZE, Answer, Birth, Kill, KillKind, Kin, NURSERY, RANK_SHIFT, ROOM, STACK};

/// What a ghost is told at birth; lies at the top of its stack.
#[repr(C, align(16))]
pub struct Orders {
    pub pin: i32,
    pub rank: u32,
    /// The name, ending in NUL.
    pub comm: [u8; 16],
    /// The stacks of the ghosts that ghosts make, or null.
    pub nursery: *mut u8,
    /// The number that it is to have, for who makes it on its maker's behalf; 0 for any.
    pub wanted: u32,
}

/// A ghost that ghostd does not accept ends with this.
const REFUSED: u8 = 125;
/// Pause before a read that failed for no reason of the ghost's is tried again, in nanoseconds.
const PAUSE: i64 = 10_000_000;

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// The whole life of a ghost.
pub extern "C" fn run(orders: *const Orders) -> ! {
    // SAFETY: the parent has put the orders there for us alone, and leaves them until we are reaped.
    let orders = unsafe { &*orders };
    let pin = orders.pin as usize;
    // SAFETY: the name is NUL-terminated and lives on; closing our own copies of descriptors touches no memory. Whatever
    // pipe bpsh holds must not be held by its ghosts, or its reader would never see the end of file.
    unsafe {
        call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, orders.comm.as_ptr() as usize, 0, 0]);
        if pin > 0 {
            call(libc::SYS_close_range, [0, pin.wrapping_sub(1), 0, 0]);
        }
        call(libc::SYS_close_range, [pin.wrapping_add(1), u32::MAX as usize, 0, 0]);
    }
    let mut outcome = 0;
    loop {
        let answer = read_pin(pin, orders.rank, outcome);
        if answer.is_ok() {
            outcome = 0;
        }
        match answer {
            Ok(Answer::Armed) => set_mask(0),
            Ok(Answer::Exit(code)) => exit(code),
            Ok(Answer::Die(signal)) => die(signal),
            Ok(Answer::Stop(signal)) => stop(signal),
            Ok(Answer::Again) => {}
            Ok(Answer::Fork(birth)) => outcome = fork(orders, &birth),
            Ok(Answer::Reap(pid)) => reap(pid),
            Ok(Answer::Name(comm)) => name(&comm),
            Ok(Answer::Group(pgid)) => outcome = join_group(pgid),
            Ok(Answer::Session) => outcome = lead_session(orders),
            Ok(Answer::Found(pgid)) => outcome = found_group(orders, pgid),
            Ok(Answer::Kill(kill)) => send(&kill),
            Ok(Answer::TakeIn) => outcome = take_in(),
            // pread was broken off: by SIGSTOP (which takes effect on the way here), a debugger, a freezer.
            Err(libc::EINTR) => {}
            Err(libc::EPERM) => exit(REFUSED),
            // The connection is gone for good, and the master's ghosts with it.
            Err(libc::ENOTCONN | libc::ECONNABORTED | libc::ENODEV | libc::EBADF) => die(libc::SIGKILL as u8),
            Err(_) => pause(),
        }
    }
}

/// pread, never read: all ghosts of a launch share one open file, and the second read(2) would wait for the file's position
/// (fs/file.c `fdget_pos`) before it reached the pin.
fn read_pin(pin: usize, rank: u32, outcome: u32) -> Result<Answer, i32> {
    let mut bytes = [0u8; ANSWER_SIZE];
    let offset = (rank as usize) << RANK_SHIFT | (outcome & 0xfff) as usize;
    // SAFETY: the kernel writes at most the length of `bytes`.
    let result = unsafe { call(libc::SYS_pread64, [pin, bytes.as_mut_ptr() as usize, bytes.len(), offset]) };
    if result < 0 {
        return Err((result as i32).wrapping_neg());
    }
    if (result as usize) < ANSWER_SIZE {
        return Err(libc::EIO);
    }
    Answer::decode(&bytes).ok_or(libc::EIO)
}

/// Makes another ghost. It is born like a first one: all signals blocked, and ignored by inheritance. What is sent to
/// this ghost meanwhile is seen when it unblocks them again, as at its own birth. Gives 0, or an errno: there is none.
fn fork(orders: &Orders, birth: &Birth) -> u32 {
    if orders.nursery.is_null() || birth.place >= NURSERY {
        return libc::ENOMEM as u32;
    }
    let mut child =
        Orders { pin: orders.pin, rank: birth.rank, comm: [0; 16], nursery: orders.nursery, wanted: birth.pid };
    let mut at = 0;
    while at < 15 {
        child.comm[at] = birth.comm[at];
        at += 1;
    }
    set_mask(!0);
    // SAFETY: the nursery is NURSERY mapped stacks of STACK bytes, and ghostd gives out each place to one ghost at a time, so
    // that nobody uses this one. `run` needs nothing but its orders above the stack, and never returns.
    let result = unsafe {
        let place = orders.nursery.add((birth.place as usize).wrapping_mul(STACK)).add(ROOM).cast::<Orders>();
        place.write(child);
        match birth.kin {
            Kin::Child => make(place, 0),
            Kin::Sibling => make(place, libc::CLONE_PARENT as u64),
            Kin::Orphan => make_orphan(place),
        }
    };
    set_mask(0);
    error_of(result)
}

/// Clones the ghost whose orders these are onto the stack below them. Gives its number, or a negative errno.
///
/// # Safety
/// Below the orders, which are [`ROOM`] above its start, lies a stack that nobody else uses above its first page.
unsafe fn make(place: *const Orders, flags: u64) -> isize {
    // SAFETY: as this function's; the number that is wanted lives until the calls return.
    unsafe {
        let wanted = [(*place).wanted as i32];
        let mut arguments = CloneArguments {
            flags: libc::CLONE_VM as u64 | flags,
            pidfd: 0,
            child_tid: 0,
            parent_tid: 0,
            // With CLONE_PARENT it is the maker's own (kernel/fork.c, `copy_process()`).
            exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
            stack: place.cast::<u8>().sub(ROOM) as u64,
            stack_size: ROOM as u64,
            tls: 0,
            set_tid: wanted.as_ptr() as u64,
            set_tid_size: 1,
            cgroup: 0,
        };
        if wanted[0] != 0 {
            let made = clone_onto(&arguments, run, place);
            if made >= 0 {
                return made;
            }
        }
        arguments.set_tid = 0;
        arguments.set_tid_size = 0;
        clone_onto(&arguments, run, place)
    }
}

/// Has the ghost made by a process in between, which ends at once. Its stack is the first page of the ghost's, which the
/// ghost does not reach.
///
/// # Safety
/// As [`make`].
unsafe fn make_orphan(place: *const Orders) -> isize {
    // SAFETY: as this function's. Nothing but `between` runs on that page, and it is waited for; should this ghost be killed
    // before, it has but a few instructions left to run.
    unsafe {
        let arguments = CloneArguments {
            flags: libc::CLONE_VM as u64,
            pidfd: 0,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: 0,
            stack: place.cast::<u8>().sub(ROOM) as u64,
            stack_size: (STACK / 2) as u64,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: 0,
        };
        let made = clone_onto(&arguments, between, place);
        if made < 0 {
            return made;
        }
        let mut status = 0i32;
        let waited = call(libc::SYS_wait4, [made as usize, &raw mut status as usize, libc::__WALL as u32 as usize, 0]);
        // It exits with 1 if it could not make the ghost.
        if waited == made && status != 0 { -(libc::EAGAIN as isize) } else { made }
    }
}

/// The process in between.
extern "C" fn between(place: *const Orders) -> ! {
    // SAFETY: the maker has put the orders there, and leaves them.
    let made = unsafe { make(place, 0) };
    exit(u8::from(made < 0))
}

fn reap(pid: u32) {
    // SAFETY: nothing is written. It has ended or is about to: ghostd has seen the end of its task.
    unsafe { call(libc::SYS_wait4, [pid as usize, 0, 0, 0]) };
}

fn name(comm: &[u8; 15]) {
    let mut text = [0u8; 16];
    let mut at = 0;
    while at < 15 {
        text[at] = comm[at];
        at += 1;
    }
    // SAFETY: the kernel reads a name of at most 16 bytes that ends with NUL.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, text.as_ptr() as usize, 0, 0]) };
}

fn join_group(pgid: u32) -> u32 {
    // SAFETY: no memory is passed. It fails while there is no such group; then the ghost stays where it is.
    error_of(unsafe { call(libc::SYS_setpgid, [0, pgid as usize, 0, 0]) })
}

/// Who is below already is marked, too (kernel/sys.c, `propagate_has_child_subreaper()`).
fn take_in() -> u32 {
    // SAFETY: no memory is passed.
    error_of(unsafe { call(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0]) })
}

/// Who leads a process group cannot lead a session (kernel/sys.c, `ksys_setsid()`). A process whose number the group has not, but its ghost,
/// could: so the ghost leaves that first.
fn lead_session(orders: *const Orders) -> u32 {
    // SAFETY: no memory is passed.
    let session = || error_of(unsafe { call(libc::SYS_setsid, [0; 4]) });
    match session() {
        refused if refused == libc::EPERM as u32 => {
            found_group(orders, 0);
            session()
        }
        done => done,
    }
}

/// Joins the group of a child, which has ended by then: a number that is no process's. `wanted`: which, if it is free; 0: any.
fn found_group(orders: *const Orders, wanted: u32) -> u32 {
    let wanted = [wanted as i32];
    // SAFETY: `wanted` lives until the calls return. The child runs on the first page of this ghost's stack, which the ghost does not
    // reach, does nothing but to end, and is waited for.
    unsafe {
        let mut arguments = CloneArguments {
            flags: libc::CLONE_VM as u64,
            pidfd: 0,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: 0,
            stack: orders.cast::<u8>().sub(ROOM) as u64,
            stack_size: (STACK / 2) as u64,
            tls: 0,
            set_tid: wanted.as_ptr() as u64,
            set_tid_size: 1,
            cgroup: 0,
        };
        let mut child = -1;
        if wanted[0] != 0 {
            child = clone_onto(&arguments, vanish, orders);
        }
        if child < 0 {
            arguments.set_tid = 0;
            arguments.set_tid_size = 0;
            child = clone_onto(&arguments, vanish, orders);
        }
        if child < 0 {
            return error_of(child);
        }
        let child = child as usize;
        let mut result = call(libc::SYS_setpgid, [child, child, 0, 0]);
        if result >= 0 {
            result = call(libc::SYS_setpgid, [0, child, 0, 0]);
        }
        call(libc::SYS_wait4, [child, 0, libc::__WALL as u32 as usize, 0]);
        error_of(result)
    }
}

extern "C" fn vanish(_: *const Orders) -> ! {
    exit(0)
}

/// The errno of a system call that failed, or 0.
fn error_of(result: isize) -> u32 {
    if result < 0 { result.wrapping_neg() as u32 } else { 0 }
}

/// Sends a signal as the process has sent it: who gets it sees this ghost's number, which is the process's, and its user. The
/// kernel says whether that user may.
fn send(kill: &Kill) {
    let (target, signal) = (kill.target as usize, kill.signal as usize);
    // SAFETY: no memory is passed but a siginfo_t of 128 bytes (signal, errno, code, padding, pid, uid, value).
    unsafe {
        match kill.kind {
            KillKind::Kill => call(libc::SYS_kill, [target, signal, 0, 0]),
            KillKind::Thread => call(libc::SYS_tgkill, [target, target, signal, 0]),
            KillKind::Queue => {
                let (pid, uid) = (call(libc::SYS_getpid, [0; 4]) as u64, call(libc::SYS_getuid, [0; 4]) as u64);
                let mut info = [0u64; 16];
                info[0] = signal as u64;
                info[1] = libc::SI_QUEUE as u32 as u64;
                info[2] = pid & 0xffff_ffff | uid << 32;
                info[3] = kill.value;
                call(libc::SYS_rt_sigqueueinfo, [target, signal, info.as_ptr() as usize, 0])
            }
        }
    };
}

fn die(signal: u8) -> ! {
    let number = i32::from(signal);
    match number {
        // Their default does not end a process.
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => exit(signal.wrapping_add(128)),
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => exit(signal.wrapping_add(128)),
        libc::SIGKILL => {}
        _ => {
            // A core would be bpsh's memory, not the program's. Not dumpable is the only refusal that also holds where
            // cores go to a program (fs/coredump.c `vfs_coredump`: RLIMIT_CORE of 0 is not asked then).
            // SAFETY: no memory is passed.
            unsafe { call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0]) };
            set_disposition(number, SIG_DFL);
            set_mask(0);
        }
    }
    raise(number);
    exit(signal.wrapping_add(128))
}

/// Stops as the process did. A terminal's stop signals do nothing in an orphaned process group (kernel/signal.c
/// `get_signal`); SIGSTOP always does. Whether the first has stopped us is told by SIGCONT, which is blocked meanwhile: only
/// who was continued, or is not to stop at all any more, has it pending. (Raising a stop signal discards an older SIGCONT.)
fn stop(signal: u8) {
    let number = i32::from(signal);
    if matches!(number, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
        set_mask(bit(libc::SIGCONT));
        set_disposition(number, SIG_DFL);
        raise(number);
        set_disposition(number, SIG_IGN);
        if pending() & bit(libc::SIGCONT) == 0 {
            raise(libc::SIGSTOP);
        }
        set_mask(0);
    } else {
        raise(libc::SIGSTOP);
    }
}

const fn bit(signal: i32) -> u64 {
    1 << (signal.wrapping_sub(1) & 63)
}

fn set_mask(mask: u64) {
    // SAFETY: the kernel reads 8 bytes.
    unsafe { call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, &raw const mask as usize, 0, 8]) };
}

fn pending() -> u64 {
    let mut mask = 0u64;
    // SAFETY: the kernel writes 8 bytes.
    unsafe { call(libc::SYS_rt_sigpending, [&raw mut mask as usize, 8, 0, 0]) };
    mask
}

fn set_disposition(signal: i32, handler: usize) {
    // `struct kernel_sigaction`: handler, flags, restorer, mask.
    let action = [handler, 0, 0, 0];
    // SAFETY: the kernel reads four words; the handler is SIG_DFL or SIG_IGN. Dispositions are our own: no CLONE_SIGHAND.
    unsafe { call(libc::SYS_rt_sigaction, [signal as usize, action.as_ptr() as usize, 0, 8]) };
}

fn raise(signal: i32) {
    // SAFETY: no memory is passed. A ghost has one thread: its TID is its PID.
    unsafe {
        let pid = call(libc::SYS_getpid, [0; 4]) as usize;
        call(libc::SYS_tgkill, [pid, pid, signal as usize, 0]);
    }
}

fn pause() {
    let time = [0i64, PAUSE];
    // SAFETY: the kernel reads two words.
    unsafe { call(libc::SYS_nanosleep, [time.as_ptr() as usize, 0, 0, 0]) };
}

fn exit(code: u8) -> ! {
    loop {
        // SAFETY: ends this process.
        unsafe { call(libc::SYS_exit_group, [code as usize, 0, 0, 0]) };
    }
}
