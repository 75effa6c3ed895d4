//! What the machine must have: root, and some Debian packages, which are installed when they are missing.

use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// A program and the Debian package it comes with.
struct Need {
    program: &'static str,
    package: &'static str,
}

/// What the cluster itself needs.
const CLUSTER: [Need; 1] = [Need { program: "ip", package: "iproute2" }];

/// What the tests and the examples in the README use besides.
const TESTS: [Need; 9] = [
    Need { program: "ip", package: "iproute2" },
    Need { program: "ps", package: "procps" },
    Need { program: "pstree", package: "psmisc" },
    Need { program: "htop", package: "htop" },
    Need { program: "setsid", package: "util-linux" },
    Need { program: "timeout", package: "coreutils" },
    Need { program: "perl", package: "perl-base" },
    Need { program: "bash", package: "bash" },
    Need { program: "setcap", package: "libcap2-bin" },
];

/// What libFuzzer is built with.
const FUZZING: [Need; 1] = [Need { program: "g++", package: "g++" }];

/// What makes and runs virtual machines.
const VIRTUAL_MACHINES: [Need; 3] = [
    Need { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Need { program: "debootstrap", package: "debootstrap" },
    Need { program: "mkfs.ext4", package: "e2fsprogs" },
];

pub fn for_cluster() -> Result<()> {
    provide(&CLUSTER)
}

pub fn for_tests() -> Result<()> {
    provide(&TESTS)
}

pub fn for_virtual_machines() -> Result<()> {
    provide(&VIRTUAL_MACHINES)
}

pub fn for_fuzzing() -> Result<()> {
    provide(&FUZZING)
}

/// rustfmt and clippy, which rustup's smallest profile leaves out.
pub fn components() -> Result<()> {
    let there = |subcommand: &str| {
        crate::products::cargo(subcommand)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if there("fmt") && there("clippy") {
        return Ok(());
    }
    eprintln!("xtask: installing rustfmt and clippy");
    let status = Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]).status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!("rustfmt and clippy are missing: install them (`rustup component add rustfmt clippy`) and try again")
}

/// How many processors there are for this process.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs this process, and what it starts from now on, on these processors only; none: as it is.
pub fn run_on(processors: &[usize]) -> Result<()> {
    if processors.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(*processor)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

pub fn must_be_root(what: &str) -> Result<()> {
    if nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    bail!("{what} needs root (it makes namespaces, mounts and network devices): run it again as root")
}

fn provide(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs.iter().filter(|need| !installed(need.program)).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let apt = installed("apt-get");
    if !apt || !nix::unistd::Uid::effective().is_root() {
        let command = if apt { format!("apt-get install -y {list}") } else { "your package manager".to_owned() };
        bail!(
            "these Debian packages, or what they are called here, are missing: {list}. Install them (as root: {command}) and try again"
        );
    }
    eprintln!("xtask: installing {list}");
    // The lists of a fresh image may be empty or old: update only when the first attempt fails.
    if apt_get(&["install", "-y", "--no-install-recommends"], &missing, Stdio::null())? {
        return Ok(());
    }
    if !apt_get(&["update"], &[], Stdio::inherit())?
        || !apt_get(&["install", "-y", "--no-install-recommends"], &missing, Stdio::inherit())?
    {
        bail!("apt-get cannot install {list}; what it says stands above");
    }
    Ok(())
}

fn apt_get(arguments: &[&str], packages: &[&str], errors: Stdio) -> Result<bool> {
    let status = Command::new("apt-get")
        .arg("-qq")
        .args(arguments)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .status()
        .context("apt-get cannot be started")?;
    Ok(status.success())
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    std::env::split_paths(&path)
        .chain(usual.iter().map(|directory| Path::new(directory).to_owned()))
        .any(|directory| directory.join(program).is_file())
}
