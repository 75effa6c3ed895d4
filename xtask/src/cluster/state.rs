//! The state directory of a cluster, `/run/ghostproc-cluster/ID`, and what remains of clusters whose runner was killed.
//!
//! Invariant: the directory's `lock` is held exactly as long as the runner lives. Creating a directory and sweeping are
//! done under one lock, so that nobody takes a cluster in the making for a dead one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::cgroup;

const TOP: &str = "/run/ghostproc-cluster";

/// In the state directory: a link to the copy of the programs.
const PROGRAMS_LINK: &str = "bin";

pub struct State {
    pub id: String,
    pub directory: PathBuf,
    /// The copy of the programs that this cluster runs.
    pub programs: PathBuf,
    _lock: Flock<File>,
}

pub fn directory(id: &str) -> PathBuf {
    Path::new(TOP).join(id)
}

impl State {
    /// Sweeps up after the dead, then makes a state directory and copies the programs.
    pub fn create(programs: &[PathBuf]) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(TOP).with_context(|| TOP.to_owned())?;
        let everybody = lock(&Path::new(TOP).join("lock"), FlockArg::LockExclusive).context(TOP)?;
        for id in ids()? {
            // What cannot be removed keeps nobody from working.
            if let Err(why) = sweep(&id) {
                eprintln!("xtask: cleaning up after cluster {id}: {why:#}");
            }
        }
        let id = random_id()?;
        let directory = directory(&id);
        fs::create_dir(&directory).with_context(|| format!("{}", directory.display()))?;
        let own = lock(&directory.join("lock"), FlockArg::LockExclusive)?;
        drop(everybody);

        // Beside what was built: a path below /run could forbid execution (mount option noexec).
        let built = programs.first().and_then(|program| program.parent()).unwrap_or(&directory);
        let copy = built.join("ghostproc-cluster").join(&id);
        std::os::unix::fs::symlink(&copy, directory.join(PROGRAMS_LINK))?;
        let state = Self { id, directory, programs: copy, _lock: own };
        fs::create_dir_all(&state.programs).with_context(|| format!("{}", state.programs.display()))?;
        for program in programs {
            let name = program.file_name().context("a program without a name")?;
            let copy = state.programs.join(name);
            fs::copy(program, &copy).with_context(|| format!("{}", program.display()))?;
            // As an installation does; on a file system without such attributes ghosts of users' processes have other numbers.
            if name == "bpsh"
                && let Err(why) = ghost_sys::capability::give_checkpoint_restore(&copy)
            {
                eprintln!("xtask: bpsh gets no capability: {why}");
            }
        }
        Ok(state)
    }

    /// Removes everything the kernel does not remove by itself.
    pub fn remove(self) -> Result<()> {
        discard(&self.id)
    }
}

/// The clusters whose runner lives.
pub fn running() -> Result<Vec<String>> {
    let mut running = Vec::new();
    for id in ids()? {
        if lock(&directory(&id).join("lock"), FlockArg::LockSharedNonblock).is_err() {
            running.push(id);
        }
    }
    Ok(running)
}

/// Cleans up after a cluster if its runner is dead.
fn sweep(id: &str) -> Result<()> {
    match lock(&directory(id).join("lock"), FlockArg::LockExclusiveNonblock) {
        Ok(_held) => discard(id),
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(why) => Err(why.into()),
    }
}

fn discard(id: &str) -> Result<()> {
    cgroup::remove(&cgroup::path(id)?)?;
    let directory = directory(id);
    if let Ok(programs) = fs::read_link(directory.join(PROGRAMS_LINK)) {
        remove_directory(&programs)?;
    }
    remove_directory(&directory)
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why).with_context(|| format!("{}", path.display())),
        _ => Ok(()),
    }
}

fn ids() -> Result<Vec<String>> {
    let entries = match fs::read_dir(TOP) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(TOP)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            ids.extend(entry.file_name().into_string());
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// A lock file, made where there is none. It is released when the result is dropped.
fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    Flock::lock(file, how).map_err(|(_, why)| why.into())
}

fn random_id() -> Result<String> {
    let mut bytes = [0u8; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}
