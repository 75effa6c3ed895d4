//! Faults that are planted, one for each thing that is checked: a check that cannot fail shows nothing.

use super::world::World;

/// What goes wrong, once in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// How a rank has ended does not reach its command.
    StatusLost,
    /// It does twice, and differs.
    StatusChanged,
    /// A killed ghost's read is answered at once.
    KilledGhostReleased,
    /// A process does not die by SIGKILL.
    ProcessSurvives,
    /// A ghost does not get its last answer.
    GhostForgotten,
    /// A piece of output does not arrive.
    OutputLost,
    /// One arrives twice.
    OutputDoubled,
    /// A byte of input is another one.
    InputChanged,
    /// Input, or output, is kept that nobody waits for.
    InputHoarded,
    OutputHoarded,
    /// A node's word on another node's process counts.
    LieBelieved,
    /// A signal is delivered twice.
    SignalDoubled,
    /// One is not delivered at all.
    SignalLost,
    /// Nobody makes the ghost of a process.
    BirthForgotten,
}

/// Each with the invariants of which one is seen broken.
pub const ALL: [(Plant, &[u8]); 14] = [
    (Plant::StatusLost, &[1]),
    (Plant::StatusChanged, &[1]),
    (Plant::KilledGhostReleased, &[2]),
    (Plant::ProcessSurvives, &[1, 2, 3]),
    (Plant::GhostForgotten, &[3]),
    (Plant::OutputLost, &[4]),
    (Plant::OutputDoubled, &[4]),
    (Plant::InputChanged, &[4]),
    (Plant::InputHoarded, &[5]),
    (Plant::OutputHoarded, &[5]),
    (Plant::LieBelieved, &[6]),
    (Plant::SignalDoubled, &[7]),
    (Plant::SignalLost, &[7]),
    (Plant::BirthForgotten, &[8]),
];

impl World {
    /// Whether this fault happens here: it does the first time that it can.
    pub fn goes_wrong(&mut self, plant: Plant) -> bool {
        self.planted.take_if(|planted| *planted == plant).is_some()
    }
}
