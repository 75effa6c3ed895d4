//! `cargo xtask test`
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;
#[derive(Args)]
pub struct TestArgs {}
pub fn run(_args: TestArgs) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
