//! ghost-view: the view's guard, started by ghostd, and its server, started by the guard.

use std::io::Write;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ghost_host::view::{Paths, Port, guard, server};
use ghost_sys::capability;
use ghost_sys::descriptors::inherited;

/// Shows nodes' processes in /proc/GHOST; started by ghostd
#[derive(Parser)]
#[command(name = "ghost-view", version)]
struct Flags {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Mount, start the server, and start another when it does not answer
    Guard {
        /// The instance's run directory
        #[arg(long, value_name = "DIRECTORY")]
        run: PathBuf,
        #[arg(long, value_name = "DESCRIPTOR")]
        ghostd: RawFd,
        #[arg(long, value_name = "DESCRIPTOR")]
        figures: RawFd,
    },
    /// Serve the file system
    Serve {
        /// The instance's run directory
        #[arg(long, value_name = "DIRECTORY")]
        run: PathBuf,
        #[arg(long, value_name = "DESCRIPTOR")]
        device: RawFd,
        #[arg(long, value_name = "DESCRIPTOR")]
        figures: RawFd,
        #[arg(long, value_name = "DESCRIPTOR")]
        guard: RawFd,
    },
}

fn main() -> ExitCode {
    match run(Flags::parse().part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "ghost-view: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(part: Part) -> Result<()> {
    // Whoever has found a fault in the server is to have gained little by it: it looks at ghosts of all users, the guard mounts.
    let rights: &[u32] = match part {
        Part::Guard { .. } => &[
            capability::CAP_SYS_ADMIN,
            capability::CAP_SYS_PTRACE,
            capability::CAP_DAC_OVERRIDE,
            capability::CAP_DAC_READ_SEARCH,
        ],
        Part::Serve { .. } => &[capability::CAP_SYS_PTRACE, capability::CAP_DAC_READ_SEARCH],
    };
    capability::gain_nothing_more()
        .and_then(|()| capability::keep_only(rights))
        .context("rights cannot be given up")?;
    match part {
        Part::Guard { run, ghostd, figures } => {
            let ghostd = Port::of(inherited(ghostd).context("no connection to ghostd; it starts this program itself")?);
            let figures = inherited(figures).context("no connection for figures")?;
            ghost_log::start("info")?;
            let own = std::env::current_exe().context("our own program")?;
            guard::run(&own, ghostd, figures, Paths::new(&run)).context("the view cannot be shown")
        }
        Part::Serve { run, device, figures, guard } => {
            let device = inherited(device).context("no file system to serve; the guard starts this")?;
            let figures = Port::of(inherited(figures).context("no connection for figures")?);
            let guard = Port::of(inherited(guard).context("no connection to the guard")?);
            server::run(device, figures, guard, Paths::new(&run)).context("the view's file system")
        }
    }
}
