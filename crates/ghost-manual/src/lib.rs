//! Manual pages and shell completions, from the one definition of a command's flags and a text about what flags do not say.
//!
//! They are committed (`docs/man`, `docs/completions`), so that packages need no tool to have them. The tests of each program make
//! them anew and compare: `GHOSTPROC_GOLDEN=write cargo test -p cli -p ghostd -p nodeagent --test manual` writes them.

mod page;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;

pub use page::{Section, page, text_page};

/// Where pages and completions are kept.
fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// A page of section 1, 5 or 8 is the committed one.
///
/// # Errors
/// It is not, or cannot be written.
pub fn keep_page(name: &str, section: Section, text: &str) -> Result<(), String> {
    keep(&docs().join("man").join(format!("{name}.{}", section.number())), text)
}

/// The completions of a command for bash, zsh and fish are the committed ones.
///
/// # Errors
/// They are not, or cannot be written.
pub fn keep_completions(command: &Command) -> Result<(), String> {
    let name = command.get_name().to_owned();
    for (shell, file) in
        [(Shell::Bash, format!("{name}.bash")), (Shell::Zsh, format!("_{name}")), (Shell::Fish, format!("{name}.fish"))]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), &name, &mut script);
        let script = String::from_utf8(script).map_err(|why| why.to_string())?;
        // Some lines of theirs end in blanks.
        let lines: Vec<&str> = script.lines().map(str::trim_end).collect();
        keep(&docs().join("completions").join(file), &(lines.join("\n") + "\n"))?;
    }
    Ok(())
}

fn keep(path: &Path, text: &str) -> Result<(), String> {
    if std::env::var("GHOSTPROC_GOLDEN").is_ok_and(|value| value == "write") {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
        made.map_err(|why| format!("{}: {why}", path.display()))?;
    }
    let kept = fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))?;
    if kept == text {
        return Ok(());
    }
    let differs = kept.lines().zip(text.lines()).position(|(kept, new)| kept != new).unwrap_or(0) + 1;
    Err(format!(
        "{} is not what the flags and texts say now, from line {differs} on; GHOSTPROC_GOLDEN=write writes it anew",
        path.display()
    ))
}
