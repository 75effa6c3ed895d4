//! The ghost: a process of its own that sleeps on the pin until it is told how to end.

/// Bytes of an encoded [`Answer`].
pub const ANSWER_SIZE: usize = 8;

/// What a ghost's read of the pin gives: two little-endian 32-bit words, operation and argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The ghost is known and watched: it unblocks its signals (what is pending is then seen as delivered) and reads again.
    Armed,
    /// End with this code.
    Exit(u8),
    /// Die by this signal, 1 to 64, without a core; should it not kill, exit with 128 + signal.
    Die(u8),
    /// Stop by this signal: SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU. Reads again once continued.
    Stop(u8),
    /// Read again.
    Again,
}

impl Answer {
    /// The bytes that the pin's reader gets.
    pub const fn encode(self) -> [u8; ANSWER_SIZE] {
        let (operation, argument) = match self {
            Answer::Armed => (1, 0),
            Answer::Exit(code) => (2, code),
            Answer::Die(signal) => (3, signal),
            Answer::Stop(signal) => (4, signal),
            Answer::Again => (5, 0),
        };
        [operation, 0, 0, 0, argument, 0, 0, 0]
    }

    /// The answer in these bytes; `None` if it is none, which a ghost takes as [`Answer::Again`].
    pub const fn decode(bytes: [u8; ANSWER_SIZE]) -> Option<Answer> {
        let [operation, 0, 0, 0, argument, 0, 0, 0] = bytes else {
            return None;
        };
        match operation {
            1 => Some(Answer::Armed),
            2 => Some(Answer::Exit(argument)),
            3 if argument >= 1 && argument <= 64 => Some(Answer::Die(argument)),
            4 if argument >= 1 && argument <= 64 => Some(Answer::Stop(argument)),
            5 => Some(Answer::Again),
            _ => None,
        }
    }
}
