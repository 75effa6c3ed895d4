//! `cargo xtask test`: format, lints, dependencies, the tests of every crate, a short fuzzing, then the acceptance tests, each program of them in a
//! cluster of its own, and the short form of the virtual machines' tests.
//!
//! All stages run, also after one has failed; the summary at the end and the exit status tell of all of them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{machine, products, soak};

/// Nodes of the acceptance tests' cluster.
const NODES: &str = "5";
/// Seconds of each fuzz target; the long form is `cargo xtask soak`.
const FUZZ_SECONDS: &str = "3";
/// For the virtual machines, from their root file system on: five times what they take on two idle processors.
const VM_SECONDS: &str = "1800";

#[derive(Args)]
pub struct TestArgs {
    /// Run only tests whose name contains this (and neither format nor lints)
    filter: Option<String>,
    /// Run only these stages
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Stage>,
    /// Of the acceptance programs only these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub program: Vec<String>,
    /// Seconds after which one acceptance program is stopped
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    Format,
    Lints,
    Deny,
    Unit,
    Fuzz,
    Acceptance,
    Vm,
}

/// How one program, or one stage without tests, came out.
#[derive(Debug)]
struct Outcome {
    name: String,
    success: bool,
    counts: Counts,
    took: Duration,
}

/// Of the test runner's closing lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    ignored: u32,
}

pub fn run(args: TestArgs) -> Result<ExitCode> {
    machine::must_be_root("the tests")?;
    machine::for_tests()?;
    machine::components()?;
    // What is ignored here would be ignored by everything that the tests start (a runner in a shell's background, nohup).
    for signal in [nix::libc::SIGINT, nix::libc::SIGQUIT, nix::libc::SIGHUP] {
        ghost_sys::signal::set_disposition(signal, ghost_sys::signal::Disposition::Default)?;
    }
    let mut outcomes = Vec::new();
    for stage in Stage::value_variants() {
        let wanted = if args.only.is_empty() {
            args.filter.is_none() || matches!(stage, Stage::Unit | Stage::Acceptance)
        } else {
            args.only.contains(stage)
        };
        if wanted {
            println!("\n==== {}", stage.name());
            if let Err(why) = stage.run(&args, &mut outcomes) {
                println!("{}: {why:#}", stage.name());
                outcomes.push(Outcome::failure(stage.name()));
            }
        }
    }
    Ok(sum_up(&outcomes))
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Lints => "lints",
            Self::Deny => "dependencies",
            Self::Unit => "unit tests",
            Self::Fuzz => "fuzzing",
            Self::Acceptance => "acceptance tests",
            Self::Vm => "virtual machines",
        }
    }

    fn run(self, args: &TestArgs, outcomes: &mut Vec<Outcome>) -> Result<()> {
        // Longer than any stage takes on a slow machine; acceptance programs have a limit each.
        let hour = Duration::from_secs(3600);
        match self {
            Self::Format => {
                let mut command = products::cargo("fmt");
                command.args(["--all", "--check"]);
                outcomes.push(observe(self.name(), command, hour)?);
            }
            Self::Lints => {
                let mut command = products::cargo("clippy");
                command.args(["--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
                outcomes.push(observe(self.name(), command, hour)?);
            }
            Self::Deny => {
                let mut command = Command::new(products::own_program()?);
                command.arg("deny");
                outcomes.push(observe(self.name(), command, hour)?);
            }
            Self::Unit => {
                let mut command = products::cargo("test");
                // To the end: one failing crate says nothing about the next.
                command.args(["--quiet", "--no-fail-fast", "--workspace", "--exclude", "acceptance"]);
                command.args(args.filter.iter());
                outcomes.push(observe(self.name(), command, hour)?);
            }
            Self::Fuzz => {
                let mut command = Command::new(products::own_program()?);
                command.args(["fuzz", "--seconds", FUZZ_SECONDS]);
                outcomes.push(observe(self.name(), command, hour)?);
            }
            Self::Acceptance => acceptance(args, outcomes)?,
            // Last, with the machine for themselves: they emulate six processors.
            Self::Vm => {
                let mut command = Command::new(products::own_program()?);
                command.args(["vm", "--limit", VM_SECONDS]);
                outcomes.push(observe(self.name(), command, hour)?);
            }
        }
        Ok(())
    }
}

fn acceptance(args: &TestArgs, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let mut build = products::cargo("test");
    // The benchmarks and the probe have no tests of their own.
    build.args(["--quiet", "--package", "acceptance", "--lib", "--test", "*", "--no-run"]);
    let programs = products::tests_of(build, "building the acceptance tests")?;
    anyhow::ensure!(!programs.is_empty(), "there are no acceptance tests");
    let own = products::own_program()?;
    for program in programs {
        let name = name_of(&program);
        if !args.program.is_empty() && !args.program.contains(&name) {
            continue;
        }
        println!("\n---- {name}");
        let mut command = Command::new(own);
        command.args(["cluster", "--nodes", NODES, "--outside", "--"]);
        // One after the other: they count what the whole cluster has.
        command.arg(&program).arg("--test-threads=1").args(args.filter.iter());
        if std::env::var_os(soak::LONG).is_some() {
            // For its figures.
            command.arg("--nocapture");
        }
        outcomes.push(observe(&name, command, Duration::from_secs(args.limit))?);
    }
    Ok(())
}

/// Cargo appends a hash to the name.
fn name_of(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('-') {
        Some((stem, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => stem.to_owned(),
        _ => name,
    }
}

/// Runs a command, passes its output on, and reads the closing lines in it. After `limit` it is told to end.
fn observe(name: &str, mut command: Command, limit: Duration) -> Result<Outcome> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| name.to_owned())?;
    let stdout = child.stdout.take().context("no output")?;
    let (lines, received) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut counts = Counts::default();
    let mut overdue = false;
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let next = if overdue { received.recv().map_err(Into::into) } else { received.recv_timeout(left) };
        match next {
            Ok(line) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&line)?;
                out.write_all(b"\n")?;
                counts.add(&String::from_utf8_lossy(&line));
            }
            Err(RecvTimeoutError::Timeout) => {
                overdue = true;
                println!("{name}: not done after {} s: stopped", limit.as_secs());
                kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait()?;
    if !status.success() {
        println!("{name}: {status}");
    }
    let success = status.success() && !overdue;
    Ok(Outcome { name: name.to_owned(), success, counts, took: began.elapsed() })
}

impl Counts {
    /// Adds what a line like `test result: ok. 3 passed; 0 failed; 0 ignored; …` says; other lines say nothing.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in rest.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next().and_then(|word| word.parse::<u32>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl Outcome {
    fn failure(name: &str) -> Self {
        Self { name: name.to_owned(), success: false, counts: Counts::default(), took: Duration::ZERO }
    }
}

fn sum_up(outcomes: &[Outcome]) -> ExitCode {
    println!("\n==== summary");
    let mut total = Counts::default();
    let mut all_well = true;
    for outcome in outcomes {
        let Counts { passed, failed, ignored } = outcome.counts;
        let verdict = if outcome.success { "ok" } else { "FAILED" };
        let seconds = outcome.took.as_secs();
        println!(
            "{verdict:6} {:24} {passed:4} passed {failed:3} failed {ignored:3} ignored {seconds:5} s",
            outcome.name
        );
        total =
            Counts { passed: total.passed + passed, failed: total.failed + failed, ignored: total.ignored + ignored };
        all_well &= outcome.success;
    }
    let verdict = if all_well { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {} failed; {} ignored", total.passed, total.failed, total.ignored);
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s");
        counts.add("test something ... ok");
        counts.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.71s");
        assert_eq!(counts, Counts { passed: 8, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_program_that_hangs_is_stopped_and_counts_as_failed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 1 passed; 0 failed; 0 ignored'; exec sleep 100"]);
        let outcome = observe("hanging", command, Duration::from_millis(300)).expect("observed");
        assert!(!outcome.success);
        assert_eq!(outcome.counts.passed, 1);
        assert!(outcome.took < Duration::from_secs(50));
    }

    #[test]
    fn cargos_hash_is_not_part_of_a_name() {
        assert_eq!(name_of(Path::new("/t/deps/exit_codes-70a3cb56a3142dfc")), "exit_codes");
        assert_eq!(name_of(Path::new("/t/deps/exit-codes")), "exit-codes");
    }
}
