//! Root file systems: Debian by debootstrap with Debian's cloud kernel, as an image that all machines share and none changes.
//!
//! An image is kept under the hash of all that it is made of ([`recipe`]), and made again only when that changes.

mod build;
pub mod recipe;

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::fcntl::{Flock, FlockArg};

pub use recipe::Release;

/// A root file system and its kernel.
#[derive(Debug, Clone)]
pub struct Root {
    pub image: PathBuf,
    pub kernel: PathBuf,
}

/// The root of a release, from `cache` or made anew. Several runners may ask at once.
pub fn provide(release: Release, cache: &Path) -> Result<Root> {
    let lock = std::fs::File::create(cache.join(format!("{}.lock", release.suite())))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, why)| why)?;
    let directory = cache.join(format!("{}-{:016x}", release.suite(), recipe::hash(release)));
    let root = Root { image: directory.join("root.ext4"), kernel: directory.join("vmlinuz") };
    if directory.is_dir() {
        return Ok(root);
    }
    println!("making a root file system of Debian {} (some minutes; it is kept)", release.suite());
    let made = build::build(release, cache).or_else(|why| {
        println!("{why:#}\nonce more: a mirror may have been out of reach for a moment");
        build::build(release, cache)
    })?;
    for entry in std::fs::read_dir(cache)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Those of older recipes; a machine that runs on one keeps its open file.
        if path != made && path.is_dir() && name.starts_with(&format!("{}-", release.suite())) {
            std::fs::remove_dir_all(path)?;
        }
    }
    std::fs::rename(&made, &directory)?;
    Ok(root)
}
