//! ghostd: keeps the process space of a cluster on its master.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use ghost_proto::instance::{self, Instance};
use ghostd::config::listen_address;
use ghostd::files::Files;
use ghostd::{driver, import, init};

/// The master daemon of a ghostproc cluster
///
/// Without a command it runs in the foreground (under systemd: Type=notify). SIGINT and SIGTERM end all remote processes
/// first.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  ghostd init --listen 192.168.1.1:2223\n  ghostd\n  GHOSTPROC_LOG=debug ghostd run"
)]
struct Flags {
    /// Name of the cluster on this host, in every path
    #[arg(long, env = instance::ENVIRONMENT, default_value = instance::DEFAULT)]
    instance: Instance,
    /// Configuration file [default: /etc/INSTANCE/ghostd.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new cluster: its CA, the master's certificate, the configuration file
    Init {
        /// Address and port on which nodes are awaited
        #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = listen_address)]
        listen: Option<SocketAddr>,
        /// Replace a cluster that is already there
        #[arg(long)]
        force: bool,
    },
    /// Run the daemon (the default)
    Run,
    /// Say whether ghostd could run here, with this configuration; start nothing
    Check,
    /// Read a BProc or Clustermatic configuration: prints one for ghostd, and on standard error what became of each line
    ImportConfig {
        /// Such a file, as /etc/clustermatic/config
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let mut files = Files::of(&flags.instance);
    if let Some(config) = flags.config {
        files.config = config;
    }
    let outcome = match flags.command {
        Some(Command::Init { listen, force }) => {
            init::run(&files, listen, force).and_then(|lines| print(&lines.join("\n")))
        }
        Some(Command::Check) => {
            driver::check(&files).and_then(|()| print(concat!("ghostd ", env!("CARGO_PKG_VERSION"))))
        }
        Some(Command::ImportConfig { file }) => import_config(&file),
        Some(Command::Run) | None => driver::run(&flags.instance, &files),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // That it cannot be written (a full disk) does not change how it ends.
            let _ = writeln!(std::io::stderr(), "ghostd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Bytes of a configuration to be imported.
const LARGEST_IMPORT: u64 = 1 << 20;

fn import_config(file: &Path) -> anyhow::Result<()> {
    let name = file.display().to_string();
    // Old files are in old encodings.
    let mut text = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(LARGEST_IMPORT + 1).read_to_end(&mut text));
    read.with_context(|| format!("{name} cannot be read"))?;
    anyhow::ensure!(text.len() as u64 <= LARGEST_IMPORT, "{name} is no configuration: it has more than 1 MiB");
    let import = import::import(&String::from_utf8_lossy(&text), import::address_of);
    for line in &import.lines {
        writeln!(std::io::stderr(), "{}", line.say(&name)).context("standard error")?;
    }
    print(import.config.trim_end())?;
    let wrong = import.wrong();
    anyhow::ensure!(
        wrong == 0,
        "{name}: {} not taken (see above); the rest has been printed",
        if wrong == 1 { "one line was".to_owned() } else { format!("{wrong} lines were") }
    );
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(|why| anyhow::Error::from(why).context("standard output"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use ghost_manual::{Section, keep_page, page, text_page};

    use super::*;

    #[test]
    fn the_manual_is_what_the_flags_say() {
        let command = Flags::command().name("ghostd");
        let text = include_str!("../manual/ghostd.txt");
        keep_page("ghostd", Section::System, &page(&command, Section::System, text)).unwrap();
    }

    #[test]
    fn the_manual_tells_of_the_configuration() {
        let page = text_page(
            "ghostd.toml",
            Section::File,
            "configuration of ghostd",
            include_str!("../manual/ghostd.toml.txt"),
        );
        keep_page("ghostd.toml", Section::File, &page).unwrap();
    }
}
