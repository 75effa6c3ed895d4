//! `cargo xtask fuzz`: every decoder of outside bytes under libFuzzer, guided by coverage, from the committed corpus.
//!
//! Needs no nightly compiler: the decoders are safe Rust, whose panics and assertions are what is looked for; the coverage is
//! LLVM's, by flags that the stable compiler has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::products::workspace;
use crate::{machine, products};

/// What libFuzzer is guided by (clang's SanitizerCoverage).
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// Fuzz the decoders of outside bytes
#[derive(Args)]
pub struct FuzzArgs {
    /// Only these (the programs of fuzz/src/bin)
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets one after the other; the closing lines are those of a test runner.
pub fn run(args: FuzzArgs) -> Result<ExitCode> {
    machine::for_fuzzing()?;
    let programs = build()?;
    let names = programs.iter().map(|program| name_of(program)).collect::<Vec<_>>();
    if let Some(unknown) = args.targets.iter().find(|wanted| !names.contains(wanted)) {
        bail!("there is no fuzz target `{unknown}`; there are {}", names.join(", "));
    }
    let (mut passed, mut failed) = (0, 0);
    for program in &programs {
        let name = name_of(program);
        if !args.targets.is_empty() && !args.targets.contains(&name) {
            continue;
        }
        if fuzz(program, &name, args.seconds)? {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build() -> Result<Vec<PathBuf>> {
    let mut command = products::cargo("build");
    command.args(["--quiet", "--profile", "fuzz", "--bins", "--locked", "--target-dir"]);
    command.arg(workspace().join("target/fuzz")).current_dir(workspace().join("fuzz")).env("RUSTFLAGS", COVERAGE);
    let mut programs = products::executables_of(command, "building the fuzz targets")?;
    programs.sort();
    Ok(programs)
}

fn name_of(program: &Path) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// One target; true if it found nothing. What it learns is kept under `target/` for the next time, a failing input under
/// `fuzz/failures/`.
fn fuzz(program: &Path, name: &str, seconds: u32) -> Result<bool> {
    let committed = workspace().join("fuzz/corpus").join(name);
    if fs::read_dir(&committed).with_context(|| committed.display().to_string())?.next().is_none() {
        bail!("{} is empty: a target begins with what it is to read", committed.display());
    }
    let learned = workspace().join("target/fuzz/corpus").join(name);
    let failures = workspace().join("fuzz/failures");
    for directory in [&learned, &failures] {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let began = Instant::now();
    let mut command = Command::new(program);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/{name}-", failures.display()));
    // Megabytes, and seconds for one input: more is a finding.
    command.args(["-rss_limit_mb=512", "-timeout=5", "-print_final_stats=1"]).args([&learned, &committed]);
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let runs = executed(&said).unwrap_or(0);
    // A target that ran nothing has shown nothing.
    let well = output.status.success() && runs > 0;
    let verdict = if well { "ok" } else { "FAILED" };
    println!("soak: fuzz {name}: {runs} inputs in {} s: {verdict}", began.elapsed().as_secs());
    if !well {
        println!("{said}\n{name}: {}; run it again with {} FILE", output.status, program.display());
    }
    Ok(well)
}

/// The number of inputs in libFuzzer's closing figures.
fn executed(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_the_closing_figures() {
        let said =
            "Done 12 runs in 1 second(s)\nstat::number_of_executed_units: 2300\nstat::average_exec_per_sec:     1\n";
        assert_eq!(executed(said), Some(2300));
        assert_eq!(executed("Done\n"), None);
    }
}
