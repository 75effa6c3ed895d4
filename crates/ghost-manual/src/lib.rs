//! Manual pages, from the one definition of a command's flags and a text about what flags do not say.
//!
//! They are committed (`docs/man`), so that packages need no tool to have them. The tests of each program make
//! them anew and compare: `GHOSTPROC_GOLDEN=write cargo test -p cli -p ghostd -p nodeagent --test manual` writes them.

mod page;

use std::fs;
use std::path::{Path, PathBuf};

pub use page::{Section, page, text_page};

/// Where pages are kept.
fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man")
}

/// A page of section 1, 5 or 8 is the committed one.
///
/// # Errors
/// It is not, or cannot be written.
pub fn keep_page(name: &str, section: Section, text: &str) -> Result<(), String> {
    keep(&pages().join(format!("{name}.{}", section.number())), text)
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
