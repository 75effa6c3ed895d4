//! A random tree of processes that grows and withers in rounds, and stands still in between.
//!
//! ```text
//!   conductor ── a socket for each ── actor ── actor …      one tree on each node that it is launched on
//! ```
//! The conductor reads `round SEED` lines on standard input, has the actors fork, exec, exit, change groups and sessions and
//! signal each other, waits until all that is done, and prints `quiet SEED RUNNING`, the number of actors that
//! are not stopped. Nothing happens in the tree then, until
//! the next line. The end of input ends the tree.
//!
//! Who compares does so from outside; the conductor knows who acts, and judges nothing.

mod actor;
mod conductor;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "tree_soak conduct MOST    conducts rounds with at most so many processes
tree_soak act connect     a new actor, of the depth that the environment names
tree_soak act DEPTH       what an actor becomes by exec: its socket is its standard input";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("tree_soak {}: {why:#}", words.join(" "));
            ExitCode::from(99)
        }
    }
}

fn run(words: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["conduct", most] => conductor::conduct(most.parse()?).map(|()| ExitCode::SUCCESS),
        ["act", "connect"] => actor::spawned(),
        ["act", depth] => Ok(ExitCode::from(actor::continued(depth.parse()?))),
        _ => anyhow::bail!(USAGE),
    }
}
