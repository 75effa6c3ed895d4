//! Cgroups of the launches: a small stock of empty ones, so that a start makes none.
//!
//! ```text
//! CGROUP-OF-THE-AGENT/INSTANCE-holder/self        the holder: the parent keeps no process of its own
//!                                    /slot-N      one launch; empty ones are used again
//! ```
//! Invariant: while nothing runs there are exactly [`STOCK`] slots. A slot that still holds a process is never given to
//! another launch. Without cgroup2, or without the right to make directories in it, everything works without them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ghost_proto::ids::LaunchId;
use ghost_proto::instance::Instance;

/// Empty slots that are kept.
const STOCK: usize = 8;
/// How the name of one begins.
const SLOT: &str = "slot-";

/// The directory above all launches' cgroups, from the agent or from the holder that it has just started.
///
/// # Errors
/// There is no cgroup2.
pub fn top(instance: &Instance) -> io::Result<PathBuf> {
    Ok(own_cgroup()?.join(format!("{instance}-holder")))
}

/// Whether a directory in there belongs to a launch, by its name.
pub fn is_of_a_launch(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(SLOT.as_bytes())
}

#[derive(Debug)]
struct Slot {
    path: PathBuf,
    directory: File,
    events: File,
    figures: File,
}

impl Slot {
    fn make(path: PathBuf) -> io::Result<Slot> {
        fs::create_dir(&path)?;
        Ok(Slot {
            directory: File::open(&path)?,
            events: File::open(path.join("cgroup.events"))?,
            figures: File::open(path.join("cpu.stat"))?,
            path,
        })
    }

    /// Processor time that its processes have used, in microseconds; counted without any controller (kernel/cgroup/rstat.c,
    /// cgroup_base_stat_cputime_show()).
    fn processor_time(&self) -> Option<u64> {
        let mut text = [0u8; 64];
        let length = self.figures.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        text.lines().next()?.strip_prefix("usage_usec ")?.parse().ok()
    }

    /// A line of cgroup.events: `populated` or `frozen`.
    fn is(&self, what: &str) -> bool {
        let mut text = [0u8; 64];
        let length = self.events.read_at(&mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix(what).is_some_and(|rest| rest.trim() == "1"))
    }
}

/// All slots.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// `None`: no cgroups here.
    top: Option<PathBuf>,
    stock: Vec<Slot>,
    used: HashMap<LaunchId, Slot>,
    /// The launch has ended, but something of it may run on.
    left: Vec<Slot>,
    next: u64,
}

impl Cgroups {
    /// Moves the calling process into a leaf of its own and makes the stock.
    ///
    /// # Errors
    /// There is no cgroup2, or it may not be changed.
    pub fn new(instance: &Instance) -> io::Result<Cgroups> {
        let top = top(instance)?;
        make_directory(&top)?;
        for entry in fs::read_dir(&top)?.flatten() {
            // What a holder that was killed has left: empty, as its processes died with it.
            let _ = fs::remove_dir(entry.path());
        }
        let own = top.join("self");
        make_directory(&own)?;
        // "0" is the writing process (kernel/cgroup/cgroup.c, cgroup_procs_write_start()).
        File::options().write(true).open(own.join("cgroup.procs"))?.write_all(b"0")?;
        let mut cgroups = Cgroups { top: Some(top), ..Cgroups::default() };
        cgroups.tidy(|_| false);
        Ok(cgroups)
    }

    /// The cgroup of a launch, made or taken from the stock if it has none yet.
    pub fn of(&mut self, launch: LaunchId) -> Option<BorrowedFd<'_>> {
        if !self.used.contains_key(&launch) {
            // A service manager that restarts the agent removes what is empty below its cgroup (systemd: cg_trim() in unit_prune_cgroup()).
            let slot = std::iter::from_fn(|| self.stock.pop()).find(|slot| slot.path.is_dir());
            let slot = match slot {
                Some(slot) => slot,
                None => self.make()?,
            };
            self.used.insert(launch, slot);
        }
        self.used.get(&launch).map(|slot| slot.directory.as_fd())
    }

    /// Takes back what is empty, brings the stock to its size. To be called when something has ended and there is time.
    pub fn tidy(&mut self, lives: impl Fn(LaunchId) -> bool) {
        self.left.extend(self.used.extract_if(|launch, _| !lives(*launch)).map(|(_, slot)| slot));
        let (full, empty): (Vec<Slot>, Vec<Slot>) = self.left.drain(..).partition(|slot| slot.is("populated"));
        self.left = full;
        for slot in empty {
            // A slot goes rather than comes back when it could be left frozen, or is one too many.
            if self.stock.len() < STOCK && !slot.is("frozen") {
                self.stock.push(slot);
            } else {
                self.remove(slot);
            }
        }
        while self.top.is_some() && self.stock.len() < STOCK && self.used.is_empty() && self.left.is_empty() {
            match self.make() {
                Some(slot) => self.stock.push(slot),
                None => break,
            }
        }
    }

    /// Begins to freeze, or thaws, a launch.
    pub fn freeze(&self, launch: LaunchId, frozen: bool) -> bool {
        let Some(slot) = self.used.get(&launch) else {
            return false;
        };
        fs::write(slot.path.join("cgroup.freeze"), if frozen { "1" } else { "0" }).is_ok()
    }

    pub fn is_frozen(&self, launch: LaunchId) -> bool {
        self.used.get(&launch).is_some_and(|slot| slot.is("frozen"))
    }

    /// Processor time of all that was launched; it may also become less, when launches end. `None`: not known.
    pub fn processor_time(&self) -> Option<u64> {
        self.top.as_ref()?;
        self.used.values().chain(&self.left).map(Slot::processor_time).sum()
    }

    /// PIDs of a launch's processes, `None` without a cgroup.
    pub fn members(&self, launch: LaunchId) -> Option<Vec<u32>> {
        let text = fs::read_to_string(self.used.get(&launch)?.path.join("cgroup.procs")).ok()?;
        Some(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The launch in whose cgroup a process is.
    pub fn launch_of(&self, pid: u32) -> Option<LaunchId> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = Path::new(text.lines().find_map(|line| line.strip_prefix("0::"))?);
        // The process may have made cgroups of its own below.
        let is_in = |slot: &Slot| path.ancestors().any(|path| path.file_name() == slot.path.file_name());
        self.used.iter().find(|(_, slot)| is_in(slot)).map(|(launch, _)| *launch)
    }

    fn make(&mut self) -> Option<Slot> {
        let top = self.top.as_ref()?;
        self.next += 1;
        Slot::make(top.join(format!("{SLOT}{}", self.next))).ok()
    }

    fn remove(&mut self, slot: Slot) {
        match fs::remove_dir(&slot.path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => self.left.push(slot),
            _ => {}
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        _ => Ok(()),
    }
}

/// The directory of the calling process's cgroup.
fn own_cgroup() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "no cgroup2 hierarchy");
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(missing)?;
    let mount =
        ghost_sys::mount::mounts()?.into_iter().rev().find(|mount| mount.kind == "cgroup2").ok_or_else(missing)?;
    // The mount may show a part of the tree only (cgroup_namespaces(7)); from outside of it nothing is reachable.
    let inside = Path::new(path).strip_prefix(&mount.root).map_err(|_| missing())?;
    Ok(mount.point.join(inside))
}
