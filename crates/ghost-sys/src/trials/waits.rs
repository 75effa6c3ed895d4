//! waitpid(2) with every status there is: nix knows no real-time signals, std no stops.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// waitpid(2): `pid` and `flags` as there. `None`: nothing yet (WNOHANG).
///
/// # Errors
/// ECHILD, EINVAL.
pub fn wait(pid: i32, flags: i32) -> io::Result<Option<(i32, ExitStatus)>> {
    loop {
        let mut status = 0;
        // SAFETY: one int is written.
        let result = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        if result >= 0 {
            return Ok((result > 0).then(|| (result, ExitStatus::from_raw(status))));
        }
        let why = io::Error::last_os_error();
        if why.kind() != io::ErrorKind::Interrupted {
            return Err(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "waiting for it by number is what is tried")]
    fn a_real_time_signal_is_a_status() {
        let child = std::process::Command::new("/bin/sleep").arg("100").spawn().expect("sleep");
        let pid = child.id().cast_signed();
        assert_eq!(wait(pid, libc::WNOHANG).expect("wait"), None);
        crate::signal::send(pid, 40).expect("kill");
        let (who, status) = wait(pid, 0).expect("wait").expect("a status");
        assert_eq!((who, status.signal()), (pid, Some(40)));
        assert_eq!(wait(pid, 0).expect_err("it has been waited for").raw_os_error(), Some(libc::ECHILD));
    }
}
