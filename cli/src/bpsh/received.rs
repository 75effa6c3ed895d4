//! What a signal sent to bpsh means to it.
//!
//! bpsh stands for its programs. A signal to its process group reaches the ghosts as well, and what other processes send to
//! bpsh alone is passed on by ghostd, who sees it: the programs decide, bpsh ends as they do.

use ghost_sys::quiet::{Inherited, Received, bit};
use nix::libc;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// Go on.
    Nothing,
    /// A child has changed; its PID, as far as it is known.
    Child(i32),
    /// Look at the terminal again.
    Continued,
    /// Stop by this signal.
    Stop(i32),
    /// Die by this signal.
    Die(i32),
}

/// The meaning of a signal; `programs` says that there are programs running who decide, `own` is this process's PID.
pub fn meaning(received: Received, inherited: Inherited, programs: bool, own: i32) -> Meaning {
    let signal = received.signal;
    match signal {
        libc::SIGCHLD => Meaning::Child(received.pid),
        libc::SIGCONT => Meaning::Continued,
        libc::SIGURG | libc::SIGWINCH => Meaning::Nothing,
        // By our own writing: SIGPIPE, SIGXFSZ. The write has failed as well, and that is dealt with.
        _ if received.pid == own => Meaning::Nothing,
        _ if (inherited.ignored | inherited.blocked) & bit(signal) != 0 => Meaning::Nothing,
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU if !programs => Meaning::Stop(signal),
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Meaning::Nothing,
        // What a terminal sends, and everything that a process does; the rest is the kernel's word about bpsh itself.
        libc::SIGINT | libc::SIGQUIT | libc::SIGTERM | libc::SIGHUP if programs => Meaning::Nothing,
        _ if programs && received.code <= 0 => Meaning::Nothing,
        _ => Meaning::Die(signal),
    }
}

/// Of a bpsh on a node: whether a signal has come from somebody there, and is to be passed on by this process. What has come to its ghost,
/// or to that one's group, ghostd has seen; the holder sends it here under a negative code.
pub fn is_for_programs(received: Received, inherited: Inherited, own: i32) -> bool {
    let signal = received.signal;
    let ignored = (inherited.ignored | inherited.blocked) & bit(signal) != 0;
    let about_itself =
        matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH | libc::SIGTTIN | libc::SIGTTOU);
    let keyboard = matches!(signal, libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP | libc::SIGHUP);
    // Of one that came before anybody looked the sender is not known.
    let from_process = received.code == 0 && received.pid != 0 && received.pid != own;
    !ignored && !about_itself && (from_process || received.code > 0 && keyboard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings() {
        let nothing = Inherited { blocked: 0, ignored: 0 };
        let nohup = Inherited { ignored: bit(libc::SIGHUP), blocked: bit(libc::SIGUSR1) };
        const KERNEL: i32 = 128;
        for (signal, pid, inherited, programs, expected) in [
            (libc::SIGINT, 5, nothing, true, Meaning::Nothing),
            (libc::SIGINT, 5, nothing, false, Meaning::Die(libc::SIGINT)),
            (libc::SIGTSTP, 0, nothing, true, Meaning::Nothing),
            (libc::SIGTSTP, 0, nothing, false, Meaning::Stop(libc::SIGTSTP)),
            (libc::SIGHUP, 0, nohup, false, Meaning::Nothing),
            (libc::SIGUSR1, 5, nohup, true, Meaning::Nothing),
            (libc::SIGUSR2, 5, nohup, true, Meaning::Nothing),
            (libc::SIGUSR2, 5, nohup, false, Meaning::Die(libc::SIGUSR2)),
            (libc::SIGPIPE, 100, nothing, true, Meaning::Nothing),
            (libc::SIGPIPE, 5, nothing, true, Meaning::Nothing),
            (libc::SIGXCPU, 0, nothing, true, Meaning::Die(libc::SIGXCPU)),
            (libc::SIGHUP, 0, nothing, true, Meaning::Nothing),
            (libc::SIGWINCH, 0, nothing, true, Meaning::Nothing),
            (libc::SIGCONT, 5, nothing, true, Meaning::Continued),
            (libc::SIGCHLD, 7, nothing, true, Meaning::Child(7)),
            (40, 7, nothing, true, Meaning::Nothing),
            (40, 7, nothing, false, Meaning::Die(40)),
        ] {
            let code = if pid == 0 { KERNEL } else { 0 };
            assert_eq!(meaning(Received { signal, pid, code }, inherited, programs, 100), expected, "{signal}");
        }
    }
}
