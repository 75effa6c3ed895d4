//! Users, groups, capabilities, and what they may.

use anyhow::Result;
use ghost_sys::signal::send;
use ghost_sys::trials::fork;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};

use crate::case::Case;
use crate::fork::waited;
use crate::siginfo::sleeps;

const STATUS: &[&str] = &["/bin/grep", "-E", "^(Uid|Gid|Groups|Cap...|NoNewPrivs):", "/proc/self/status"];

pub const CASES: &[Case] = &[
    Case::plain("identity", STATUS),
    Case::plain("identity-of-root", STATUS).root(),
    Case::plain("id", &["/usr/bin/id"]),
    Case::own("a-user-stays-himself", stays_himself),
    Case::own("root-becomes-a-user", becomes_a_user).root(),
    Case::own("signals-across-users", signals_across_users).root(),
    Case::own("only-roots-file", only_roots_file),
    Case::own("owner-of-a-new-file", owner),
    Case::own("real-and-effective", real_and_effective).root(),
    Case::own("user-may-not-wait-for-others", not_others),
    Case::plain("user-by-setup", STATUS).after(|_| as_somebody(4711, 4712, &[5, 6])).root(),
    Case::plain("many-groups", STATUS).after(|_| as_somebody(1000, 1000, &(100..400).collect::<Vec<_>>())).root(),
];

/// The launcher itself is of this user.
fn as_somebody(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    setgroups(&groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>())?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

fn stays_himself() -> Result<()> {
    let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
    say!("{:?}", setresuid(root, root, root));
    say!("{:?}", setresgid(wheel, wheel, wheel));
    say!("{:?}", setgroups(&[wheel]));
    say!("{:?}", nix::unistd::chroot("/tmp"));
    say!("{:?}", std::fs::File::open("/etc/shadow").map(|_| ()).map_err(|why| why.kind()));
    Ok(())
}

fn becomes_a_user() -> Result<()> {
    as_somebody(1001, 1002, &[1003])?;
    say!("{:?} {:?}", getresuid()?, getresgid()?);
    say!("back: {:?}", setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)));
    let status = std::process::Command::new(STATUS[0]).args(&STATUS[1..]).status()?;
    say!("{}", crate::fork::ended(status));
    Ok(())
}

fn signals_across_users() -> Result<()> {
    let victim = fork(|| u8::from(as_somebody(1001, 1001, &[]).is_err()) + sleeps())?;
    let root = fork(sleeps)?;
    let sender = fork(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if as_somebody(1000, 1000, &[]).is_err() {
            return 9;
        }
        let refused = |pid| send(pid, 15).is_err_and(|why| why.raw_os_error() == Some(1));
        u8::from(refused(victim)) + 2 * u8::from(refused(root))
    })?;
    waited(sender, 0)?;
    for pid in [victim, root] {
        send(pid, 9)?;
        waited(pid, 0)?;
    }
    Ok(())
}

fn only_roots_file() -> Result<()> {
    for path in ["/etc/shadow", "/root", "/proc/1/environ"] {
        say!(
            "{path}: {:?}",
            std::fs::File::open(path)
                .and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()))
                .map_err(|why| why.kind())
                .err()
        );
    }
    Ok(())
}

fn owner() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let path = format!("/tmp/reference-owner-{}", std::process::id());
    let file = std::fs::File::create(&path)?.metadata()?;
    say!("{} {}", file.uid(), file.gid());
    Ok(std::fs::remove_file(&path)?)
}

fn real_and_effective() -> Result<()> {
    setresuid(Uid::from_raw(1000), Uid::from_raw(1001), Uid::from_raw(0))?;
    say!("{:?}", getresuid()?);
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
    say!("{:?}", getresuid()?);
    Ok(())
}

fn not_others() -> Result<()> {
    say!("{:?}", waitpid(Pid::from_raw(1), None).err());
    Ok(())
}
