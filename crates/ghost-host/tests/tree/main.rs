//! The kernel programs that follow a namespace, on the running kernel: what its processes do, and what is reported.
//!
//! The test program starts itself as those processes. It is its own harness because they have to be of one thread.

mod actor;
mod changes;
mod ends;
mod forks;
#[path = "../signals/harness.rs"]
mod harness;
mod many;
mod space;

use std::process::ExitCode;

use harness::Test;

const TESTS: &[Test] = &[
    ("fork_exec_exit", forks::fork_exec_exit),
    ("double_fork_and_session", forks::double_fork_and_session),
    ("group", forks::group),
    ("posix_spawn", forks::posix_spawn),
    ("threads_have_no_records", forks::threads_have_no_records),
    ("exec_in_a_thread", forks::exec_in_a_thread),
    ("fork_in_a_thread", forks::fork_in_a_thread),
    ("sibling", forks::sibling),
    ("odd_flags", forks::odd_flags),
    ("nested_namespace", forks::nested_namespace),
    ("namespaces_do_not_see_each_other", forks::namespaces_do_not_see_each_other),
    ("users", forks::users),
    ("codes", ends::codes),
    ("signals", ends::signals),
    ("threads", ends::threads),
    ("zombie", ends::zombie),
    ("unwanted", ends::unwanted),
    ("namespace", ends::namespace),
    ("stop_and_continue", changes::stop_and_continue),
    ("stop_that_the_parent_does_not_see", changes::stop_that_the_parent_does_not_see),
    ("all_are_counted", many::all_are_counted),
    ("full_ring", many::full_ring),
    ("older_ones", many::older_ones),
    ("cost", many::cost),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).take(2).collect();
    match &arguments[..] {
        [first, scenario] if first == actor::ARGUMENT => actor::main(scenario),
        _ => harness::main(TESTS),
    }
}
