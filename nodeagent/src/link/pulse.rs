//! Whether the holder still does anything.
//!
//! It ends its processes itself when its lease is over. One that stands still (SIGSTOP, a debugger, a freezer) does not, while the master
//! declares them dead: so who is silent for a lease and does not answer is ended, and the kernel ends its processes with it
//! (kernel/pid_namespace.c, `zap_pid_ns_processes()`). A holder that has just been started counts as heard: else an agent that could not
//! reach its master for a lease would end each one that takes longer than [`ANSWER`] to begin, for ever.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long it may take to answer a new connection. Well below the margin behind a lease (5 s), after which the master gives its verdict.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest lease that a master can give: as long as no other is known.
const LONGEST: Duration = Duration::from_secs(40);

#[derive(Debug)]
pub struct Pulse {
    heard: Cell<Instant>,
    lease: Cell<Duration>,
}

impl Pulse {
    pub fn new() -> Pulse {
        Pulse { heard: Cell::new(Instant::now()), lease: Cell::new(LONGEST) }
    }

    /// The holder has said something, or has just been started.
    pub fn beat(&self) {
        self.heard.set(Instant::now());
    }

    /// The master has said how long a lease is.
    pub fn lease_is(&self, lease: Duration) {
        self.lease.set(lease.min(LONGEST));
    }

    /// Comes back if the holder has nothing to say to a connection that begins now, and its lease must be over; else never.
    pub async fn is_missed(&self) {
        let since = Instant::now();
        loop {
            match verdict(since, self.heard.get(), self.lease.get(), Instant::now()) {
                Verdict::Answered => return std::future::pending().await,
                Verdict::Later(at) => sleep_until(at).await,
                Verdict::Missed => return,
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Answered,
    /// To be looked at again then.
    Later(Instant),
    Missed,
}

/// About a holder with a connection that began at `since`. In answer to each lease it speaks, so one that was silent for the length of a lease
/// has had none since.
fn verdict(since: Instant, heard: Instant, lease: Duration, now: Instant) -> Verdict {
    let at = (since + ANSWER).max(heard + lease);
    match () {
        () if heard >= since => Verdict::Answered,
        () if now < at => Verdict::Later(at),
        () => Verdict::Missed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_was_silent_for_a_lease_has_a_moment_to_answer() {
        let heard = Instant::now();
        let since = heard + LEASE + SECOND;
        assert_eq!(verdict(since, heard, LEASE, since), Verdict::Later(since + ANSWER));
        assert_eq!(verdict(since, heard, LEASE, since + ANSWER), Verdict::Missed);
        assert_eq!(verdict(since, since + ANSWER / 2, LEASE, since + ANSWER), Verdict::Answered);
    }

    /// It may take seconds to its first word on a slow machine, and its agent may have heard nobody for hours.
    #[test]
    fn who_has_just_been_started_has_a_whole_lease() {
        let pulse = Pulse::new();
        pulse.heard.set(Instant::now() - 10 * LONGEST);
        pulse.beat();
        let since = Instant::now();
        let later = since + 5 * ANSWER;
        assert!(matches!(verdict(since, pulse.heard.get(), LEASE, later), Verdict::Later(_) | Verdict::Answered));
    }

    #[test]
    fn who_was_heard_lately_has_the_rest_of_its_lease() {
        let heard = Instant::now();
        let since = heard + 5 * SECOND;
        assert_eq!(verdict(since, heard, LEASE, since + ANSWER), Verdict::Later(heard + LEASE));
        assert_eq!(verdict(since, heard, LEASE, heard + LEASE), Verdict::Missed);
        // However late, an answer is one.
        assert_eq!(verdict(since, heard + LEASE, LEASE, heard + LEASE), Verdict::Answered);
    }
}
