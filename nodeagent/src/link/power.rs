//! Restarting, halting and switching off this node, by the command that its configuration has for it, in its own namespaces.
//!
//! Root of the master orders it; the master sees to that. The command is run by a thread of its own: nothing waits for it.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ghost_proto::Control;
use ghost_proto::instance::Instance;
use ghost_proto::view::{AgentToMaster, Power, PowerDone};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::Config;

/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(10);
/// Of what it says, so many bytes are passed on when it fails.
const WORDS: u64 = 300;

/// Begins it. How it ended goes out as a frame.
pub(super) fn begin(instance: &Instance, power: Power, frames: mpsc::Sender<Bytes>) {
    let (instance, seq) = (instance.clone(), power.seq);
    let answer = frames.clone();
    let thread = std::thread::Builder::new().name("power".into()).stack_size(256 * 1024);
    let begun = thread.spawn(move || {
        let error = match run(&instance, &power.state) {
            Ok(()) => String::new(),
            Err(why) => format!("{why:#}"),
        };
        if !error.is_empty() {
            warn!(order = power.state, "{error}");
        }
        let _ = frames.blocking_send(AgentToMaster::PowerDone(PowerDone { seq, error }).to_frame());
    });
    if let Err(why) = begun {
        let error = format!("no thread to run the command: {why}");
        let _ = answer.try_send(AgentToMaster::PowerDone(PowerDone { seq, error }).to_frame());
    }
}

fn run(instance: &Instance, state: &str) -> Result<()> {
    let config = Config::load(instance)?;
    let text = command(&config, state)?;
    info!(order = state, command = text, "root of the master orders it");
    carry_out(text, LIMIT).with_context(|| format!("`{text}`"))
}

fn command<'a>(config: &'a Config, state: &str) -> Result<&'a str> {
    Ok(match state {
        "reboot" => &config.reboot_command,
        "halt" => &config.halt_command,
        "pwroff" => &config.poweroff_command,
        other => bail!("this nodeagent does not know how to {other}"),
    })
}

fn carry_out(text: &str, limit: Duration) -> Result<()> {
    let (mut reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    // What is for the daemon alone.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    let mut child = command.spawn().context("/bin/sh")?;
    drop(command);
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > end => {
                child.kill()?;
                child.wait()?;
                bail!("it had not ended after {} s", limit.as_secs());
            }
            None => std::thread::sleep(LOOK),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut words = Vec::new();
    // As much as is there: who else has the pipe is not waited for.
    let _ = Read::by_ref(&mut reader).take(WORDS).read_to_end(&mut words);
    let words = String::from_utf8_lossy(&words);
    bail!("it ended with {status}: {}", words.trim().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_has_its_command() {
        let config = Config::default();
        let orders = ["reboot", "halt", "pwroff"].map(|state| command(&config, state).expect(state).to_owned());
        assert_eq!(orders, ["systemctl reboot", "systemctl halt", "systemctl poweroff"]);
        assert!(command(&config, "up").is_err());
    }

    #[test]
    fn what_fails_says_why() {
        carry_out("true", LIMIT).expect("success");
        let why = carry_out("echo not; echo today >&2; exit 3", LIMIT).expect_err("failure").to_string();
        assert!(why.contains("status: 3") && why.ends_with("not; today"), "{why}");
        let why = carry_out("exec sleep 1000", Duration::ZERO).expect_err("too long").to_string();
        assert!(why.contains("had not ended"), "{why}");
    }
}
