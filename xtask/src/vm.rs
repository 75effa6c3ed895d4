//! `cargo xtask vm`: the packages on virtual machines with Debian's own kernels. Builds packages, runner and agent; the runner (vmtests)
//! does the rest.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{machine, products};

#[derive(Args)]
pub struct VmArgs {
    /// For the runner: --all, --only NAME,…, --release bookworm, --by-hand, --kvm, --limit SECONDS
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(args: VmArgs) -> Result<ExitCode> {
    machine::must_be_root("the virtual machines' root file systems")?;
    machine::for_virtual_machines()?;
    let own = products::own_program()?;
    let target = products::target_directory(own).context("no target directory")?;
    let directory = target.join("vm");
    // A package and its successor.
    for revision in ["1", "2"] {
        let output = directory.join("packages").join(revision);
        if output.exists() {
            std::fs::remove_dir_all(&output)?;
        }
        let status = Command::new(own)
            .args(["dist", "--quick", "--profile", "cluster", "--revision", revision, "--output"])
            .arg(&output)
            .status()?;
        ensure!(status.success(), "cargo xtask dist: {status}");
    }
    let mut build = products::cargo("build");
    build.args(["--quiet", "--package", "vmtests", "--bins"]);
    let programs = products::executables_of(build, "building the virtual machines' tests")?;
    let named = |name: &str| {
        programs.iter().find(|path| path.file_name().is_some_and(|file| file == name)).with_context(|| name.to_owned())
    };
    let mut runner = Command::new(named("vmtests")?);
    runner.arg("--packages").arg(directory.join("packages")).arg("--agent").arg(named("vm-agent")?);
    runner.arg("--readme").arg(Path::new(products::workspace()).join("README.md")).arg("--directory").arg(&directory);
    // In our place: who ends us ends the machines.
    let why = runner.args(args.arguments).exec();
    bail!("{}: {why}", named("vmtests")?.display())
}
