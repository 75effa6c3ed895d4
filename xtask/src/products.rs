//! Building the programs that the cluster runs.
//!
//! Invariant: the programs of a cluster are a copy of their own, so that a build meanwhile does not change a running
//! cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// How long cargo may be silent before we say what we are waiting for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The packages whose programs the product consists of.
const PACKAGES: [&str; 3] = ["ghostd", "nodeagent", "cli"];

/// What must come out of the build.
pub const PROGRAMS: [&str; 8] =
    ["ghostd", "ghost-view", "nodeagent", "ghost-holder", "bpsh", "bpcp", "bpstat", "bpctl"];

/// One line of `cargo build --message-format=json`, as far as it matters here.
#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
}

#[derive(Default, Deserialize)]
struct Profile {
    /// Built with the test runner in it.
    test: bool,
}

/// Builds the programs and returns their paths.
pub fn build(profile: &str) -> Result<Vec<PathBuf>> {
    let mut command = cargo("build");
    command.args(["--quiet", "--bins", "--profile", profile]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let executables = executables_of(command, "building ghostd, nodeagent and the command-line tools")?;
    for program in PROGRAMS {
        if !executables.iter().any(|path| path.file_name().is_some_and(|name| name == program)) {
            bail!("cargo built no {program}");
        }
    }
    Ok(executables)
}

/// Runs a cargo command that builds and returns the executables it names. `doing` is printed when it takes a while.
pub fn executables_of(command: Command, doing: &str) -> Result<Vec<PathBuf>> {
    Ok(built_by(command, doing)?.into_iter().map(|(path, _)| path).collect())
}

/// The same, but only those that have the test runner in them.
pub fn tests_of(command: Command, doing: &str) -> Result<Vec<PathBuf>> {
    Ok(built_by(command, doing)?.into_iter().filter_map(|(path, profile)| profile.test.then_some(path)).collect())
}

fn built_by(mut command: Command, doing: &str) -> Result<Vec<(PathBuf, Profile)>> {
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo cannot be started")?;
    let stdout = child.stdout.take().context("cargo without an output")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
    let began = Instant::now();
    let mut told = false;
    while !reader.is_finished() {
        if !told && began.elapsed() > PATIENCE {
            eprintln!("xtask: {doing} …");
            told = true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = reader.join().map_err(|_| anyhow::anyhow!("reading cargo's output panicked"))??;
    if !child.wait()?.success() {
        bail!("cargo failed {doing}; its messages stand above");
    }
    let mut executables = Vec::new();
    for line in output.lines() {
        let message: CargoMessage = serde_json::from_str(line).with_context(|| format!("cargo said: {line}"))?;
        if message.reason == "compiler-artifact" {
            executables.extend(message.executable.map(|path| (path, message.profile)));
        }
    }
    Ok(executables)
}

static OWN: OnceLock<PathBuf> = OnceLock::new();

/// Where our own program stands. To be asked first thing: once cargo has built it anew, the kernel calls the file that runs
/// "(deleted)" (fs/d_path.c), while the new one stands at the same path.
pub fn own_program() -> Result<&'static Path> {
    if let Some(path) = OWN.get() {
        return Ok(path);
    }
    let path = std::env::current_exe().context("our own program")?;
    Ok(OWN.get_or_init(|| path))
}

/// A cargo of the toolchain that runs us, in the workspace.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(workspace());
    command
}

/// The top of the checkout.
pub fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo's target directory, which is not always in the checkout, from the path of something in it.
pub fn target_directory(path: &Path) -> Option<&Path> {
    // Every target directory that cargo has made is marked so (cachedir specification).
    path.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file())
}
