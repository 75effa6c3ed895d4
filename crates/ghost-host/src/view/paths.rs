//! Where the view keeps things on this host.

use std::path::{Path, PathBuf};

/// Below an instance's run directory.
#[derive(Clone, Debug)]
pub struct Paths {
    run: PathBuf,
}

impl Paths {
    pub fn new(run: &Path) -> Paths {
        Paths { run: run.to_owned() }
    }

    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The mount of proc that carries no views.
    pub fn proc(&self) -> PathBuf {
        self.run.join("proc")
    }

    /// A file of a process as the kernel itself shows it.
    pub fn of_process(&self, pid: u32, name: &str) -> PathBuf {
        self.run.join(format!("proc/{pid}/{name}"))
    }

    /// Where the server's file system is mounted.
    pub fn view(&self) -> PathBuf {
        self.run.join("view")
    }

    /// The directory that is shown for a ghost.
    pub(super) fn directory(&self, number: u32) -> PathBuf {
        self.run.join(format!("view/{number}"))
    }
}
