//! The program's side of the conversation with its observer, over its standard input and output.
//!
//! A line that begins with `@` is for the observer, all others are the transcript's. `@do STEPS` is answered by a line when
//! the steps are done; `@then STEPS` before they are begun: what they wait for is what the program does next;
//! `@just STEPS` never. The steps are those of [`crate::steps`].

use std::io::Write;

use anyhow::{Result, bail};

/// A line of the transcript.
macro_rules! say {
    ($($words:tt)*) => { $crate::asking::say(&format!($($words)*))? };
}

/// A line, at once and in one piece.
pub fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    Ok(out.flush()?)
}

/// Tells the observer which process it has to do with.
pub fn introduce() -> Result<()> {
    ask(&format!("name {} program", std::process::id()))
}

/// Has the observer do the steps.
pub fn ask(steps: &str) -> Result<()> {
    converse("do", steps)
}

/// Has the observer do the steps from now on.
pub fn then(steps: &str) -> Result<()> {
    converse("then", steps)
}

/// Has the observer do the steps without an answer: somebody else reads the input.
pub fn just(steps: &str) -> Result<()> {
    say(&format!("@just {steps}"))
}

fn converse(how: &str, steps: &str) -> Result<()> {
    say(&format!("@{how} {steps}"))?;
    match read_line()?.as_deref() {
        Some("done") => Ok(()),
        other => bail!("`{steps}` was answered by {other:?}"),
    }
}

/// A line of standard input, and not a byte more: whoever this process becomes, or has as a child, reads on after it.
pub fn read_line() -> Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match nix::unistd::read(std::io::stdin(), &mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend_from_slice(&byte),
            Err(nix::errno::Errno::EINTR) => {}
            Err(why) => bail!("standard input: {why}"),
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// A process by its number, for a line of the transcript: the observer writes its name instead.
pub fn process(number: impl std::fmt::Display) -> String {
    format!("<{number}>")
}

/// The same for senders and sessions, where the observer is itself and not the parent of a plain child.
pub fn sender(number: impl std::fmt::Display) -> String {
    format!("<~{number}>")
}
