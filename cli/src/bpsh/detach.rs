//! `--detach`: another bpsh, in a session of its own, is the parent of the ghosts and stays; this one prints their numbers.
//!
//! ```text
//! bpsh --detach ... --starts--> bpsh --detached ... --> ghosts
//!        ^--- numbers, then how the start went ---/ (pipe; its end is the end of the start)
//! ```

use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, Stdio};

use ghost_sys::capability;

use super::outcome::{NOT_RUN, Verdict};
use super::session::{Failure, failure};

/// Starts the one that stays, and prints what it reports.
///
/// # Errors
/// It cannot be started, or has ended without a word.
pub fn start() -> Result<Verdict, Failure> {
    let mut command = Command::new("/proc/self/exe");
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    // In front of everything: behind it the command's own options may stand.
    command.arg("--detached").args(arguments);
    if capability::begin() {
        // What the C library has taken away goes on with it.
        let entries = capability::environment().unwrap_or_default();
        let split = |entry: Vec<u8>| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            let name = std::ffi::OsString::from_vec(entry[..at].to_vec());
            Some((name, std::ffi::OsStr::from_bytes(&entry[at + 1..]).to_owned()))
        };
        command.env_clear().envs(entries.into_iter().filter_map(split));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut report = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut report)?;
    }
    let (pids, last) = understand(&report);
    let mut out = std::io::stdout().lock();
    out.write_all(pids.as_bytes()).and_then(|()| out.flush())?;
    match last {
        Some(code) => Ok(Verdict::Exit(code)),
        // It has said why.
        None => {
            let code = child.wait().ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
            match code {
                Some(code) => Ok(Verdict::Exit(code)),
                None => Err(failure("the process that was to stay has been killed")),
            }
        }
    }
}

/// The numbers, a line each, and the exit code.
fn understand(report: &str) -> (String, Option<u8>) {
    match report.trim_end().rsplit_once("exit ") {
        Some((pids, code)) => (pids.to_owned(), Some(code.parse().unwrap_or(NOT_RUN))),
        None => (String::new(), None),
    }
}

/// The pipe to who waits for the numbers: standard output.
#[derive(Debug)]
pub struct Report;

impl Report {
    /// Takes leave of the terminal.
    pub fn new() -> Report {
        // EPERM: leads a group already, which nobody but us has made.
        let _ = nix::unistd::setsid();
        Report
    }

    /// Tells the ghosts' numbers and how the start went; from then on nobody is spoken to.
    pub fn give(self, pids: &[i32], code: u8) {
        let mut text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        text.push_str(&format!("exit {code}\n"));
        // Who was to read it has gone: the ghosts stay all the same.
        let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
        if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdin(&null);
            let _ = nix::unistd::dup2_stdout(&null);
            let _ = nix::unistd::dup2_stderr(&null);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_numbers_and_a_code() {
        assert_eq!(understand("12\n13\nexit 0\n"), ("12\n13\n".to_owned(), Some(0)));
        assert_eq!(understand("exit 125\n"), (String::new(), Some(125)));
        assert_eq!(understand(""), (String::new(), None));
    }
}
