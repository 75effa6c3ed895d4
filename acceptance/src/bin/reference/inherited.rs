//! Environment, directory, umask, priority: what a child has from its parent.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::Result;
use nix::sys::stat::{Mode, umask};

use crate::case::Case;

/// All of the environment; what a launcher adds (BProc's variables, of rank and program) is not what is inherited.
const ENVIRONMENT: &[&str] = &["/bin/sh", "-c", "env -0 | grep -azv ^BPROC_"];
const DIRECTORY: &[&str] = &["/bin/pwd", "-P"];

pub const CASES: &[Case] = &[
    Case::plain("environment", ENVIRONMENT),
    Case::plain("environment-without-anything", ENVIRONMENT).after(|command| {
        command.env_clear().env("PATH", acceptance::command::PATH);
        Ok(())
    }),
    Case::plain("environment-with-odd-values", ENVIRONMENT).after(odd_values),
    Case::plain("large-environment", ENVIRONMENT).after(|command| {
        command.env("LARGE", "x".repeat(120_000)).env("ALSO", "y".repeat(100_000));
        Ok(())
    }),
    Case::plain("directory", DIRECTORY).after(|_| directory("/usr/share")),
    Case::plain("directory-root", DIRECTORY).after(|_| directory("/")),
    Case::plain("directory-by-a-link", DIRECTORY).after(|_| directory("/proc/self/root/etc")),
    Case::shell("directory-of-a-shell", "pwd; cd ..; pwd; cd; pwd").after(|_| directory("/usr/lib")),
    Case::own("umask-0", modes).after(|_| mask(0)),
    Case::own("umask-77", modes).after(|_| mask(0o77)),
    Case::own("umask-777", modes).after(|_| mask(0o777)),
    Case::plain("niceness", &["/usr/bin/nice"]),
    Case::plain("nicer", &["/usr/bin/nice"]).after(|_| nicer(7)),
    Case::plain("nicest", &["/usr/bin/nice"]).after(|_| nicer(19)),
    Case::plain("less-nice", &["/usr/bin/nice"]).after(|_| nicer(-7)).root(),
    Case::own("not-less-nice", not_less_nice).after(|_| nicer(5)),
    Case::own("policy", policy),
    Case::own("policy-batch", policy).after(|command| wrapped(command, &["chrt", "-b", "0"])),
    Case::own("policy-idle", policy).after(|command| wrapped(command, &["chrt", "-i", "0"])),
    Case::plain(
        "status-lines",
        &["/bin/grep", "-E", "^(NoNewPrivs|Seccomp|Threads|CoreDumping):", "/proc/self/status"],
    ),
    Case::plain("oom-score", &["/bin/cat", "/proc/self/oom_score_adj"]),
    Case::plain("personality", &["/bin/cat", "/proc/self/personality"]),
];

/// Goes by way of another program, which execs the command.
fn wrapped(command: &mut Command, words: &[&str]) -> Result<()> {
    let mut whole = Command::new(words[0]);
    whole.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    *command = whole;
    Ok(())
}

fn odd_values(command: &mut Command) -> Result<()> {
    command.env("EMPTY", "").env("LINES_", "a\nb\n").env("EQUALS", "=a=b=").env("BLANKS", "  x ");
    command.env("BYTES", std::ffi::OsStr::from_bytes(b"\xff\x01\x80")).env("\u{f6}", "name").env("a b", "c");
    Ok(())
}

fn directory(path: &str) -> Result<()> {
    Ok(std::env::set_current_dir(path)?)
}

fn mask(bits: u32) -> Result<()> {
    umask(Mode::from_bits_truncate(bits));
    Ok(())
}

fn nicer(by: i32) -> Result<()> {
    Ok(ghost_sys::trials::set_nice(by)?)
}

fn modes() -> Result<()> {
    say!("umask {:o}", ghost_sys::inherit::umask());
    let path = format!("/tmp/reference-modes-{}", std::process::id());
    std::fs::create_dir(&path)?;
    say!("a directory: {:o}", std::fs::metadata(&path)?.permissions().mode());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))?;
    let file = format!("{path}/file");
    let made = std::fs::File::create(&file)?;
    say!("a file: {:o}", made.metadata()?.permissions().mode());
    std::fs::remove_file(&file)?;
    Ok(std::fs::remove_dir(&path)?)
}

fn not_less_nice() -> Result<()> {
    say!("{}", ghost_sys::inherit::nice());
    say!("{:?}", ghost_sys::trials::set_nice(2).map_err(|why| why.raw_os_error()));
    say!("{:?}", ghost_sys::trials::set_nice(9).map_err(|why| why.raw_os_error()));
    say!("{}", ghost_sys::inherit::nice());
    Ok(())
}

fn policy() -> Result<()> {
    say!("{:?}", ghost_sys::inherit::scheduling());
    Ok(())
}
