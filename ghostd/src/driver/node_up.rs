//! Runs the administrator's program for nodes that come, a process of its own for each.
//!
//! ```text
//! wanted ──(a place is free)──> runs ──> ended: reported
//!                                |   └─(limit)──> SIGTERM, then SIGKILL, to its process group: reported
//!                                └─(not wanted any more)──> the same, not reported
//! ```
//! What it writes goes to a file for each node, of limited size; the one of the run before stands beside it.
//!
//! Invariants:
//! - It does not outlive this ghostd, nor is it there when another one goes on in its place: that one runs it anew.
//! - ghostd does not wait for it.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use ghost_proto::ids::NodeNumber;
use ghost_proto::instance::{self, Instance};
use ghost_sys::namespace::{Place, spawn};
use ghost_sys::pidfd;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::Shared;
use super::kernel::pollable;
use crate::config::Config;
use crate::core::Event;

/// Runs at once; the others wait in state boot.
const AT_ONCE: usize = 32;
/// Bytes of a run's output that are kept.
const LONGEST_LOG: usize = 1024 * 1024;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is run, and where its words go.
#[derive(Clone, Debug)]
struct NodeUp {
    program: PathBuf,
    limit: Duration,
    instance: Instance,
}

struct Wanted {
    node: NodeNumber,
    run: u64,
    hostname: String,
    address: IpAddr,
    stop: Rc<Notify>,
}

/// Runs that are wanted, wait or go on.
pub(super) struct Runs {
    instance: Instance,
    what: Option<NodeUp>,
    wanted: VecDeque<Wanted>,
    some: Rc<Notify>,
    /// How to stop each, and its process group once it has one.
    current: HashMap<u64, (Rc<Notify>, Option<Pid>)>,
    places: Rc<Semaphore>,
}

impl Runs {
    pub(super) fn new(instance: &Instance, config: &Config) -> Runs {
        let (instance, places) = (instance.clone(), Rc::new(Semaphore::new(AT_ONCE)));
        let current = HashMap::new();
        let mut runs = Runs { instance, what: None, wanted: VecDeque::new(), some: Rc::default(), current, places };
        runs.configure(config);
        runs
    }

    /// From the next run on.
    pub(super) fn configure(&mut self, config: &Config) {
        let (limit, instance) = (config.node_up_limit, self.instance.clone());
        self.what = config.node_up.clone().map(|program| NodeUp { program, limit, instance });
    }

    pub(super) fn want(&mut self, node: NodeNumber, run: u64, hostname: String, address: IpAddr) {
        let stop = Rc::new(Notify::new());
        self.current.insert(run, (Rc::clone(&stop), None));
        self.wanted.push_back(Wanted { node, run, hostname, address, stop });
        self.some.notify_one();
    }

    /// It is not wanted any more: it ends soon.
    pub(super) fn stop(&mut self, run: u64) {
        if let Some((stop, _)) = self.current.get(&run) {
            stop.notify_one();
        }
    }

    /// This program is about to end, or another one to go on in its place.
    pub(super) fn kill_all(&mut self) {
        for (_, (_, group)) in self.current.drain() {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
        }
    }
}

/// Begins what is wanted.
pub(super) fn watch(shared: &Shared) {
    let (some, shared) = (Rc::clone(&shared.borrow().node_ups.some), Rc::clone(shared));
    tokio::task::spawn_local(async move {
        loop {
            some.notified().await;
            loop {
                let next = shared.borrow_mut().node_ups.wanted.pop_front();
                let Some(wanted) = next else { break };
                tokio::task::spawn_local(go(wanted, Rc::clone(&shared)));
            }
        }
    });
}

async fn go(wanted: Wanted, shared: Shared) {
    let (what, places) = {
        let driver = shared.borrow();
        (driver.node_ups.what.clone(), Rc::clone(&driver.node_ups.places))
    };
    let Some(what) = what else {
        // It was taken out of the configuration since.
        let mut driver = shared.borrow_mut();
        driver.node_ups.current.remove(&wanted.run);
        return driver.turn(Event::NodeUpEnded { node: wanted.node, run: wanted.run, outcome: Ok(()) });
    };
    let _place = tokio::select! {
        biased;
        () = wanted.stop.notified() => {
            shared.borrow_mut().node_ups.current.remove(&wanted.run);
            return;
        }
        place = places.acquire() => place,
    };
    tracing::info!(node = wanted.node.0, program = %what.program.display(), "node_up begins");
    let outcome = match begin(&what, &wanted) {
        Ok((child, ended)) => {
            let group = Pid::from_raw(child.id().cast_signed());
            if let Some((_, known)) = shared.borrow_mut().node_ups.current.get_mut(&wanted.run) {
                *known = Some(group);
            }
            end(child, ended, group, &what, &wanted).await
        }
        Err(why) => Some(Err(format!("node_up cannot be started: {}: {why}", what.program.display()))),
    };
    let mut driver = shared.borrow_mut();
    driver.node_ups.current.remove(&wanted.run);
    let Some(outcome) = outcome else { return };
    if let Err(why) = &outcome {
        tracing::warn!(node = wanted.node.0, "{why}");
    }
    driver.turn(Event::NodeUpEnded { node: wanted.node, run: wanted.run, outcome });
}

/// Whether a file, or a directory on the way to it, can be changed by others than its owner root: in a sticky directory others can make
/// files, but not take this one's place (unlink(2)).
fn is_open(metadata: &Metadata) -> bool {
    let mode = metadata.mode();
    let by_others = mode & 0o002 != 0 || (mode & 0o020 != 0 && metadata.gid() != 0);
    metadata.uid() != 0 || (by_others && !(metadata.is_dir() && mode & 0o1000 != 0))
}

/// Whoever can change what is run as root is root.
fn check_owner(program: &Path, is_open: impl Fn(&Metadata) -> bool) -> io::Result<()> {
    let resolved = fs::canonicalize(program)?;
    for path in program.ancestors().chain(resolved.ancestors()) {
        if is_open(&fs::metadata(path)?) {
            let text = format!(
                "others than root can change {0}; `chown root {0}` and `chmod go-w {0}`, then `bpctl -S N -s boot`",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(())
}

fn begin(what: &NodeUp, wanted: &Wanted) -> io::Result<(Child, AsyncFd<OwnedFd>)> {
    check_owner(&what.program, is_open)?;
    let log = fresh_log(&log_path(&what.instance, wanted.node))?;
    let (reader, writer) = io::pipe()?;
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|directory| format!("{}:", directory.display()));
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
    let mut command = Command::new(&what.program);
    command.arg(wanted.node.to_string()).env_clear();
    command.env("PATH", beside.unwrap_or_default() + &path).env("HOME", "/root");
    command.env(instance::ENVIRONMENT, what.instance.as_str());
    command.env("NODE", wanted.node.to_string());
    command.env("NODE_NAME", &wanted.hostname).env("NODE_ADDRESS", wanted.address.to_string());
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = spawn(command, Place::here().new_session().directory(Path::new("/")).die_with_parent())?;
    let watched = pidfd::open(child.id()).and_then(pollable).and_then(|ended| {
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((ended, pollable(reader.into())?))
    });
    match watched {
        Ok((ended, output)) => {
            tokio::task::spawn_local(copy(output, log));
            Ok((child, ended))
        }
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(why)
        }
    }
}

/// Waits for its end; `None`: it was stopped.
async fn end(
    mut child: Child,
    ended: AsyncFd<OwnedFd>,
    group: Pid,
    what: &NodeUp,
    wanted: &Wanted,
) -> Option<Result<(), String>> {
    let outcome = tokio::select! {
        biased;
        _ = ended.readable() => None,
        () = wanted.stop.notified() => Some(None),
        () = tokio::time::sleep(what.limit) => {
            Some(Some(Err(format!("node_up had not ended after {} s", what.limit.as_secs()))))
        }
    };
    if outcome.is_some() {
        // It is not waited for yet: the number is its group's.
        let _ = killpg(group, Signal::SIGTERM);
        let _ = timeout(GRACE, ended.readable()).await;
        let _ = killpg(group, Signal::SIGKILL);
        let _ = ended.readable().await;
    }
    let status = child.wait();
    let outcome = outcome.unwrap_or_else(|| Some(status.map_err(|e| e.to_string()).and_then(verdict)));
    let log = log_path(&what.instance, wanted.node);
    outcome.map(|outcome| outcome.map_err(|why| format!("{why}, see {}", log.display())))
}

fn verdict(status: ExitStatus) -> Result<(), String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("node_up ended with status {code}")),
        (None, signal) => Err(format!("node_up was killed by signal {}", signal.unwrap_or(0))),
    }
}

/// Where the words of a node's runs are.
fn log_path(instance: &Instance, node: NodeNumber) -> PathBuf {
    instance.log().join("node_up").join(format!("{node}.log"))
}

/// An empty file; what was there is kept as the one of the run before.
fn fresh_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::rename(path, path.with_extension("log.1")) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    File::options().create(true).append(true).open(path)
}

/// Until nobody can write any more, which may be long after the program's end.
async fn copy(output: AsyncFd<OwnedFd>, mut log: File) {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = LONGEST_LOG;
    loop {
        let Ok(mut ready) = output.readable().await else { return };
        match nix::unistd::read(output.get_ref(), &mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                let kept = n.min(left);
                // A full disk takes nothing; what the program does is not changed by that.
                let _ = log.write_all(&buffer[..kept]);
                if left > 0 && left == kept {
                    let _ = log.write_all(b"\n(the rest is not kept)\n");
                }
                left -= kept;
                tokio::task::yield_now().await;
            }
            Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_runs_words_stand_beside_the_present_ones() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node_up/3.log");
        fresh_log(&path).and_then(|mut log| log.write_all(b"first")).expect("a log");
        fresh_log(&path).and_then(|mut log| log.write_all(b"second")).expect("a log");
        fresh_log(&path).and_then(|mut log| log.write_all(b"third")).expect("a log");
        let text = |name: &str| fs::read_to_string(path.with_file_name(name)).expect(name);
        assert_eq!((text("3.log"), text("3.log.1")), ("third".into(), "second".into()));
        assert_eq!(fs::read_dir(directory.path().join("node_up")).expect("entries").count(), 2);
    }

    #[test]
    fn what_others_can_change_is_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let (inner, program) = (directory.path().join("d"), directory.path().join("d/node_up"));
        fs::create_dir(&inner).expect("a directory");
        fs::write(&program, "").expect("a program");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&program, &link).expect("a link");
        // As of root's where this is run by somebody else: only the bits count here.
        let judged =
            |path: &Path| check_owner(path, |metadata| metadata.mode() & 0o002 != 0 && metadata.mode() & 0o1000 == 0);
        for (of_directory, of_program, wanted) in
            [(0o755, 0o755, true), (0o755, 0o757, false), (0o777, 0o755, false), (0o1777, 0o755, true)]
        {
            mode(&inner, of_directory);
            mode(&program, of_program);
            for path in [&program, &link] {
                assert_eq!(judged(path).is_ok(), wanted, "{of_directory:o} {of_program:o} {}", path.display());
            }
        }
        mode(&program, 0o757);
        assert!(is_open(&fs::metadata(&program).expect("metadata")));
        let said = check_owner(&program, is_open).expect_err("open").to_string();
        assert!(said.contains("can change") && said.contains("chmod go-w"), "{said}");
        assert_eq!(check_owner(Path::new("/no/such"), is_open).expect_err("none").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_status_is_a_verdict() {
        for (raw, wanted) in [
            (0, Ok(())),
            (1 << 8, Err("node_up ended with status 1".to_owned())),
            (9, Err("node_up was killed by signal 9".to_owned())),
        ] {
            assert_eq!(verdict(ExitStatus::from_raw(raw)), wanted);
        }
    }
}
