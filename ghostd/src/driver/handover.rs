//! Another program goes on in ghostd's place, in the same process: the one that is installed now, after an upgrade.
//!
//! ```text
//! bpctl              ghostd                                   the program that is installed
//!   Handover  ->
//!                    runs `ghostd check`                  ->  can it start here, with this configuration?
//!                                                         <-  its release, or why not: Refused, and nothing has changed
//!                    takes no new commands, waits until what has begun is started
//!             <-     AdminReply
//!                    execve(2), with what the store keeps ->  takes over, as after any restart
//! ```
//! Without a pause of the service manager, and also where there is none. What is not in the store is lost and
//! asked for anew, as when ghostd is killed.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ghost_sys::descriptors;
use ghost_sys::signal::{Disposition, set_disposition};

use super::{Driver, Shared, store};
use crate::core::ClientId;

/// How long the new program may take to say whether it can start.
const CHECK: Duration = Duration::from_secs(10);
/// How long what has begun may take until it is started.
const STARTING: Duration = Duration::from_secs(2);
/// How long the answer may take to be fetched.
const ANSWER: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);
/// Of the new program's words, the most that are passed on.
const WORDS: u64 = 4096;
const TOO_OLD: &str = "before Linux 6.9 remote processes end with their ghostd; restart it when nothing runs";

/// What is passed on besides what the driver has.
pub(super) struct Passed {
    /// This program's file, as it was started: by now perhaps another one.
    pub program: PathBuf,
    pub unix: OwnedFd,
    pub tcp: OwnedFd,
}

impl Passed {
    pub(super) fn new(unix: impl AsFd, tcp: impl AsFd) -> Result<Passed> {
        Ok(Passed {
            program: std::env::current_exe().context("this program's own file")?,
            unix: unix.as_fd().try_clone_to_owned()?,
            tcp: tcp.as_fd().try_clone_to_owned()?,
        })
    }
}

impl Driver {
    pub(super) fn ask_for_handover(&mut self, client: ClientId) {
        if self.handover.is_some() {
            return self.answer_admin(client, Err("another handover is on its way".to_owned()));
        }
        self.handover = Some(client);
        self.handover_wanted.notify_one();
    }

    fn to_pass_on(&self, passed: &Passed) -> io::Result<Vec<(String, OwnedFd)>> {
        let mut all = self.programs.descriptors()?;
        let own =
            [(store::PIN, self.pin.as_fd()), (store::UNIX, passed.unix.as_fd()), (store::TCP, passed.tcp.as_fd())];
        for (name, fd) in own.into_iter().chain(self.store.descriptors()) {
            all.push((name.to_owned(), fd.try_clone_to_owned()?));
        }
        Ok(all)
    }
}

/// Sees whether the other program can go on, and prepares for it. True: [`go`] is next.
pub(super) async fn prepare(shared: &Shared, passed: &Passed) -> bool {
    let Some(client) = shared.borrow().handover else { return false };
    let resends = shared.borrow().pin.resends();
    let checked = if resends { check(&passed.program).await } else { Err(anyhow!(TOO_OLD)) };
    let release = match checked {
        Ok(release) => release,
        Err(why) => {
            tracing::warn!("no handover: {why:#}");
            let mut driver = shared.borrow_mut();
            driver.answer_admin(client, Err(format!("nothing has changed: {why:#}")));
            driver.handover = None;
            return false;
        }
    };
    shared.borrow().leaving.notify_one();
    until(STARTING, || !shared.borrow().core.is_starting(client)).await;
    tracing::info!(program = %passed.program.display(), release, "handing over");
    let outbox = {
        let driver = shared.borrow();
        driver.answer_admin(client, Ok(vec![release]));
        driver.clients.get(&client).map(|port| port.outbox.clone())
    };
    if let Some(outbox) = outbox {
        until(ANSWER, || outbox.is_empty()).await;
        // From the box to the socket.
        tokio::time::sleep(LOOK).await;
    }
    true
}

async fn until(longest: Duration, holds: impl Fn() -> bool) {
    let end = Instant::now() + longest;
    while !holds() && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}

/// What `ghostd check` of the installed program says.
async fn check(program: &Path) -> Result<String> {
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1).filter(|word| word != "run")).arg("check");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
    let end = Instant::now() + CHECK;
    let status = loop {
        match child.try_wait().context("its check")? {
            Some(status) => break status,
            None if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{} check: no answer within {} s", program.display(), CHECK.as_secs());
            }
            None => tokio::time::sleep(LOOK).await,
        }
    };
    let (mut said, mut why) = (String::new(), String::new());
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        out.take(WORDS).read_to_string(&mut said).context("its words")?;
        err.take(WORDS).read_to_string(&mut why).context("its words")?;
    }
    ensure!(status.success(), "{} check: {}", program.display(), why.trim());
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Becomes the other program. It returns only if that fails.
pub(super) fn go(shared: &Shared, passed: &Passed) -> anyhow::Error {
    let descriptors = match shared.borrow().to_pass_on(passed) {
        Ok(descriptors) => descriptors,
        Err(why) => return anyhow::Error::from(why).context("what another ghostd needs"),
    };
    shared.borrow_mut().node_ups.kill_all();
    let mut command = Command::new(&passed.program);
    command.args(std::env::args_os().skip(1));
    // It reads its configuration anyway; until it listens for the signal it would end by it (execve(2): handlers become SIG_DFL).
    if let Err(why) = set_disposition(nix::libc::SIGHUP, Disposition::Ignore) {
        tracing::warn!("SIGHUP: {why}");
    }
    let why = descriptors::become_with(command, &descriptors);
    anyhow::Error::from(why).context(format!("{} cannot go on", passed.program.display()))
}
