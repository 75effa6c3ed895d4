//! `cargo xtask ebpf`: the kernel programs, built from `ghost-ebpf/` into the committed objects.
//!
//! Users need none of this: the objects are in the repository, beside the versions of what built them. Invariant: equal
//! sources and equal versions give equal bytes, wherever the checkout, the toolchain and cargo's registry are; so the
//! objects that are committed can be proved to come from the source beside them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::products::workspace;

const TARGET: &str = "bpfel-unknown-none";
/// The programs of ghost-ebpf; the object of each is `ghost-ebpf/NAME.bpf.o`.
const PROGRAMS: [&str; 2] = ["ghost", "tree"];
const VERSIONS: &str = "ghost-ebpf/ghost.bpf.versions";

/// Build the kernel programs from source
#[derive(Args)]
pub struct EbpfArgs {
    /// Change nothing: compare what the source builds to with the committed objects
    #[arg(long)]
    check: bool,
}

/// Builds the objects, installing the toolchain first if it is not there, and replaces or checks the committed ones.
pub fn run(args: EbpfArgs) -> Result<ExitCode> {
    let toolchain = Toolchain::provide()?;
    let versions = toolchain.versions()?;
    let built = toolchain.build()?;
    if !args.check {
        for (program, built) in PROGRAMS.into_iter().zip(&built) {
            let committed = committed(program);
            fs::copy(built, &committed).with_context(|| format!("cannot write {}", committed.display()))?;
        }
        fs::write(workspace().join(VERSIONS), &versions).with_context(|| format!("cannot write {VERSIONS}"))?;
        println!("built with\n{versions}");
        load(&PROGRAMS.map(committed))?;
        return Ok(ExitCode::SUCCESS);
    }
    let recorded = fs::read_to_string(workspace().join(VERSIONS)).with_context(|| format!("cannot read {VERSIONS}"))?;
    if recorded != versions {
        println!(
            "the committed objects were built with\n{recorded}and cannot be compared byte for byte with what is here:\n\
             {versions}Whether the kernel takes what the source builds to here:"
        );
        load(&built)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (program, built) in PROGRAMS.into_iter().zip(&built) {
        let name = object(program);
        if read(built)? != read(&committed(program))? {
            bail!(
                "{name} is not what its source builds to ({}): run `cargo xtask ebpf` and commit it",
                built.display()
            );
        }
        println!("{name} is what its source builds to");
    }
    Ok(ExitCode::SUCCESS)
}

/// Where an object is, from the root of the repository.
fn object(program: &str) -> String {
    format!("ghost-ebpf/{program}.bpf.o")
}

fn committed(program: &str) -> PathBuf {
    workspace().join(object(program))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Has the running kernel verify the objects, by the loader that the daemons use.
fn load(objects: &[PathBuf]) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        println!("not loaded: only root may");
        return Ok(());
    }
    let mut command = Command::new(cargo());
    command.current_dir(workspace()).args([
        "run",
        "--quiet",
        "--package",
        "ghost-host",
        "--example",
        "load_object",
        "--",
    ]);
    let status = command.args(objects).status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("the running kernel does not accept what was built; its reasons stand above");
    }
    Ok(())
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Where the compiler and the linker for kernel programs are; `.ci/ebpf-toolchain` puts them there.
struct Toolchain {
    rustc: PathBuf,
    linker: PathBuf,
    objcopy: PathBuf,
    /// A search path for the libraries of the three.
    libraries: String,
    /// The source of `core`.
    source: PathBuf,
}

impl Toolchain {
    fn provide() -> Result<Self> {
        let directory = workspace().join("target/ebpf-toolchain");
        let script = workspace().join(".ci/ebpf-toolchain");
        let status = Command::new(&script).arg(&directory).stdin(Stdio::null()).status();
        if !status.with_context(|| format!("cannot start {}", script.display()))?.success() {
            bail!("the toolchain for kernel programs is not complete; what is missing stands above");
        }
        let list = directory.join("toolchain");
        let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged: remove it and try again", list.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let places: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let place = |key: &str| places.get(key).copied().with_context(|| format!("it has no {key}"));
        Ok(Self {
            rustc: place("rustc")?.into(),
            linker: place("linker")?.into(),
            objcopy: place("objcopy")?.into(),
            libraries: place("libraries")?.to_owned(),
            source: place("source")?.into(),
        })
    }

    /// A command that finds the toolchain's libraries.
    fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.env("LD_LIBRARY_PATH", &self.libraries);
        command
    }

    /// What decides about the bytes of the object besides the source, the lock file and the flags below.
    fn versions(&self) -> Result<String> {
        let rustc = output(self.command(&self.rustc).arg("-vV"))?;
        let llvm = rustc.lines().find_map(|line| line.strip_prefix("LLVM version: ")).context("rustc names no LLVM")?;
        let release = rustc.lines().next().unwrap_or_default();
        let linker = output(self.command(&self.linker).arg("--version"))?;
        Ok(format!("{release}\nLLVM {llvm}\n{}\n", linker.trim_end()))
    }

    /// Builds the objects and returns where they are, in the order of [`PROGRAMS`].
    fn build(&self) -> Result<Vec<PathBuf>> {
        let directory = workspace().join("target/ebpf");
        let mut cargo = self.command(cargo());
        cargo
            .current_dir(workspace().join("ghost-ebpf"))
            .args(["build", "--quiet", "--release", "--locked", "--target", TARGET])
            // Stable compilers have `core` for the kernel's virtual machine only as source.
            .args(["-Z", "build-std=core", "--target-dir"])
            .arg(&directory)
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags()?)
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        if !cargo.status().context("cargo cannot be started")?.success() {
            bail!("the kernel programs do not build; the compiler's messages stand above");
        }
        PROGRAMS.into_iter().map(|program| self.strip(&directory, program)).collect()
    }

    /// Debugging sections go, BTF stays: the loader and the verifier's messages need it.
    fn strip(&self, directory: &Path, program: &str) -> Result<PathBuf> {
        let linked = directory.join(TARGET).join("release").join(program);
        let built = directory.join(format!("{program}.bpf.o"));
        let status = self.command(&self.objcopy).arg("--strip-debug").arg(linked).arg(&built).status();
        if !status.context("llvm-objcopy cannot be started")?.success() {
            bail!("llvm-objcopy cannot strip {}", built.display());
        }
        Ok(built)
    }

    /// Flags of rustc, in cargo's encoding. BTF has the paths of the sources: the same ones wherever they are.
    fn flags(&self) -> Result<OsString> {
        let mut flags = OsString::from("-Clinker=");
        flags.push(&self.linker);
        // Version 3 of the instruction set, in every kernel since 5.12: atomics that return a value.
        for flag in ["-Clink-arg=--btf", "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Dwarnings"] {
            flags.push("\x1f");
            flags.push(flag);
        }
        let mut remap = |from: &Path, to: &str| {
            flags.push("\x1f--remap-path-prefix=");
            flags.push(from);
            flags.push("=");
            flags.push(to);
        };
        remap(workspace(), "ghostproc");
        // Under the name it has in the compiler's tree, a symbolic link, and under its own.
        remap(&self.source, "rust");
        let source = fs::canonicalize(&self.source);
        remap(&source.with_context(|| format!("{} is not there", self.source.display()))?, "rust");
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
        let registry = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
        // One directory a registry, named by a hash; there is none before the first download, and `cargo fetch` makes it.
        self.fetch()?;
        for entry in fs::read_dir(&registry).with_context(|| format!("cannot read {}", registry.display()))? {
            remap(&entry?.path(), "registry");
        }
        Ok(flags)
    }

    /// Has cargo download and unpack what the programs depend on.
    fn fetch(&self) -> Result<()> {
        let mut command = Command::new(cargo());
        command.current_dir(workspace().join("ghost-ebpf")).args(["fetch", "--quiet", "--locked"]);
        if !command.status().context("cargo cannot be started")?.success() {
            bail!("cargo cannot fetch what the kernel programs depend on; its messages stand above");
        }
        Ok(())
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} prints no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_list_is_an_error() {
        let whole = "rustc=/r\nlinker=/l\nobjcopy=/o\nlibraries=/a:/b\nsource=/s\n";
        assert_eq!(Toolchain::parse(whole).expect("whole").libraries, "/a:/b");
        let error = Toolchain::parse("rustc=/r\nlinker=/l\n").err().expect("damaged");
        assert_eq!(error.to_string(), "it has no objcopy");
    }
}
