//! Groups of nodes: `@io` in a node list. Who asks is who reads and runs: a group's command runs as the user.
//!
//! ```text
//! $XDG_CONFIG_HOME/INSTANCE/groups.toml (or ~/.config/…), then /etc/INSTANCE/groups.toml:
//!   [groups]
//!   io = "0-3"
//!   rack1 = "n[1-20]!@broken"                     # groups may name others
//!   broken = { command = "cat /srv/broken" }      # nodes, separated by commas, blanks or lines
//!   [sources]
//!   slurm = { command = "sinfo -h -o %N -p $GROUP", seconds = 10 }      # @slurm:debug
//! ```
//! A user's own file is taken only if nobody else can have written it. Misspelt keys are errors.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ghost_proto::instance::Instance;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;

/// How long a group's command may take if the file does not say.
const SECONDS: u64 = 5;
/// The most that it may print, in bytes.
const MAX_OUTPUT: usize = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    groups: BTreeMap<String, Group>,
    #[serde(default)]
    sources: BTreeMap<String, Asked>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a group is a node list in quotes, or { command = \"…\", seconds = … }")]
enum Group {
    Nodes(String),
    Asked(Asked),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    command: String,
    seconds: Option<u64>,
}

/// The groups that there are, read when the first is asked for.
#[derive(Debug)]
pub struct Groups {
    places: Vec<PathBuf>,
    files: Option<Vec<File>>,
}

impl Groups {
    pub fn of(instance: &Instance) -> Groups {
        let name = instance.as_str();
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
        let own = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or_else(home);
        let own = own.filter(|path| path.is_absolute()).map(|path| path.join(name));
        let all = Some(Path::new("/etc").join(name));
        let places = [own, all].into_iter().flatten().map(|directory| directory.join("groups.toml"));
        Groups { places: places.collect(), files: None }
    }

    /// What a group stands for, as a node list; empty if a command says that it is nobody.
    ///
    /// # Errors
    /// There is no such group, or it cannot be had.
    pub fn get(&mut self, name: &str) -> Result<String, String> {
        if self.files.is_none() {
            let mut files = Vec::new();
            for path in &self.places {
                files.extend(read(path)?);
            }
            self.files = Some(files);
        }
        let files = self.files.as_deref().unwrap_or_default();
        if let Some((source, group)) = name.split_once(':') {
            return match files.iter().find_map(|file| file.sources.get(source)) {
                Some(asked) => asked.ask(name, group),
                None => Err(self.unknown(&format!("source of groups `{source}`"), |file| file.sources.keys())),
            };
        }
        match files.iter().find_map(|file| file.groups.get(name)) {
            Some(Group::Nodes(list)) => Ok(list.clone()),
            Some(Group::Asked(asked)) => asked.ask(name, name),
            None => Err(self.unknown(&format!("group `{name}`"), |file| file.groups.keys())),
        }
    }

    /// As if this were the file.
    #[cfg(test)]
    pub fn written(text: &str) -> Groups {
        let file = understand(text).unwrap_or_else(|(line, why)| panic!("{line}: {why}"));
        Groups { places: vec!["/etc/x/groups.toml".into()], files: Some(vec![file]) }
    }

    fn unknown<'a, I: Iterator<Item = &'a String>>(&'a self, what: &str, names: impl Fn(&'a File) -> I) -> String {
        let known: Vec<&str> = self.files.iter().flatten().flat_map(names).map(String::as_str).collect();
        let places: Vec<String> = self.places.iter().map(|path| path.display().to_string()).collect();
        let places = places.join(" or ");
        match known.as_slice() {
            [] => format!("there is no {what}: no such thing in {places}"),
            known => format!("there is no {what}; there are {} (in {places})", known.join(", ")),
        }
    }
}

/// `None` if there is no such file.
fn read(path: &Path) -> Result<Option<File>, String> {
    let fail = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let mut file = match std::fs::File::open(path) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        result => result.map_err(|error| fail(&crate::connection::plain(&error)))?,
    };
    let metadata = file.metadata().map_err(|error| fail(&crate::connection::plain(&error)))?;
    let own = nix::unistd::geteuid().as_raw();
    if ![0, own].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(fail(&"not read, since others may write to it; it must be yours or root's, and mode 0644 at most"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| fail(&crate::connection::plain(&error)))?;
    understand(&text).map(Some).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))
}

/// The error comes with its line.
fn understand(text: &str) -> Result<File, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count(), error.message().to_owned())
    })
}

impl Asked {
    /// Runs the command and takes what it prints.
    fn ask(&self, name: &str, group: &str) -> Result<String, String> {
        let limit = Duration::from_secs(self.seconds.unwrap_or(SECONDS));
        run(&self.command, group, limit).map_err(|why| format!("group `{name}`: `{}` {why}", self.command))
    }
}

fn run(line: &str, group: &str, limit: Duration) -> Result<String, String> {
    let end = Instant::now() + limit;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).env("GROUP", group).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let start = |error: std::io::Error| format!("cannot be run: {}", crate::connection::plain(&error));
    let mut child = command.spawn().map_err(start)?;
    let process = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let mut output = child.stdout.take();
    let mut text = Vec::new();
    let mut collect = || -> Result<(), String> {
        let Some(output) = &mut output else { return Ok(()) };
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Err(format!("has not ended after {} s", limit.as_secs())),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.desc().to_owned()),
            }
            match output.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) if text.len() + n > MAX_OUTPUT => return Err(format!("prints more than {MAX_OUTPUT} bytes")),
                Ok(n) => text.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(crate::connection::plain(&error)),
            }
        }
    };
    let collected = collect();
    if collected.is_err() {
        // ESRCH: all of them have ended meanwhile.
        let _ = nix::sys::signal::killpg(process, nix::sys::signal::Signal::SIGKILL);
    }
    // Its output is over, or it is killed: it may close the former early, but not stay.
    let status = wait(&mut child, process, end)?;
    collected?;
    if !status.success() {
        return Err(format!("failed ({status})"));
    }
    let text = String::from_utf8(text).map_err(|_| "prints what is no text".to_owned())?;
    Ok(joined(&text))
}

fn wait(
    child: &mut std::process::Child,
    process: nix::unistd::Pid,
    end: Instant,
) -> Result<std::process::ExitStatus, String> {
    let mut pause = Duration::from_micros(200);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Err(error) => return Err(crate::connection::plain(&error)),
            Ok(None) if Instant::now() >= end => {
                let _ = nix::sys::signal::killpg(process, nix::sys::signal::Signal::SIGKILL);
            }
            Ok(None) => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Nodes that are separated by commas, blanks or lines as a node list. Operators keep what stands beside them.
fn joined(text: &str) -> String {
    let mut list = String::new();
    for word in text.split_whitespace() {
        let after = list.is_empty() || list.ends_with([',', '!', '&', '^', '(']);
        if !after && !word.starts_with([',', '!', '&', '^', ')']) {
            list.push(',');
        }
        list.push_str(word);
    }
    list.trim_end_matches(',').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_or_asked_for() {
        let mut groups = Groups::written(
            r#"
            [groups]
            io = "0-3"
            none = { command = "true" }
            lines = { command = "printf '1 2\n3-5,\n7\n'" }
            fails = { command = "exit 3" }
            noise = { command = "echo" , seconds = 1 }
            [sources]
            named = { command = "echo n[$GROUP]" }
            "#,
        );
        assert_eq!(groups.get("io").as_deref(), Ok("0-3"));
        assert_eq!(groups.get("none").as_deref(), Ok(""));
        assert_eq!(groups.get("noise").as_deref(), Ok(""));
        assert_eq!(groups.get("lines").as_deref(), Ok("1,2,3-5,7"));
        assert_eq!(groups.get("named:1-3").as_deref(), Ok("n[1-3]"));
        assert!(groups.get("fails").expect_err("exit 3").contains("exit status: 3"));
        let unknown = groups.get("ip").expect_err("none");
        assert!(unknown.contains("no group `ip`; there are fails, io, lines"), "{unknown}");
        assert!(groups.get("nowhere:x").expect_err("none").contains("there are named"));
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let mut groups = Groups::written("[groups]\nslow = { command = 'sleep 1000 & echo 1; wait', seconds = 1 }");
        let why = groups.get("slow").expect_err("it sleeps");
        assert!(why.contains("has not ended after 1 s"), "{why}");
        // It closes its output, and sleeps on.
        let why = run("exec > /dev/null; sleep 1000", "", Duration::from_secs(1)).expect_err("killed");
        assert!(why.contains("signal: 9"), "{why}");
        let why = run("yes", "", Duration::from_secs(50)).expect_err("too much");
        assert!(why.contains("prints more than"), "{why}");
    }

    #[test]
    fn mistakes_in_the_file_have_their_line() {
        for (text, line, part) in [
            ("[groups]\nio = 3", 2, "a group is a node list"),
            ("[group]\nio = '3'", 1, "unknown field `group`"),
            ("[sources]\n\nx = { comand = 'x' }", 3, "unknown field `comand`"),
        ] {
            let (at, why) = understand(text).expect_err(text);
            assert!(at == line && why.contains(part), "{text}: {at}: {why}");
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("groups.toml");
        assert!(matches!(read(&path), Ok(None)));
        std::fs::write(&path, "[groups]\nio = '0'").expect("a file");
        let mode = |mode| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("its mode");
        };
        mode(0o644);
        assert!(matches!(read(&path), Ok(Some(_))));
        mode(0o666);
        assert!(read(&path).expect_err("writable").contains("others may write"));
    }

    #[test]
    fn words_become_a_list() {
        for (text, list) in
            [("0 1\n2", "0,1,2"), ("0, 1,\n", "0,1"), ("all ! 3", "all!3"), ("( 1\n2 )", "(1,2)"), ("", "")]
        {
            assert_eq!(joined(text), list);
        }
    }
}
