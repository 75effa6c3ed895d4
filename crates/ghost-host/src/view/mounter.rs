//! Binds ghosts' directories over /proc/PID.
//!
//! Finding the directory asks the server, which may hang: a thread does that. What has been found is attached under a lock,
//! with the look at whether it is still wanted, so that whoever takes a view off, and does not wait for the thread, is
//! certain that it does not come back.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ghost_proto::view_port::Show;
use ghost_sys::mount_tree::{attach, detach, second_mount};

use super::{Paths, stat};

/// A ghost and its place.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub number: u32,
    pub show: Show,
    mounted: bool,
}

/// By process.
type Table = HashMap<u64, Shown>;

#[derive(Debug)]
pub(super) struct Mounter {
    table: Arc<Mutex<Table>>,
    work: Sender<Shown>,
}

impl Mounter {
    /// # Errors
    /// There can be no thread.
    pub(super) fn start(paths: &Paths) -> io::Result<Mounter> {
        let table = Arc::new(Mutex::new(Table::new()));
        let (work, waiting) = channel();
        let (theirs, paths) = (Arc::clone(&table), paths.clone());
        let thread = std::thread::Builder::new().name("mounter".into()).stack_size(128 * 1024);
        thread.spawn(move || bind_all(&waiting, &theirs, &paths))?;
        Ok(Mounter { table, work })
    }

    /// Enters a ghost into the table.
    pub(super) fn enter(&self, number: u32, show: Show) {
        lock(&self.table).insert(show.proc, Shown { number, show, mounted: false });
    }

    /// Binds the directories of these ghosts, soon: the server knows them.
    pub(super) fn bind(&self, procs: &[u64]) {
        let table = lock(&self.table);
        for shown in procs.iter().filter_map(|proc| table.get(proc)) {
            // The thread ends with this value only.
            let _ = self.work.send(shown.clone());
        }
    }

    /// Takes a ghost off the table, and its view off if it is there. Gives its number.
    pub(super) fn hide(&self, proc: u64) -> Option<u32> {
        let mut table = lock(&self.table);
        let shown = table.remove(&proc)?;
        take_off(&shown);
        Some(shown.number)
    }

    /// Takes all views off; the table stays.
    pub(super) fn take_all_off(&self) {
        for shown in lock(&self.table).values_mut() {
            take_off(shown);
            shown.mounted = false;
        }
    }

    pub(super) fn all(&self) -> Vec<Shown> {
        lock(&self.table).values().cloned().collect()
    }
}

/// The table is whole at every moment that the lock is free.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn point(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn take_off(shown: &Shown) {
    if shown.mounted {
        // EINVAL, ENOENT: the ghost has been reaped, and its mount with it.
        let _ = detach(&point(shown.show.pid));
    }
}

fn bind_all(waiting: &Receiver<Shown>, table: &Mutex<Table>, paths: &Paths) {
    while let Ok(shown) = waiting.recv() {
        let still_wanted =
            |table: &Table| table.get(&shown.show.proc).is_some_and(|now| now.number == shown.number && !now.mounted);
        if !still_wanted(&lock(table)) {
            continue;
        }
        let bound = find(&shown, paths).and_then(|(target, mount)| {
            let mut table = lock(table);
            if still_wanted(&table) {
                attach(&mount, &target)?;
                if let Some(now) = table.get_mut(&shown.show.proc) {
                    now.mounted = true;
                }
            }
            Ok(())
        });
        if let Err(why) = bound {
            // It has ended, or the server has: then its successor's turn comes.
            tracing::debug!(pid = shown.show.pid, "a ghost is not shown: {why}");
        }
    }
}

/// The ghost's own directory in /proc, which is nobody else's for ever, and a mount of the one to be shown.
fn find(shown: &Shown, paths: &Paths) -> io::Result<(File, std::os::fd::OwnedFd)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let target = File::options().read(true).custom_flags(flags).open(point(shown.show.pid))?;
    let line = std::fs::read(paths.of_process(shown.show.pid, "stat"))?;
    if stat::start(&line) != Some(shown.show.start) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok((target, second_mount(&paths.directory(shown.number))?))
}
