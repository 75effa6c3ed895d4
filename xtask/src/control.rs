//! Controlling a member's daemon: the protocol of a member's control socket, its client, and the subcommand.
//!
//! One line of words goes in, one line of JSON ([`Reply`]) comes out. `start`, `stop` and `restart` are answered when
//! they have succeeded or failed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cluster::description::Description;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Status,
    Start,
    Stop,
    Restart,
    /// To the daemon's process. It is started again when it ends of it.
    Kill(Signal),
    /// Milliseconds, from the next start on; 0 for none.
    Watchdog(u64),
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["status"] => Self::Status,
            ["start"] => Self::Start,
            ["stop"] => Self::Stop,
            ["restart"] => Self::Restart,
            ["kill", signal] => {
                Self::Kill(Signal::from_str(signal).with_context(|| format!("{signal}: no signal; say e.g. SIGKILL"))?)
            }
            ["watchdog", time] => Self::Watchdog(time.parse().with_context(|| format!("{time}: not milliseconds"))?),
            _ => bail!("{line}: say status, start, stop, restart, kill SIGNAL or watchdog MILLISECONDS"),
        })
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// dead, starting, running, stopping, waiting (for the next attempt).
    pub state: String,
    /// The daemon's process, in the member's PID namespace; 0: none.
    pub pid: i32,
    /// Starts after an unexpected end.
    pub restarts: u32,
    /// STATUS= of the daemon.
    pub status: String,
    /// Names of the descriptors that are kept for it.
    pub stored: Vec<String>,
}

/// Sends one request and waits for its reply.
pub fn ask(socket: &Path, request: &str) -> Result<Reply> {
    let stream = send(socket, request)?;
    receive(stream)
}

/// The first half of [`ask`], for asking many at once.
pub fn send(socket: &Path, request: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
    writeln!(stream, "{request}")?;
    Ok(stream)
}

pub fn receive(stream: UnixStream) -> Result<Reply> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        bail!("the member's init ended without an answer");
    }
    serde_json::from_str(&line).with_context(|| format!("the member's init said: {line}"))
}

#[derive(Args)]
pub struct CtlArgs {
    /// The cluster's id; default: the one of GHOSTPROC_CLUSTER, or the only one that runs
    #[arg(long)]
    id: Option<String>,
    /// master, n0, n1, …
    member: String,
    /// status, start, stop, restart, kill SIGNAL, watchdog MILLISECONDS
    #[arg(required = true)]
    request: Vec<String>,
}

pub fn run(args: CtlArgs) -> Result<ExitCode> {
    let description = Description::find(args.id.as_deref())?;
    let Some(member) = description.members.iter().find(|member| member.name == args.member) else {
        let names: Vec<&str> = description.members.iter().map(|member| member.name.as_str()).collect();
        bail!("{}: no such member; there are {}", args.member, names.join(" "));
    };
    let reply = ask(&member.control, &args.request.join(" "))?;
    println!("{}", serde_json::to_string_pretty(&reply)?);
    Ok(if reply.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_words() {
        let check = |line: &str, wanted: Request| assert_eq!(line.parse::<Request>().expect(line), wanted);
        check("status", Request::Status);
        check("  restart\n", Request::Restart);
        check("kill SIGKILL", Request::Kill(Signal::SIGKILL));
        check("watchdog 500", Request::Watchdog(500));
        for wrong in ["", "kill", "kill NINE", "watchdog soon", "start now"] {
            assert!(wrong.parse::<Request>().is_err(), "{wrong:?} was accepted");
        }
    }
}
