//! What a ghost costs: from clone to its read being taken up, and in memory, the kernel's included.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ghost_host::pin::{Event, Pin};
use ghost_sys::ghost::Ghosts;
use ghost_sys::quiet::Quiet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::measure::{Table, now_ns};

const GHOSTS: u32 = 2_000;

/// The process that clones: the pin is its stdin, it begins when a byte comes on descriptor 1's other end and tells when.
pub fn launcher() -> Result<()> {
    let _quiet = Quiet::begin()?;
    let mut ghosts = Ghosts::new();
    let pin = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", now_ns())?;
    out.flush()?;
    for rank in 0..GHOSTS {
        ghosts.spawn(pin.as_fd(), rank, c"ghost")?;
    }
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

pub fn measure(table: &mut Table) -> Result<()> {
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..5 {
        let (time, kib) = once()?;
        times.push(time);
        memory.push(kib);
    }
    let time = crate::measure::median(&mut times);
    let kib = crate::measure::median(&mut memory);
    table.row(
        "a ghost, clone to read taken up, average over 2,000",
        format!("{time:.1} us"),
        String::new(),
        String::new(),
        "at most 60 us",
    );
    table.row(
        "a ghost's memory, kernel included, average over 2,000",
        format!("{kib:.1} KiB"),
        String::new(),
        String::new(),
        "at most 40 KiB",
    );
    Ok(())
}

fn once() -> Result<(f64, f64)> {
    let directory = std::env::temp_dir().join(format!("bench-pin-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let mut pin = Pin::mount(&directory).context("the pin")?;
    let file = loop {
        wait(&pin)?;
        pin.next_event()?;
        if let Some(file) = pin.take_file() {
            break file;
        }
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("ghosts")
        .stdin(std::fs::File::from(file.fd))
        .stdout(Stdio::piped())
        .spawn()?;
    let before = free_kib()?;
    let mut taken = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while taken.len() < GHOSTS as usize {
        if Instant::now() > deadline {
            bail!("only {} of {GHOSTS} ghosts came", taken.len());
        }
        wait(&pin)?;
        while let Some(event) = pin.next_event()? {
            if let Event::Read { token, .. } = event {
                taken.push(token);
            }
        }
    }
    let end = now_ns();
    std::thread::sleep(Duration::from_millis(200));
    let after = free_kib()?;
    child.kill()?;
    for token in taken {
        let _ = pin.refuse(token, nix::libc::EPERM);
    }
    let mut text = String::new();
    child.stdout.take().context("stdout")?.read_to_string(&mut text)?;
    child.wait()?;
    let start: i64 = text.trim().parse()?;
    drop(pin);
    std::fs::remove_dir(&directory)?;
    Ok(((end - start) as f64 / 1e3 / f64::from(GHOSTS), (before - after) / f64::from(GHOSTS)))
}

fn wait(pin: &Pin) -> Result<()> {
    poll(&mut [PollFd::new(pin.as_fd(), PollFlags::POLLIN)], PollTimeout::from(1_000u16))?;
    Ok(())
}

fn free_kib() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemFree:")).context("MemFree")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
