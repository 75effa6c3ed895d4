//! A shell on the master, driven line by line: jobs, `$!`, `wait` and `kill` are the real ones of bash.

use std::io::Write;
use std::process::ChildStdin;
use std::time::Duration;

use crate::{Cluster, Running, User};

/// How long one line may take if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shell lives as long as its test.
const LIFETIME: Duration = Duration::from_secs(1200);

pub struct Shell {
    running: Running,
    stdin: ChildStdin,
    lines: u32,
    /// How much of the output belongs to earlier lines.
    seen: usize,
}

/// What one line did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `$?`
    pub status: i32,
    /// What came on standard output meanwhile.
    pub output: String,
}

impl Shell {
    /// A non-interactive bash without a terminal; `set -m` gives it job control.
    #[track_caller]
    pub fn start(cluster: &Cluster, user: User) -> Self {
        let command = cluster.command("bash").args(["--norc", "--noprofile"]).user(user);
        let mut running = command.input_pipe().limit(LIFETIME).start();
        let stdin = running.take_stdin();
        Self { running, stdin, lines: 0, seen: 0 }
    }

    /// In the host's numbers.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    #[track_caller]
    pub fn run(&mut self, line: &str) -> Answer {
        self.run_within(line, PATIENCE)
    }

    /// Runs a line (or several) to its end. Commands in it must not read standard input: it is the shell's.
    #[track_caller]
    pub fn run_within(&mut self, line: &str, within: Duration) -> Answer {
        self.send(line);
        self.answer(line, within)
    }

    /// First half of [`Shell::run`].
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        self.lines += 1;
        let marked = format!("{line}\nprintf '\\n<{}:%d>\\n' $?\n", self.lines);
        if let Err(why) = self.stdin.write_all(marked.as_bytes()) {
            self.running.fail(&format!("cannot be told `{line}`: {why}"));
        }
    }

    /// Second half.
    #[track_caller]
    pub fn answer(&mut self, line: &str, within: Duration) -> Answer {
        let mark = format!("\n<{}:", self.lines).into_bytes();
        let seen = self.seen;
        let found = self.running.collected().wait_for(within, |collection| {
            let new = &collection.bytes[seen..];
            let at = new.windows(mark.len()).position(|window| window == mark)?;
            let rest = &new[at + mark.len()..];
            let end = rest.windows(2).position(|window| window == b">\n")?;
            let status = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
            let output = String::from_utf8_lossy(&new[..at]).into_owned();
            Some((Answer { status, output }, seen + at + mark.len() + end + 2))
        });
        match found {
            Some((answer, seen)) => {
                self.seen = seen;
                answer
            }
            None => self.running.fail(&format!("`{line}` is not done after {} ms", within.as_millis())),
        }
    }

    /// Runs a line that must succeed and prints a number, e.g. `sleep 9 & echo $!`.
    #[track_caller]
    pub fn number(&mut self, line: &str) -> u32 {
        let answer = self.run(line);
        match (answer.status, answer.output.trim().parse()) {
            (0, Ok(number)) => number,
            _ => self.running.fail(&format!("`{line}` gave {answer:?}")),
        }
    }

    /// What it and its jobs have printed on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.running.stderr()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_output_of_each_line() {
        let cluster = Cluster::attach();
        let mut shell = Shell::start(&cluster, User::ordinary());
        assert_eq!(shell.run("echo one"), Answer { status: 0, output: "one\n".into() });
        assert_eq!(shell.run("printf x; (exit 7)"), Answer { status: 7, output: "x".into() });
        let job = shell.number("sleep 60 & echo $!");
        assert_eq!(shell.run(&format!("kill -9 {job}; wait {job}")).status, 137);
        assert_eq!(shell.run("id -u").output, "1000\n");
    }
}
