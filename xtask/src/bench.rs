//! `cargo xtask bench`: the benchmarks, on the master of a test cluster of the programs as they are released.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{machine, products, results};

#[derive(Args)]
pub struct BenchArgs {
    /// Do not replace results/bench.md
    #[arg(long)]
    dry: bool,
}

pub fn run(args: BenchArgs) -> Result<ExitCode> {
    machine::must_be_root("the benchmarks")?;
    let mut build = products::cargo("build");
    build.args(["--quiet", "--release", "--package", "acceptance", "--bin", "bench"]);
    let programs = products::executables_of(build, "building the benchmarks")?;
    let Some(program) = programs.first() else { bail!("cargo built no bench") };
    let output = Command::new(products::own_program()?)
        .args(["cluster", "--release", "--nodes", "2", "--"])
        .arg(program)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the cluster")?;
    let table = String::from_utf8_lossy(&output.stdout);
    print!("{table}");
    ensure!(output.status.success(), "the benchmarks ended with {}", output.status);
    if !args.dry {
        let path = results::keep("bench", "Benchmarks", &table)?;
        println!("\nkept in {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
