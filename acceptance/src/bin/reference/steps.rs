//! What an observer can do for a program; one step is a word with its arguments, steps are divided by `;`.
//!
//! A step that waits says so when that was in vain: a transcript with such a line is no good, whatever the other one says.

use anyhow::{Context, Result, bail};

/// A process by the name that the case gave it; `program` if it gives none.
pub type Name = String;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `name NUMBER NAME`: what the process is called from now on.
    Name(u32, Name),
    /// `signal SIGNAL [NAME]`: kill(2).
    Signal(i32, Name),
    /// `group-signal SIGNAL`: kill(2) to the program's process group.
    GroupSignal(i32),
    /// `queue SIGNAL VALUE`: sigqueue(3).
    Queue(i32, u64),
    /// `thread-signal SIGNAL`: tgkill(2) to the program's main thread.
    ThreadSignal(i32),
    /// `stopped`: the child's next wait status is a stop; by which signal.
    Stopped,
    /// `continued`: the child's next wait status is that.
    Continued,
    /// `state LETTERS [NAME]`: /proc says that the process is in one of these states.
    State(String, Name),
    /// `threads COUNT`: /proc says that the program has so many.
    Threads(usize),
    /// `show NAME`: name, parent, group and session in /proc.
    Show(Name),
    /// `proc FILE`: this file of /proc/PROGRAM.
    Proc(String),
    /// `gone NAME`: it has left the process table.
    Gone(Name),
    /// `exists NUMBER`: whether there is such a process.
    Exists(u32),
    /// `leader`: the next signal that came to the leader of the program's group.
    Leader,
    /// `feed TEXT`: a line for the program's standard input.
    Feed(String),
    /// `eof`: nothing more comes there.
    Eof,
    /// `close-output`: nobody reads what the program writes any more.
    CloseOutput,
    /// `usage`: at the end, whether the child has used CPU time.
    Usage,
    /// `trace`: attaches by ptrace(2) to the program; `untrace`.
    Trace,
    Untrace,
}

/// Takes a list of steps apart.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    text.split(';').map(|step| one(step.trim()).with_context(|| format!("step `{step}`"))).collect()
}

fn one(step: &str) -> Result<Step> {
    let words: Vec<&str> = step.split_whitespace().collect();
    let name = |at: usize| words.get(at).copied().unwrap_or("program").to_owned();
    Ok(match words.as_slice() {
        ["name", number, name] => Step::Name(number.parse()?, (*name).to_owned()),
        ["signal", signal] | ["signal", signal, _] => Step::Signal(signal.parse()?, name(2)),
        ["group-signal", signal] => Step::GroupSignal(signal.parse()?),
        ["queue", signal, value] => Step::Queue(signal.parse()?, value.parse()?),
        ["thread-signal", signal] => Step::ThreadSignal(signal.parse()?),
        ["stopped"] => Step::Stopped,
        ["continued"] => Step::Continued,
        ["state", letters] | ["state", letters, _] => Step::State((*letters).to_owned(), name(2)),
        ["threads", count] => Step::Threads(count.parse()?),
        ["show", name] => Step::Show((*name).to_owned()),
        ["proc", file] => Step::Proc((*file).to_owned()),
        ["gone", name] => Step::Gone((*name).to_owned()),
        ["exists", number] => Step::Exists(number.parse()?),
        ["leader"] => Step::Leader,
        ["feed", ..] => Step::Feed(step.split_once(' ').map_or("", |(_, text)| text).to_owned()),
        ["eof"] => Step::Eof,
        ["close-output"] => Step::CloseOutput,
        ["usage"] => Step::Usage,
        ["trace"] => Step::Trace,
        ["untrace"] => Step::Untrace,
        _ => bail!("no such step"),
    })
}
