//! Starting a program as a user, with a PID and a cgroup of one's choice, without ever waiting for it.
//!
//! The child is cloned into the caller's memory (CLONE_VM: nothing is copied, whatever the caller's size), but the caller
//! does not sleep until it has executed the program (no CLONE_VFORK): the child belongs to its user before it does, who may
//! stop it there. [`Starting`] tells how far it is.
//!
//! ```text
//! spawn() ── Starting ──┬── end of file on the report: Outcome::Running (or it was killed on the way)
//!                       └── a report: Outcome::Failed, the child exits with 127
//! ```
//!
//! Invariant: the memory that the child runs in (its stack, the strings) lives until the report's end of file. The child's
//! end of that pipe is closed by exec or exit after it has left the memory (fs/exec.c, begin_new_exec(): exec_mmap() comes
//! before do_close_on_exec(); kernel/exit.c, do_exit(): exit_mm() before exit_files()).

mod child;
mod namespaces;
pub(crate) mod raw;

use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char, c_void};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::fcntl::OFlag;

pub use namespaces::Namespaces;

use crate::standin::{Making, StandIn, make};

/// What is to be executed, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Files to try, in execvp(3)'s way: not there, the next; no permission, remembered; no program, to `/bin/sh`.
    pub candidates: Vec<CString>,
    pub argv: Vec<CString>,
    pub environment: Vec<CString>,
    /// Its root directory, in which all the others are; `None`: the caller's.
    pub root: Option<CString>,
    /// If the user cannot enter it, it is `/`, which [`Outcome::Running`] tells.
    pub directory: CString,
    /// Without the directory the program is not started.
    pub directory_required: bool,
    /// Files that are opened as the user and become descriptors 0, 1, 2 in place of what [`Place`] gives; one that is both
    /// standard output and error is opened once.
    pub files: [Option<CString>; 3],
    pub umask: u32,
    /// Resource, soft and hard limit; what the caller may not give is left as it is.
    pub limits: Vec<(u32, u64, u64)>,
    /// Nice value, policy and priority of sched(7); what the user may not have is left at the default.
    pub nice: i32,
    pub policy: i32,
    pub priority: i32,
    /// Bit n-1 is signal n. All others have their default disposition, and are not blocked.
    pub ignored: u64,
    pub blocked: u64,
}

/// Where the process is put.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The PID it gets in the caller's own PID namespace, if that is free.
    pub pid: Option<u32>,
    /// Directory of the cgroup.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What becomes its descriptors 0, 1 and 2; each above 2 here.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whose child it becomes, and in whose session and group it begins; `None`: the caller's child, which leads a group of
    /// its own in the caller's session.
    pub parent: Option<&'a StandIn>,
    /// It leads a group of its own, which is the foreground of the terminal that is its descriptor 0 and its parent's.
    pub foreground: bool,
    /// Which namespaces it enters; `None`: it stays in the caller's.
    pub namespaces: Option<&'a Namespaces>,
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program runs (or was killed before it did: its status tells). `directory_errno` is not 0 if it runs in `/`.
    Running {
        directory_errno: i32,
    },
    Failed {
        stage: Stage,
        errno: i32,
    },
}

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On the way to be what it must be: credentials, descriptors.
    Prepare,
    /// The directory that was to be its root.
    Root,
    /// The directory that it cannot do without.
    Directory,
    /// The file that was to be this descriptor.
    File(u8),
    Exec,
}

/// A process between clone and exec.
#[derive(Debug)]
pub struct Starting {
    report: OwnedFd,
    memory: ManuallyDrop<Memory>,
    directory_errno: i32,
    failed: Option<(Stage, i32)>,
    over: bool,
}

/// A process that was made.
#[derive(Debug)]
pub struct Spawned {
    /// In the caller's PID namespace.
    pub pid: u32,
    /// Names this very process; readable when it has ended.
    pub pidfd: OwnedFd,
    pub starting: Starting,
}

/// Starts `program` at `place`. All signals should be blocked in the calling thread.
///
/// # Errors
/// InvalidInput for a program without arguments; those of pipe2(2) and clone3(2): EAGAIN when a limit of processes is
/// reached, EMFILE. ETIMEDOUT, ESRCH, ECHILD: `parent` cannot do it.
pub fn spawn(program: Program, place: Place<'_>) -> io::Result<Spawned> {
    if program.argv.is_empty() || program.candidates.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a program needs a file and an argument vector"));
    }
    // Not blocking on this side only: the child's end is an open file of its own.
    let (report, child_report) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&report, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let memory = Memory::new(program, place, child_report.as_fd())?;

    let mut pidfd: libc::c_int = -1;
    let mut wanted = [place.pid.unwrap_or(0) as libc::pid_t];
    // SAFETY: a struct of integers, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (libc::CLONE_VM | libc::CLONE_PIDFD) as u64 | CLONE_CLEAR_SIGHAND;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.stack = memory.stack.base() as u64;
    arguments.stack_size = memory.stack.size() as u64;
    if let Some(cgroup) = place.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    if place.pid.is_some() {
        arguments.set_tid = (&raw mut wanted) as u64;
        arguments.set_tid_size = 1;
    }
    let plan = (&raw const *memory.plan).cast::<c_void>();
    let memory = ManuallyDrop::new(memory);
    // The stack and the plan with all it points to are in `memory`, which is dropped only when the child has left this memory
    // (see `Starting::outcome`), or below, when there is no child.
    let mut making = Making { arguments: &mut arguments, entry: child::run, argument: plan };
    let mut result = make(place.parent, &mut making);
    // EEXIST: the number is in use. EINVAL: beyond the namespace's pid_max. EPERM: not privileged enough for a choice.
    let unequal = [libc::EEXIST, libc::EINVAL, libc::EPERM];
    if result.as_ref().is_err_and(|why| why.raw_os_error().is_some_and(|errno| unequal.contains(&errno)))
        && place.pid.is_some()
    {
        making.arguments.set_tid = 0;
        making.arguments.set_tid_size = 0;
        result = make(place.parent, &mut making);
    }
    let pid = match result {
        Ok(pid) => pid,
        Err(why) => {
            drop(ManuallyDrop::into_inner(memory));
            return Err(why);
        }
    };
    // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD).
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let starting = Starting { report, memory, directory_errno: 0, failed: None, over: false };
    Ok(Spawned { pid, pidfd, starting })
}

const FAILED_LAST_FILE: u32 = child::FAILED_FILE + 2;
/// include/uapi/linux/sched.h
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl Starting {
    /// What became of it; `None` while that is open. When it gives an outcome the memory has been freed.
    pub fn outcome(&mut self) -> Option<Outcome> {
        while !self.over {
            let mut words = [0u8; 8];
            match nix::unistd::read(&self.report, &mut words) {
                Ok(8) => {
                    let [a, b, c, d, e, f, g, h] = words;
                    let errno = u32::from_ne_bytes([e, f, g, h]) as i32;
                    match u32::from_ne_bytes([a, b, c, d]) {
                        child::NOTE_DIRECTORY => self.directory_errno = errno,
                        child::FAILED_EXEC => self.failed = Some((Stage::Exec, errno)),
                        child::FAILED_ROOT => self.failed = Some((Stage::Root, errno)),
                        child::FAILED_DIRECTORY => self.failed = Some((Stage::Directory, errno)),
                        stage @ child::FAILED_FILE..=FAILED_LAST_FILE => {
                            self.failed = Some((Stage::File((stage - child::FAILED_FILE) as u8), errno));
                        }
                        _ => self.failed = Some((Stage::Prepare, errno)),
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return None,
                // A pipe's reader gets whole writes of eight bytes, or the end of file.
                Ok(_) | Err(_) => {
                    self.over = true;
                    // SAFETY: taken once, as `over` shows; the child is out of this memory (module documentation).
                    drop(unsafe { ManuallyDrop::take(&mut self.memory) });
                }
            }
        }
        Some(match self.failed {
            Some((stage, errno)) => Outcome::Failed { stage, errno },
            None => Outcome::Running { directory_errno: self.directory_errno },
        })
    }
}

/// Readable when [`Starting::outcome`] has something to say.
impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

/// What the child uses until it has left this memory. It is leaked, not freed, when its [`Starting`] is dropped early.
#[derive(Debug)]
struct Memory {
    plan: Box<child::Plan>,
    stack: Stack,
    /// Owns the strings that the plan points to.
    _program: Program,
}

impl std::fmt::Debug for child::Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plan")
    }
}

impl Memory {
    fn new(mut program: Program, place: Place<'_>, report: BorrowedFd<'_>) -> io::Result<Memory> {
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();
        let argv: Vec<Cell<*const c_char>> = std::iter::once(c"/bin/sh".as_ptr())
            .chain(pointers(&program.argv))
            .chain([ptr::null()])
            .map(Cell::new)
            .collect();
        let mut environment = pointers(&program.environment);
        environment.push(ptr::null());
        let plan = Box::new(child::Plan {
            stdio: place.stdio.map(|fd| fd.as_raw_fd()),
            own_group: place.parent.is_none() || place.foreground,
            foreground: place.foreground,
            below: place.parent.is_some(),
            namespaces: place.namespaces.map(Namespaces::descriptors).unwrap_or_default(),
            report: report.as_raw_fd(),
            uid: program.uid,
            gid: program.gid,
            groups: std::mem::take(&mut program.groups),
            umask: program.umask,
            limits: program.limits.iter().map(|&(resource, soft, hard)| (resource, [soft, hard])).collect(),
            nice: program.nice,
            policy: program.policy,
            priority: program.priority,
            ignored: program.ignored,
            blocked: program.blocked,
            root: program.root.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            directory: program.directory.as_ptr(),
            directory_required: program.directory_required,
            files: [0, 1, 2].map(|fd| program.files[fd].as_ref().map_or(ptr::null(), |path| path.as_ptr())),
            errors_to_output: program.files[1].is_some() && program.files[1] == program.files[2],
            candidates: pointers(&program.candidates),
            argv,
            environment,
        });
        Ok(Memory { plan, stack: Stack::take()?, _program: program })
    }
}

thread_local! {
    /// Stacks that are free again: mapping one costs more than the clone.
    static FREE_STACKS: RefCell<Vec<ptr::NonNull<c_void>>> = const { RefCell::new(Vec::new()) };
}

/// A child's stack: [`Stack::SIZE`] bytes above a page that no access survives.
#[derive(Debug)]
pub(crate) struct Stack(ptr::NonNull<c_void>);

impl Stack {
    const GUARD: usize = 4096;
    const SIZE: usize = 32 * 1024;
    const MOST_FREE: usize = 64;

    pub(crate) fn take() -> io::Result<Stack> {
        if let Some(stack) = FREE_STACKS.with_borrow_mut(Vec::pop) {
            return Ok(Stack(stack));
        }
        // SAFETY: new private memory at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Stack::GUARD + Stack::SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = ptr::NonNull::new(base).map(Stack).ok_or_else(|| io::Error::other("a stack at address 0"))?;
        // SAFETY: the lowest page of the mapping just made.
        if unsafe { libc::mprotect(base, Stack::GUARD, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// The lowest usable address; clone3(2) wants it with the size.
    pub(crate) fn base(&self) -> usize {
        self.0.as_ptr() as usize + Stack::GUARD
    }

    pub(crate) fn size(&self) -> usize {
        Stack::SIZE
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let kept = FREE_STACKS.try_with(|free| {
            let mut free = free.borrow_mut();
            let room = free.len() < Stack::MOST_FREE;
            if room {
                free.push(self.0);
            }
            room
        });
        if !kept.unwrap_or(false) {
            // SAFETY: the whole mapping, of which nothing is in use: its child has left this memory.
            unsafe { libc::munmap(self.0.as_ptr(), Stack::GUARD + Stack::SIZE) };
        }
    }
}

#[cfg(test)]
mod tests;
