//! A member's own root: the host's as the read-only lower layer of an overlay whose upper layer is a tmpfs, with fresh
//! instances of everything that belongs to one machine (proc, sys, cgroup, bpf, devpts, shm, run, tmp).
//!
//! Invariant: nothing that happens below a member's root changes the host's, and no mount made here is visible outside.
//! Exceptions, by intent: device nodes, and disks other than the one of `/`, which are the host's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ghost_sys::mount::{Mount, is_below, mounts};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{PROGRAMS, Spec};

/// Where a member has something of its own, whatever the host has there.
const OWN: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// Filesystems that hold people's files. Everything else below `/` is machinery of the host.
const DISKS: [&str; 10] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "nfs4", "9p", "virtiofs"];

pub fn build(spec: &Spec) -> Result<()> {
    nix::unistd::sethostname(&spec.name).context("host name")?;
    // Before cgroup2 is mounted: a mount shows the tree of its maker's namespace (kernel/cgroup/cgroup.c,
    // cgroup_do_get_tree()), whose root is the cgroup in which the runner started this process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP).context("cgroup namespace")?;
    let disks = disks_besides_root()?;
    // Cut off first: nothing below may be seen outside.
    propagation("/", MsFlags::MS_PRIVATE)?;

    let scratch = &spec.scratch;
    filesystem("tmpfs", scratch, "mode=755")?;
    let (upper, work, root) = (scratch.join("upper"), scratch.join("work"), scratch.join("root"));
    for directory in [&upper, &work, &root] {
        fs::create_dir(directory).with_context(|| format!("{}", directory.display()))?;
    }
    let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    filesystem("overlay", &root, &layers)?;

    for disk in disks {
        bind(&disk.point, &inside(&root, &disk.point), MsFlags::empty())?;
    }
    machine(&root, spec.host_terminals)?;
    bind(&spec.programs, &inside(&root, Path::new(PROGRAMS)), MsFlags::empty())?;
    for path in &spec.visible {
        if OWN.iter().any(|own| is_below(path, Path::new(own))) {
            bind(path, &inside(&root, path), MsFlags::MS_REC)?;
        }
    }
    for path in &spec.hidden {
        let path = root.join(path.strip_prefix("/").unwrap_or(path));
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("hiding {}", path.display()))?;
        }
    }
    replace(&root.join("etc/hosts"), &spec.hosts)?;
    replace(&root.join("etc/hostname"), &format!("{}\n", spec.name))?;

    enter(&root)?;
    cgroups(&spec.service.name)
}

/// Everything that a machine has for itself.
fn machine(root: &Path, host_terminals: bool) -> Result<()> {
    let at = |path: &str| root.join(path);
    filesystem("proc", &at("proc"), "")?;
    filesystem("sysfs", &at("sys"), "")?;
    filesystem("cgroup2", &at("sys/fs/cgroup"), "")?;
    filesystem("bpf", &at("sys/fs/bpf"), "mode=700")?;
    if at("sys/fs/fuse/connections").is_dir() {
        filesystem("fusectl", &at("sys/fs/fuse/connections"), "")?;
    }
    bind(Path::new("/dev"), &at("dev"), MsFlags::empty())?;
    if host_terminals {
        bind(Path::new("/dev/pts"), &at("dev/pts"), MsFlags::empty())?;
    } else {
        filesystem("devpts", &at("dev/pts"), "newinstance,ptmxmode=0666,mode=620,gid=5")?;
    }
    filesystem("tmpfs", &at("dev/shm"), "mode=1777")?;
    if at("dev/mqueue").is_dir() {
        filesystem("mqueue", &at("dev/mqueue"), "")?;
    }
    filesystem("tmpfs", &at("run"), "mode=755")?;
    filesystem("tmpfs", &at("tmp"), "mode=1777")
}

/// Makes `root` the root of this mount namespace; the old one is left behind.
fn enter(root: &Path) -> Result<()> {
    nix::unistd::chdir(root).context("entering the new root")?;
    // pivot_root(2), NOTES: with both arguments ".", the old root is stacked on the new one and can be taken off.
    nix::unistd::pivot_root(".", ".").context("pivot_root (not possible where / is an initramfs)")?;
    umount2(".", MntFlags::MNT_DETACH).context("leaving the old root")?;
    nix::unistd::chdir("/").context("entering the new root")?;
    // As systemd leaves it on real machines, so that mounts propagate between namespaces of the member.
    propagation("/", MsFlags::MS_SHARED)
}

/// The cgroups that systemd would have made, and this process in the one of PID 1.
fn cgroups(service: &str) -> Result<()> {
    for path in ["init.scope", "user.slice", "system.slice", &format!("system.slice/{service}.service")] {
        let path = Path::new("/sys/fs/cgroup").join(path);
        fs::create_dir(&path).with_context(|| format!("{}", path.display()))?;
    }
    fs::write("/sys/fs/cgroup/init.scope/cgroup.procs", "0").context("moving to init.scope")
}

/// Mounted disks other than the one of `/`: an overlay shows only the empty directories below them.
fn disks_besides_root() -> Result<Vec<Mount>> {
    let all = mounts().context("mount table")?;
    let wanted = |mount: &Mount| {
        DISKS.contains(&mount.kind.as_str())
            && mount.point != Path::new("/")
            && !OWN.iter().any(|own| is_below(&mount.point, Path::new(own)))
    };
    Ok(all.into_iter().filter(wanted).collect())
}

fn inside(root: &Path, path: &Path) -> std::path::PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn bind(source: &Path, target: &Path, recursive: MsFlags) -> Result<()> {
    let what = || format!("mounting {} on {}", source.display(), target.display());
    if source.is_dir() {
        fs::create_dir_all(target).with_context(what)?;
    } else if !target.exists() {
        fs::write(target, "").with_context(what)?;
    }
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | recursive, None::<&str>).with_context(what)
}

fn filesystem(kind: &str, target: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("{}", target.display()))?;
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} on {} ({options})", target.display()))
}

fn propagation(path: &str, kind: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_REC | kind, None::<&str>)
        .with_context(|| format!("mount propagation of {path}"))
}

/// Writes a file of the member's own in place of the host's, also where that is a symbolic link to somewhere else.
fn replace(path: &Path, text: &str) -> Result<()> {
    if path.is_symlink() {
        fs::remove_file(path).with_context(|| format!("{}", path.display()))?;
    }
    fs::write(path, text).with_context(|| format!("{}", path.display()))
}
