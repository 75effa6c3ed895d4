//! The ghost: a process of its own that sleeps on the pin until it is told how to end.
//!
//! ```text
//!            clone3                 Armed                    Stop            CONT
//! (parent) ---------> [unarmed] -------------> [asleep] ------------> [stopped] ---> back to asleep
//!                     signals blocked          signals ignored
//!                          |                       |
//!                          +--- Exit, Die ---------+---> zombie ---> reaped by the parent, when ghostd agrees
//! ```
//! Ghosts share the memory of the process that makes them (CLONE_VM: 34 us and 28 KiB instead of 438 us and 115 KiB for a
//! fork). Invariants that this asks for:
//! - What runs in a ghost (`body`) makes raw system calls only: libc's wrappers would write the parent's `errno`, an
//!   allocation could find the parent's allocator locked.
//! - A ghost's stack is used again only after the ghost has been reaped here: a killed ghost never tells. The stacks of ghosts
//!   that ghosts make (for processes that a process forks) are ghostd's to give out: it sees when such a ghost's task ends.
//! - Who makes ghosts has all signals blocked and all but SIGCHLD ignored ([`crate::quiet::Quiet`]): a ghost is born that
//!   way, so that no signal can end it or get lost before it is armed. SIGCHLD stays at its default: ignored, it would let a
//!   killed ghost vanish before its process (kernel/signal.c `do_notify_parent`).

mod body;
mod raw;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Bytes of an encoded [`Answer`].
pub const ANSWER_SIZE: usize = 40;

/// Ghosts of forked processes that a launch may have at once: their stacks lie in places with numbers below this.
pub const NURSERY: u32 = 16_384;

/// A ghost reads the pin file at its rank shifted by this many bits: the offset names the rank. Ghosts of forked processes have
/// numbers above those of the ranks. The low bits say how the last answer went: 0, or an errno.
pub const RANK_SHIFT: u32 = 12;

/// Whose child a new ghost is.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kin {
    /// Its maker's.
    Child = 0,
    /// Its maker's parent's (CLONE_PARENT).
    Sibling = 1,
    /// Nobody's, but of whoever takes in orphans: its parent has ended.
    Orphan = 2,
}

/// A child that a ghost is to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Birth {
    /// What it reads the pin as, like a rank.
    pub rank: u32,
    /// Its PID; 0 for any. Another one if this is taken, or the ghost has no right to choose (CAP_CHECKPOINT_RESTORE).
    pub pid: u32,
    /// Where its stack lies, below [`NURSERY`]; nobody else's while it lives.
    pub place: u32,
    pub kin: Kin,
    pub comm: [u8; 15],
}

/// A signal that a ghost is to send, with its own rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kill {
    /// A process; negative: a process group, as kill(2) has it.
    pub target: i32,
    /// 1 to 64.
    pub signal: u8,
    pub kind: KillKind,
    /// `si_value`, for [`KillKind::Queue`].
    pub value: u64,
}

/// The system call by which it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KillKind {
    /// kill(2)
    Kill,
    /// rt_sigqueueinfo(2), with SI_QUEUE
    Queue,
    /// tgkill(2) at the main thread
    Thread,
}

/// What a ghost's read of the pin gives. The bytes: little-endian 32-bit words, operation and argument, then up to three words
/// and a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The ghost is known and watched: it unblocks its signals (what is pending is then seen as delivered) and reads again.
    Armed,
    /// End with this code.
    Exit(u8),
    /// Die by this signal, 1 to 64, without a core; should it not kill, exit with 128 + signal.
    Die(u8),
    /// Stop by this signal: SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU. Reads again once continued.
    Stop(u8),
    /// Read again.
    Again,
    /// Make another ghost, and read again.
    Fork(Birth),
    /// Wait for this child, which is dead, and read again.
    Reap(u32),
    /// Take this name, and read again.
    Name([u8; 15]),
    /// Join this process group (its own, if it is the ghost's number), and read again.
    Group(u32),
    /// Lead a session of its own, and read again.
    Session,
    /// Go into a new process group that nobody leads, and read again. It has this number, if that is free; another one else.
    Found(u32),
    /// Send a signal, and read again.
    Kill(Kill),
    /// Take in the children of descendants that end (PR_SET_CHILD_SUBREAPER, prctl(2)), and read again.
    TakeIn,
}

impl Answer {
    /// The bytes that the pin's reader gets.
    pub const fn encode(self) -> [u8; ANSWER_SIZE] {
        let mut words = [0u32; 5];
        let mut name = [0u8; 15];
        match self {
            Answer::Armed => words[0] = 1,
            Answer::Exit(code) => (words[0], words[1]) = (2, code as u32),
            Answer::Die(signal) => (words[0], words[1]) = (3, signal as u32),
            Answer::Stop(signal) => (words[0], words[1]) = (4, signal as u32),
            Answer::Again => words[0] = 5,
            Answer::Fork(birth) => {
                words = [6, birth.kin as u32, birth.rank, birth.pid, birth.place];
                name = birth.comm;
            }
            Answer::Reap(pid) => (words[0], words[1]) = (7, pid),
            Answer::Name(comm) => {
                words[0] = 8;
                name = comm;
            }
            Answer::Group(pgid) => (words[0], words[1]) = (9, pgid),
            Answer::Session => words[0] = 10,
            Answer::Found(pgid) => (words[0], words[1]) = (11, pgid),
            Answer::Kill(kill) => {
                let kind = match kill.kind {
                    KillKind::Kill => 0,
                    KillKind::Queue => 1 << 8,
                    KillKind::Thread => 2 << 8,
                };
                let (low, high) = (kill.value as u32, (kill.value >> 32) as u32);
                words = [12, kill.signal as u32 | kind, kill.target as u32, low, high];
            }
            Answer::TakeIn => words[0] = 13,
        }
        let mut bytes = [0; ANSWER_SIZE];
        let mut at = 0;
        while at < 20 {
            bytes[at] = words[at / 4].to_le_bytes()[at % 4];
            at += 1;
        }
        at = 0;
        while at < 15 {
            bytes[20 + at] = name[at];
            at += 1;
        }
        bytes
    }

    /// The answer in these bytes; `None` if it is none, which a ghost takes as [`Answer::Again`] after a pause.
    pub const fn decode(bytes: &[u8; ANSWER_SIZE]) -> Option<Answer> {
        let mut words = [0u32; 5];
        let mut at = 0;
        while at < 5 {
            let four = [bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]];
            words[at] = u32::from_le_bytes(four);
            at += 1;
        }
        let mut name = [0u8; 15];
        at = 0;
        while at < 15 {
            name[at] = bytes[20 + at];
            at += 1;
        }
        let [operation, argument, rank, pid, place] = words;
        match operation {
            1 => Some(Answer::Armed),
            2 if argument <= 0xff => Some(Answer::Exit(argument as u8)),
            3 if argument >= 1 && argument <= 64 => Some(Answer::Die(argument as u8)),
            4 if argument >= 1 && argument <= 64 => Some(Answer::Stop(argument as u8)),
            5 => Some(Answer::Again),
            6 if place < NURSERY && argument <= 2 => {
                let kin = match argument {
                    0 => Kin::Child,
                    1 => Kin::Sibling,
                    _ => Kin::Orphan,
                };
                Some(Answer::Fork(Birth { rank, pid, place, kin, comm: name }))
            }
            7 if argument > 0 && argument <= i32::MAX as u32 => Some(Answer::Reap(argument)),
            8 => Some(Answer::Name(name)),
            9 if argument > 0 && argument <= i32::MAX as u32 => Some(Answer::Group(argument)),
            10 => Some(Answer::Session),
            11 if argument <= i32::MAX as u32 => Some(Answer::Found(argument)),
            12 => {
                let kind = match argument >> 8 {
                    0 => KillKind::Kill,
                    1 => KillKind::Queue,
                    2 => KillKind::Thread,
                    _ => return None,
                };
                let signal = argument as u8;
                // Nobody, and everybody, is no target.
                if signal < 1 || signal > 64 || rank == 0 || rank == u32::MAX {
                    return None;
                }
                let value = pid as u64 | (place as u64) << 32;
                Some(Answer::Kill(Kill { target: rank as i32, signal, kind, value }))
            }
            13 => Some(Answer::TakeIn),
            _ => None,
        }
    }
}

/// What waiting for a ghost tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// By this signal.
    Stopped(u8),
    Continued,
}

/// Stack of one ghost. Only its upper page is ever touched.
const STACK: usize = 8192;
/// Where in its stack a ghost's orders lie: above what it may use itself.
const ROOM: usize = (STACK - size_of::<body::Orders>()) & !15;
/// Stacks that are mapped at a time.
const STACKS_PER_ARENA: usize = 256;

/// Makes ghosts, keeps their stacks, and reaps them.
#[derive(Debug, Default)]
pub struct Ghosts {
    /// Lowest addresses of stacks that nobody uses.
    free: Vec<NonNull<u8>>,
    /// The stacks of ghosts that have not been reaped, by PID.
    living: BTreeMap<i32, NonNull<u8>>,
    /// Where the ghosts of forked processes have their stacks; made with the first ghost.
    nursery: Option<NonNull<u8>>,
}

impl Ghosts {
    pub fn new() -> Ghosts {
        Ghosts::default()
    }

    /// Clones a ghost that sleeps on `pin` for this rank, named `comm` (15 bytes count, see PR_SET_NAME in prctl(2)). Gives
    /// its PID. All signals must be blocked, and all but SIGCHLD ignored.
    ///
    /// # Errors
    /// EAGAIN: the user's limit of processes (RLIMIT_NPROC, pids.max). ENOMEM.
    pub fn spawn(&mut self, pin: BorrowedFd<'_>, rank: u32, comm: &CStr) -> io::Result<i32> {
        if self.free.is_empty() {
            self.map_stacks()?;
        }
        if self.nursery.is_none() {
            // Without it (RLIMIT_AS) there are no ghosts of forked processes.
            self.nursery = map_stacks(NURSERY as usize).ok();
        }
        let Some(stack) = self.free.pop() else {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        };
        let nursery = self.nursery.map_or(std::ptr::null_mut(), NonNull::as_ptr);
        let mut orders = body::Orders { pin: pin.as_raw_fd(), rank, comm: [0; 16], nursery, wanted: 0 };
        for (to, from) in orders.comm[..15].iter_mut().zip(comm.to_bytes()) {
            *to = *from;
        }
        let room = ROOM;
        // SAFETY: the stack is STACK bytes of mapped memory that no one else uses (it was in the free list), so that the
        // orders fit at `room`, which is a multiple of their alignment from a page's start. The new process runs `body::run`
        // on the memory below them, which stays mapped for ever (arenas are never unmapped) and goes back to the free list
        // only after waitpid. `body::run` never returns.
        let result = unsafe {
            let place = stack.add(room).cast::<body::Orders>();
            place.write(orders);
            let arguments = raw::CloneArguments {
                flags: libc::CLONE_VM as u64,
                exit_signal: libc::SIGCHLD as u64,
                stack: stack.as_ptr() as u64,
                stack_size: room as u64,
                ..raw::CloneArguments::default()
            };
            raw::clone_onto(&arguments, body::run, place.as_ptr())
        };
        match i32::try_from(result) {
            Ok(pid) if pid > 0 => {
                self.living.insert(pid, stack);
                Ok(pid)
            }
            _ => {
                self.free.push(stack);
                Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO)))
            }
        }
    }

    /// Reaps a ghost if it is dead: gives its status word as of wait(2), `None` while it lives.
    ///
    /// # Errors
    /// ECHILD: no such ghost.
    pub fn reap(&mut self, pid: i32) -> io::Result<Option<i32>> {
        if !self.living.contains_key(&pid) {
            return Err(io::Error::from_raw_os_error(libc::ECHILD));
        }
        let mut status = 0;
        // SAFETY: waitpid writes one int. (nix cannot express a death by a real-time signal.)
        let result = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        if result == 0 {
            return Ok(None);
        }
        if let Some(stack) = self.living.remove(&pid) {
            self.free.push(stack);
        }
        Ok(Some(status))
    }

    /// Whether a ghost is dead, without reaping it: its status word, `None` while it lives.
    ///
    /// # Errors
    /// ECHILD: no such child.
    pub fn peek(&self, pid: i32) -> io::Result<Option<i32>> {
        let id = libc::id_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ECHILD))?;
        Ok(wait_id(libc::P_PID, id, libc::WEXITED | libc::WNOWAIT)?.map(|(_, code, status)| match code {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_DUMPED => status | 0x80,
            _ => status,
        }))
    }

    /// The next ghost that has stopped or gone on since it was asked last, with its PID. Never reaps.
    ///
    /// # Errors
    /// ECHILD: there are no children.
    pub fn next_change(&self) -> io::Result<Option<(i32, Change)>> {
        let change = wait_id(libc::P_ALL, 0, libc::WSTOPPED | libc::WCONTINUED)?;
        Ok(change.map(|(pid, code, status)| match code {
            libc::CLD_CONTINUED => (pid, Change::Continued),
            _ => (pid, Change::Stopped((status & 0x7f) as u8)),
        }))
    }

    /// PIDs of the ghosts that have not been reaped.
    pub fn pids(&self) -> impl Iterator<Item = i32> {
        self.living.keys().copied()
    }

    fn map_stacks(&mut self) -> io::Result<()> {
        let start = map_stacks(STACKS_PER_ARENA)?;
        // SAFETY: every multiple of STACK below the length of the mapping is inside it.
        self.free.extend((0..STACKS_PER_ARENA).rev().map(|index| unsafe { start.add(index * STACK) }));
        Ok(())
    }
}

/// Reaps a child that this process has not made itself. `false`: it is not dead yet.
///
/// # Errors
/// ECHILD: no such child.
pub fn wait_for(pid: i32) -> io::Result<bool> {
    // SAFETY: no status is wanted.
    let result = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result == pid) }
}

/// Address space for this many stacks; memory is used only by those that are touched.
fn map_stacks(count: usize) -> io::Result<NonNull<u8>> {
    let length = STACK * count;
    // SAFETY: a fresh private mapping at an address of the kernel's choice; it is never unmapped, because a ghost may
    // outlive everything here. MADV_NOHUGEPAGE only advises: one touched stack must not cost 2 MiB.
    let start = unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
            -1,
            0,
        );
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::madvise(start, length, libc::MADV_NOHUGEPAGE);
        start
    };
    NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// waitid(2) without waiting: PID, si_code, si_status.
fn wait_id(kind: libc::idtype_t, id: libc::id_t, what: i32) -> io::Result<Option<(i32, i32, i32)>> {
    // SAFETY: siginfo_t is plain data; waitid fills it, or leaves si_pid 0 when there is nothing to tell; the fields read
    // are those of a SIGCHLD, which is what it fills in.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(kind, id, &raw mut info, what | libc::WNOHANG) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((info.si_pid() != 0).then(|| (info.si_pid(), info.si_code, info.si_status())))
    }
}

#[cfg(test)]
mod tests;
