use super::*;
use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn program(argv: &[&str]) -> Program {
    Program {
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        candidates: vec![c(argv[0])],
        argv: argv.iter().map(|s| c(s)).collect(),
        environment: vec![c("PATH=/bin:/usr/bin")],
        directory: c("/"),
        umask: 0o022,
        ..Program::default()
    }
}

struct Run {
    outcome: Outcome,
    output: String,
    status: WaitStatus,
}

/// Runs it to its end with stdout in a pipe.
fn run(program: Program) -> Run {
    run_in(program, None)
}

fn run_in(program: Program, namespaces: Option<&Namespaces>) -> Run {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").expect("null");
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("pipe");
    let place = Place {
        pid: None,
        cgroup: None,
        stdio: [null.as_fd(), writer.as_fd(), null.as_fd()],
        parent: None,
        foreground: false,
        namespaces,
    };
    let mut spawned = spawn(program, place).expect("spawn");
    drop(writer);
    let outcome = settled(&mut spawned.starting);
    let mut output = String::new();
    std::fs::File::from(reader).read_to_string(&mut output).expect("read");
    let status = waitpid(Pid::from_raw(spawned.pid as i32), None).expect("wait");
    Run { outcome, output, status }
}

fn settled(starting: &mut Starting) -> Outcome {
    let begin = Instant::now();
    loop {
        if let Some(outcome) = starting.outcome() {
            return outcome;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "no outcome");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn setgroups_needs_root_and_says_so() {
    if nix::unistd::getuid().is_root() {
        return;
    }
    let run = run(program(&["/bin/true"]));
    assert_eq!(run.outcome, Outcome::Failed { stage: Stage::Prepare, errno: libc::EPERM });
}

#[test]
fn the_program_gets_what_it_was_promised() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): cannot become another user");
        return;
    }
    let script = "id -u; id -g; id -G; umask; pwd; ulimit -n; nice; ls /proc/self/fd | tr '\\n' ' '; echo; \
                  set -- $(cat /proc/$$/stat); echo $5; echo $$";
    let mut wanted = program(&["/bin/sh", "-c", script]);
    wanted.uid = 4321;
    wanted.gid = 4322;
    wanted.groups = vec![4322, 4323];
    wanted.umask = 0o027;
    wanted.directory = c("/usr");
    wanted.limits = vec![(libc::RLIMIT_NOFILE, 100, 100)];
    wanted.nice = 3;
    let run = run(wanted);
    assert_eq!(run.outcome, Outcome::Running { directory_errno: 0 });
    let lines: Vec<&str> = run.output.lines().collect();
    assert_eq!(lines[..7], ["4321", "4322", "4322 4323", "0027", "/usr", "100", "3"]);
    assert_eq!(lines[7].trim(), "0 1 2 3", "3 is ls's own");
    assert_eq!(lines[8], lines[9], "it leads its process group");
}

#[test]
fn ignored_and_blocked_signals_are_those_asked_for() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): setgroups");
        return;
    }
    let mut wanted = program(&["/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]);
    wanted.ignored = 1 << (libc::SIGUSR1 - 1) | 1 << 63 | 1 << 31;
    wanted.blocked = 1 << (libc::SIGUSR2 - 1) | 1 << 40 | 1 << 32;
    assert_eq!(run(wanted).output, "SigBlk:\t0000010100000800\nSigIgn:\t8000000080000200\n");
}

#[test]
fn a_user_gains_nothing_by_asking() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): cannot become another user");
        return;
    }
    let mut wanted = program(&["/bin/sh", "-c", "nice; chrt -p $$ | head -1 | grep -o 'SCHED_.*'; ulimit -Hn; pwd"]);
    wanted.uid = 4321;
    wanted.gid = 4321;
    wanted.nice = -10;
    wanted.policy = libc::SCHED_FIFO;
    wanted.priority = 10;
    wanted.directory = c("/root");
    let run = run(wanted);
    let Outcome::Running { directory_errno } = run.outcome else { panic!("{:?}", run.outcome) };
    assert_eq!(directory_errno, libc::EACCES);
    let lines: Vec<&str> = run.output.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3]), ("0", "SCHED_OTHER", "/"));
}

#[test]
fn failures_are_told_apart() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): setgroups");
        return;
    }
    let exec = |errno| Outcome::Failed { stage: Stage::Exec, errno };
    let mut several = program(&["x"]);
    several.candidates = vec![c("/no/such"), c("/etc/passwd"), c("/also/not")];
    assert_eq!(run(several).outcome, exec(libc::EACCES));
    let mut none = program(&["x"]);
    none.candidates = vec![c("/no/such"), c("/etc/passwd/x")];
    let ended = run(none);
    assert_eq!(ended.outcome, exec(libc::ENOTDIR));
    assert!(matches!(ended.status, WaitStatus::Exited(_, 127)));
}

#[test]
fn a_file_without_interpreter_goes_to_the_shell() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): setgroups");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("ghost-spawn-{}", std::process::id()));
    std::fs::write(&path, "echo \"$0 $1 $2\"\n").expect("write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut wanted = program(&["name", "one", "two"]);
    let file = path.to_str().expect("utf-8");
    wanted.candidates = vec![c(file)];
    let run = run(wanted);
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(run.output, format!("{file} one two\n"));
}

#[test]
fn a_pid_in_use_costs_equality_only() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): set_tid");
        return;
    }
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").expect("null");
    let stdio = [null.as_fd(); 3];
    let mut first = spawn(
        program(&["/bin/sleep", "100"]),
        Place { pid: None, cgroup: None, stdio, parent: None, foreground: false, namespaces: None },
    )
    .expect("first");
    let second = Place { pid: Some(first.pid), cgroup: None, stdio, parent: None, foreground: false, namespaces: None };
    let mut second = spawn(program(&["/bin/true"]), second).expect("second");
    assert_ne!(first.pid, second.pid);
    settled(&mut second.starting);
    settled(&mut first.starting);
    nix::sys::signal::kill(Pid::from_raw(first.pid as i32), nix::sys::signal::Signal::SIGKILL).expect("kill");
    for spawned in [first, second] {
        waitpid(Pid::from_raw(spawned.pid as i32), None).expect("wait");
    }
}

#[test]
fn a_child_stopped_before_its_program_holds_nobody() {
    if !nix::unistd::getuid().is_root() {
        println!("Skipped(needs root): setgroups");
        return;
    }
    // Where the stop meets the child is chance: many tries.
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").expect("null");
    for _ in 0..50 {
        let place = Place {
            pid: None,
            cgroup: None,
            stdio: [null.as_fd(); 3],
            parent: None,
            foreground: false,
            namespaces: None,
        };
        let mut spawned = spawn(program(&["/bin/true"]), place).expect("spawn returns");
        let pid = Pid::from_raw(spawned.pid as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP);
        let _ = spawned.starting.outcome();
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT);
        settled(&mut spawned.starting);
        waitpid(pid, None).expect("wait");
    }
}

#[test]
fn files_are_opened_in_its_directory_with_its_umask() {
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("ghost-sys-spawn-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::write(directory.join("in"), "from the file\n").expect("a file");
    std::fs::write(directory.join("out"), "much older text, which is cut off").expect("a file");
    let mut shell = program(&["/bin/sh", "-c", "cat; echo error >&2; echo more"]);
    shell.directory = c(directory.to_str().expect("text"));
    shell.umask = 0o027;
    shell.files = [Some(c("in")), Some(c("out")), Some(c("out"))];
    let ended = run(shell.clone());
    assert_eq!((ended.outcome, ended.output.as_str()), (Outcome::Running { directory_errno: 0 }, ""));
    let text = |name: &str| std::fs::read_to_string(directory.join(name)).expect(name);
    assert_eq!(text("out"), "from the file\nerror\nmore\n");

    shell.files = [None, None, Some(c("err"))];
    assert_eq!(run(shell.clone()).output, "more\n");
    assert_eq!(text("err"), "error\n");
    let mode = std::fs::metadata(directory.join("err")).expect("err").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    for (fd, path, errno) in [(0u8, "none", libc::ENOENT), (1, "no/where", libc::ENOENT), (2, "/", libc::EISDIR)] {
        shell.files = [None, None, None];
        shell.files[usize::from(fd)] = Some(c(path));
        assert_eq!(run(shell.clone()).outcome, Outcome::Failed { stage: Stage::File(fd), errno }, "{path}");
    }
    std::fs::remove_dir_all(directory).expect("removed");
}

#[test]
fn a_directory_that_is_required_must_be_there() {
    let mut shell = program(&["/bin/pwd"]);
    shell.directory = c("/no/such");
    assert!(matches!(run(shell.clone()).outcome, Outcome::Running { directory_errno: libc::ENOENT }));
    shell.directory_required = true;
    assert_eq!(run(shell).outcome, Outcome::Failed { stage: Stage::Directory, errno: libc::ENOENT });
}

/// As root only: chroot(2) is for nobody else.
#[test]
fn a_root_directory_must_be_there_and_everything_is_in_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let root = std::env::temp_dir().join(format!("ghost-sys-root-{}", std::process::id()));
    std::fs::create_dir_all(root.join("inner")).expect("a directory");
    std::fs::write(root.join("in"), "from in there\n").expect("a file");
    let mut missing = program(&["/bin/cat"]);
    missing.root = Some(c("/no/such"));
    assert_eq!(run(missing.clone()).outcome, Outcome::Failed { stage: Stage::Root, errno: libc::ENOENT });
    // There is no program in there; the file that is its input is, and so is the directory.
    missing.root = Some(c(root.to_str().expect("text")));
    missing.directory = c("/inner");
    missing.directory_required = true;
    missing.files[0] = Some(c("../in"));
    let outcome = run(missing).outcome;
    std::fs::remove_dir_all(root).expect("removed");
    assert_eq!(outcome, Outcome::Failed { stage: Stage::Exec, errno: libc::ENOENT });
}

/// As root only: who else may enter namespaces?
#[test]
fn a_program_enters_namespaces_and_keeps_its_pid_namespace() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let kinds = nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_NEWUTS;
    let mut other = std::process::Command::new("sleep");
    other.arg("100");
    let place = crate::namespace::Place::new(kinds | nix::sched::CloneFlags::CLONE_NEWPID).die_with_parent();
    let mut other = crate::namespace::spawn(other, place).expect("another one");
    let namespaces = Namespaces::of(other.id()).expect("its namespaces");
    let shown = |pid: &str| {
        let links =
            ["net", "uts", "ipc", "mnt", "pid"].map(|kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")));
        links.map(|link| link.expect("a namespace").to_string_lossy().into_owned())
    };
    let (own, others) = (shown("self"), shown(&other.id().to_string()));
    assert!([1, 3, 4].iter().all(|at| own[*at] != others[*at]), "{own:?} {others:?}");
    let paths = ["net", "uts", "ipc", "mnt", "pid"].map(|kind| format!("/proc/self/ns/{kind}"));
    let mut words = vec!["readlink"];
    words.extend(paths.iter().map(String::as_str));
    let mut program = program(&words);
    program.candidates = vec![c("/bin/readlink"), c("/usr/bin/readlink")];
    let ran = run_in(program, Some(&namespaces));
    other.kill().expect("kill");
    other.wait().expect("wait");
    let wanted = [&others[0], &others[1], &others[2], &others[3], &own[4]];
    assert_eq!(ran.output.lines().collect::<Vec<_>>(), wanted, "{:?}", ran.outcome);
    assert_eq!(shown("self"), own, "and nobody else does");
}
