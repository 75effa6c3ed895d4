//! Resource limits: inherited, and what happens at them.

use std::process::Command;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::case::Case;

const LIMITS: &[&str] = &["/bin/cat", "/proc/self/limits"];

pub const CASES: &[Case] = &[
    Case::plain("all-limits", LIMITS),
    Case::plain("changed-limits", LIMITS).after(changed),
    Case::plain("limits-of-root", LIMITS).after(changed).root(),
    Case::shell("limits-of-a-shell", "ulimit -a").after(changed),
    Case::own("too-many-files", too_many_files).after(|_| Ok(setrlimit(Resource::RLIMIT_NOFILE, 20, 40)?)),
    Case::own("file-too-large", file_too_large).after(|_| Ok(setrlimit(Resource::RLIMIT_FSIZE, 10_000, 10_000)?)),
    Case::own("file-too-large-ends-it", file_too_large_ends_it),
    Case::own("time-is-up", time_is_up).after(|_| Ok(setrlimit(Resource::RLIMIT_CPU, 1, 3)?)),
    Case::own("not-above-the-hard-limit", not_above).after(|_| Ok(setrlimit(Resource::RLIMIT_NOFILE, 50, 60)?)),
    Case::own("not-upside-down", upside_down),
    Case::own("too-much-memory", too_much_memory),
    Case::own("child-inherits-limits", child_inherits),
    Case::own("too-many-signals", too_many_signals),
];

fn changed(_: &mut Command) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, 300, 400)?;
    setrlimit(Resource::RLIMIT_FSIZE, 1 << 33, 1 << 34)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 4096)?;
    setrlimit(Resource::RLIMIT_STACK, 4 << 20, 1 << 30)?;
    setrlimit(Resource::RLIMIT_CPU, 1000, 2000)?;
    setrlimit(Resource::RLIMIT_SIGPENDING, 900, 1000)?;
    setrlimit(Resource::RLIMIT_MSGQUEUE, 1000, 100_000)?;
    Ok(())
}

fn too_many_files() -> Result<()> {
    let mut files = Vec::new();
    let why = loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(why) => break why,
        }
    };
    say!("{} files, then: {why}", files.len());
    Ok(())
}

fn file_too_large() -> Result<()> {
    ghost_sys::signal::set_disposition(25, ghost_sys::signal::Disposition::Ignore)?;
    let path = format!("/tmp/reference-large-{}", std::process::id());
    let why = std::fs::write(&path, vec![0; 20_000]).err().map(|why| why.to_string());
    say!("{why:?}, {} bytes", std::fs::metadata(&path)?.len());
    Ok(std::fs::remove_file(&path)?)
}

/// In a process that has lowered its limit itself.
fn file_too_large_ends_it() -> Result<()> {
    let path = format!("/tmp/reference-large-{}", std::process::id());
    let child = ghost_sys::trials::fork(|| {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let _ = setrlimit(Resource::RLIMIT_FSIZE, 100, 100);
        u8::from(std::fs::write(&path, vec![0; 200]).is_err())
    })?;
    crate::fork::waited(child, 0)?;
    say!("{} bytes", std::fs::metadata(&path)?.len());
    Ok(std::fs::remove_file(&path)?)
}

fn time_is_up() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let mut x = 1u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn not_above() -> Result<()> {
    say!("{:?}", getrlimit(Resource::RLIMIT_NOFILE)?);
    say!("up to the hard one: {:?}", setrlimit(Resource::RLIMIT_NOFILE, 60, 60));
    say!("above: {:?}", setrlimit(Resource::RLIMIT_NOFILE, 60, 61));
    say!("lower: {:?}", setrlimit(Resource::RLIMIT_NOFILE, 10, 40));
    say!("back: {:?}", setrlimit(Resource::RLIMIT_NOFILE, 10, 60));
    Ok(())
}

fn upside_down() -> Result<()> {
    say!("{:?}", setrlimit(Resource::RLIMIT_CORE, 2, 1));
    Ok(())
}

fn too_much_memory() -> Result<()> {
    let child = ghost_sys::trials::fork(|| {
        let _ = setrlimit(Resource::RLIMIT_AS, 64 << 20, 64 << 20);
        let mut bytes: Vec<u8> = Vec::new();
        u8::from(bytes.try_reserve_exact(256 << 20).is_err()) + 10
    })?;
    crate::fork::waited(child, 0)
}

fn child_inherits() -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, 33, 44)?;
    let status = Command::new("/bin/sh").args(["-c", "ulimit -Sn; ulimit -Hn"]).status()?;
    say!("{}", crate::fork::ended(status));
    Ok(())
}

fn too_many_signals() -> Result<()> {
    // Of all processes of the user: only that there is an end of it.
    setrlimit(Resource::RLIMIT_SIGPENDING, 0, 0)?;
    ghost_sys::signal::set_blocked(u64::MAX)?;
    let own = std::process::id().cast_signed();
    say!("{:?}", ghost_sys::signal::queue(own, 40, 1).map_err(|why| why.raw_os_error()));
    say!("kill: {:?}", ghost_sys::signal::send(own, 10).map_err(|why| why.raw_os_error()));
    Ok(())
}
