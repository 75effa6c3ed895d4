//! A case: a program, and what surrounds its start.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

/// What is run.
pub enum Body {
    /// A function of this program.
    Own(fn() -> Result<()>),
    /// A line for /bin/sh. It has introduced itself already; `ask STEPS` and `plan STEPS` talk to the observer.
    Shell(&'static str),
    /// A program that knows nothing of an observer.
    Plain(&'static [&'static str]),
}

pub struct Case {
    /// Names it for ever, over all themes.
    pub name: &'static str,
    pub as_root: bool,
    /// Done to the process that then becomes the launcher, or the program itself: both inherit it.
    pub setup: fn(&mut Command) -> Result<()>,
    pub body: Body,
}

/// A shell's side of the conversation with the observer (see [`crate::asking`]).
const SHELL: &str = "ask() { echo \"@do $*\"; read -r answer; }; plan() { echo \"@then $*\"; read -r answer; }
echo \"@do name $$ program\"; read -r answer
";

impl Case {
    pub const fn own(name: &'static str, body: fn() -> Result<()>) -> Case {
        Case { name, as_root: false, setup: |_| Ok(()), body: Body::Own(body) }
    }

    pub const fn shell(name: &'static str, line: &'static str) -> Case {
        Case { name, as_root: false, setup: |_| Ok(()), body: Body::Shell(line) }
    }

    pub const fn plain(name: &'static str, words: &'static [&'static str]) -> Case {
        Case { name, as_root: false, setup: |_| Ok(()), body: Body::Plain(words) }
    }

    pub const fn root(self) -> Case {
        Case { as_root: true, ..self }
    }

    pub const fn after(self, setup: fn(&mut Command) -> Result<()>) -> Case {
        Case { setup, ..self }
    }

    /// This process becomes the launcher, which is to run the program, or the program itself.
    pub fn start(&self, launcher: &[&str]) -> Result<()> {
        let program: Vec<String> = match self.body {
            Body::Own(_) => vec!["reference".into(), self.name.into()],
            Body::Shell(line) => vec!["/bin/sh".into(), "-c".into(), format!("{SHELL}{line}")],
            Body::Plain(words) => words.iter().map(|&word| word.into()).collect(),
        };
        let words: Vec<&str> = launcher.iter().copied().chain(program.iter().map(String::as_str)).collect();
        let (first, rest) = words.split_first().context("no program")?;
        let mut command = Command::new(first);
        command.args(rest);
        (self.setup)(&mut command)?;
        // What whoever runs the tests has left open is not the program's business.
        ghost_sys::trials::close_on_exec(3)?;
        let why = command.exec();
        Err(why).with_context(|| (*first).to_owned())
    }
}
