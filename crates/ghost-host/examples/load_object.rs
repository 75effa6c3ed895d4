//! Loads an object of the kernel programs, other than the one compiled in, and says what the kernel thinks of it.
//! `cargo xtask ebpf` runs it after a build.

use std::error::Error;
use std::process::ExitCode;

use ghost_host::programs::Programs;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: load_object FILE");
        return ExitCode::FAILURE;
    };
    let outcome = std::fs::read(&path).map_err(Box::<dyn Error>::from).and_then(|object| {
        let programs = Programs::load_object(&object)?;
        Ok(programs.dropped())
    });
    match outcome {
        Ok(_) => {
            println!("{}: the running kernel accepts it", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut cause: Option<&dyn Error> = Some(error.as_ref());
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
