//! What a program becomes by exec, and what stays.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, bail};
use ghost_sys::quiet::bit;
use ghost_sys::signal::{Disposition, send, set_blocked, set_disposition};

use crate::asking::process;
use crate::case::Case;

pub const CASES: &[Case] = &[
    Case::own("keeps-its-number", keeps_its_number),
    Case::own("keeps-masks", keeps_masks),
    Case::own("keeps-pending", keeps_pending),
    Case::own("from-a-thread", from_a_thread),
    Case::own("closes-on-exec", closes_on_exec),
    Case::own("odd-arguments", odd_arguments),
    Case::own("not-there", || refused("/no/such/program")),
    Case::own("not-executable", || refused("/etc/passwd")),
    Case::own("a-directory", || refused("/tmp")),
    Case::own("too-long", too_long),
    Case::own("chain-of-ten", chain),
    Case::own("script", script),
    Case::own("argv0", argv0),
    Case::plain("odd-words", &["/usr/bin/printf", "[%s]\\n", "", " ", "a b", "*", "$HOME", "\u{e4}\n\"'", "-"]),
    Case::plain("found-in-path", &["printf", "%s\\n", "found"]),
    Case::shell("name-of-the-shell", "cat /proc/$$/comm; cat /proc/self/comm"),
];

fn becomes(words: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = words else { bail!("no program") };
    Err(Command::new(program).args(arguments).exec().into())
}

fn keeps_its_number() -> Result<()> {
    say!("{}", process(std::process::id()));
    becomes(&["/bin/sh", "-c", "echo \"<$$>\""])
}

fn keeps_masks() -> Result<()> {
    set_blocked(bit(2) | bit(40))?;
    for signal in [1, 15, 34] {
        set_disposition(signal, Disposition::Ignore)?;
    }
    ghost_sys::trials::handle(12, ghost_sys::trials::How::default())?;
    becomes(&["/bin/grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"])
}

fn keeps_pending() -> Result<()> {
    set_blocked(bit(10) | bit(45))?;
    let own = std::process::id().cast_signed();
    send(own, 10)?;
    crate::asking::ask("queue 45 9")?;
    becomes(&["/bin/grep", "-E", "ShdPnd", "/proc/self/status"])
}

fn from_a_thread() -> Result<()> {
    say!("{}", process(std::process::id()));
    let thread = std::thread::spawn(|| becomes(&["/bin/sh", "-c", "echo \"<$$>\"; ls /proc/$$/task | wc -l"]));
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("the thread panicked"),
    }
}

fn closes_on_exec() -> Result<()> {
    let file = std::fs::File::open("/etc/passwd")?;
    let kept = nix::unistd::dup(file.as_fd())?;
    say!("two more are open");
    let _keep = kept;
    becomes(&["/bin/sh", "-c", "ls /proc/$$/fd"])
}

fn odd_arguments() -> Result<()> {
    let words = [&b""[..], b" ", b"\xff\xfe", b"a\nb", b"--", b"\\"];
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        "for word; do printf '[%s]' \"$word\"; done; echo; tr '\\0' '\\n' < /proc/$$/cmdline | wc -l",
        "sh",
    ]);
    Err(command.args(words.map(OsStr::from_bytes)).exec().into())
}

fn refused(program: &str) -> Result<()> {
    let why = Command::new(program).exec();
    say!("{program}: {why}");
    Ok(())
}

fn too_long() -> Result<()> {
    // 32 pages are the most that one argument may have (MAX_ARG_STRLEN).
    let longest = "x".repeat(32 * 4096 - 1);
    let status = Command::new("/bin/true").arg(&longest).status()?;
    say!("the longest: {}", crate::fork::ended(status));
    let why = Command::new("/bin/true").arg(longest + "x").status();
    say!("longer: {}", why.map_or_else(|why| why.to_string(), crate::fork::ended));
    Ok(())
}

fn chain() -> Result<()> {
    let line = "n=$1; if [ $n -gt 0 ]; then exec /bin/sh -c \"$2\" sh $((n - 1)) \"$2\"; fi; echo \"<$$>\"";
    becomes(&["/bin/sh", "-c", line, "sh", "10", line])
}

fn script() -> Result<()> {
    let directory = format!("/tmp/reference-script-{}", std::process::id());
    std::fs::create_dir(&directory)?;
    let path = format!("{directory}/script");
    std::fs::write(&path, "#!/bin/sh -e\necho \"$# $1 <$$>\"\ncat /proc/$$/comm\n")?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let status = Command::new(&path).arg("one two").status()?;
    say!("{}", crate::fork::ended(status));
    // Without #! the kernel does not know it, a shell does.
    std::fs::write(&path, "echo plain\n")?;
    let status = Command::new("/bin/sh").args(["-c", &path]).status()?;
    say!("{}", crate::fork::ended(status));
    Ok(std::fs::remove_dir_all(&directory)?)
}

fn argv0() -> Result<()> {
    Err(Command::new("/bin/sh").arg0("-another").args(["-c", "echo $0; cat /proc/$$/comm"]).exec().into())
}
