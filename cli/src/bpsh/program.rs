//! What is to run, with all that a local child of this process would inherit.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bytes::Bytes;
use ghost_proto::launch::{Limit, ProgramSpec, Stdio};
use ghost_sys::{capability, inherit, quiet};
use nix::libc;

use super::flags::{Input, Request};

/// The program as it is sent to the nodes. Is to be called before this process changes its signals and limits.
pub fn describe(request: &Request) -> ProgramSpec {
    let privileged = capability::begin();
    let (sched_policy, sched_priority) = inherit::scheduling();
    let signals = quiet::inherited();
    let output = if request.output { Stdio::Stream } else { Stdio::Null };
    let input = if request.input == Input::Forwarded { Stdio::Stream } else { Stdio::Null };
    ProgramSpec {
        argv: command_line(&request.command),
        env: environment(privileged),
        cwd: working_directory(),
        umask: inherit::umask(),
        limits: inherit::limits()
            .into_iter()
            .map(|limit| {
                let soft = match limit.resource {
                    libc::RLIMIT_STACK if privileged => capability::stack_limit(limit.soft, limit.hard),
                    _ => limit.soft,
                };
                Limit { resource: limit.resource, soft, hard: limit.hard }
            })
            .collect(),
        nice: inherit::nice(),
        sched_policy,
        sched_priority,
        ignored: signals.ignored,
        blocked: signals.blocked,
        stdio: [input, output, output].map(i32::from).to_vec(),
    }
}

/// A privileged program's C library has taken variables away.
fn environment(privileged: bool) -> Vec<Bytes> {
    match if privileged { capability::environment().ok() } else { None } {
        Some(entries) => entries.into_iter().map(Bytes::from).collect(),
        None => std::env::vars_os().map(entry).collect(),
    }
}

/// The ghosts' name: the program's, as exec would set it.
pub fn name(spec: &ProgramSpec) -> CString {
    let path = spec.argv.first().map(Bytes::as_ref).unwrap_or_default();
    let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    CString::new(base).unwrap_or_default()
}

/// rsh's way: one argument that a shell would take apart is a shell's line; anything else is run as it is.
fn command_line(words: &[OsString]) -> Vec<Bytes> {
    let bytes = |word: &OsString| Bytes::copy_from_slice(word.as_bytes());
    match words {
        [line] if line.as_bytes().iter().any(|byte| b" \t\n|&;<>()$`\\\"'*?[]{}~#".contains(byte)) => {
            vec![Bytes::from_static(b"/bin/sh"), Bytes::from_static(b"-c"), bytes(line)]
        }
        _ => words.iter().map(bytes).collect(),
    }
}

fn entry((name, value): (OsString, OsString)) -> Bytes {
    let mut entry = name.into_vec();
    entry.push(b'=');
    entry.extend_from_slice(value.as_bytes());
    Bytes::from(entry)
}

/// `/` if there is none any more, or it cannot be named from here (getcwd(2), "(unreachable)").
fn working_directory() -> Bytes {
    match std::env::current_dir() {
        Ok(path) if path.is_absolute() => Bytes::from(path.into_os_string().into_vec()),
        _ => Bytes::from_static(b"/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<Bytes> {
        command_line(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn one_argument_for_a_shell_goes_to_a_shell() {
        for text in ["echo hi", "ls|wc", "$HOME/x", "a;b", "echo\thi", "ls>x", "*"] {
            assert_eq!(line(&[text]), ["/bin/sh", "-c", text]);
        }
        for words in [&["ls"][..], &["/usr/bin/a-b_c.d+e"], &["echo", "a b", "$x"], &["FOO=1"]] {
            assert_eq!(
                line(words),
                words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn the_name_is_the_programs_own() {
        for (path, expected) in [("/usr/bin/sort", c"sort"), ("sort", c"sort"), ("./a/b", c"b"), ("a/", c"")] {
            let spec = ProgramSpec { argv: vec![Bytes::copy_from_slice(path.as_bytes())], ..Default::default() };
            assert_eq!(name(&spec).as_c_str(), expected);
        }
    }
}
