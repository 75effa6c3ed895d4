//! `bpsh`: run a program on nodes as if it ran here.
//!
//! What was typed ([`flags`]) becomes a request; [`program`] adds what a local child would inherit; [`session`] moves
//! everything until the end. What can be decided without a kernel stands in pure modules: [`outcome`], [`halt`],
//! [`winding_down`], [`received`], [`progress_line`], the layout of the [`output`], what is told of it ([`report`]), the pace of [`stdin`].

mod colour;
mod detach;
pub mod flags;
mod ghosts;
mod halt;
mod input_ring;
mod outcome;
mod output;
mod plan;
mod program;
mod progress_line;
mod raw;
mod received;
pub(crate) mod report;
mod resume;
mod session;
mod shell;
mod stdin;
mod winding_down;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use flags::Task;
pub(crate) use outcome::NOT_RUN;
use outcome::Verdict;

/// The whole program.
pub fn main() -> ExitCode {
    let start = Instant::now();
    let parsed = flags::parse(std::env::args_os()).and_then(|request| {
        let at_terminal = std::io::stdin().is_terminal();
        if request.command.is_empty() { request.with_shell(shell::of_user(), at_terminal) } else { Ok(request) }
    });
    let request = match parsed {
        Ok(request) => request,
        Err(error) => {
            // Nobody left to tell if this fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { NOT_RUN } else { 0 });
        }
    };
    if request.terminal {
        raw::leave_in_panic();
    }
    let result = match request.task {
        Task::Detach => detach::start(),
        Task::Run | Task::DryRun | Task::Detached => session::run(&request, start),
    };
    raw::leave();
    if request.time {
        crate::complain(&format!("bpsh: {:.3} s", start.elapsed().as_secs_f64()));
    }
    match result {
        Ok(Verdict::Exit(code)) => ExitCode::from(code),
        Ok(Verdict::Signal(signal)) => ghost_sys::quiet::die_by(i32::from(signal)),
        Err(failure) => {
            crate::complain(&format!("bpsh: {}", failure.text));
            ExitCode::from(failure.code)
        }
    }
}
