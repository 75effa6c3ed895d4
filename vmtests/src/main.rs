//! The runner: root file systems, machines, scenarios. `cargo xtask vm` starts it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use nix::sys::signal::Signal;
use vmtests::cluster::Cluster;
use vmtests::host;
use vmtests::machine::{Hardware, last_lines};
use vmtests::root::{self, Release, recipe::SEATS};
use vmtests::scenario::{ALL, Form, Scenario};

#[derive(Parser)]
#[command(about = "The packages on virtual machines with Debian's own kernels")]
struct Flags {
    /// Debian release of the machines
    #[arg(long, value_enum, default_value = "trixie")]
    release: Release,
    /// The long form
    #[arg(long)]
    all: bool,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// No scenario: lines of standard input, MACHINE COMMAND, are run
    #[arg(long)]
    by_hand: bool,
    /// Use the host's processor (/dev/kvm)
    #[arg(long)]
    kvm: bool,
    /// Seconds, from the root file system on, after which all is given up
    #[arg(long)]
    limit: Option<u64>,
    /// Directory with the packages in `1` and newer ones in `2`
    #[arg(long)]
    packages: PathBuf,
    /// The README with the administrator's commands
    #[arg(long)]
    readme: PathBuf,
    /// Program that runs in the machines
    #[arg(long)]
    agent: PathBuf,
    /// Where root file systems are kept, and runs have their files
    #[arg(long)]
    directory: PathBuf,
}

fn main() -> ExitCode {
    match Flags::parse().absolute().and_then(|flags| run(&flags)) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("vmtests: {why:#}");
            ExitCode::FAILURE
        }
    }
}

impl Flags {
    /// The current directory is to be another one.
    fn absolute(mut self) -> Result<Self> {
        for path in [&mut self.packages, &mut self.readme, &mut self.agent, &mut self.directory] {
            *path = std::path::absolute(&*path)?;
        }
        Ok(self)
    }
}

fn run(flags: &Flags) -> Result<ExitCode> {
    let selected = select(flags)?;
    std::fs::create_dir_all(&flags.directory).with_context(|| flags.directory.display().to_string())?;
    let began = Instant::now();
    host::is_large_enough(&flags.directory)?;
    let root = root::provide(flags.release, &flags.directory)?;
    println!("{} s: root file system", began.elapsed().as_secs());
    let place = Place::new(&flags.directory)?;
    place.remove_at_signals()?;
    if let Some(seconds) = flags.limit {
        place.give_up_after(Duration::from_secs(seconds));
    }
    let products = place.0.join("products.img");
    products_image(flags, &place.0, &products)?;
    let hardware = Hardware { root, products, kvm: flags.kvm };
    let cluster = Cluster::boot(&hardware)?;
    println!("{} s: three machines are up", began.elapsed().as_secs());
    if let Err(why) = cluster.install(&flags.readme) {
        println!("{}", cluster.report());
        return Err(why.context("installing as the README says"));
    }
    println!("{} s: installed as the README says", began.elapsed().as_secs());
    if flags.by_hand {
        vmtests::byhand::run(&cluster)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut passed, mut failed) = (0, 0);
    for scenario in selected {
        let since = Instant::now();
        let outcome = (scenario.run)(&cluster, flags.release);
        let seconds = since.elapsed().as_secs();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("ok     {} ({}) {seconds} s", scenario.name, scenario.what);
            }
            Err(why) => {
                failed += 1;
                println!("FAILED {} ({}) {seconds} s\n{why:#}\n{}", scenario.name, scenario.what, cluster.report());
                if cluster.machines().any(vmtests::machine::Machine::is_broken) {
                    println!("a machine is broken: what was to follow is left out");
                    break;
                }
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("{} s in all", began.elapsed().as_secs());
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn select(flags: &Flags) -> Result<Vec<&'static Scenario>> {
    for name in &flags.only {
        if !ALL.iter().any(|scenario| scenario.name == name) {
            let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
            bail!("there is no scenario {name}; there are {}", names.join(", "));
        }
    }
    let form = if flags.all { Form::Long } else { Form::Short };
    let wanted = |scenario: &&Scenario| match flags.only.as_slice() {
        [] => scenario.forms.contains(&form),
        only => only.iter().any(|name| name == scenario.name),
    };
    Ok(ALL.iter().filter(wanted).collect())
}

/// The agent and the packages as a file system that the machines mount.
fn products_image(flags: &Flags, place: &Path, image: &Path) -> Result<()> {
    let tree = place.join("products");
    std::fs::create_dir(&tree)?;
    std::fs::copy(&flags.agent, tree.join("vm-agent")).with_context(|| flags.agent.display().to_string())?;
    for version in ["1", "2"] {
        let (from, to) = (flags.packages.join(version), tree.join(version));
        std::fs::create_dir(&to)?;
        for entry in std::fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                std::fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
            }
        }
    }
    let status = Command::new("mkfs.ext4")
        .args(["-q", "-O", "^has_journal", "-m", "0", "-d"])
        .args([&tree, image])
        .arg("256M")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .status()
        .context("mkfs.ext4")?;
    ensure!(status.success(), "mkfs.ext4: {status}");
    Ok(())
}

/// The run's directory, which goes with it: the current one, so that the sockets in it have short names wherever it is (unix(7):
/// 108 bytes).
struct Place(PathBuf);

impl Place {
    fn new(directory: &Path) -> Result<Self> {
        // What runs that were killed have left.
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(pid) = name.strip_prefix("run-")
                && !Path::new("/proc").join(pid).exists()
            {
                std::fs::remove_dir_all(path)?;
            }
        }
        let path = directory.join(format!("run-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        std::env::set_current_dir(&path)?;
        Ok(Self(path))
    }

    /// Ctrl-C and its kind: everything goes with us. The machines are killed by the kernel as soon as the main thread has ended.
    fn remove_at_signals(&self) -> Result<()> {
        let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        let mask = signals.iter().fold(0, |mask, signal| mask | 1_u64 << (*signal as i32 - 1));
        ghost_sys::signal::set_blocked(mask)?;
        let path = self.0.clone();
        std::thread::spawn(move || {
            let signal = ghost_sys::signal_wait::next(mask);
            // Nobody is left to tell if this fails; the next run removes it.
            let _ = std::fs::remove_dir_all(path);
            std::process::exit(signal.map_or(1, |info| 128 + info.signal));
        });
        Ok(())
    }

    /// A run that takes longer ends like one that fails, with what is on the consoles.
    fn give_up_after(&self, limit: Duration) {
        let path = self.0.clone();
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            println!("not done after {} s: given up", limit.as_secs());
            for seat in SEATS {
                print!("{}: console\n{}", seat.name, last_lines(&Hardware::file(seat, "console")));
            }
            println!("test result: FAILED. 0 passed; 1 failed; 0 ignored");
            // Nobody is left to tell if this fails; the next run removes it.
            let _ = std::fs::remove_dir_all(path);
            std::process::exit(1);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(why) = std::fs::remove_dir_all(&self.0) {
            eprintln!("vmtests: {}: {why}", self.0.display());
        }
    }
}
