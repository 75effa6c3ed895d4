//! What a process must do to be the init of the cluster PID namespace.
//!
//! Invariant: nothing of the node is changed but what belongs to this namespace: `/proc` is a mount of its own here, every
//! other mount propagates as it did.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use ghost_sys::spawn::Namespaces;

use super::program::{LIMITS, NodeLimits};

/// PIDs up to this number are given; Linux's own largest (include/linux/threads.h, PID_MAX_LIMIT).
const PID_MAX: u32 = 4_194_304;

/// Makes the calling process what the holder has to be. Gives the limits that its children start with, and the node's own namespaces.
///
/// # Errors
/// It is not PID 1 of a namespace of its own, or a step that nothing works without failed.
pub fn become_init() -> Result<(NodeLimits, Option<Namespaces>)> {
    ensure!(
        std::process::id() == 1,
        "ghost-holder is the init of the cluster's PID namespace, which `nodeagent run` makes: run that instead"
    );
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).context("signals cannot be blocked")?;
    // Fails where the agent has made us a session's leader already.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/").context("/ cannot be entered")?;
    nix::sys::prctl::set_dumpable(false).context("dumps of the holder cannot be forbidden")?;
    standard_descriptors().context("/dev/null cannot be opened")?;
    // Of the node's init: `/proc` is the node's still.
    let namespaces =
        Namespaces::of(1).map_err(|why| log(&format!("nothing runs in the node's own namespaces: {why}"))).ok();
    mount_proc().context("/proc cannot be mounted for the cluster's PID namespace")?;
    raise_pid_max();
    // The daemon's own protection is not for what users run, and a child that shares the holder's memory until it executes
    // its program could not have another value than the holder (fs/proc/base.c, __set_oom_adj()).
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    // Without the right to it the holder may be paged out, and is late when memory is short.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault);
    Ok((limits()?, namespaces))
}

/// 0 and 1 are nobody's; 2 stays for messages. All three stay open, so that no other descriptor gets their numbers.
fn standard_descriptors() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    if nix::fcntl::fcntl(io::stderr(), nix::fcntl::FcntlArg::F_GETFD).is_err() {
        nix::unistd::dup2_stderr(&null)?;
    }
    Ok(())
}

fn mount_proc() -> Result<()> {
    let proc = Path::new("/proc");
    // A mount below a private one stays here.
    mount(None::<&Path>, proc, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .context("/proc is no mount point; mount it on the node (`mount -t proc proc /proc`)")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), proc, Some("proc"), flags, None::<&str>)?;
    match fs::read_link("/proc/self") {
        Ok(target) if target == Path::new("1") => Ok(()),
        other => bail!("/proc shows another PID namespace: /proc/self is {other:?}"),
    }
}

/// Since Linux 6.14 the limit belongs to the namespace (kernel/pid.c, pid_table); before, it is the node's own affair.
fn raise_pid_max() {
    const FILE: &str = "/proc/sys/kernel/pid_max";
    let own = nix::sys::utsname::uname()
        .is_ok_and(|name| name.release().to_str().and_then(version).is_some_and(|version| version >= (6, 14)));
    let low = fs::read_to_string(FILE).is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|max| max < PID_MAX));
    if own && low {
        let _ = fs::write(FILE, PID_MAX.to_string());
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Reads the limits that children get; the holder itself may then open as many files as it is allowed.
fn limits() -> Result<NodeLimits> {
    let mut limits: NodeLimits = [(u64::MAX, u64::MAX); LIMITS];
    let text = fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    for (name, resource) in NAMES {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("/proc/self/limits has no line `{name}`"))?;
        let mut values = line.split_whitespace().map(|value| match value {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        let (Some(Some(soft)), Some(Some(hard))) = (values.next(), values.next()) else {
            bail!("/proc/self/limits is not understood: {name}{line}");
        };
        if let Some(limit) = limits.get_mut(resource) {
            *limit = (soft, hard);
        }
    }
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    Ok(limits)
}

/// fs/proc/base.c, lnames; include/uapi/asm-generic/resource.h.
const NAMES: [(&str, usize); LIMITS] = [
    ("Max cpu time", 0),
    ("Max file size", 1),
    ("Max data size", 2),
    ("Max stack size", 3),
    ("Max core file size", 4),
    ("Max resident set", 5),
    ("Max processes", 6),
    ("Max open files", 7),
    ("Max locked memory", 8),
    ("Max address space", 9),
    ("Max file locks", 10),
    ("Max pending signals", 11),
    ("Max msgqueue size", 12),
    ("Max nice priority", 13),
    ("Max realtime priority", 14),
    ("Max realtime timeout", 15),
];

/// The beginning and the end of a long text, where the kernel says why it does not accept a program: less than a page.
fn shortened(text: &str) -> String {
    const HEAD: usize = 1000;
    const TAIL: usize = 2000;
    if text.len() <= HEAD + TAIL {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(HEAD), text.ceil_char_boundary(text.len() - TAIL));
    format!("{} [...] {}", &text[..head], &text[tail..])
}

/// A line for the log of the agent, unless that would mean waiting.
pub fn log(message: &str) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    // A pipe that is ready takes a whole page (pipe(7), PIPE_BUF).
    if poll(&mut ready, PollTimeout::ZERO).is_ok_and(|n| n == 1) {
        let line = shortened(&format!("ghost-holder: {message}")) + "\n";
        let _ = stderr.lock().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("6.18.44-cloud"), Some((6, 18)));
        assert_eq!(version("6.9"), Some((6, 9)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn a_long_text_keeps_its_end() {
        let text = format!("why: {}\u{e9}the end", "\u{e9}".repeat(5000));
        let short = shortened(&text);
        assert!(short.starts_with("why: ") && short.ends_with("the end") && short.len() < 4096, "{short}");
        assert_eq!(shortened("as it is"), "as it is");
    }

    #[test]
    fn only_an_init_holds() {
        assert!(become_init().expect_err("this is not PID 1").to_string().contains("nodeagent run"));
    }
}
