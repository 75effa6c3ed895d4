//! The runner's hands in a machine: runs command lines that come over a virtio-serial port, and tells what they print and how they end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use vmtests::protocol::{Reply, Request};

/// What a command has left in its pipes is read so long after its end; a daemon may hold them for ever.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Port(Arc<Mutex<File>>);

impl Port {
    fn tell(&self, reply: &Reply) {
        let Ok(mut line) = serde_json::to_vec(reply) else { return };
        line.push(b'\n');
        // Nobody to tell it to if this fails; the runner has limits of its own.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
    }
}

struct Job {
    input: Option<Box<dyn Write + Send>>,
    group: Pid,
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("vm-agent: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: vm-agent PORT")?;
    let file = File::options().read(true).write(true).open(&path).with_context(|| path.clone())?;
    let port = Port(Arc::new(Mutex::new(file.try_clone()?)));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let mut reader = BufReader::new(file);
    let mut jobs: HashMap<u64, Job> = HashMap::new();
    let mut line = Vec::new();
    loop {
        // 0 bytes: the runner is not connected (drivers/char/virtio_console.c, port_fops_read()).
        if reader.read_until(b'\n', &mut line)? == 0 {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        if !line.ends_with(b"\n") {
            continue;
        }
        let request = serde_json::from_slice(&line);
        line.clear();
        match request {
            Err(_) => {}
            Ok(Request::Hello { nonce }) => port.tell(&Reply::Here { nonce, boot: boot.clone() }),
            Ok(Request::Start { id, line, terminal }) => match start(&port, id, &line, terminal) {
                Ok(job) => {
                    jobs.insert(id, job);
                }
                Err(why) => {
                    port.tell(&Reply::Output { id, error: true, text: format!("vm-agent: {why:#}\n") });
                    port.tell(&Reply::Exit { id, status: 125 });
                }
            },
            Ok(Request::Input { id, text }) => {
                if let Some(input) = jobs.get_mut(&id).and_then(|job| job.input.as_mut()) {
                    // A command that does not read is no error of ours.
                    let _ = input.write_all(text.as_bytes()).and_then(|()| input.flush());
                }
            }
            Ok(Request::EndInput { id }) => {
                if let Some(job) = jobs.get_mut(&id) {
                    job.input = None;
                }
            }
            Ok(Request::Kill { id }) => {
                if let Some(job) = jobs.get(&id) {
                    // It may have ended.
                    let _ = killpg(job.group, Signal::SIGKILL);
                }
            }
        }
    }
}

fn start(port: &Port, id: u64, line: &str, terminal: bool) -> Result<Job> {
    // A leader of a session: setsid(1) does not fork, for what is spawned here leads no group.
    let mut command = Command::new("setsid");
    command.env("HOME", "/root").env("LANG", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive").current_dir("/root");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let (child, input, outputs) = if terminal {
        let size = Winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None)?;
        fcntl(&pair.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        command.env("TERM", "vt100").args(["--ctty", "bash", "-c", line]);
        command.stdin(pair.slave.try_clone()?).stdout(pair.slave.try_clone()?).stderr(pair.slave);
        let child = command.spawn()?;
        // Else the terminal would stay open here.
        drop(command);
        let master = File::from(pair.master);
        let input: Box<dyn Write + Send> = Box::new(master.try_clone()?);
        (child, input, vec![forward(port, id, false, Box::new(master))])
    } else {
        command.args(["bash", "-c", line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let input: Box<dyn Write + Send> = Box::new(child.stdin.take().context("no input")?);
        let stdout = child.stdout.take().context("no output")?;
        let stderr = child.stderr.take().context("no error output")?;
        (child, input, vec![forward(port, id, false, Box::new(stdout)), forward(port, id, true, Box::new(stderr))])
    };
    let job = Job { input: Some(input), group: Pid::from_raw(i32::try_from(child.id())?) };
    let port = port.clone();
    std::thread::spawn(move || end(&port, id, child, &outputs));
    Ok(job)
}

/// Passes on what is read; what is returned ends when there is no more.
fn forward(port: &Port, id: u64, error: bool, mut from: Box<dyn Read + Send>) -> Receiver<()> {
    let (alive, ended) = channel();
    let port = port.clone();
    std::thread::spawn(move || {
        let _alive = alive;
        let mut buffer = [0; 4096];
        // A terminal without users ends with EIO.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            port.tell(&Reply::Output { id, error, text: String::from_utf8_lossy(&buffer[..count]).into_owned() });
        }
    });
    ended
}

fn end(port: &Port, id: u64, mut child: Child, outputs: &[Receiver<()>]) {
    let status = child.wait().unwrap_or(ExitStatus::from_raw(125 << 8));
    for output in outputs {
        // Nothing is ever sent: this returns when the reader has ended.
        let _ = output.recv_timeout(GRACE);
    }
    let status = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    port.tell(&Reply::Exit { id, status });
}
