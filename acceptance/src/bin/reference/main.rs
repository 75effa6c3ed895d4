//! The reference run: small programs that say what they see of themselves, and an observer that says what it sees of them.
//!
//! ```text
//!   reference observe CASE             the case as a plain child of the observer
//!   reference observe CASE bpsh 0      the same on node 0
//! ```
//! Both print a transcript: what the program said on its two outputs, and what the observer saw: the wait status of its
//! child with every stop and continue, /proc of the program's PID, members of its process group. Linux itself says what is
//! right: the two transcripts must be equal.
//!
//! Invariant: a transcript contains nothing that differs from run to run. Numbers are compared, or have names (see
//! [`observer`]), and are not printed.

use std::process::ExitCode;

use anyhow::{Context, Result};

#[macro_use]
mod asking;
mod case;
mod credentials;
mod exec;
mod exits;
mod fork;
mod groups;
mod handlers;
mod inherited;
mod limits;
mod masks;
mod observer;
mod sentinel;
mod siginfo;
mod signals;
mod stdio;
mod steps;
mod stops;
mod threads;
mod tree;
mod view;

use case::{Body, Case};

const USAGE: &str = "reference CASE                    runs the case: it wants to be observed
reference list                    theme, case and user of each, one a line
reference observe CASE [WORDS…]   runs the case, launched by these words, and prints the transcript";

/// Themes, in the order in which they are listed.
const THEMES: &[(&str, &[Case])] = &[
    ("credentials", credentials::CASES),
    ("exec", exec::CASES),
    ("exits", exits::CASES),
    ("fork", fork::CASES),
    ("groups", groups::CASES),
    ("handlers", handlers::CASES),
    ("inherited", inherited::CASES),
    ("limits", limits::CASES),
    ("masks", masks::CASES),
    ("siginfo", siginfo::CASES),
    ("signals", signals::CASES),
    ("stdio", stdio::CASES),
    ("stops", stops::CASES),
    ("threads", threads::CASES),
    ("tree", tree::CASES),
    ("view", view::CASES),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // On standard output: it is part of the transcript, and no transcript may contain it.
            println!("reference: failed: {why:#}");
            ExitCode::from(99)
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for (theme, case) in THEMES.iter().flat_map(|(theme, cases)| cases.iter().map(move |case| (theme, case))) {
                println!("{theme} {} {}", case.name, if case.as_root { "root" } else { "ordinary" });
            }
            Ok(())
        }
        ["observe", case, launcher @ ..] => observer::observe(find(case)?, launcher),
        ["start", case, launcher @ ..] => find(case)?.start(launcher),
        ["sentinel"] => sentinel::run(),
        // What a case itself has others do.
        ["say", words @ ..] => asking::say(&words.join(" ")),
        ["exits", code] => std::process::exit(code.parse()?),
        [case, ..] => {
            let case = find(case)?;
            let Body::Own(body) = case.body else { anyhow::bail!("{} is not a case of this program", case.name) };
            asking::introduce()?;
            body()?;
            asking::say("end of the case")
        }
        [] => anyhow::bail!(USAGE),
    }
}

fn find(name: &str) -> Result<&'static Case> {
    let mut all = THEMES.iter().flat_map(|(_, cases)| cases.iter());
    all.find(|case| case.name == name).with_context(|| format!("no case {name}; {USAGE}"))
}
