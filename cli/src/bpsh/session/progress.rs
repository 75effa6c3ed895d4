//! The progress line of a launch on many nodes, on a terminal in whose foreground bpsh is.

use std::io::IsTerminal;
use std::time::Instant;

use super::super::flags::{Form, Request, Task};
use super::super::progress_line::{Pace, Stage, line};
use super::Session;
use crate::terminal_line;

/// Whether there may be such a line at all.
pub(super) fn pace(request: &Request, ranks: usize) -> Option<Pace> {
    let tells = request.style.form != Form::Events && !request.terminal && request.task == Task::Run && ranks > 1;
    (tells && terminal_line::is_possible()).then(|| Pace::new(Instant::now()))
}

/// Which outputs disturb it.
pub(super) fn terminals() -> [bool; 2] {
    [std::io::stdout().is_terminal(), true]
}

impl Session {
    /// Draws the line, or takes it away, when it is time for that.
    pub(super) fn show_progress(&mut self) {
        let Some(pace) = &mut self.pace else { return };
        if !pace.is_due(Instant::now(), self.output.shown()) || !terminal_line::in_foreground() {
            return;
        }
        let starts =
            |rank: usize| u32::try_from(rank).is_ok_and(|rank| self.waiting.front().is_none_or(|next| rank < *next));
        let ranks = self.ranks.iter().enumerate().map(|(rank, state)| {
            let stage = match (state.outcome, state.started) {
                (Some(_), _) => Stage::Ended,
                (None, true) => Stage::Running,
                (None, false) if starts(rank) => Stage::Starting,
                (None, false) => Stage::Waiting,
            };
            (state.node, stage)
        });
        let text = if self.output.is_shown() { line(ranks) } else { None };
        self.output.below(text);
    }

    /// Takes the line away: bpsh stops, ends, or lets somebody else write.
    pub(super) fn end_progress(&mut self) {
        if self.pace.is_some() && terminal_line::in_foreground() {
            self.output.below(None);
        }
    }
}
