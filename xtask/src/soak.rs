//! `cargo xtask soak`: the long forms of what the tests do in slices. The last result is kept in results/soak.md.

use std::fmt::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::{machine, products, results};

/// Makes the tests take their long forms.
pub const LONG: &str = "GHOSTPROC_LONG";

#[derive(Args)]
pub struct SoakArgs {
    /// Seconds after which one program is stopped
    #[arg(long, default_value_t = 3_600)]
    limit: u64,
    /// Seconds of each fuzz target
    #[arg(long, default_value_t = 300)]
    fuzz_seconds: u32,
    /// Leave out the acceptance tests, whose long forms take an hour
    #[arg(long)]
    skip_acceptance: bool,
    /// Do not replace results/soak.md
    #[arg(long)]
    dry: bool,
}

pub fn run(args: SoakArgs) -> Result<ExitCode> {
    machine::must_be_root("the soak")?;
    let mut body = String::from("| part | seconds | result |\n|---|---|---|\n");
    let mut well = true;
    let mut simulation = products::cargo("test");
    simulation.args(["--quiet", "--package", "ghostd", "--lib", "core::tests::simulation", "--", "--nocapture"]);
    well &= part("simulation of ghostd and holders", simulation, &mut body)?;
    let mut fuzz = Command::new(products::own_program()?);
    fuzz.args(["fuzz", "--seconds", &args.fuzz_seconds.to_string()]);
    well &= part("fuzzing of the decoders", fuzz, &mut body)?;
    if args.skip_acceptance {
        body.push_str("| acceptance tests, long | | left out |\n");
    } else {
        well &= acceptance(&args, &mut body)?;
    }
    print!("{body}");
    if !args.dry {
        let path = results::keep("soak", "Soak", &body)?;
        println!("\nkept in {}", path.display());
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn acceptance(args: &SoakArgs, body: &mut String) -> Result<bool> {
    let mut acceptance = Command::new(products::own_program()?);
    acceptance.args(["test", "--only", "acceptance", "--limit", &args.limit.to_string()]);
    part("acceptance tests, long", acceptance, body)
}

/// Runs it and adds its row, with the figures that it printed on lines that begin with `soak:` and its closing line.
fn part(name: &str, mut command: Command, body: &mut String) -> Result<bool> {
    let began = Instant::now();
    let output =
        command.env(LONG, "1").stdin(Stdio::null()).stderr(Stdio::inherit()).output().context(name.to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let figures = text.lines().filter_map(|line| line.trim().strip_prefix("soak: "));
    let closing = text.lines().rev().find(|line| line.trim_start().starts_with("test result:")).unwrap_or("no result");
    let told: Vec<&str> = figures.chain([closing.trim()]).collect();
    writeln!(body, "| {name} | {} | {} |", began.elapsed().as_secs(), told.join("<br>"))?;
    Ok(output.status.success())
}
