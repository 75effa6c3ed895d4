//! The last step before a daemon: what only the daemon's own process can do for it. LISTEN_PID must be its PID, and
//! stored descriptors must stand at 3, 4, … (sd_listen_fds(3)). exec keeps the PID, so that the init knows the daemon's.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use ghost_sys::descriptors;

#[derive(Args)]
pub struct ServiceExecArgs {
    /// Descriptors to pass on, as they are numbered here
    #[arg(long, value_delimiter = ',')]
    descriptors: Vec<i32>,
    /// Their names
    #[arg(long, value_delimiter = ',')]
    names: Vec<String>,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub fn run(args: ServiceExecArgs) -> Result<ExitCode> {
    let (program, rest) = args.command.split_first().expect("clap requires one");
    let mut command = Command::new(program);
    command.args(rest);
    let mut passed = Vec::new();
    for (number, name) in args.descriptors.into_iter().zip(args.names) {
        let descriptor =
            descriptors::inherited(number).with_context(|| format!("descriptor {number}, which is to be {name}"))?;
        passed.push((name, descriptor));
    }
    let why = if passed.is_empty() { command.exec() } else { descriptors::become_with(command, &passed) };
    anyhow::bail!("{program} cannot be started: {why}")
}
