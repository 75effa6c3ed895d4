//! How a process ended, and what it used.

/// A process's end, as wait(2) tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitStatus {
    /// It called exit with this code, 0 to 255.
    Exited(u8),
    /// A signal ended it, 1 to 64.
    Signaled { signal: u8, core: bool },
}

impl WaitStatus {
    /// SIGKILL without a core: what a lost process is said to have died of.
    pub const KILLED: WaitStatus = WaitStatus::Signaled { signal: 9, core: false };

    /// From the wait status word of wait(2); `None` for the words that do not mean an end (stopped, continued).
    pub const fn from_raw(raw: i32) -> Option<WaitStatus> {
        let signal = (raw & 0x7f) as u8;
        match signal {
            0 => Some(WaitStatus::Exited(((raw >> 8) & 0xff) as u8)),
            0x7f => None,
            _ => Some(WaitStatus::Signaled { signal, core: raw & 0x80 != 0 }),
        }
    }

    /// The wait status word of wait(2).
    pub const fn to_raw(self) -> i32 {
        match self {
            WaitStatus::Exited(code) => (code as i32) << 8,
            WaitStatus::Signaled { signal, core } => signal as i32 | if core { 0x80 } else { 0 },
        }
    }

    /// The number a shell shows: the code, or 128 + signal.
    pub const fn shell_code(self) -> u8 {
        match self {
            WaitStatus::Exited(code) => code,
            WaitStatus::Signaled { signal, .. } => 128u8.wrapping_add(signal),
        }
    }
}

/// What a process used, as getrusage(2) counts it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Usage {
    /// User time in microseconds.
    #[prost(uint64, tag = "1")]
    pub user_us: u64,
    /// System time in microseconds.
    #[prost(uint64, tag = "2")]
    pub system_us: u64,
    /// Largest resident set in KiB.
    #[prost(uint64, tag = "3")]
    pub max_rss_kib: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_survives_the_wait_word() {
        for code in 0..=255 {
            let status = WaitStatus::Exited(code);
            assert_eq!(WaitStatus::from_raw(status.to_raw()), Some(status));
        }
        for signal in 1..=64 {
            for core in [false, true] {
                let status = WaitStatus::Signaled { signal, core };
                assert_eq!(WaitStatus::from_raw(status.to_raw()), Some(status));
                assert_eq!(status.shell_code(), 128 + signal);
            }
        }
    }

    #[test]
    fn stops_are_not_ends() {
        assert_eq!(WaitStatus::from_raw(0x137f), None);
        assert_eq!(WaitStatus::from_raw(0xffff), None);
    }
}
