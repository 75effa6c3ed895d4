//! Making a root file system. Needs root (debootstrap changes its root directory and mounts there; mounts and processes of it end with it).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::recipe::{self, Release};

/// Bytes of the file system; the image is sparse.
const SIZE: &str = "3G";

/// It takes a minute or two; a mirror that does not answer is not waited for.
const DEBOOTSTRAP_SECONDS: &str = "900";

/// Returns a directory with the image and the kernel, to be renamed.
pub fn build(release: Release, cache: &Path) -> Result<PathBuf> {
    let work = cache.join(format!("{}.making", release.suite()));
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    let tree = work.join("tree");
    let made = cache.join(format!("{}-new", release.suite()));
    std::fs::create_dir_all(&made)?;
    // The tree is thrown away: nothing in it needs to survive a power failure.
    write(&tree.join("etc/dpkg/dpkg.cfg.d/unsafe-io"), "force-unsafe-io\n")?;
    run(Command::new("timeout")
        .arg(DEBOOTSTRAP_SECONDS)
        .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", recipe::PACKAGES.join(",")))
        .args([release.suite().as_ref(), tree.as_os_str()]))?;
    kernel(&tree, &made)?;
    for (path, contents) in recipe::files() {
        write(&tree.join(path.trim_start_matches('/')), &contents)?;
    }
    inside(&tree, "systemctl", &["enable", "systemd-networkd", "vmtests-agent"])?;
    inside(&tree, "systemctl", &[&["mask"], recipe::MASKED].concat())?;
    inside(&tree, "useradd", &["--create-home", "--shell", "/bin/bash", "--uid", "1000", recipe::USER])?;
    for useless in ["var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "usr/share/locale", "etc/dpkg/dpkg.cfg.d"] {
        std::fs::remove_dir_all(tree.join(useless))?;
        std::fs::create_dir(tree.join(useless))?;
    }
    run(Command::new("mkfs.ext4").args(["-q", "-L", "root", "-d"]).arg(&tree).arg(made.join("root.ext4")).arg(SIZE))?;
    std::fs::remove_dir_all(work)?;
    Ok(made)
}

/// The kernel and its modules, without the package's scripts: these would want a boot loader and an initramfs. Debian's cloud kernel
/// has NVMe disks and ext4 built in and needs neither.
fn kernel(tree: &Path, made: &Path) -> Result<()> {
    inside(tree, "apt-get", &["-qq", "update"])?;
    let depends = inside(tree, "apt-cache", &["depends", recipe::KERNEL])?;
    let package = depends
        .split_whitespace()
        .find(|word| word.starts_with("linux-image-"))
        .filter(|word| *word != recipe::KERNEL)
        .or_else(|| depends.split_whitespace().filter(|word| word.starts_with("linux-image-")).nth(1))
        .with_context(|| format!("{} depends on no kernel: {depends}", recipe::KERNEL))?;
    inside(tree, "sh", &["-c", &format!("cd /tmp && apt-get -qq download {package}")])?;
    let debs = names(&tree.join("tmp"), "linux-image-")?;
    let [deb] = debs.as_slice() else { bail!("{} kernels downloaded", debs.len()) };
    let unpacked = tree.join("tmp/kernel");
    run(Command::new("dpkg-deb").arg("-x").args([deb, &unpacked]))?;
    let images = names(&unpacked.join("boot"), "vmlinuz-")?;
    let [image] = images.as_slice() else { bail!("{} kernels in {package}", images.len()) };
    std::fs::copy(image, made.join("vmlinuz"))?;
    let modules = [unpacked.join("usr/lib/modules"), unpacked.join("lib/modules")];
    let modules = modules.iter().find(|path| path.is_dir()).context("a kernel without modules")?;
    std::fs::rename(modules, tree.join("usr/lib/modules"))?;
    let version = image.file_name().unwrap_or_default().to_string_lossy();
    inside(tree, "depmod", &[version.trim_start_matches("vmlinuz-")])?;
    std::fs::remove_dir_all(unpacked)?;
    std::fs::remove_file(deb)?;
    Ok(())
}

/// Entries of a directory whose names begin so.
fn names(directory: &Path, start: &str) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(start) {
            names.push(entry.path());
        }
    }
    Ok(names)
}

fn write(path: &Path, contents: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    std::fs::write(path, contents).with_context(|| path.display().to_string())
}

fn inside(tree: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    run(Command::new("chroot").arg(tree).arg(program).args(arguments))
}

/// Runs a command and returns what it has printed; all of that is shown if it fails.
fn run(command: &mut Command) -> Result<String> {
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LANG", "C.UTF-8").stdin(Stdio::null());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
