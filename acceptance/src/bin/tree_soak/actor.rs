//! A process of the tree: does what its conductor says, a line at a time, and says when it is done.
//!
//! Its socket is descriptor 0, so that it outlives exec. Each child connects anew: the working directory has the conductor's
//! socket, and the names that an actor can take by exec.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use ghost_sys::signal::{Disposition, send, set_disposition};
use ghost_sys::trials::{Kind, close_from, fork_of, wait};
use nix::libc::{__WALL, WNOHANG};
use nix::unistd::{Pid, setpgid, setsid};

/// The conductor's socket.
pub const SOCKET: &str = "socket";

/// Names for exec: links to this program.
pub const NAMES: [&str; 8] = ["ash", "beech", "elm", "hazel", "larch", "oak", "rowan", "a-very-long-name-of-a-tree"];

/// A new process becomes an actor; gives its exit code.
pub fn begin(depth: u32) -> u8 {
    match connect(depth) {
        Ok(()) => act(depth),
        Err(_) => 98,
    }
}

fn connect(depth: u32) -> Result<()> {
    // A child may have been made with its parent's own table of descriptors.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)?;
    // The parent's socket, or the conductor's whole collection.
    close_from(3)?;
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.write_all(format!("hello {} {depth}\n", std::process::id()).as_bytes())?;
    Ok(nix::unistd::dup2_stdin(&stream)?)
}

/// An actor that has become another program by exec: that was its answer.
pub fn continued(depth: u32) -> u8 {
    match answer("done\n") {
        Ok(()) => act(depth),
        Err(_) => 94,
    }
}

fn answer(line: &str) -> Result<()> {
    nix::unistd::write(std::io::stdin().as_fd(), line.as_bytes())?;
    Ok(())
}

/// Follows the conductor until it is told to end; gives the exit code.
pub fn act(depth: u32) -> u8 {
    loop {
        let Ok(Some(line)) = read_line() else { return 97 };
        let words: Vec<&str> = line.split(' ').collect();
        if let ["exit", code] = words.as_slice() {
            return code.parse().unwrap_or(96);
        }
        // A refusal is an answer as well: a process that leads a group cannot lead a session.
        let done = if follow(&words, depth).is_ok() { "done\n" } else { "refused\n" };
        if answer(done).is_err() {
            return 95;
        }
    }
}

fn follow(words: &[&str], depth: u32) -> Result<()> {
    match words {
        ["fork", kind] => {
            let kind = match *kind {
                "silent" => Kind::EndsWith(0),
                "sibling" => Kind::Sibling,
                "shares" => Kind::Shares,
                _ => Kind::Usual,
            };
            // A sibling is no deeper than we are.
            let deeper = u32::from(kind != Kind::Sibling);
            fork_of(kind, || begin(depth + deeper))?;
        }
        // A child that connects only after it has executed a program, as a shell's would.
        ["spawn", name] => {
            let mut command = Command::new(format!("./{name}"));
            // Never waited for by std, but by `reap`.
            drop(command.args(["act", "connect"]).env(DEPTH, (depth + 1).to_string()).spawn()?);
        }
        ["exec", name] => {
            let why = Command::new(format!("./{name}")).args(["act", &depth.to_string()]).exec();
            return Err(why.into());
        }
        ["session"] => {
            setsid()?;
        }
        ["group", group] => setpgid(Pid::from_raw(0), Pid::from_raw(group.parse()?))?,
        ["kill", target, signal] => send(target.parse()?, signal.parse()?)?,
        ["ignore", signal] => set_disposition(signal.parse()?, Disposition::Ignore)?,
        ["reap"] => while matches!(wait(-1, WNOHANG | __WALL), Ok(Some(_))) {},
        ["ping"] => {}
        _ => bail!("no such order"),
    }
    Ok(())
}

/// How deep a spawned child is.
pub const DEPTH: &str = "TREE_SOAK_DEPTH";

/// What `spawn` starts.
pub fn spawned() -> Result<ExitCode> {
    let depth = std::env::var(DEPTH).context("no depth")?.parse()?;
    Ok(ExitCode::from(begin(depth)))
}

/// A line from the socket, and not a byte more: after exec the next one is to be found there.
fn read_line() -> Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match nix::unistd::read(std::io::stdin(), &mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if byte == *b"\n" => return Ok(Some(String::from_utf8(line)?)),
            Ok(_) => line.extend_from_slice(&byte),
            Err(nix::errno::Errno::EINTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
}
