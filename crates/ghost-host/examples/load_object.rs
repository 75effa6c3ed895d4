//! Loads objects of the kernel programs, other than those compiled in, and says what the kernel thinks of them: first the
//! one that watches ghosts, then the one that follows the tree. `cargo xtask ebpf` runs it after a build.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use ghost_host::programs::Programs;
use ghost_host::programs::tree::TreePrograms;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [ghost, tree] = &arguments[..] else {
        eprintln!("usage: load_object GHOST-OBJECT TREE-OBJECT");
        return ExitCode::FAILURE;
    };
    let ghost = accepted(Path::new(ghost), |object| Ok(Programs::load_object(object).map(drop)?));
    let tree = accepted(Path::new(tree), |object| Ok(TreePrograms::load_object(object).map(drop)?));
    if ghost && tree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn accepted(path: &Path, load: impl FnOnce(&[u8]) -> Result<(), Box<dyn Error>>) -> bool {
    match std::fs::read(path).map_err(Box::<dyn Error>::from).and_then(|object| load(&object)) {
        Ok(()) => {
            println!("{}: the running kernel accepts it", path.display());
            true
        }
        Err(error) => {
            eprintln!("{}:", path.display());
            let mut cause: Option<&dyn Error> = Some(error.as_ref());
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
            false
        }
    }
}
