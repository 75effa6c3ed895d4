//! How the ranks ended, and how bpsh itself ends because of it. Pure.

use ghost_proto::client::{StartFailed, StartStage};
use ghost_proto::status::WaitStatus;

/// A rank's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Ended(WaitStatus),
    /// Its node was lost, and its processes with it.
    Lost,
    /// It never ran; counts as this exit code.
    NotStarted(u8),
    /// It was ended because of `--timeout`, or was to begin only after it.
    TimedOut,
    /// It was ended because of `--halt` or an interrupt, or was to begin only after it: says nothing about success.
    Halted,
}

/// Exit code for what never ran for any other reason than exec's.
pub const NOT_RUN: u8 = 125;
/// Exit code when the time was over, as timeout(1) has it.
pub const TIMED_OUT: u8 = 124;
/// The most failures that `--exit=count` tells apart.
const MOST_COUNTED: usize = 100;

/// Which exit code several ranks make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum ExitRule {
    /// The largest
    #[default]
    Max,
    /// That of the first that failed, in time
    First,
    /// That of the first process
    Rank0,
    /// How many failed, at most 100
    Count,
}

/// Signals by which a user at a terminal means all that runs.
const FROM_KEYBOARD: [i32; 2] = [nix::libc::SIGINT, nix::libc::SIGQUIT];

/// How bpsh ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Exit(u8),
    Signal(u8),
}

impl Outcome {
    /// As a shell counts it; `None`: it does not count.
    pub fn code(self) -> Option<u8> {
        match self {
            Outcome::Ended(status) => Some(status.shell_code()),
            Outcome::Lost => Some(WaitStatus::KILLED.shell_code()),
            Outcome::NotStarted(code) => Some(code),
            Outcome::TimedOut => Some(TIMED_OUT),
            Outcome::Halted => None,
        }
    }

    pub fn failed(self) -> bool {
        self.code().is_some_and(|code| code != 0)
    }

    /// For people, what there is to say about an end that is no success; empty if there is nothing.
    pub fn remark(self) -> String {
        match self {
            Outcome::Ended(WaitStatus::Exited(0)) | Outcome::NotStarted(_) => String::new(),
            Outcome::Ended(WaitStatus::Exited(code)) => format!("failed, exit {code}"),
            Outcome::Ended(WaitStatus::Signaled { signal, core }) => {
                format!("signalled, {}{}", signal_name(signal), if core { ", core dumped" } else { "" })
            }
            Outcome::Lost => "lost".to_owned(),
            Outcome::TimedOut => "timed out".to_owned(),
            Outcome::Halted => "halted".to_owned(),
        }
    }
}

/// `SIGTERM`, or `signal 40`.
pub fn signal_name(signal: u8) -> String {
    match nix::sys::signal::Signal::try_from(i32::from(signal)) {
        Ok(known) => known.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}

/// `outcomes` by rank; `order`: the ranks in the order of their ends.
///
/// One rank alone: as the program did. Of several, the one that decides is a status, except that SIGINT and SIGQUIT stay signals: a
/// shell gives up the rest of its line or loop only if what it ran dies of Ctrl-C (bash(1), SIGNALS). What ran out of time is 124
/// whatever others did, except where rank 0 or the count was asked for.
pub fn verdict(rule: ExitRule, outcomes: &[Outcome], order: &[usize]) -> Verdict {
    let as_one = |outcome: &Outcome| match outcome {
        Outcome::Ended(WaitStatus::Signaled { signal, .. }) => Verdict::Signal(*signal),
        Outcome::Lost => Verdict::Signal(9),
        other => Verdict::Exit(other.code().unwrap_or(0)),
    };
    let as_one_of_many = |outcome: &Outcome| match as_one(outcome) {
        Verdict::Signal(signal) if !FROM_KEYBOARD.contains(&i32::from(signal)) => {
            Verdict::Exit(outcome.code().unwrap_or(0))
        }
        other => other,
    };
    let timed_out = outcomes.contains(&Outcome::TimedOut);
    match (rule, outcomes) {
        (_, []) => Verdict::Exit(NOT_RUN),
        (ExitRule::Max | ExitRule::First | ExitRule::Rank0, [one]) => as_one(one),
        (ExitRule::Rank0, [first, ..]) => as_one_of_many(first),
        (ExitRule::Count, all) => {
            let failed = all.iter().filter(|outcome| outcome.failed()).count();
            Verdict::Exit(u8::try_from(failed.min(MOST_COUNTED)).unwrap_or(u8::MAX))
        }
        (ExitRule::Max | ExitRule::First, _) if timed_out => Verdict::Exit(TIMED_OUT),
        (ExitRule::Max, all) => {
            let counted = all.iter().filter(|outcome| outcome.code().is_some());
            counted.max_by_key(|outcome| outcome.code()).map_or(Verdict::Exit(0), as_one_of_many)
        }
        (ExitRule::First, all) => {
            let first = order.iter().filter_map(|rank| all.get(*rank)).find(|outcome| outcome.failed());
            first.map_or(Verdict::Exit(0), as_one_of_many)
        }
    }
}

/// Why a rank did not start, as a person reads it (after `N: `), and what it counts as. `files`: what was to be its standard
/// input, output and error; `directory`: where it was to run.
pub fn not_started(failure: &StartFailed, program: &str, directory: &str, files: [&str; 3]) -> (String, u8) {
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
            (reason, code)
        }
        StartStage::Reach => (format!("unreachable: {reason}"), NOT_RUN),
        StartStage::Root => (format!("not started: {reason}; `bpctl -r` sets another"), NOT_RUN),
        StartStage::Create | StartStage::Prepare => (format!("not started: {reason}"), NOT_RUN),
        StartStage::Directory => (format!("not started: {directory}: {reason}"), NOT_RUN),
        StartStage::Stdin => (format!("not started: {}: {reason}", files[0]), NOT_RUN),
        StartStage::Stdout => (format!("not started: {}: {reason}", files[1]), NOT_RUN),
        StartStage::Stderr => (format!("not started: {}: {reason}", files[2]), NOT_RUN),
    }
}

/// strerror(3).
pub fn describe(errno: i32) -> String {
    crate::connection::plain(&std::io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn exited(code: u8) -> Outcome {
        Outcome::Ended(WaitStatus::Exited(code))
    }

    const fn signaled(signal: u8) -> Outcome {
        Outcome::Ended(WaitStatus::Signaled { signal, core: false })
    }

    fn max(outcomes: &[Outcome]) -> Verdict {
        verdict(ExitRule::Max, outcomes, &[])
    }

    #[test]
    fn one_rank_ends_bpsh_as_it_ended() {
        for rule in [ExitRule::Max, ExitRule::First, ExitRule::Rank0] {
            for code in 0..=255 {
                assert_eq!(verdict(rule, &[exited(code)], &[0]), Verdict::Exit(code));
            }
            for signal in 1..=64 {
                assert_eq!(verdict(rule, &[signaled(signal)], &[0]), Verdict::Signal(signal));
            }
            assert_eq!(verdict(rule, &[Outcome::NotStarted(127)], &[0]), Verdict::Exit(127));
            assert_eq!(verdict(rule, &[Outcome::TimedOut], &[0]), Verdict::Exit(124));
            assert_eq!(verdict(rule, &[Outcome::Lost], &[0]), Verdict::Signal(9));
        }
        assert_eq!(verdict(ExitRule::Count, &[signaled(9)], &[0]), Verdict::Exit(1));
    }

    #[test]
    fn several_end_it_with_the_largest() {
        assert_eq!(max(&[exited(0), exited(3), exited(1)]), Verdict::Exit(3));
        assert_eq!(max(&[exited(0), signaled(9)]), Verdict::Exit(137));
        assert_eq!(max(&[exited(200), signaled(9)]), Verdict::Exit(200));
        assert_eq!(max(&[exited(0), Outcome::NotStarted(NOT_RUN)]), Verdict::Exit(125));
        assert_eq!(max(&[exited(200), Outcome::TimedOut]), Verdict::Exit(124));
        assert_eq!(max(&[exited(3), Outcome::Halted]), Verdict::Exit(3));
        assert_eq!(max(&[exited(0), Outcome::Lost]), Verdict::Exit(137));
        assert_eq!(max(&[]), Verdict::Exit(125));
        for signal in [2, 3] {
            assert_eq!(max(&[exited(0), signaled(signal), Outcome::Halted]), Verdict::Signal(signal));
            assert_eq!(verdict(ExitRule::First, &[signaled(signal), signaled(15)], &[0, 1]), Verdict::Signal(signal));
            assert_eq!(verdict(ExitRule::Rank0, &[signaled(signal), exited(1)], &[1, 0]), Verdict::Signal(signal));
            assert_eq!(verdict(ExitRule::Count, &[signaled(signal), exited(1)], &[1, 0]), Verdict::Exit(2));
        }
        assert_eq!(max(&[signaled(2), Outcome::Lost]), Verdict::Exit(137));
        assert_eq!(max(&[signaled(2), exited(200)]), Verdict::Exit(200));
    }

    #[test]
    fn other_rules() {
        let outcomes = [exited(2), exited(0), exited(9), signaled(15), Outcome::Halted];
        assert_eq!(verdict(ExitRule::First, &outcomes, &[1, 3, 4, 0, 2]), Verdict::Exit(143));
        assert_eq!(verdict(ExitRule::First, &outcomes, &[2, 1, 3, 0, 4]), Verdict::Exit(9));
        assert_eq!(verdict(ExitRule::First, &[exited(0), exited(0)], &[1, 0]), Verdict::Exit(0));
        assert_eq!(verdict(ExitRule::Rank0, &outcomes, &[1]), Verdict::Exit(2));
        assert_eq!(verdict(ExitRule::Count, &outcomes, &[1]), Verdict::Exit(3));
        assert_eq!(verdict(ExitRule::Count, &vec![exited(1); 5000], &[]), Verdict::Exit(100));
    }

    proptest! {
        /// Whatever the rule: success if and only if nobody failed (rank 0 alone speaks for itself).
        #[test]
        fn success_means_that_nobody_failed(codes in prop::collection::vec(0u8..4, 2..20)) {
            let outcomes: Vec<Outcome> = codes.iter().map(|code| match code {
                0 | 1 => exited(0),
                2 => exited(5),
                _ => Outcome::Halted,
            }).collect();
            let order: Vec<usize> = (0..outcomes.len()).collect();
            let failed = outcomes.iter().any(|outcome| outcome.failed());
            for rule in [ExitRule::Max, ExitRule::First, ExitRule::Count] {
                prop_assert_eq!(verdict(rule, &outcomes, &order) != Verdict::Exit(0), failed);
            }
            prop_assert_eq!(verdict(ExitRule::Rank0, &outcomes, &order) != Verdict::Exit(0), outcomes[0].failed());
        }
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
            (failed(StartStage::Create, 11, ""), "not started: Resource temporarily unavailable", 125),
            (failed(StartStage::Reach, 0, "down"), "unreachable: down", 125),
            (failed(StartStage::Prepare, 1, "setgroups"), "not started: setgroups: Operation not permitted", 125),
            (failed(StartStage::Directory, 2, ""), "not started: /data: No such file or directory", 125),
            (failed(StartStage::Stdout, 13, ""), "not started: out: Permission denied", 125),
            (failed(StartStage::Reach, 0, ""), "unreachable: could not be started", 125),
        ] {
            assert_eq!(not_started(&failure, "sim", "/data", ["in", "out", "err"]), (text.to_owned(), code));
        }
    }

    #[test]
    fn what_is_said_of_an_end() {
        for (outcome, text) in [
            (exited(0), ""),
            (exited(3), "failed, exit 3"),
            (signaled(15), "signalled, SIGTERM"),
            (signaled(40), "signalled, signal 40"),
            (Outcome::Ended(WaitStatus::Signaled { signal: 11, core: true }), "signalled, SIGSEGV, core dumped"),
            (Outcome::TimedOut, "timed out"),
            (Outcome::Lost, "lost"),
        ] {
            assert_eq!(outcome.remark(), text);
        }
    }
}
