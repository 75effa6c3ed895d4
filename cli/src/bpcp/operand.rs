//! `NODES:PATH` or a path here. Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operand {
    Here(PathBuf),
    There {
        nodes: String,
        path: PathBuf,
    },
    /// On the master, named from a node.
    Master(PathBuf),
}

/// As rcp has it: a colon before the first slash ends the node list; `./a:b` is a file here. A path that is left out is `.`.
///
/// # Errors
/// What is wrong with it, and the way out.
pub fn read(word: &OsStr) -> Result<Operand, String> {
    let bytes = word.as_bytes();
    let head = bytes.iter().position(|byte| *byte == b'/').unwrap_or(bytes.len());
    let Some(colon) = colon(&bytes[..head]) else {
        return if bytes.is_empty() { Err("an empty name".to_owned()) } else { Ok(Operand::Here(PathBuf::from(word))) };
    };
    let shown = super::shown(bytes);
    let nodes = std::str::from_utf8(&bytes[..colon]).map_err(|_| format!("{shown}: the node list is not text"))?;
    if nodes.trim().is_empty() {
        return Err(format!("{shown}: no node before the colon; write ./{shown} for a file of this name"));
    }
    let path = match &bytes[colon + 1..] {
        b"" => PathBuf::from("."),
        path => PathBuf::from(OsString::from_vec(path.to_vec())),
    };
    Ok(match nodes.trim() {
        "master" | "-1" => Operand::Master(path),
        _ => Operand::There { nodes: nodes.to_owned(), path },
    })
}

/// The colon that ends the list. Of `@source:group:PATH` it is the second.
fn colon(head: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let colon = from + head[from..].iter().position(|byte| *byte == b':')?;
        let word = head[..colon].iter().rposition(|byte| !(byte.is_ascii_alphanumeric() || b"-_.".contains(byte)));
        let source = word.is_some_and(|at| head[at] == b'@' && at >= from);
        if source && head[colon + 1..].contains(&b':') {
            from = colon + 1;
            continue;
        }
        return Some(colon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_the_first_slash_ends_the_nodes() {
        let there = |nodes: &str, path: &str| Ok(Operand::There { nodes: nodes.to_owned(), path: path.into() });
        let here = |path: &str| Ok(Operand::Here(path.into()));
        for (word, operand) in [
            ("f", here("f")),
            ("./a:b", here("./a:b")),
            ("/a:b", here("/a:b")),
            ("0-63:/tmp", there("0-63", "/tmp")),
            ("n[1-3,8]:d/e:f", there("n[1-3,8]", "d/e:f")),
            ("0:a:b", there("0", "a:b")),
            ("3:", there("3", ".")),
            ("@io:/tmp", there("@io", "/tmp")),
            ("@io!3:x", there("@io!3", "x")),
            ("@slurm:debug:/tmp", there("@slurm:debug", "/tmp")),
            ("1,@slurm:debug:x", there("1,@slurm:debug", "x")),
            ("master:/tmp", Ok(Operand::Master("/tmp".into()))),
            ("-1:", Ok(Operand::Master(".".into()))),
        ] {
            assert_eq!(read(OsStr::new(word)), operand, "{word}");
        }
        for (word, part) in [("", "empty"), (":x", "./:x")] {
            let message = read(OsStr::new(word)).expect_err(word);
            assert!(message.contains(part), "{message}");
        }
    }
}
