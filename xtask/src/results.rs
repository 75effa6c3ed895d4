//! Results that are kept in the repository: with the date, the kernel, and what was measured.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::products;

/// Today, in UTC.
pub fn date() -> Result<String> {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("date")?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}

fn path(name: &str) -> PathBuf {
    products::workspace().join("results").join(format!("{name}.md"))
}

/// What was kept last as `results/NAME.md`; nothing if that is not there.
pub fn kept(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

/// Replaces `results/NAME.md`.
pub fn keep(name: &str, title: &str, body: &str) -> Result<PathBuf> {
    let date = date()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel release")?;
    let version = kernel.split('-').next().unwrap_or_default().trim();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = format!("# {title}\n\n{date}, Linux {version}, {cores} cores, all members on one machine.\n\n{body}\n");
    let path = path(name);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}
