//! `cargo xtask bench`: the benchmarks, on the master of a test cluster of the programs as they are released.

use std::path::Path;
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
    let mut table = run_on(&["--nodes", "2"], program, &[])?;
    if machine::processors() > 1 {
        // Its rows, without another head.
        let apart = run_on(&["--nodes", "1", "--apart"], program, &["copy-apart"])?;
        let rows = apart.lines().skip(2).flat_map(|row| [row, "\n"]);
        table.extend(rows);
    }
    print!("{table}");
    if !args.dry {
        let path = results::keep("bench", "Benchmarks", &table)?;
        println!("\nkept in {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What the benchmarks print on a cluster.
fn run_on(cluster: &[&str], program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(products::own_program()?)
        .args(["cluster", "--release"])
        .args(cluster)
        .arg("--")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the cluster")?;
    ensure!(output.status.success(), "the benchmarks ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
