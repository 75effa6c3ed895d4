//! The loop of PID 1: reaps every orphan, reads the daemon's notifications, serves the control socket, carries out
//! what [`Service`] decides.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ghost_sys::namespace::{Place, keep_over_exec, spawn};
use ghost_sys::notify::NotifySocket;
use ghost_sys::reaper::{self, Change, Wait};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::service::{Action, Service};
use super::store::Store;
use super::{PATH, PROGRAMS, ServiceSpec};
use crate::control::{Reply, Request};

/// Where systemd has it.
const NOTIFY_SOCKET: &str = "/run/systemd/notify";

/// Longer requests are not read.
const LONGEST_REQUEST: usize = 200;

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    /// Its start, stop or restart is under way.
    waits: bool,
    /// Closed, or it does not keep to the protocol: to be dropped.
    gone: bool,
}

struct Supervisor {
    spec: ServiceSpec,
    service: Service,
    main: Option<Pid>,
    store: Store,
    notify: NotifySocket,
    listener: UnixListener,
    lifeline: UnixStream,
    signals: SignalFd,
    clients: Vec<Client>,
}

/// Runs until the runner is gone.
pub fn run(spec: ServiceSpec) -> Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().context("signal mask")?;
    std::fs::create_dir_all("/run/systemd")?;
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let mut service = Service::new(watchdog(spec.watchdog_ms));
    if let Some(signal) = &spec.restart_signal {
        service.restart_signal = signal.parse().with_context(|| format!("{signal}: no signal"))?;
    }
    let mut supervisor = Supervisor {
        service,
        spec,
        main: None,
        store: Store::default(),
        notify: NotifySocket::bind(Path::new(NOTIFY_SOCKET)).context(NOTIFY_SOCKET)?,
        listener,
        lifeline: UnixStream::from(std::io::stdout().as_fd().try_clone_to_owned()?),
        signals: SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
        clients: Vec::new(),
    };
    while supervisor.turn()? {}
    Ok(())
}

fn watchdog(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

impl Supervisor {
    /// Waits for something to happen and handles it. False when the runner is gone.
    fn turn(&mut self) -> Result<bool> {
        let ready = self.wait()?;
        if ready.lifeline {
            return Ok(false);
        }
        self.store.drop_useless(&ready.stored);
        // Before the reaping: what a daemon said before it died counts.
        self.read_notifications()?;
        self.reap()?;
        self.accept()?;
        for (index, readable) in ready.clients.into_iter().enumerate() {
            if readable {
                self.read_client(index)?;
            }
        }
        self.clients.retain(|client| !client.gone);
        let actions = self.service.tick(Instant::now());
        self.carry_out(actions).map(|()| true)
    }

    fn wait(&self) -> Result<Ready> {
        let timeout = match self.service.deadline() {
            None => PollTimeout::NONE,
            // Rounded up, or the last fraction of a millisecond would be spent spinning.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut polled = vec![
            input(self.lifeline.as_fd()),
            input(self.signals.as_fd()),
            input(self.notify.as_fd()),
            input(self.listener.as_fd()),
        ];
        let fixed = polled.len();
        polled.extend(self.clients.iter().map(|client| input(client.stream.as_fd())));
        polled.extend(self.store.polled().map(|stored| PollFd::new(stored.descriptor.as_fd(), PollFlags::empty())));
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(why) => return Err(why).context("poll"),
        }
        let any = |polled: &PollFd<'_>| polled.revents().is_some_and(|events| !events.is_empty());
        let useless = |polled: &PollFd<'_>| {
            polled.revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
        };
        let (clients, stored) = polled[fixed..].split_at(self.clients.len());
        Ok(Ready {
            lifeline: any(&polled[0]),
            clients: clients.iter().map(any).collect(),
            stored: stored.iter().map(useless).collect(),
        })
    }

    fn read_notifications(&mut self) -> Result<()> {
        loop {
            let notification = match self.notify.receive() {
                Ok(notification) => notification,
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why).context("reading a notification"),
            };
            // NotifyAccess=main
            if self.main != Some(Pid::from_raw(notification.pid)) {
                log(&format!("a notification of process {}, which is not the daemon: ignored", notification.pid));
                continue;
            }
            let now = Instant::now();
            if notification.value("READY") == Some("1") {
                let actions = self.service.ready(now);
                self.carry_out(actions)?;
            }
            if notification.value("WATCHDOG") == Some("1") {
                self.service.alive(now);
            }
            if let Some(status) = notification.value("STATUS") {
                self.service.status = status.to_owned();
            }
            if let Some(done) = self.store.handle(notification) {
                log(&done);
            }
        }
    }

    fn reap(&mut self) -> Result<()> {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            // By number: nix knows no real-time signals, and whoever is an orphan here may have died by one.
            let (pid, status) = match reaper::next().context("waiting for children")? {
                Wait::Nothing | Wait::NoChildren => return Ok(()),
                Wait::Change(Change::Ended { pid, status, .. }) => (pid, ExitStatus::from_raw(status)),
                Wait::Change(Change::Stopped { .. } | Change::Continued { .. }) => continue,
            };
            if self.main != Some(Pid::from_raw(pid.cast_signed())) {
                continue;
            }
            let how = match (status.code(), status.signal()) {
                (Some(code), _) => format!("exited with status {code}"),
                (None, Some(signal)) => format!("was killed by signal {signal}"),
                (None, None) => format!("ended ({status:?})"),
            };
            log(&format!("{} {how}", self.spec.name));
            self.main = None;
            let actions = self.service.exited(&how, Instant::now());
            self.carry_out(actions)?;
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    self.clients.push(Client { stream, line: Vec::new(), waits: false, gone: false });
                }
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why).context("control socket"),
            }
        }
    }

    fn read_client(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        let mut buffer = [0; LONGEST_REQUEST];
        match client.stream.read(&mut buffer) {
            Ok(0) => client.gone = true,
            Ok(length) => client.line.extend_from_slice(&buffer[..length]),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => client.gone = true,
        }
        client.gone |= client.line.len() > LONGEST_REQUEST;
        let Some(end) = client.line.iter().position(|&byte| byte == b'\n') else { return Ok(()) };
        let line = String::from_utf8_lossy(&client.line[..end]).into_owned();
        client.line.clear();
        let now = Instant::now();
        let request = match line.parse::<Request>() {
            Ok(request) => request,
            Err(why) => return self.answer(index, Err(format!("{why:#}"))),
        };
        let actions = match request {
            Request::Start => self.service.start(now),
            Request::Stop => self.service.stop(now),
            Request::Restart => self.service.restart(now),
            Request::Status => return self.answer(index, Ok(())),
            Request::Watchdog(time) => {
                self.spec.watchdog_ms = time;
                return self.answer(index, Ok(()));
            }
            Request::Kill(signal) => {
                let result = match self.main {
                    Some(pid) => kill(pid, signal).map_err(|why| why.to_string()),
                    None => Err("the daemon does not run".to_owned()),
                };
                return self.answer(index, result);
            }
        };
        self.clients[index].waits = true;
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Result<()> {
        for action in actions {
            match action {
                Action::Spawn => {
                    if let Err(why) = self.spawn() {
                        let why = format!("could not be started: {why:#}");
                        log(&why);
                        let actions = self.service.exited(&why, Instant::now());
                        self.carry_out(actions)?;
                    }
                }
                Action::Signal(signal) => {
                    if let Some(pid) = self.main {
                        log(&format!("{signal} to {} ({pid})", self.spec.name));
                        kill(pid, signal).with_context(|| format!("{signal} to {pid}"))?;
                    }
                }
                Action::Forget => self.store.forget(),
                Action::Answer(result) => {
                    for index in 0..self.clients.len() {
                        if self.clients[index].waits {
                            self.clients[index].waits = false;
                            self.answer(index, result.clone())?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn spawn(&mut self) -> Result<()> {
        self.service.watchdog = watchdog(self.spec.watchdog_ms);
        let mut command = Command::new("/proc/self/exe");
        command.arg("service-exec");
        // Copies without close-on-exec, which end with this function; the daemon has them by then.
        let mut passed: Vec<OwnedFd> = Vec::new();
        let mut numbers = Vec::new();
        let mut names = Vec::new();
        for stored in self.store.iter() {
            let copy = stored.descriptor.try_clone()?;
            numbers.push(keep_over_exec(&copy)?.to_string());
            names.push(stored.name.as_str());
            passed.push(copy);
        }
        if !passed.is_empty() {
            command.args(["--descriptors", &numbers.join(","), "--names", &names.join(",")]);
        }
        command.arg("--").args(&self.spec.command);
        command.env_clear().env("PATH", format!("{PROGRAMS}:{PATH}")).env("LANG", "C.UTF-8");
        command.env("NOTIFY_SOCKET", NOTIFY_SOCKET);
        if self.spec.watchdog_ms > 0 {
            command.env("WATCHDOG_USEC", (self.spec.watchdog_ms * 1000).to_string());
        }
        command.envs(self.spec.environment.iter().map(|(key, value)| (key, value)));
        let log_file = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(Stdio::from);
        command.stdin(Stdio::null());
        command.stdout(log_file(std::io::stderr().as_fd())?);
        command.stderr(log_file(std::io::stderr().as_fd())?);
        let cgroup = Path::new("/sys/fs/cgroup/system.slice").join(format!("{}.service", self.spec.name));
        let child = spawn(command, Place::here().new_session().cgroup(&cgroup)?)?;
        log(&format!("{} started ({})", self.spec.name, child.id()));
        // Reaped by waitpid(-1) like every other process of the member.
        self.main = Some(Pid::from_raw(child.id() as i32));
        Ok(())
    }

    fn answer(&mut self, index: usize, result: Result<(), String>) -> Result<()> {
        let reply = Reply {
            ok: result.is_ok(),
            error: result.err().unwrap_or_default(),
            state: self.service.name().to_owned(),
            pid: self.main.map_or(0, Pid::as_raw),
            restarts: self.service.restarts,
            status: self.service.status.clone(),
            stored: self.store.iter().map(|stored| stored.name.clone()).collect(),
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        let client = &mut self.clients[index];
        client.gone |= client.stream.write_all(&line).is_err();
        Ok(())
    }
}

struct Ready {
    lifeline: bool,
    clients: Vec<bool>,
    stored: Vec<bool>,
}

fn log(line: &str) {
    eprintln!("init: {line}");
}
