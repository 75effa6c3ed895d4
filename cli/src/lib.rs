//! The commands. Each is a small static program: one thread, no async runtime, a poll loop where one is needed.

mod accounts;
pub mod bpcp;
pub mod bpctl;
pub mod bpsh;
pub mod bpstat;
pub mod connection;
mod duration;
mod groups;
mod node_list;
mod rope;
mod terminal_line;

/// A line on standard error. Should that fail (a full disk), there is nobody left to tell: the command ends as it would have
/// (`eprintln!` would abort it).
pub(crate) fn complain(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Another one of the commands: the one beside this program, else the one in the PATH.
pub(crate) fn beside(name: &str) -> std::path::PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(name)).filter(|path| path.is_file());
    beside.unwrap_or_else(|| name.into())
}
