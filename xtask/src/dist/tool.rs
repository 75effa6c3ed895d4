//! cargo-deb, installed below the target directory, where it gets in nobody's way.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

const VERSION: &str = "3.8.0";

/// Installs it if it is not there. Built without optimization and without liblzma: it packs for some seconds, and xz(1) compresses.
pub fn provide(target: &Path) -> Result<PathBuf> {
    let root = target.join("dist-tools").join(format!("cargo-deb-{VERSION}"));
    let program = root.join("bin/cargo-deb");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("xtask: installing cargo-deb {VERSION} …");
    let build = root.join("build");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["install", "cargo-deb", "--quiet", "--locked", "--version", VERSION, "--no-default-features"])
        .args(["--profile", "dev", "--root"])
        .arg(&root)
        .arg("--target-dir")
        .arg(&build)
        // From elsewhere: this repository's cargo configuration is not for it.
        .current_dir("/")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .stdin(Stdio::null())
        .status()
        .context("cargo cannot be started")?;
    if !status.success() || !program.is_file() {
        bail!("cargo-deb {VERSION} cannot be installed; cargo's messages stand above");
    }
    // Only the program is needed again.
    let _ = std::fs::remove_dir_all(build);
    Ok(program)
}
