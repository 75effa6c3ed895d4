//! nodeagent: makes a machine a node, and connects it to its master.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use clap::{Parser, Subcommand};
use ghost_host::examine::announce;
use ghost_host::requirements::{Role, fit};
use ghost_proto::instance::{self, Instance};
use nodeagent::identity::Store;
use nodeagent::join::{self, JoinArgs};
use nodeagent::link::service;
use nodeagent::renew;

/// The node daemon of a ghostproc cluster
///
/// Without a command it runs in the foreground (under systemd: nodeagent.service). SIGTERM leaves the cluster's processes
/// running, for the next nodeagent to take over; SIGINT ends them.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  nodeagent join head < token\n  nodeagent\n  GHOSTPROC_LOG=debug nodeagent run"
)]
struct Flags {
    /// Name of the cluster on this host, in every path
    #[arg(long, env = instance::ENVIRONMENT, default_value = instance::DEFAULT)]
    instance: Instance,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Join(JoinArgs),
    /// Get another key and certificate from the master, by the present ones; what runs goes on
    Renew,
    /// Say whether nodeagent could run here, with this identity and configuration; start nothing
    Check,
    /// Run the daemon (the default)
    Run,
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // That it cannot be written (a full disk) does not change how it ends.
            let _ = writeln!(std::io::stderr(), "nodeagent: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<()> {
    let store = Store::of(&flags.instance);
    match flags.command {
        Some(Command::Join(arguments)) => {
            // Before the token is spent.
            fit(Role::Node).map_err(Error::msg)?;
            let joined = join::run(&store, &arguments)?;
            writeln!(std::io::stdout(), "{joined}").context("standard output")
        }
        Some(Command::Renew) => writeln!(std::io::stdout(), "{}", renew::run(&store)?).context("standard output"),
        Some(Command::Check) => {
            fit(Role::Node).map_err(Error::msg)?;
            service::check(&flags.instance, &store)?;
            writeln!(std::io::stdout(), concat!("nodeagent ", env!("CARGO_PKG_VERSION"))).context("standard output")
        }
        Some(Command::Run) | None => {
            ghost_log::start("info").context("logging")?;
            fit(Role::Node).map_err(Error::msg)?;
            announce(Role::Node);
            service::run(&flags.instance, &store)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use ghost_manual::{Section, keep_page, page, text_page};

    use super::*;

    #[test]
    fn the_manual_is_what_the_flags_say() {
        let command = Flags::command().name("nodeagent");
        let text = include_str!("../manual/nodeagent.txt");
        keep_page("nodeagent", Section::System, &page(&command, Section::System, text)).unwrap();
    }

    #[test]
    fn the_manual_tells_of_the_configuration() {
        let page = text_page(
            "nodeagent.toml",
            Section::File,
            "configuration of nodeagent",
            include_str!("../manual/nodeagent.toml.txt"),
        );
        keep_page("nodeagent.toml", Section::File, &page).unwrap();
    }
}
