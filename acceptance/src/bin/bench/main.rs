//! The benchmarks: every figure beside that of local execution or of a peer, measured in the same run, on the master of a test
//! cluster. Absolute times depend on the machine; the ratios are what is to be compared.

mod commands;
mod copy;
mod ghosts;
mod heartbeats;
mod launches;
mod measure;
mod signals;
mod ssh;
mod throughput;
mod tree;
mod view;

use std::process::ExitCode;

use measure::Table;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("stamp") => signals::stamp(),
        Some("ghosts") => ghosts::launcher(),
        Some("mother") => tree::mother(),
        Some("copy") => only(|table| copy::measure(table, Some(&ssh::Server::start()?))),
        Some("copy-apart") => only(|table| copy::measure_apart(table, &ssh::Server::start()?)),
        Some("view") => only(view::measure),
        Some("heartbeats") => only(heartbeats::measure),
        Some(other) => Err(anyhow::anyhow!("unknown argument {other}")),
        None => run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Those that can be wanted alone: `cargo xtask cluster -- target/…/bench view`.
fn only(measure: impl Fn(&mut Table) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut table = Table::default();
    measure(&mut table)?;
    print!("{table}");
    Ok(())
}

fn run() -> anyhow::Result<()> {
    let mut table = Table::default();
    let ssh = ssh::Server::start();
    if let Err(why) = &ssh {
        eprintln!("bench: without ssh: {why:#}");
    }
    let ssh = ssh.ok();
    commands::measure(&mut table, ssh.as_ref())?;
    signals::measure(&mut table)?;
    launches::measure(&mut table)?;
    ghosts::measure(&mut table)?;
    tree::measure(&mut table)?;
    throughput::measure(&mut table, ssh.as_ref())?;
    copy::measure(&mut table, ssh.as_ref())?;
    view::measure(&mut table)?;
    // Last: its nodes stay members.
    heartbeats::measure(&mut table)?;
    print!("{table}");
    Ok(())
}
