//! Starting programs in new or in existing namespaces.
//!
//! [`spawn`] takes an ordinary [`Command`] and a [`Place`] and returns an ordinary [`Child`]: the program is a direct
//! child of the caller, whatever PID namespace it lives in. There is no helper process in between, so terminals,
//! signals and wait statuses are exactly those of a child started without namespaces.
//!
//! How: a process cannot move itself into a PID namespace, but the calling *thread* can choose the PID namespace of its
//! next child (kernel/pid_namespace.c, pidns_install(): setns and unshare set `pid_ns_for_children`). [`spawn`] sets it,
//! forks, and sets it back; every other namespace is entered by the child itself between fork and exec.
//!
//! Invariant: when [`spawn`] returns, the calling thread's namespaces are what they were. (A thread whose
//! `pid_ns_for_children` differs from its own cannot start threads: kernel/fork.c, copy_process(), EINVAL.)

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Gid, Uid};

/// The user a program runs as: all three of user, group and supplementary groups are set, in the order that
/// setgroups(2), setgid(2), setuid(2) need.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
}

/// Where a program is to be started. The default changes nothing but the signal mask: a program starts with no signal
/// blocked unless [`Place::blocked`] says otherwise (std passes on the mask of the calling thread).
#[derive(Debug, Default)]
pub struct Place {
    pids: Pids,
    enter: Option<(OwnedFd, CloneFlags)>,
    net: Option<OwnedFd>,
    unshare: Option<CloneFlags>,
    cgroup: Option<File>,
    session: bool,
    foreground: Option<RawFd>,
    user: Option<Credentials>,
    directories: Vec<PathBuf>,
    die_with_parent: bool,
    blocked: Option<SigSet>,
}

#[derive(Debug, Default)]
enum Pids {
    #[default]
    Same,
    New,
    Of(OwnedFd),
}

impl Place {
    /// Here: the caller's own namespaces.
    pub fn here() -> Self {
        Self::default()
    }

    /// New namespaces of all kinds in `kinds`; with `CLONE_NEWPID` the program becomes PID 1 of the new one. A new
    /// cgroup namespace has the cgroup given with [`Place::cgroup`] as its root.
    pub fn new(kinds: CloneFlags) -> Self {
        let pids = if kinds.contains(CloneFlags::CLONE_NEWPID) { Pids::New } else { Pids::Same };
        Self { pids, unshare: Some(kinds.difference(CloneFlags::CLONE_NEWPID)), ..Self::default() }
    }

    /// Inside what process `pid` (as seen by the caller) sees: its network, PIDs, mounts and root directory, host
    /// name, IPC objects and cgroup namespace. The working directory becomes `/` unless [`Place::directory`] says
    /// otherwise. It is not moved into the cgroup of `pid`: see [`Place::cgroup`].
    ///
    /// # Errors
    /// ESRCH when there is no such process; the descriptor taken here keeps naming this very process later.
    pub fn inside(pid: u32) -> io::Result<Self> {
        let pidfd = pidfd_open(pid)?;
        let kinds = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP;
        Ok(Self { pids: Pids::Of(pidfd.try_clone()?), enter: Some((pidfd, kinds)), ..Self::default() })
    }

    /// In this network namespace (an open `/proc/PID/ns/net`).
    pub fn net(mut self, namespace: OwnedFd) -> Self {
        self.net = Some(namespace);
        self
    }

    /// In the cgroup whose directory is `path` as the caller sees it.
    ///
    /// # Errors
    /// What opening its `cgroup.procs` for writing gives.
    pub fn cgroup(mut self, path: &Path) -> io::Result<Self> {
        self.cgroup = Some(File::options().write(true).open(path.join("cgroup.procs"))?);
        Ok(self)
    }

    /// As leader of a new session, without a terminal.
    pub fn new_session(mut self) -> Self {
        self.session = true;
        self
    }

    /// The program's process group becomes the foreground group of this terminal before it runs. To be used with
    /// [`CommandExt::process_group`]`(0)`.
    pub fn foreground_of(mut self, terminal: RawFd) -> Self {
        self.foreground = Some(terminal);
        self
    }

    pub fn user(mut self, user: Credentials) -> Self {
        self.user = Some(user);
        self
    }

    /// Working directory; the first given one that can be entered (as the program's user) counts, else it is `/`.
    pub fn directory(mut self, path: &Path) -> Self {
        self.directories.push(path.to_owned());
        self
    }

    /// SIGKILL for the program when the calling thread ends (prctl(2), PR_SET_PDEATHSIG).
    pub fn die_with_parent(mut self) -> Self {
        self.die_with_parent = true;
        self
    }

    /// With these signals blocked.
    pub fn blocked(mut self, signals: SigSet) -> Self {
        self.blocked = Some(signals);
        self
    }

    fn changes_directory(&self) -> bool {
        self.enter.is_some() || !self.directories.is_empty()
    }
}

/// Starts `command` at `place`. `command` must not set user, groups or working directory itself: it would do so before
/// it has reached its place. Its program is looked up there, in the PATH of the command's own environment.
///
/// # Errors
/// Those of fork, of each namespace change (EPERM without CAP_SYS_ADMIN; ENOMEM when PID 1 of the namespace is gone)
/// and of exec, in the caller.
pub fn spawn(mut command: Command, mut place: Place) -> io::Result<Child> {
    let pids = std::mem::take(&mut place.pids);
    let directories: Vec<CString> = place
        .directories
        .iter()
        .map(|path| CString::new(path.as_os_str().as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a working directory contains a NUL byte"))?;
    let settle_in = move || settle(&place, &directories);
    // SAFETY: between fork and exec of a process that may have threads only async-signal-safe functions may run.
    // settle() only makes system calls on what was prepared before the fork: it allocates nothing and takes no lock.
    // (glibc's setuid family is what std uses at this point itself.)
    unsafe { command.pre_exec(settle_in) };

    let back = match &pids {
        Pids::Same => return command.spawn(),
        Pids::New | Pids::Of(_) => File::open("/proc/thread-self/ns/pid")?,
    };
    match &pids {
        Pids::Of(pidfd) => setns(pidfd, CloneFlags::CLONE_NEWPID)?,
        Pids::Same | Pids::New => unshare(CloneFlags::CLONE_NEWPID)?,
    }
    let child = command.spawn();
    let returned = setns(&back, CloneFlags::CLONE_NEWPID);
    match (child, returned) {
        (child, Ok(())) => child,
        (Err(why), Err(_)) => Err(why),
        (Ok(mut child), Err(why)) => {
            child.kill()?;
            child.wait()?;
            Err(why.into())
        }
    }
}

/// In the child, before exec: no allocation, no lock, no panic.
fn settle(place: &Place, directories: &[CString]) -> io::Result<()> {
    if let Some(procs) = &place.cgroup {
        // "0" is the writing process itself (kernel/cgroup/cgroup.c, cgroup_procs_write_start()).
        nix::unistd::write(procs, b"0")?;
    }
    if let Some((pidfd, kinds)) = &place.enter {
        setns(pidfd, *kinds)?;
    }
    if let Some(net) = &place.net {
        setns(net, CloneFlags::CLONE_NEWNET)?;
    }
    if let Some(kinds) = place.unshare {
        unshare(kinds)?;
    }
    if place.session {
        nix::unistd::setsid()?;
    }
    if let Some(terminal) = place.foreground {
        take_foreground(terminal)?;
    }
    if let Some(user) = &place.user {
        nix::unistd::setgroups(&user.groups)?;
        nix::unistd::setgid(user.gid)?;
        nix::unistd::setuid(user.uid)?;
    }
    if place.changes_directory() && !directories.iter().any(|path| nix::unistd::chdir(path.as_c_str()).is_ok()) {
        nix::unistd::chdir(c"/")?;
    }
    if place.die_with_parent {
        // Last: a change of user clears it (kernel/cred.c, commit_creds()).
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    }
    let blocked = place.blocked.unwrap_or(SigSet::empty());
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
    Ok(())
}

/// Makes the caller's process group the foreground group of `terminal`, also from the background, where the attempt
/// would otherwise stop the group with SIGTTOU (drivers/tty/tty_jobctrl.c, __tty_check_change()).
fn take_foreground(terminal: RawFd) -> io::Result<()> {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ttou), Some(&mut before))?;
    // SAFETY: plain system call without memory arguments; a descriptor that is none gives EBADF.
    let result = unsafe { libc::tcsetpgrp(terminal, libc::getpgrp()) };
    let error = io::Error::last_os_error();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    if result == 0 { Ok(()) } else { Err(error) }
}

/// A new network namespace that lives as long as the returned descriptor or a process in it. The calling thread stays
/// where it is.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn new_network() -> io::Result<OwnedFd> {
    let made = std::thread::spawn(|| -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    });
    made.join().map_err(|_| io::Error::other("the thread that makes a network namespace panicked"))?
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The inode number that names a namespace: equal for two processes exactly when they share it.
///
/// # Errors
/// ENOENT when the process is gone.
pub fn identity(pid: u32, kind: &str) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(format!("/proc/{pid}/ns/{kind}"))?.ino())
}

/// Lets a descriptor survive exec. The program that is started next inherits it, with the same number.
///
/// # Errors
/// Those of fcntl(2).
pub fn keep_over_exec(fd: impl AsFd) -> io::Result<RawFd> {
    let fd = fd.as_fd();
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    Ok(fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    fn root() -> bool {
        Uid::effective().is_root()
    }

    fn output(child: Child) -> String {
        let mut text = String::new();
        child.stdout.expect("piped").read_to_string(&mut text).expect("utf-8");
        text
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    #[test]
    fn a_program_in_a_new_pid_namespace_is_its_init_and_our_child() {
        if !root() {
            println!("Skipped(needs root): namespaces cannot be made");
            return;
        }
        let kinds = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS;
        let mut init = spawn(shell("echo $$; exec sleep 100"), Place::new(kinds).die_with_parent()).expect("spawn");
        let mut first = [0u8; 2];
        init.stdout.as_mut().expect("piped").read_exact(&mut first).expect("output");
        assert_eq!(&first, b"1\n");
        assert_ne!(identity(init.id(), "uts").expect("uts"), identity(std::process::id(), "uts").expect("uts"));

        let inner = spawn(shell("echo $$; kill -9 $$"), Place::inside(init.id()).expect("pidfd")).expect("enter");
        let id = inner.id();
        let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(id as i32), None).expect("our own child");
        assert!(matches!(status, nix::sys::wait::WaitStatus::Signaled(_, Signal::SIGKILL, _)));
        assert_eq!(output(inner), "2\n");

        // The thread is back where it was: it can start threads and children of its own.
        std::thread::spawn(|| ()).join().expect("thread");
        init.kill().expect("kill");
        init.wait().expect("wait");
        let gone = Place::inside(init.id());
        assert!(gone.is_err(), "a process that was reaped still has a place");
    }

    #[test]
    fn the_first_directory_that_exists_is_entered() {
        let place = Place::here().directory(Path::new("/no/such/place")).directory(Path::new("/proc"));
        let mut child = spawn(shell("pwd"), place).expect("spawn");
        child.wait().expect("wait");
        assert_eq!(output(child), "/proc\n");
    }

    #[test]
    fn the_callers_blocked_signals_are_not_passed_on() {
        let mut term = SigSet::empty();
        term.add(Signal::SIGTERM);
        term.thread_block().expect("mask");
        let pending = |place| {
            let mut child = spawn(shell("kill -TERM $$; echo blocked"), place).expect("spawn");
            child.wait().expect("wait");
            output(child)
        };
        assert_eq!(pending(Place::here()), "");
        assert_eq!(pending(Place::here().blocked(term)), "blocked\n");
        term.thread_unblock().expect("mask");
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_here() {
        let why = spawn(Command::new("/no/such/program"), Place::here()).expect_err("started nothing");
        assert_eq!(why.raw_os_error(), Some(libc::ENOENT));
    }
}
