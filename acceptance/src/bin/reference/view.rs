//! /proc/PROGRAM on the master, and what the program does to it.

use anyhow::Result;

use crate::asking::{ask, then};
use crate::case::Case;

pub const CASES: &[Case] = &[
    Case::own("asleep", || ask("state S")),
    Case::own("running", running),
    Case::own("command-line", command_line),
    Case::own("name-of-the-program", || ask("proc comm")),
    Case::own("renames-itself", renames_itself),
    Case::own("threads-are-shown", threads),
    // A user may not trace a ghost that has bpsh's capability (security/commoncap.c, cap_ptrace_access_check()).
    Case::own("traced", traced).root(),
    Case::own("gone-when-it-has-ended", || Ok(())),
    Case::plain("plain-program-ends", &["/bin/true"]),
];

fn command_line() -> Result<()> {
    // A process that is there only for a moment gets no view.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    ask("proc cmdline")
}

fn running() -> Result<()> {
    then("state R; signal 9")?;
    let mut x = 1u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn renames_itself() -> Result<()> {
    nix::sys::prctl::set_name(c"another name")?;
    std::thread::sleep(std::time::Duration::from_millis(1200));
    ask("proc comm")
}

fn threads() -> Result<()> {
    for _ in 0..4 {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
    }
    ask("threads 5")
}

fn traced() -> Result<()> {
    let tracer = || -> Result<String> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        Ok(status.lines().find_map(|line| line.strip_prefix("TracerPid:\t")).unwrap_or_default().to_owned())
    };
    ask("trace")?;
    say!("its tracer: {}", crate::asking::sender(tracer()?));
    ask("untrace")?;
    say!("its tracer: {}", crate::asking::sender(tracer()?));
    ask("state S")
}
