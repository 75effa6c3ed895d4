//! How the ranks ended, and how bpsh itself ends because of it.

use ghost_proto::client::{StartFailed, StartStage};
use ghost_proto::status::WaitStatus;

/// A rank's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Ended(WaitStatus),
    /// It never ran; counts as this exit code.
    NotStarted(u8),
}

/// Exit code for what never ran for any other reason than exec's.
pub const NOT_RUN: u8 = 125;

/// How bpsh ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Exit(u8),
    Signal(u8),
}

/// One rank: as the program did. Several: the largest of exit code and 128 + signal.
pub fn verdict(outcomes: &[Outcome]) -> Verdict {
    if let [Outcome::Ended(WaitStatus::Signaled { signal, .. })] = outcomes {
        return Verdict::Signal(*signal);
    }
    let code = |outcome: &Outcome| match outcome {
        Outcome::Ended(status) => status.shell_code(),
        Outcome::NotStarted(code) => *code,
    };
    Verdict::Exit(outcomes.iter().map(code).max().unwrap_or(NOT_RUN))
}

/// Why a rank did not start, as a person reads it (after `N: `), and what it counts as.
pub fn not_started(failure: &StartFailed, program: &str) -> (String, Outcome) {
    let errno = i32::try_from(failure.errno).unwrap_or(0);
    let reason = match (failure.text.is_empty(), errno) {
        (true, 0) => "could not be started".to_owned(),
        (true, _) => describe(errno),
        (false, 0) => failure.text.clone(),
        (false, _) => format!("{}: {}", failure.text, describe(errno)),
    };
    match failure.stage() {
        StartStage::Exec => {
            let code = if errno == nix::errno::Errno::ENOENT as i32 { 127 } else { 126 };
            let reason = if failure.text.is_empty() { format!("{program}: {reason}") } else { reason };
            (reason, Outcome::NotStarted(code))
        }
        StartStage::Reach | StartStage::Create | StartStage::Prepare => (reason, Outcome::NotStarted(NOT_RUN)),
    }
}

/// strerror(3).
pub fn describe(errno: i32) -> String {
    crate::connection::plain(&std::io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn exited(code: u8) -> Outcome {
        Outcome::Ended(WaitStatus::Exited(code))
    }

    const fn signaled(signal: u8) -> Outcome {
        Outcome::Ended(WaitStatus::Signaled { signal, core: false })
    }

    #[test]
    fn one_rank_ends_bpsh_as_it_ended() {
        for code in 0..=255 {
            assert_eq!(verdict(&[exited(code)]), Verdict::Exit(code));
        }
        for signal in 1..=64 {
            assert_eq!(verdict(&[signaled(signal)]), Verdict::Signal(signal));
        }
        assert_eq!(verdict(&[Outcome::NotStarted(127)]), Verdict::Exit(127));
    }

    #[test]
    fn several_end_it_with_the_largest() {
        assert_eq!(verdict(&[exited(0), exited(3), exited(1)]), Verdict::Exit(3));
        assert_eq!(verdict(&[exited(0), signaled(9)]), Verdict::Exit(137));
        assert_eq!(verdict(&[exited(200), signaled(9)]), Verdict::Exit(200));
        assert_eq!(verdict(&[exited(0), Outcome::NotStarted(NOT_RUN)]), Verdict::Exit(125));
        assert_eq!(verdict(&[]), Verdict::Exit(125));
    }

    #[test]
    fn why_it_did_not_start() {
        let failed = |stage: StartStage, errno, text: &str| StartFailed {
            rank: 0,
            stage: i32::from(stage),
            errno,
            text: text.to_owned(),
        };
        for (failure, text, code) in [
            (failed(StartStage::Exec, 2, ""), "sim: No such file or directory", 127),
            (failed(StartStage::Exec, 13, ""), "sim: Permission denied", 126),
            (failed(StartStage::Create, 11, ""), "Resource temporarily unavailable", 125),
            (failed(StartStage::Reach, 0, "down"), "down", 125),
            (failed(StartStage::Prepare, 1, "setgroups"), "setgroups: Operation not permitted", 125),
            (failed(StartStage::Reach, 0, ""), "could not be started", 125),
        ] {
            assert_eq!(not_started(&failure, "sim"), (text.to_owned(), Outcome::NotStarted(code)));
        }
    }
}
