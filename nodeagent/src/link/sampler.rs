//! What the view on the master shows: reads the cluster processes' /proc when the master asks.
//!
//! It is read from outside the cluster's PID namespace, through the holder's own mount of /proc, by a thread that does
//! nothing else: some of these files wait for the process's memory map (mm/mmap_lock), which a process that hangs in a page
//! fault may hold for as long as it likes. Then the view of this node shows old figures, and nothing else is late.
//!
//! Invariant: all that is said of a process was read through one descriptor of its directory, which is that process's for
//! ever, however often its number is used again (fs/proc/base.c `proc_pid_make_inode` binds it to the `struct pid`).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use ghost_host::requirements::{Role, kernel_release};
use ghost_proto::Control;
use ghost_proto::examine::{Examine, Examined};
use ghost_proto::view::{
    AgentToMaster, FIGURES_SIZE, Figures, FileFigures, LARGEST_FILE, MasterToAgent, ProcessFigures, Sample, Sampled,
    ThreadFigures,
};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::read;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::readings::Readings;

/// Requests that may wait; the master asks again for those beyond.
const WAITING: usize = 16;
/// Frames that may wait for the connection.
const FRAMES: usize = 8;
/// Before the name of a file that is wanted of every thread.
const OF_THREADS: &str = "task/*/";

/// Content.
const FILES: [&str; 31] = [
    "arch_status",
    "auxv",
    "cmdline",
    "comm",
    "coredump_filter",
    "environ",
    "io",
    "ksm_merging_pages",
    "ksm_stat",
    "limits",
    "maps",
    "mountinfo",
    "mounts",
    "mountstats",
    "numa_maps",
    "oom_adj",
    "oom_score",
    "oom_score_adj",
    "personality",
    "sched",
    "schedstat",
    "smaps",
    "smaps_rollup",
    "stack",
    "stat",
    "statm",
    "status",
    "syscall",
    "timers",
    "timerslack_ns",
    "wchan",
];
/// Those that are read of many processes, and that the kernel gives out whole to a reader with enough room (fs/seq_file.c
/// `single_open`; fs/proc/base.c `proc_pid_cmdline_read`): what comes short of it is all there is.
const WHOLE: [&str; 8] = ["cmdline", "comm", "oom_score", "schedstat", "stat", "statm", "status", "wchan"];
/// Room that suffices for most files.
const USUAL: usize = 4096;
/// Targets.
const LINKS: [&str; 3] = ["cwd", "exe", "root"];

/// Reads in a thread that the first request starts: a node at which nobody looks has none, and one whose PIDs are exhausted, so
/// that there can be none, keeps its master. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Sampler {
    proc: Arc<File>,
    frames: mpsc::Sender<Bytes>,
    requests: Option<SyncSender<MasterToAgent>>,
}

impl Sampler {
    /// For the holder whose number is `holder`. What comes out are whole frames for the master.
    ///
    /// # Errors
    /// The holder's /proc cannot be opened (it has just ended).
    pub fn new(holder: u32) -> Result<(Sampler, mpsc::Receiver<Bytes>)> {
        let path = format!("/proc/{holder}/root/proc");
        let proc = File::open(&path).with_context(|| format!("{path}: the cluster's processes cannot be seen"))?;
        let (frames, out) = mpsc::channel(FRAMES);
        Ok((Sampler { proc: Arc::new(proc), frames, requests: None }, out))
    }

    fn thread(&mut self) -> io::Result<&SyncSender<MasterToAgent>> {
        let requests = match self.requests.take() {
            Some(requests) => requests,
            None => {
                let (requests, waiting) = sync_channel(WAITING);
                let (proc, frames) = (Arc::clone(&self.proc), self.frames.clone());
                let thread = std::thread::Builder::new().name("sampler".into()).stack_size(256 * 1024);
                thread.spawn(move || work(&proc, &waiting, &frames))?;
                requests
            }
        };
        Ok(self.requests.insert(requests))
    }

    /// Where frames for the master go.
    pub fn frames(&self) -> mpsc::Sender<Bytes> {
        self.frames.clone()
    }

    /// Takes a request. Never waits: one that cannot be taken is not answered, and the master asks again.
    pub fn request(&mut self, request: MasterToAgent) {
        let taken = match self.thread() {
            Ok(requests) => requests.try_send(request),
            Err(why) => return debug!("no thread for the view: {why}"),
        };
        match taken {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => debug!("the view's reading is behind: a request is not answered"),
            Err(TrySendError::Disconnected(_)) => warn!("the thread that reads for the view has ended"),
        }
    }
}

fn work(proc: &File, requests: &Receiver<MasterToAgent>, frames: &mpsc::Sender<Bytes>) {
    let give = |message: AgentToMaster| frames.blocking_send(message.to_frame()).is_ok();
    let mut readings = Readings::default();
    loop {
        let request = match readings.pause(Instant::now()) {
            Some(pause) => requests.recv_timeout(pause),
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        readings.forget_old(Instant::now());
        let taken = match request {
            Ok(MasterToAgent::Sample(sample)) => answer(proc, &sample, |figures| give(AgentToMaster::Figures(figures))),
            Ok(MasterToAgent::ReadPart(part)) => {
                give(AgentToMaster::Part(readings.answer(proc, &part, Instant::now())))
            }
            Ok(MasterToAgent::Examine(examine)) => give(AgentToMaster::Examined(examined(examine))),
            // Not this thread's.
            Ok(MasterToAgent::Power(_)) | Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        };
        if !taken {
            return;
        }
    }
}

/// What `bpctl doctor` shows of this node.
fn examined(examine: Examine) -> Examined {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Examined {
        seq: examine.seq,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel_release().unwrap_or_default(),
        wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        findings: ghost_host::examine::examine(Role::Node),
    }
}

/// Reads, and gives the answer part by part; ends early, with false, when a part is not taken.
fn answer(proc: &impl AsFd, request: &Sample, mut give: impl FnMut(Figures) -> bool) -> bool {
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let part = |last, processes| Figures {
        seq: request.seq,
        last,
        processes,
        files: request.files.clone(),
        page_size: u32::try_from(page_size).unwrap_or(4096),
    };
    let (mut gathered, mut size) = (Vec::new(), 0);
    for process in &request.processes {
        let Some(figures) = read_process(proc, process, &request.files) else { continue };
        for figures in pieces(figures) {
            let more = size_of_figures(&figures);
            if size > 0 && size + more > FIGURES_SIZE {
                if !give(part(false, std::mem::take(&mut gathered))) {
                    return false;
                }
                size = 0;
            }
            size += more;
            gathered.push(figures);
        }
    }
    give(part(true, gathered))
}

fn size_of_files(files: &[FileFigures]) -> usize {
    files.iter().map(|file| file.content.len() + 8).sum()
}

fn size_of_figures(figures: &ProcessFigures) -> usize {
    16 + size_of_files(&figures.files)
        + figures.threads.iter().map(|thread| 8 + size_of_files(&thread.files)).sum::<usize>()
}

/// A process with many threads, in pieces that fit.
fn pieces(mut figures: ProcessFigures) -> Vec<ProcessFigures> {
    if size_of_figures(&figures) <= FIGURES_SIZE {
        return vec![figures];
    }
    let (proc, owner) = (figures.proc, figures.owner);
    let threads = std::mem::take(&mut figures.threads);
    let mut size = size_of_figures(&figures);
    let mut pieces = vec![figures];
    for thread in threads {
        let more = 8 + size_of_files(&thread.files);
        if size + more > FIGURES_SIZE {
            if let Some(last) = pieces.last_mut() {
                last.more = true;
            }
            // The process's own files are in the first piece.
            pieces.push(ProcessFigures { proc, owner, ..ProcessFigures::default() });
            size = 16;
        }
        size += more;
        if let Some(last) = pieces.last_mut() {
            last.threads.push(thread);
        }
    }
    pieces
}

/// `None`: it does not exist any more.
fn read_process(proc: &impl AsFd, process: &Sampled, names: &[String]) -> Option<ProcessFigures> {
    let directory = open(proc, &process.pid.to_string(), OFlag::O_DIRECTORY | OFlag::O_PATH).ok()?;
    let before = owner(&directory)?;
    let files = names
        .iter()
        .filter(|name| !name.starts_with(OF_THREADS))
        .map(|name| figures_of(read_named(&directory, name)))
        .collect();
    let of_threads: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(OF_THREADS)).collect();
    let threads = if of_threads.is_empty() { Vec::new() } else { read_threads(&directory, process.pid, &of_threads) };
    // Executing a set-user-ID program in between makes another's of what was read before or after.
    let after = owner(&directory)?;
    let owner = if before == after { before } else { 0 };
    Some(ProcessFigures { proc: process.proc, owner, files, threads, more: false })
}

fn read_threads(process: &OwnedFd, pid: u32, names: &[&str]) -> Vec<ThreadFigures> {
    let mut threads = Vec::new();
    for tid in numbers_in(process, "task").unwrap_or_default() {
        let Ok(directory) = open(process, &format!("task/{tid}"), OFlag::O_DIRECTORY | OFlag::O_PATH) else { continue };
        let files: Vec<FileFigures> = names.iter().map(|name| figures_of(read_named(&directory, name))).collect();
        // One that ended meanwhile has nothing to show.
        if files.iter().any(|file| file.errno == 0) {
            threads.push(ThreadFigures { tid: if tid == pid { 0 } else { tid }, files });
        }
    }
    threads
}

/// The user whom the kernel lets read what is private to the process: /proc/PID itself always belongs to the effective
/// user, the files in it to root where dumps are forbidden (fs/proc/base.c `task_dump_owner`).
pub(super) fn owner(process: &OwnedFd) -> Option<u32> {
    fstatat(process, "environ", AtFlags::AT_SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_uid)
}

fn figures_of(read: io::Result<Vec<u8>>) -> FileFigures {
    match read {
        Ok(content) => FileFigures { errno: 0, content: content.into() },
        Err(why) => {
            FileFigures { errno: why.raw_os_error().unwrap_or(libc::EIO).unsigned_abs(), content: Bytes::new() }
        }
    }
}

/// Whether this names a file whose content may be given out.
pub(super) fn is_content(name: &str) -> bool {
    FILES.contains(&name) || is_below(name)
}

fn read_named(directory: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    if LINKS.contains(&name) {
        Ok(readlinkat(directory, name)?.into_encoded_bytes())
    } else if name == "fd" {
        descriptors(directory)
    } else if is_content(name) {
        content(directory, name)
    } else {
        Err(Errno::EACCES.into())
    }
}

/// Whether this is a file of `fdinfo` or `net`. Those of `net` everybody may read.
fn is_below(name: &str) -> bool {
    match name.split_once('/') {
        Some(("fdinfo", number)) => !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
        Some(("net", name)) => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        }
        _ => false,
    }
}

fn content(directory: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let file = open(directory, name, OFlag::O_RDONLY)?;
    let mut begin = [0; USUAL];
    let length = read(&file, &mut begin)?;
    let mut bytes = begin.get(..length).unwrap_or_default().to_vec();
    if length < USUAL && WHOLE.contains(&name) {
        return Ok(bytes);
    }
    File::from(file).take(LARGEST_FILE.saturating_sub(length) as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn descriptors(process: &OwnedFd) -> io::Result<Vec<u8>> {
    let directory = open(process, "fd", OFlag::O_DIRECTORY | OFlag::O_RDONLY)?;
    let mut listing = Vec::new();
    for fd in numbers_in(process, "fd")? {
        let name = fd.to_string();
        let Ok(target) = readlinkat(&directory, OsStr::new(&name)) else { continue };
        let Ok(link) = fstatat(&directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        if listing.len() + target.len() > LARGEST_FILE {
            break;
        }
        listing.extend_from_slice(format!("{name}:{:o}", link.st_mode & 0o777).as_bytes());
        listing.push(0);
        listing.extend_from_slice(target.as_bytes());
        listing.push(0);
    }
    Ok(listing)
}

/// The entries of a directory that are numbers, in order.
fn numbers_in(at: &OwnedFd, name: &str) -> io::Result<Vec<u32>> {
    // The way through our own descriptor leads to the directory that it stands for.
    let directory = std::fs::read_dir(format!("/proc/self/fd/{}/{name}", at.as_raw_fd()))?;
    let mut numbers: Vec<u32> =
        directory.filter_map(Result::ok).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn open(at: &impl AsFd, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    openat(at, name, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(files: &[&str], pid: u32) -> Vec<Figures> {
        let proc = File::open("/proc").expect("/proc");
        let files = files.iter().map(|&name| name.to_owned()).collect();
        let request = Sample { seq: 7, processes: vec![Sampled { proc: 3, pid }], files };
        let mut parts = Vec::new();
        assert!(answer(&proc, &request, |figures| {
            parts.push(figures);
            true
        }));
        parts
    }

    #[test]
    fn what_is_asked_for_is_read_and_nothing_else() {
        let pid = std::process::id();
        let parts =
            ask(&["stat", "exe", "mem", "../1/environ", "fd", "task/*/comm", "fdinfo/0", "net/dev", "net/../mem"], pid);
        assert_eq!((parts.len(), parts[0].seq, parts[0].last), (1, 7, true));
        let process = &parts[0].processes[0];
        assert_eq!((process.proc, process.owner), (3, nix::unistd::geteuid().as_raw()));
        let file = |at: usize| process.files[at].content.to_vec();
        assert!(file(0).starts_with(format!("{pid} (").as_bytes()));
        assert_eq!(file(1), std::env::current_exe().expect("own path").as_os_str().as_bytes());
        assert_eq!([2, 3].map(|at| process.files[at].errno), [libc::EACCES as u32; 2]);
        assert!(file(4).starts_with(b"0:"));
        assert!(file(5).starts_with(b"pos:") && file(6).starts_with(b"Inter-"));
        assert_eq!(process.files[7].errno, libc::EACCES as u32);
        assert!(process.threads.iter().any(|thread| thread.tid == 0 && thread.files.len() == 1));
        // This thread is not the first one of a test program.
        assert!(process.threads.len() > 1);
    }

    #[test]
    fn a_process_that_is_gone_is_absent() {
        let mut child = std::process::Command::new("/bin/true").spawn().expect("true");
        let pid = child.id();
        child.wait().expect("wait");
        let parts = ask(&["stat"], pid);
        assert!(parts.len() == 1 && parts[0].last && parts[0].processes.is_empty());
    }

    #[test]
    fn a_large_answer_comes_in_parts() {
        let proc = File::open("/proc").expect("/proc");
        let process = Sampled { proc: 1, pid: std::process::id() };
        let request = Sample { seq: 1, processes: vec![process; 200], files: vec!["status".into()] };
        let mut parts = Vec::new();
        answer(&proc, &request, |figures| {
            assert!(figures.processes.iter().map(size_of_figures).sum::<usize>() <= FIGURES_SIZE);
            parts.push((figures.last, figures.processes.len()));
            true
        });
        assert!(parts.len() > 2, "{parts:?}");
        assert_eq!(parts.iter().map(|part| part.1).sum::<usize>(), 200);
        assert!(parts.iter().rev().skip(1).all(|part| !part.0) && parts.last().is_some_and(|part| part.0));
    }

    #[test]
    fn a_process_of_many_threads_comes_in_pieces() {
        let file = |size| FileFigures { errno: 0, content: vec![b'x'; size].into() };
        let thread = |tid| ThreadFigures { tid, files: vec![file(300), file(1500)] };
        let whole = ProcessFigures {
            proc: 7,
            owner: 1000,
            files: vec![file(100)],
            threads: (0..1000).map(thread).collect(),
            more: false,
        };
        let pieces = pieces(whole.clone());
        assert!(pieces.len() > 30 && pieces.iter().all(|piece| size_of_figures(piece) <= FIGURES_SIZE));
        assert!(pieces.iter().rev().skip(1).all(|piece| piece.more) && !pieces[pieces.len() - 1].more);
        assert!(pieces.iter().skip(1).all(|piece| (piece.proc, piece.owner, piece.files.len()) == (7, 1000, 0)));
        let threads: Vec<ThreadFigures> = pieces.into_iter().flat_map(|piece| piece.threads).collect();
        assert_eq!(threads, whole.threads);
    }
}
