//! The program that the tests run on nodes and on the master: it does one small thing and says what it sees.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "probe COMMAND…
  exit CODE               ends with this code
  die SIGNAL              ends by this signal
  wait                    prints its PID, then reads standard input to its end
  record                  blocks all signals, prints `ready PID`, then a line for each signal that comes:
                          SIGNAL CODE SENDER UID VALUE
  record-as-root          the same after setresuid(0, 0, 0)
  queue PID SIGNAL FIRST COUNT
                          prints its PID, sends SIGNAL COUNT times with the values FIRST, FIRST+1, …
  kill TARGET SIGNAL      prints its PID, then kill(2); says how that went
  masked PROGRAM…         blocks all signals and becomes PROGRAM
  hog                     prints its PID, uses a processor until it is killed
  churn                   prints its PID, forks and allocates until it is killed
  family DEPTH            has a child, which has a child, …; all wait for standard input to end
  threads COUNT           prints its PID, has so many threads in all, waits for standard input to end
  mappings COUNT          maps so many pages apart from one another, prints its PID, waits for standard input to end
  inherited               prints what it inherited: ids, groups, masks, limits, nice, umask, directory
  suspended               waits in D for a child, which reads standard input to its end
  unwaited                has a child that ends when standard input does, and does not wait for it
  stop                    stops itself by SIGSTOP, then prints `continued`
  hold-map                holds a BPF map until it is killed";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("probe: {why:#}");
            ExitCode::from(99)
        }
    }
}

fn run(words: &[&str]) -> Result<ExitCode> {
    match words {
        ["exit", code] => return Ok(ExitCode::from(code.parse::<u8>()?)),
        ["die", signal] => die(signal.parse()?)?,
        ["wait"] => {
            say_pid()?;
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        }
        ["threads", count] => {
            for number in 1..count.parse::<u32>()? {
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(|| {
                    loop {
                        std::thread::park();
                    }
                })?;
            }
            say_pid()?;
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        }
        ["mappings", count] => {
            let _mappings = ghost_sys::trials::many_mappings(count.parse()?)?;
            say_pid()?;
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        }
        ["record"] => record()?,
        ["record-as-root"] => {
            let root = nix::unistd::Uid::from_raw(0);
            nix::unistd::setresuid(root, root, root).context("becoming root")?;
            record()?;
        }
        ["queue", pid, signal, first, count] => {
            say_pid()?;
            queue(pid.parse()?, signal.parse()?, first.parse()?, count.parse()?)?;
        }
        ["kill", target, signal] => {
            say_pid()?;
            match ghost_sys::signal::send(target.parse()?, signal.parse()?) {
                Ok(()) => say("sent")?,
                Err(why) => say(&format!("{why}"))?,
            }
        }
        ["masked", program, arguments @ ..] => {
            use std::os::unix::process::CommandExt;
            ghost_sys::signal::set_blocked(u64::MAX)?;
            let place = std::process::Command::new(program).args(arguments).exec();
            return Err(place).with_context(|| (*program).to_owned());
        }
        ["hog"] => {
            say_pid()?;
            let mut x = 1u64;
            loop {
                x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        ["churn"] => churn()?,
        ["family", depth] => family(depth.parse()?)?,
        ["inherited"] => inherited()?,
        ["suspended"] => {
            ghost_sys::trials::fork_of(ghost_sys::trials::Kind::Suspends, || {
                u8::from(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).is_err())
            })?;
        }
        ["unwaited"] => {
            ghost_sys::trials::fork(|| u8::from(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).is_err()))?;
            loop {
                std::thread::park();
            }
        }
        ["stop"] => {
            ghost_sys::signal::send(std::process::id().cast_signed(), 19)?;
            say("continued")?;
        }
        ["hold-map"] => {
            let _map = ghost_sys::bpf_objects::plant_map()?;
            say_pid()?;
            loop {
                std::thread::park();
            }
        }
        _ => bail!("{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// One line, at once.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    Ok(out.flush()?)
}

fn say_pid() -> Result<()> {
    say(&std::process::id().to_string())
}

/// By a signal that std or the shell may have left ignored or blocked.
fn die(signal: i32) -> Result<()> {
    let no_core = nix::sys::resource::Resource::RLIMIT_CORE;
    nix::sys::resource::setrlimit(no_core, 0, 0)?;
    if signal != 9 && signal != 19 {
        ghost_sys::signal::set_disposition(signal, ghost_sys::signal::Disposition::Default)?;
    }
    ghost_sys::signal::set_blocked(0)?;
    ghost_sys::signal::send(std::process::id().cast_signed(), signal)?;
    bail!("signal {signal} did not end it")
}

fn record() -> Result<()> {
    ghost_sys::signal::set_blocked(u64::MAX)?;
    say(&format!("ready {}", std::process::id()))?;
    loop {
        let info = ghost_sys::signal_wait::next(u64::MAX)?;
        say(&format!("{} {} {} {} {}", info.signal, info.code, info.pid, info.uid, info.value))?;
    }
}

fn queue(pid: i32, signal: i32, first: u64, count: u64) -> Result<()> {
    for value in first..first + count {
        while let Err(why) = ghost_sys::signal::queue(pid, signal, value) {
            // The receiver has too many queued (sigqueue(3)): it is about to read them.
            if why.kind() != std::io::ErrorKind::WouldBlock {
                return Err(why).with_context(|| format!("value {value}"));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    Ok(())
}

fn churn() -> Result<()> {
    say_pid()?;
    loop {
        let mut block = vec![0u8; 8 << 20];
        for page in block.chunks_mut(4096) {
            page[0] = std::hint::black_box(1);
        }
        std::process::Command::new("/bin/true").status()?;
    }
}

fn family(depth: u32) -> Result<()> {
    say_pid()?;
    if depth == 0 {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        return Ok(());
    }
    let own = std::env::current_exe()?;
    std::process::Command::new(own).args(["family", &(depth - 1).to_string()]).status()?;
    Ok(())
}

fn inherited() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    for name in ["Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapEff"] {
        let line = status.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')));
        say(&line.unwrap_or(name).split_whitespace().collect::<Vec<_>>().join(" "))?;
    }
    for limit in ghost_sys::inherit::limits() {
        say(&format!("limit {} {} {}", limit.resource, limit.soft, limit.hard))?;
    }
    say(&format!("nice {}", ghost_sys::inherit::nice()))?;
    let (policy, priority) = ghost_sys::inherit::scheduling();
    say(&format!("policy {policy} {priority}"))?;
    say(&format!("directory {}", std::env::current_dir()?.display()))
}
