//! `cargo xtask dist`: Debian packages, made by cargo-deb, and a tarball with an install script, from packaging/.
//!
//! ```text
//! built programs, docs/man, packaging/  ──(packages.toml)──>  target/dist/stage/PACKAGE/...  ──> cargo-deb ──> target/dist/*.deb
//!                                                                                            └─> tar ──> target/dist/*.tar.gz
//! ```
//! Invariants: what is packaged is what packages.toml names, from one staged tree; equal sources and equal programs give equal
//! packages (dates are the last commit's).

mod deb;
mod elf;
mod plan;
mod tarball;
mod tool;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::products::{self, workspace};
use plan::{Plan, Source};

/// Build Debian packages and a tarball
#[derive(Args)]
pub struct DistArgs {
    /// Profile of the programs: `cluster` is built faster, for tests
    #[arg(long, default_value = "release")]
    profile: String,
    /// Revision of the Debian packages, behind the version
    #[arg(long, default_value = "1", value_parser = revision)]
    revision: String,
    /// Directory for what is made [default: target/dist]
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Compress less: for tests
    #[arg(long)]
    quick: bool,
}

/// As deb-version(7) allows it.
fn revision(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.~".contains(&byte));
    if good { Ok(text.to_owned()) } else { Err("letters, digits, `+`, `.` and `~`".to_owned()) }
}

/// What is the same for all packages.
struct Release {
    version: &'static str,
    revision: String,
    /// Seconds since 1970, of the last commit.
    date: u64,
    /// Less compression.
    quick: bool,
}

impl Release {
    /// As in the packages' names.
    fn full(&self) -> String {
        format!("{}-{}", self.version, self.revision)
    }
}

pub fn run(args: DistArgs) -> Result<ExitCode> {
    let plan = Plan::read(&workspace().join("packaging/packages.toml"))?;
    let release = Release {
        version: env!("CARGO_PKG_VERSION"),
        revision: args.revision,
        date: date_of_last_commit(),
        quick: args.quick,
    };
    let programs = products::build(&args.profile)?;
    let target = workspace().join("target");
    // cargo-deb works in another directory.
    let output = std::path::absolute(args.output.unwrap_or_else(|| target.join("dist")))?;
    let stage = target.join("dist-stage");
    let tool = tool::provide(&target)?;
    // What an earlier plan had is not to get into a package.
    match fs::remove_dir_all(&stage) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why).context("the stage before"),
        _ => {}
    }
    fs::create_dir_all(&output).with_context(|| output.display().to_string())?;
    for (name, package) in &plan.packages {
        let top = stage.join(name);
        for file in &package.files {
            let to = top.join(&file.to);
            fs::create_dir_all(to.parent().context("a file without a directory")?)?;
            fs::write(&to, content(&file.from, &programs)?).with_context(|| to.display().to_string())?;
            fs::set_permissions(&to, fs::Permissions::from_mode(file.mode))?;
        }
        let made = deb::build(&tool, name, package, &release, &stage, &output)?;
        println!("{}", made.display());
    }
    println!("{}", tarball::build(&plan, &release, &stage, &output)?.display());
    Ok(ExitCode::SUCCESS)
}

fn content(source: &Source, programs: &[PathBuf]) -> Result<Vec<u8>> {
    let program = |name: &str| {
        let found = programs.iter().find(|path| path.file_name().is_some_and(|file| file == name));
        found.with_context(|| format!("cargo built no {name}"))
    };
    match source {
        Source::Program(name) => {
            let content = read(program(name)?)?;
            anyhow::ensure!(elf::is_static(&content), "{name} is not static: it would not run on every distribution");
            Ok(content)
        }
        Source::Completions { shell, command } => {
            let made = Command::new(program("bpctl")?).args(["completions", shell, command]).output()?;
            if !made.status.success() {
                bail!("bpctl completions {shell} {command}: {}", String::from_utf8_lossy(&made.stderr).trim());
            }
            Ok(made.stdout)
        }
        Source::Repository(path) => read(&workspace().join(path)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// 0 where there is no git or no history.
fn date_of_last_commit() -> u64 {
    if let Some(given) = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()) {
        return given;
    }
    let mut git = Command::new("git");
    let said = git.args(["log", "-1", "--format=%ct"]).current_dir(workspace()).output();
    said.ok().and_then(|said| String::from_utf8(said.stdout).ok()?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_one_of_debians() {
        assert!(["1", "2~rc1", "1+b2", "0.1"].iter().all(|text| revision(text).is_ok()));
        assert!(["", "1-2", "1 2", "../x"].iter().all(|text| revision(text).is_err()));
    }
}
