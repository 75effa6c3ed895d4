//! The guard: starts the view's server, mounts, and starts another one when it does not answer.
//!
//! It ends when ghostd closes its end, and leaves nothing behind.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghost_proto::view_port::{Drop as DropGhost, GhostdToGuard, GuardToGhostd, GuardToServer, Hide, Ping, Serve};
use ghost_proto::view_port::{ServerToGuard, Show};
use ghost_sys::mount_tree::detach;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::files::LAST_GHOST;
use super::guarded::Guarded;
use super::mounter::Mounter;
use super::outbox::Outbox;
use super::watch::Verdict;
use super::{Paths, Port};

/// Time between two attempts to start a server that does not start.
const PAUSE: Duration = Duration::from_secs(1);

struct Guard {
    program: PathBuf,
    paths: Paths,
    ghostd: Port,
    figures: OwnedFd,
    mounter: Mounter,
    server: Option<Guarded>,
    outbox: Outbox,
    /// When there is no server: when the next is tried.
    next_try: Instant,
    last_number: u32,
}

/// Guards until ghostd closes its end. `program`: what is started as the server.
///
/// # Errors
/// The view cannot be mounted on this host.
pub fn run(program: &Path, ghostd: Port, figures: OwnedFd, paths: Paths) -> io::Result<()> {
    let _lock = alone(&paths)?;
    prepare(&paths)?;
    let mounter = Mounter::start(&paths)?;
    let server = Guarded::start(program, &paths, &figures)?;
    let mut guard = Guard {
        program: program.to_owned(),
        paths,
        ghostd,
        figures,
        mounter,
        server: Some(server),
        outbox: Outbox::default(),
        next_try: Instant::now(),
        last_number: 0,
    };
    let outcome = loop {
        match guard.turn() {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => break Ok(()),
            Err(why) => break Err(why),
        }
    };
    guard.mounter.take_all_off();
    if let Some(mut server) = guard.server.take() {
        server.end()?;
    }
    clear(&guard.paths);
    let _ = detach(&guard.paths.proc());
    outcome
}

/// Waits until the guard of a ghostd before has taken its views off and is gone: the mounts are at the same places.
fn alone(paths: &Paths) -> io::Result<Flock<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(paths.run().join("view.lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Directories and the mount of proc; nothing of a predecessor that was killed.
fn prepare(paths: &Paths) -> io::Result<()> {
    clear(paths);
    while detach(&paths.proc()).is_ok() {}
    DirBuilder::new().recursive(true).mode(0o700).create(paths.view())?;
    DirBuilder::new().recursive(true).mode(0o755).create(paths.proc())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &paths.proc(), Some("proc"), flags, None::<&str>)?;
    Ok(())
}

/// Takes off whatever shows the view's file system. Its server is dead, or not yet started.
fn clear(paths: &Paths) {
    let view = paths.view();
    let mounts = ghost_sys::mount::mounts().unwrap_or_default();
    let Some(device) = mounts.iter().find(|mount| mount.point == view).map(|mount| mount.device.clone()) else {
        return;
    };
    for mount in mounts.iter().rev().filter(|mount| mount.device == device) {
        let _ = detach(&mount.point);
    }
    while detach(&view).is_ok() {}
}

impl Guard {
    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        while let Some(message) = self.ghostd.receive()? {
            match message {
                GhostdToGuard::Show(show) => self.show(show),
                GhostdToGuard::Hide(Hide { proc }) => {
                    let number = self.mounter.hide(proc);
                    // ghostd does not wait for ever for this.
                    let _ = self.ghostd.send(GuardToGhostd::Hidden(Hide { proc }));
                    if let Some(number) = number {
                        self.tell(GuardToServer::Drop(DropGhost { number }));
                    }
                }
            }
        }
        self.flush();
        self.look_after_server();
        Ok(())
    }

    /// Tells the server, if there is one.
    fn tell(&mut self, message: GuardToServer) {
        if self.server.is_some() {
            self.outbox.push(message);
        }
    }

    fn flush(&mut self) {
        let Some(server) = &self.server else { return };
        // That it has gone is found when it is looked after.
        if let Ok(told) = self.outbox.flush(&server.port) {
            self.mounter.bind(&told);
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = vec![PollFd::new(self.ghostd.as_fd(), PollFlags::POLLIN)];
        let now = Instant::now();
        let pause = match &self.server {
            Some(server) => {
                let room = if self.outbox.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
                fds.push(PollFd::new(server.port.as_fd(), PollFlags::POLLIN | room));
                server.watch.pause(now)
            }
            None => self.next_try.saturating_duration_since(now),
        };
        let timeout = PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    fn show(&mut self, show: Show) {
        self.last_number = if self.last_number >= LAST_GHOST { 1 } else { self.last_number + 1 };
        let number = self.last_number;
        if let Some(old) = self.mounter.hide(show.proc) {
            self.tell(GuardToServer::Drop(DropGhost { number: old }));
        }
        self.mounter.enter(number, show.clone());
        self.tell(GuardToServer::Serve(Serve { number, show: Some(show) }));
    }

    fn look_after_server(&mut self) {
        let now = Instant::now();
        let Some(server) = &mut self.server else {
            if now >= self.next_try {
                self.start_server(now);
            }
            return;
        };
        let mut broken = false;
        loop {
            match server.port.receive() {
                Ok(Some(ServerToGuard::Pong(_))) => server.watch.heard(now),
                Ok(None) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if !broken && !server.has_ended() {
            match server.watch.look(now) {
                Verdict::Fine => return,
                Verdict::Ask => {
                    server.pings += 1;
                    // Full: it does not read, and will be found silent.
                    let _ = server.port.send(GuardToServer::Ping(Ping { seq: server.pings }));
                    return;
                }
                Verdict::GiveUp => tracing::warn!("the server of the view does not answer: another takes its place"),
            }
        } else {
            tracing::warn!("the server of the view has ended: another takes its place");
        }
        if let Err(why) = server.end() {
            tracing::warn!("the server of the view cannot be ended: {why}");
        }
        self.server = None;
        self.outbox.clear();
        self.mounter.take_all_off();
        clear(&self.paths);
        self.start_server(now);
    }

    fn start_server(&mut self, now: Instant) {
        match Guarded::start(&self.program, &self.paths, &self.figures) {
            Ok(server) => {
                self.server = Some(server);
                for shown in self.mounter.all() {
                    self.tell(GuardToServer::Serve(Serve { number: shown.number, show: Some(shown.show) }));
                }
            }
            Err(why) => {
                tracing::warn!("no server for the view: {why}");
                clear(&self.paths);
                self.next_try = now + PAUSE;
            }
        }
    }
}
