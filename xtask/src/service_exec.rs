//! The last step before a daemon: what only the daemon's own process can do for it. LISTEN_PID must be its PID, and
//! stored descriptors must stand at 3, 4, … (sd_listen_fds(3)). exec keeps the PID, so that the init knows the daemon's.

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;
use ghost_sys::namespace::exec_with_descriptors;

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
    if !args.descriptors.is_empty() {
        command
            .env("LISTEN_PID", std::process::id().to_string())
            .env("LISTEN_FDS", args.descriptors.len().to_string())
            .env("LISTEN_FDNAMES", args.names.join(":"));
    }
    let why = exec_with_descriptors(command, &args.descriptors);
    anyhow::bail!("{program} cannot be started: {why}")
}
