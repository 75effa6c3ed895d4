//! bpcp's end on the master for what runs on nodes: it is run here, in this directory, as this user.
//!
//! Invariant: nothing but bpcp is run so, and of that nothing but its two ends.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use ghost_proto::client::{Serve, is_an_end_of_bpcp};

use super::Session;

/// The ends that run.
#[derive(Debug, Default)]
pub(super) struct Served(Vec<Child>);

impl Served {
    /// Waits for those that have ended.
    pub(super) fn reap(&mut self) {
        self.0.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Session {
    pub(super) fn serve(&mut self, serve: &Serve) {
        // With its message, if not before.
        let Some(socket) = self.connection.take_descriptor() else { return };
        if !is_an_end_of_bpcp(&serve.arguments) {
            return;
        }
        self.end_progress();
        match start(&serve.arguments, socket) {
            Ok(child) => self.served.0.push(child),
            // Who has asked sees that nobody is there.
            Err(error) => crate::complain(&format!("bpsh: bpcp cannot be run for a node: {error}")),
        }
    }
}

fn start(arguments: &[Bytes], socket: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(crate::beside("bpcp"));
    command.args(arguments.iter().map(|argument| OsStr::from_bytes(argument)));
    command.stdin(Stdio::from(socket.try_clone()?)).stdout(Stdio::from(socket)).spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_bpcps_ends_is_run() {
        let is_run = |words: &[&str]| {
            is_an_end_of_bpcp(&words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect::<Vec<_>>())
        };
        assert!(is_run(&["--receive", "--", "/tmp"]) && is_run(&["--send", "--", "f"]));
        assert!(!is_run(&[]) && !is_run(&["a", "3:b"]) && !is_run(&["-r", "--receive"]));
    }
}
