//! The cluster's subtree of the cgroup hierarchy: what everything in it can be found and killed by.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// All clusters' directory, at the top of the hierarchy.
const TOP: &str = "ghostproc-cluster";

/// How long dying processes may hold a cgroup.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn path(id: &str) -> Result<PathBuf> {
    Ok(ghost_sys::mount::cgroup2()?.join(TOP).join(id))
}

pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}", path.display()))
}

/// Kills whatever is in it, at any depth (cgroup.kill, since Linux 5.14), and removes it. Nothing to do is no error.
pub fn remove(path: &Path) -> Result<()> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("{}", path.display()))?,
    }
    let until = Instant::now() + PATIENCE;
    while let Err(why) = remove_tree(path) {
        if Instant::now() > until {
            return Err(why).with_context(|| format!("{}; still in it: {:?}", path.display(), processes(path)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // The last cluster also removes the common directory.
    if let Some(top) = path.parent() {
        match fs::remove_dir(top) {
            Ok(()) => {}
            Err(why)
                if [io::ErrorKind::ResourceBusy, io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound]
                    .contains(&why.kind()) => {}
            Err(why) => return Err(why).with_context(|| format!("{}", top.display())),
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// What is in it, at any depth: for messages.
pub fn processes(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(text) = fs::read_to_string(path.join("cgroup.procs")) {
        for pid in text.lines() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(format!("{pid} {}", name.trim_end()));
        }
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    found
}
