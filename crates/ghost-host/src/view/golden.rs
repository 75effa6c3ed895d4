//! Each file as the node gives it, and as it is shown: compared with files.
//!
//! `tests/golden/view/node`: what a node says of a process, threads and links included. `own`: what this host's kernel shows of
//! its ghost. `shown`: what readers get. `GHOSTPROC_GOLDEN=write cargo test -p ghost-host golden` writes the last anew: what
//! changes there is to be looked at, line by line, for an identity or a time that is not this host's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use ghost_proto::view::{FileFigures, ProcessFigures, ThreadFigures};
use ghost_proto::view_port::Show;

use super::asking::{DESCRIPTORS, THREADS};
use super::figures::Ghost;
use super::files::{ATTRIBUTES, Asked, CHILDREN, FILES, Place, Source};
use super::paths::Paths;
use super::rendering::{content, target};
use super::stat;

/// The ghost's number, and that of its process's second thread.
const GHOST: u32 = 4001;
const THREAD: u32 = 301;

fn golden(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/view").join(part)
}

fn of_node(name: &str) -> FileFigures {
    let content = fs::read(golden("node").join(name)).unwrap_or_else(|why| panic!("{name} of the node: {why}"));
    FileFigures { errno: 0, content: content.into() }
}

/// The ghost, of which the node has said all that is asked for of all ghosts together.
fn ghost(directory: &Path) -> (Ghost, Paths) {
    fs::create_dir(directory.join("proc")).expect("directory");
    std::os::unix::fs::symlink(golden("own"), directory.join(format!("proc/{GHOST}"))).expect("symlink");
    let show = Show { proc: 9, pid: GHOST, start: 123_456, uid: 1000, gid: 1000, node: 3 };
    let mut ghost = Ghost::new(show, 4096);
    let of_all =
        FILES.iter().filter(|file| file.asked != Asked::Alone && !matches!(file.source, Source::Own | Source::Comm));
    let mut names: Vec<String> = of_all.map(|file| file.name.to_owned()).collect();
    names.push(DESCRIPTORS.to_owned());
    let files = names.iter().map(|name| of_node(name)).collect();
    let of_thread = |tid: u32, at: &str| ThreadFigures {
        tid,
        files: ["stat", "status"].iter().map(|name| of_node(&format!("{at}{name}"))).collect(),
    };
    let threads = vec![of_thread(0, ""), of_thread(THREAD, "task/301/")];
    names.extend(THREADS.map(str::to_owned));
    ghost.take(ProcessFigures { proc: 9, owner: 0, files, threads, more: false }, 1, &names, 4096, Instant::now());
    (ghost, Paths::new(directory))
}

/// By path below `/proc/GHOST`.
fn shown(ghost: &Ghost, paths: &Paths) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut add = |name: String, place: Place| {
        let is_link = place.mode() & 0o170_000 == crate::fuse::S_IFLNK;
        let text = if is_link {
            target(ghost, place, paths).unwrap_or_else(|errno| panic!("{name}: {errno}"))
        } else {
            content(ghost, place, paths).unwrap_or_else(|errno| panic!("{name}: {errno}")).to_vec()
        };
        all.insert(name, text);
    };
    for (file, index) in FILES.iter().zip(0u8..).filter(|(file, _)| file.asked != Asked::Alone) {
        if file.name != CHILDREN {
            add(file.name.to_owned(), Place::File(index));
        }
        if file.of_thread && !matches!(file.name, "wchan" | "schedstat") {
            for tid in [GHOST, THREAD] {
                add(format!("task/{tid}/{}", file.name), Place::TaskFile(tid, index));
            }
        }
    }
    for (name, index) in ATTRIBUTES.iter().zip(0u8..).filter(|(name, _)| **name == "current") {
        add(format!("attr/{name}"), Place::Attribute(index));
    }
    for descriptor in ghost.descriptors() {
        add(format!("fd/{}", descriptor.number), Place::Descriptor(descriptor.number));
    }
    // The one file that is asked for alone and names its process.
    all.insert("sched".into(), stat::sched(&of_node("sched").content, GHOST).to_vec());
    all
}

#[test]
fn each_file_is_shown_as_the_ghosts() {
    let directory = tempfile::tempdir().expect("directory");
    let (ghost, paths) = ghost(directory.path());
    let at = golden("shown");
    let all = shown(&ghost, &paths);
    if std::env::var("GHOSTPROC_GOLDEN").is_ok_and(|value| value == "write") {
        let _ = fs::remove_dir_all(&at);
        for (name, text) in &all {
            let path = at.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
            fs::write(path, text).expect("written");
        }
    }
    for (name, text) in &all {
        let wanted = fs::read(at.join(name)).unwrap_or_else(|why| panic!("{name} as it is shown: {why}"));
        assert_eq!(String::from_utf8_lossy(text), String::from_utf8_lossy(&wanted), "{name}");
    }
}

/// What would be the node's identity in what is shown: its process is 300 there, its parent 1, its session 9, root's.
#[test]
fn nothing_shown_names_the_nodes_process() {
    let directory = tempfile::tempdir().expect("directory");
    let (ghost, paths) = ghost(directory.path());
    let all = shown(&ghost, &paths);
    let words = |name: &str| -> Vec<String> {
        String::from_utf8_lossy(&all[name]).split([' ', '\t', '\n', '(', ',']).map(str::to_owned).collect()
    };
    for name in ["stat", "status", "task/301/stat", "task/301/status", "sched"] {
        assert!(!words(name).contains(&"300".to_owned()), "{name}");
    }
    for name in ["status", "task/301/status"] {
        let text = String::from_utf8_lossy(&all[name]).into_owned();
        for line in ["Uid:\t1000\t1000\t1000\t1000", "CapEff:\t0000010000000000", "SigQ:\t5/200", "PPid:\t4000"] {
            assert!(text.lines().any(|it| it == line), "{name}: {line}");
        }
    }
    assert!(Bytes::from(all["cgroup"].clone()).starts_with(b"0::/user.slice"));
}
