//! `bpsh`: run a program on nodes as if it ran here.
//!
//! What was typed ([`flags`]) becomes a request; [`program`] adds what a local child would inherit; [`session`] moves
//! everything until the end. What can be decided without a kernel stands in pure modules: [`outcome`], [`received`], the
//! layout of the [`output`], the pace of [`stdin`].

mod flags;
mod ghosts;
mod outcome;
mod output;
mod program;
mod received;
mod resume;
mod session;
mod stdin;

use std::process::ExitCode;
use std::time::Instant;

use outcome::{NOT_RUN, Verdict};

/// The whole program.
pub fn main() -> ExitCode {
    let start = Instant::now();
    let request = match flags::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(error) => {
            // Nobody left to tell if this fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { NOT_RUN } else { 0 });
        }
    };
    let result = session::run(&request);
    if request.time {
        crate::complain(&format!("bpsh: {:.3} s", start.elapsed().as_secs_f64()));
    }
    match result {
        Ok(Verdict::Exit(code)) => ExitCode::from(code),
        Ok(Verdict::Signal(signal)) => ghost_sys::quiet::die_by(i32::from(signal)),
        Err(failure) => {
            crate::complain(&format!("bpsh: {}", failure.text));
            ExitCode::from(NOT_RUN)
        }
    }
}
