//! The holder's program: started by nodeagent as the init of a new PID namespace, on which it then works until the machine
//! goes down. See [`nodeagent::holder`].

use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;
use ghost_proto::instance::{self, Instance};
use nodeagent::holder::core::Core;
use nodeagent::holder::driver::Driver;
use nodeagent::holder::setup;

/// Keeps the cluster's processes on a node. Started by nodeagent.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Flags {
    /// Name of the instance
    #[arg(long, default_value = instance::DEFAULT, env = instance::ENVIRONMENT)]
    instance: Instance,
}

fn main() {
    let flags = Flags::parse();
    if let Err(why) = run(&flags.instance) {
        setup::log(&format!("{why:#}"));
        std::process::exit(1);
    }
}

fn run(instance: &Instance) -> Result<()> {
    ghost_sys::heap::keep_freed_memory();
    let (limits, namespaces) = setup::become_init()?;
    let listener = listen(&instance.run(), &instance.holder_socket(), 0o600)?;
    // Who connects there is asked of the kernel.
    let commands = listen(&instance.run(), &instance.node_socket(), 0o666)?;
    let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut random = [0; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .context("/dev/urandom gives no number for the holder's name")?;
    // 0 is nobody's.
    let core = Core::new(u64::from_ne_bytes(random) | 1, hostname, limits);
    Driver::new(core, listener, commands, (instance, namespaces))?.run()
}

fn listen(directory: &Path, socket: &Path, mode: u32) -> Result<UnixListener> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).with_context(|| format!("{directory:?}"))?;
    // The agent starts a holder only when nobody answers there.
    let _ = fs::remove_file(socket);
    // Made for nobody, then for those it is for: there is no instant in which others may connect.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o777));
    let listener = UnixListener::bind(socket).with_context(|| format!("{socket:?} cannot be made"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    fs::set_permissions(socket, fs::Permissions::from_mode(mode)).with_context(|| format!("{socket:?}"))?;
    Ok(listener)
}
