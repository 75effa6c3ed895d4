//! What is said between the runner and the agent in a machine: one JSON value per line, each way.
//!
//! A machine that is reset breaks off in the middle of a line: who reads skips lines that it cannot read. Numbers of commands
//! are never used twice, so that what an earlier life of the machine said concerns nobody.

use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port: `/dev/virtio-ports/NAME` in the machine.
pub const PORT: &str = "vmtests";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Who is there? Answered by [`Reply::Here`] with the same number.
    Hello {
        nonce: u64,
    },
    /// Run a line by `bash -c` as root, leader of a session of its own; with a terminal of its own if `terminal`.
    Start {
        id: u64,
        line: String,
        terminal: bool,
    },
    /// For its standard input, which is a pipe only if `Start` was followed by this or by `EndInput` at some time.
    Input {
        id: u64,
        text: String,
    },
    EndInput {
        id: u64,
    },
    /// SIGKILL for its process group.
    Kill {
        id: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Here {
        nonce: u64,
        boot: String,
    },
    Output {
        id: u64,
        error: bool,
        text: String,
    },
    /// Exit status as a shell tells it: 128 and the signal's number for who was killed.
    Exit {
        id: u64,
        status: i32,
    },
}
