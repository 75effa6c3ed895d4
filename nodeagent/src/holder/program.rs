//! From a launch's specification to what is executed here.
//!
//! Invariant: nothing that a client wrote gives more than the node's defaults; what is too much is lowered.

use std::ffi::CString;

use bytes::Bytes;
use ghost_proto::launch::{Credentials, ProgramSpec};
use ghost_sys::spawn::Program;

/// Where execvp(3) looks without PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// Directories of a PATH that are tried; each costs memory here and a system call in the child.
const MOST_DIRECTORIES: usize = 1024;
/// Number of resource limits of Linux (include/uapi/asm-generic/resource.h, RLIM_NLIMITS).
pub const LIMITS: usize = 16;

/// The limits of the node's daemon: soft and hard, by resource.
pub type NodeLimits = [(u64, u64); LIMITS];

/// The program of rank `rank`, which gets the root directory `root` if there is one.
///
/// # Errors
/// Why it cannot be started.
pub fn program(
    spec: &ProgramSpec,
    credentials: &Credentials,
    rank: u32,
    root: Option<&str>,
    node: &NodeLimits,
) -> Result<Program, &'static str> {
    spec.check()?;
    let [first, ..] = spec.argv.as_slice() else {
        return Err("no command was given");
    };
    Ok(Program {
        uid: credentials.uid,
        gid: credentials.gid,
        groups: credentials.groups.clone(),
        candidates: candidates(first, path(&spec.env)).into_iter().map(text).collect::<Result<_, _>>()?,
        argv: spec.argv.iter().map(|s| text(s.to_vec())).collect::<Result<_, _>>()?,
        environment: environment(&spec.env, rank, first).map(text).collect::<Result<_, _>>()?,
        root: root.map(|path| text(path.as_bytes().to_vec())).transpose()?,
        directory: text(if spec.cwd.is_empty() { b"/".to_vec() } else { spec.cwd.to_vec() })?,
        directory_required: spec.cwd_required,
        files: files(spec)?,
        umask: spec.umask,
        limits: limits(spec, node),
        nice: spec.nice,
        policy: spec.sched_policy as i32,
        priority: spec.sched_priority as i32,
        ignored: spec.ignored,
        blocked: spec.blocked,
    })
}

/// Files on the node in place of standard input, output and error.
fn files(spec: &ProgramSpec) -> Result<[Option<CString>; 3], &'static str> {
    let mut files = [None, None, None];
    for (fd, file) in files.iter_mut().enumerate() {
        if let Some(path) = spec.file(fd) {
            *file = Some(text(path.to_vec())?);
        }
    }
    Ok(files)
}

fn text(bytes: Vec<u8>) -> Result<CString, &'static str> {
    CString::new(bytes).map_err(|_| "an argument, environment entry or directory contains a NUL byte")
}

fn path(environment: &[Bytes]) -> &[u8] {
    environment.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH)
}

/// The files that execvp(3) tries for `name`.
fn candidates(name: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    path.split(|&byte| byte == b':')
        .take(MOST_DIRECTORIES)
        .map(|directory| match directory {
            [] => name.to_vec(),
            [.., b'/'] => [directory, name].concat(),
            _ => [directory, b"/", name].concat(),
        })
        .collect()
}

fn environment<'a>(given: &'a [Bytes], rank: u32, first: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
    let ours = |entry: &Bytes| entry.starts_with(b"BPROC_RANK=") || entry.starts_with(b"BPROC_PROGNAME=");
    given
        .iter()
        .filter(move |entry| !ours(entry))
        .map(|entry| entry.to_vec())
        .chain([format!("BPROC_RANK={rank}").into_bytes(), [b"BPROC_PROGNAME=", first].concat()])
}

/// The node's limits, lowered to what was asked for.
fn limits(spec: &ProgramSpec, node: &NodeLimits) -> Vec<(u32, u64, u64)> {
    let mut limits = *node;
    for asked in &spec.limits {
        if let Some((soft, hard)) = limits.get_mut(asked.resource as usize) {
            *hard = asked.hard.min(*hard);
            *soft = asked.soft.min(*hard);
        }
    }
    (0..).zip(limits).map(|(resource, (soft, hard))| (resource, soft, hard)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::launch::Limit;

    fn spec(argv: &[&'static str], env: &[&'static str]) -> ProgramSpec {
        let bytes = |list: &[&'static str]| list.iter().map(|s| Bytes::from_static(s.as_bytes())).collect();
        ProgramSpec { argv: bytes(argv), env: bytes(env), ..ProgramSpec::default() }
    }

    fn made(spec: &ProgramSpec) -> Program {
        let credentials = Credentials { uid: 1, gid: 2, groups: vec![3] };
        program(spec, &credentials, 7, None, &[(10, 100); LIMITS]).expect("can be started")
    }

    #[test]
    fn the_file_is_looked_for_along_the_callers_path() {
        let strings = |program: Program| -> Vec<String> {
            program.candidates.iter().map(|c| c.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(strings(made(&spec(&["ls"], &["PATH=/a:/b/::c"]))), ["/a/ls", "/b/ls", "ls", "c/ls"]);
        assert_eq!(strings(made(&spec(&["ls"], &[]))), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(strings(made(&spec(&["./ls"], &["PATH=/a"]))), ["./ls"]);
    }

    #[test]
    fn rank_and_name_are_ours_to_say() {
        let program = made(&spec(&["ls"], &["BPROC_RANK=99", "A=1", "BPROC_PROGNAME=x"]));
        let entries: Vec<_> = program.environment.iter().map(|c| c.to_str().expect("text")).collect();
        assert_eq!(entries, ["A=1", "BPROC_RANK=7", "BPROC_PROGNAME=ls"]);
    }

    #[test]
    fn limits_are_only_ever_lowered() {
        let mut spec = spec(&["ls"], &[]);
        spec.limits = vec![
            Limit { resource: 0, soft: 5, hard: 7 },
            Limit { resource: 1, soft: u64::MAX, hard: u64::MAX },
            Limit { resource: 99, soft: 1, hard: 1 },
        ];
        let limits = made(&spec).limits;
        assert_eq!(limits[..3], [(0, 5, 7), (1, 100, 100), (2, 10, 100)]);
    }

    #[test]
    fn what_cannot_be_a_program_is_refused() {
        for argv in [&[][..], &[""], &["a\0b"]] {
            let credentials = Credentials::default();
            assert!(program(&spec(argv, &[]), &credentials, 0, None, &[(0, 0); LIMITS]).is_err());
        }
    }
}
