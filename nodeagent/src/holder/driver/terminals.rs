//! Terminals of processes: another size, and hanging up.

use std::time::Duration;

use ghost_proto::ids::{LaunchId, ProcId};
use ghost_proto::terminal::Size;
use ghost_sys::pidfd;

use super::Driver;
use crate::holder::event::Event;
use crate::holder::standins::StandIns;
use crate::holder::terminal::{self, Line};

/// How long programs may take to end because their terminal has been hung up, before they are killed with their launch.
pub(super) const HANGING_UP: Duration = Duration::from_millis(200);

/// Ends the session of a terminal.
pub(super) fn end(standins: Option<&mut StandIns>, line: Option<Line>) {
    if let (Some(standins), Some(line)) = (standins, line) {
        standins.end_keeper(line.keeper);
    }
}

impl Driver {
    pub(super) fn resize(&mut self, proc: ProcId, size: &Size) {
        let handles = self.numbers.get(&proc).and_then(|number| self.handles.get(number));
        let Some(handles) = handles.filter(|handles| handles.line.is_some()) else { return };
        if let Some(pipe) = handles.outputs[0].as_ref().or(handles.stdin.as_ref()) {
            terminal::resize(&pipe.fd, size);
        }
    }

    /// Hangs up the terminals of a launch; whether there were any.
    pub(super) fn hang_up_all(&mut self, launch: LaunchId) -> bool {
        let of_launch = |line: &Line| line.launch == launch;
        let numbers = self.handles.iter().filter(|(_, handles)| handles.line.as_ref().is_some_and(of_launch));
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        for number in &numbers {
            let Some(handles) = self.handles.get_mut(number) else { continue };
            let proc = handles.proc;
            handles.outputs[0] = None;
            self.hang_up(*number);
            self.follow(Event::OutputOver { proc, fd: 1 });
        }
        !numbers.is_empty()
    }

    /// Nobody is at the other end of a terminal any more. The kernel tells the foreground group (drivers/tty/tty_jobctrl.c,
    /// `disassociate_ctty()`); the program itself would have been told as the session's leader, and goes on for it if it is stopped.
    pub(super) fn hang_up(&mut self, number: u64) {
        let Some(handles) = self.handles.get_mut(&number) else { return };
        let Some(line) = handles.line.take() else { return };
        handles.close_stdin(self.agent.as_mut());
        handles.outputs[0] = None;
        end(self.standins.as_mut(), Some(line));
        for signal in [libc::SIGHUP, libc::SIGCONT] {
            // ESRCH: it has just ended.
            let _ = pidfd::signal(&handles.pidfd, signal);
        }
    }
}
