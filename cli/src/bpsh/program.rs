//! What is to run, with all that a local child of this process would inherit.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use bytes::Bytes;
use ghost_proto::launch::{Files, Limit, ProgramSpec, Stdio};
use ghost_sys::{capability, inherit, quiet};
use nix::libc;

use super::flags::Request;
use super::raw;

/// The program as it is sent to the nodes. Is to be called before this process changes its signals and limits.
pub fn describe(request: &Request) -> ProgramSpec {
    let privileged = capability::begin();
    let (sched_policy, sched_priority) = inherit::scheduling();
    let signals = quiet::inherited();
    let stdio = match request.terminal {
        true => [true, true, false],
        false => [request.input, request.outputs[0], request.outputs[1]],
    };
    let file =
        |path: &Option<OsString>| path.as_ref().map_or_else(Bytes::new, |p| Bytes::copy_from_slice(p.as_bytes()));
    ProgramSpec {
        argv: command_line(&request.command),
        env: with(environment(privileged), &request.env),
        cwd: working_directory(request.chdir.as_deref()),
        cwd_required: request.chdir.is_some(),
        files: request.files.iter().any(Option::is_some).then(|| {
            let [stdin, stdout, stderr] = &request.files;
            Box::new(Files { stdin: file(stdin), stdout: file(stdout), stderr: file(stderr) })
        }),
        host: request.host,
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
        terminal: request.terminal.then(|| Box::new(raw::like_this())),
        stdio: stdio.map(|stream| i32::from(if stream { Stdio::Stream } else { Stdio::Null })).to_vec(),
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

/// rsh's way: one argument that a shell would take apart is a shell's line; anything else is run as it is, unless it begins as only a shell's
/// line does: then it is what rsh and ssh make of their arguments, all of them with blanks between (`exec perl …` of GNU parallel, ` orted …`
/// of Open MPI).
fn command_line(words: &[OsString]) -> Vec<Bytes> {
    let bytes = |word: &OsString| Bytes::copy_from_slice(word.as_bytes());
    match words {
        [line] if line.as_bytes().iter().any(|byte| b" \t\n|&;<>()$`\\\"'*?[]{}~#".contains(byte)) => {
            vec![Bytes::from_static(b"/bin/sh"), Bytes::from_static(b"-c"), bytes(line)]
        }
        [first, ..] if words.len() > 1 && begins_a_line(first.as_bytes()) => {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            vec![Bytes::from_static(b"/bin/sh"), Bytes::from_static(b"-c"), words.join(&b' ').into()]
        }
        _ => words.iter().map(bytes).collect(),
    }
}

/// No program has such a name.
fn begins_a_line(first: &[u8]) -> bool {
    first == b"exec"
        || first.first().is_some_and(u8::is_ascii_whitespace)
        || first.iter().any(|c| b";|&<>()$`".contains(c))
}

fn entry((name, value): (OsString, OsString)) -> Bytes {
    let mut entry = name.into_vec();
    entry.push(b'=');
    entry.extend_from_slice(value.as_bytes());
    Bytes::from(entry)
}

/// Variables that were given by `--env` take the place of those that are there.
fn with(mut environment: Vec<Bytes>, given: &[(String, String)]) -> Vec<Bytes> {
    for (name, value) in given {
        environment.retain(|entry| entry.strip_prefix(name.as_bytes()).is_none_or(|rest| !rest.starts_with(b"=")));
        environment.push(Bytes::from(format!("{name}={value}")));
    }
    environment
}

/// `/` if there is none any more, or it cannot be named from here (getcwd(2), "(unreachable)"); or what was asked for, seen
/// from there.
fn working_directory(wanted: Option<&OsStr>) -> Bytes {
    let here = std::env::current_dir().ok().filter(|path| path.is_absolute()).unwrap_or_else(|| PathBuf::from("/"));
    Bytes::from(wanted.map_or_else(|| here.clone(), |path| here.join(path)).into_os_string().into_vec())
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
    fn what_begins_as_a_line_is_one() {
        for (words, expected) in [
            (&["exec", "perl", "-e", "'1 + 1'"][..], "exec perl -e '1 + 1'"),
            (&[" orted", "-mca", "\"x y\""], " orted -mca \"x y\""),
            (&["A=1;", "export", "A;", "id"], "A=1; export A; id"),
            (&["$HOME/x", "$y"], "$HOME/x $y"),
        ] {
            assert_eq!(line(words), ["/bin/sh", "-c", expected]);
        }
        assert_eq!(line(&["./my program", "a"]), ["./my program", "a"]);
    }

    #[test]
    fn variables_that_are_given_replace_others() {
        let environment = ["A=1", "AB=2", "C=3"].map(Bytes::from).to_vec();
        let given = [("A", "9"), ("D", ""), ("D", "x=y")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(with(environment, &given), ["AB=2", "C=3", "A=9", "D=x=y"]);
    }

    #[test]
    fn a_directory_is_seen_from_here() {
        let here = std::env::current_dir().expect("a directory").into_os_string().into_vec();
        assert_eq!(working_directory(None), here);
        assert_eq!(working_directory(Some(OsStr::new("/x/y"))), "/x/y");
        assert_eq!(working_directory(Some(OsStr::new("x"))), [here.as_slice(), b"/x"].concat());
    }

    #[test]
    fn the_name_is_the_programs_own() {
        for (path, expected) in [("/usr/bin/sort", c"sort"), ("sort", c"sort"), ("./a/b", c"b"), ("a/", c"")] {
            let spec = ProgramSpec { argv: vec![Bytes::copy_from_slice(path.as_bytes())], ..Default::default() };
            assert_eq!(name(&spec).as_c_str(), expected);
        }
    }
}
