//! Standard input, output and error: pipes, as for any child whose parent reads and writes them.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use anyhow::Result;
use ghost_sys::signal::{Disposition, set_disposition};

use crate::asking::{ask, read_line, then};
use crate::case::Case;

pub const CASES: &[Case] = &[
    Case::shell("both-outputs", "echo out; echo err >&2; echo out again; echo err again >&2"),
    Case::shell("no-end-of-line", "printf 'one\\ntwo'; printf 'err' >&2"),
    Case::shell("all-bytes", "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i + 1)); done"),
    Case::shell("nothing-at-all", ":"),
    Case::own("end-of-input", end_of_input),
    Case::own("lines-back-and-forth", lines),
    Case::own("what-is-open", what_is_open),
    Case::own("kinds-of-descriptors", kinds),
    Case::own("much-output", much_output),
    Case::own("nobody-reads", nobody_reads),
    Case::own("nobody-reads-and-ignored", nobody_reads_ignored),
    Case::own("input-is-not-read", || Ok(())),
    Case::own("output-of-a-child", output_of_a_child),
    Case::own("closes-its-output", closes_its_output),
    Case::own("order-of-writers", order_of_writers),
    Case::own("child-reads-on", child_reads_on),
    Case::own("not-a-terminal", not_a_terminal),
    Case::own("waits-for-input", waits_for_input),
];

fn end_of_input() -> Result<()> {
    then("feed one; feed two; eof")?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    say!("{text:?}");
    Ok(())
}

fn lines() -> Result<()> {
    for number in 0..20 {
        then(&format!("feed line {number}"))?;
        say!("{:?}", read_line()?);
    }
    Ok(())
}

fn what_is_open() -> Result<()> {
    let mut open: Vec<String> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // The directory itself is open as well.
        if std::fs::read_link(entry.path()).is_ok_and(|target| !target.starts_with("/proc")) {
            open.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    open.sort();
    say!("{open:?}");
    Ok(())
}

fn kinds() -> Result<()> {
    for number in 0..3 {
        let target = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
        say!("{number}: {}", target.to_string_lossy().split(':').next().unwrap_or_default());
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
        say!(
            "{number}: {:?}",
            info.lines().filter(|line| line.starts_with("pos") || line.starts_with("flags")).collect::<Vec<_>>()
        );
    }
    Ok(())
}

fn much_output() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for number in 0..2000u32 {
        writeln!(out, "{number} {}", "0123456789abcdef".repeat(20))?;
    }
    Ok(out.flush()?)
}

fn write_for_ever() -> std::io::Error {
    let line = [b'.'; 100];
    let out = std::io::stdout();
    loop {
        // Not through std's buffer: the error is to be write(2)'s own.
        if let Err(why) = nix::unistd::write(out.as_fd(), &line) {
            return why.into();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// What is written before the pipe is closed differs from run to run: it is one line without an end, which the observer
/// does not get any more.
fn nobody_reads() -> Result<()> {
    set_disposition(13, Disposition::Default)?;
    ask("close-output")?;
    say!("the last line");
    write_for_ever();
    Ok(())
}

fn nobody_reads_ignored() -> Result<()> {
    set_disposition(13, Disposition::Ignore)?;
    ask("close-output")?;
    say!("the last line");
    let why = write_for_ever();
    eprintln!("{why}");
    std::process::exit(12)
}

fn output_of_a_child() -> Result<()> {
    let output = std::process::Command::new("/bin/sh").args(["-c", "echo out; echo err >&2; exit 5"]).output()?;
    say!("{output:?}");
    Ok(())
}

fn closes_its_output() -> Result<()> {
    // The observer reads its end; the program runs on.
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    eprintln!("still here");
    std::thread::sleep(std::time::Duration::from_millis(50));
    eprintln!("and here");
    Ok(())
}

fn order_of_writers() -> Result<()> {
    for number in 0..10 {
        say!("parent {number}");
        let child = ghost_sys::trials::fork(|| u8::from(crate::asking::say(&format!("child {number}")).is_err()))?;
        crate::fork::waited(child, 0)?;
    }
    Ok(())
}

fn child_reads_on() -> Result<()> {
    then("feed one; feed two; feed three")?;
    say!("{:?}", read_line()?);
    let status = std::process::Command::new("/bin/sh").args(["-c", "read -r line; echo \"child: $line\""]).status()?;
    say!("{}", crate::fork::ended(status));
    say!("{:?}", read_line()?);
    Ok(())
}

fn not_a_terminal() -> Result<()> {
    use std::io::IsTerminal;
    say!("{} {}", std::io::stdin().is_terminal(), std::io::stdout().is_terminal());
    Ok(())
}

fn waits_for_input() -> Result<()> {
    then("state S; feed late")?;
    say!("{:?}", read_line()?);
    ask("state S")
}
