//! The kernel programs on the running kernel: what is sent to a process, and what is reported of it.
//!
//! The test program starts itself as the processes that send and receive (`actor.rs`), for what the loading process itself
//! sends is not reported. It is its own harness because an actor has to be a process of one thread.

mod actor;
mod ends;
mod flood;
mod harness;
mod origin;
mod who;

use std::process::ExitCode;

use harness::Test;

const TESTS: &[Test] = &[
    ("every_catchable_signal", who::every_catchable_signal),
    ("values_and_codes", who::values_and_codes),
    ("not_reported", who::not_reported),
    ("launcher", who::launcher),
    ("blocked_then_unblocked", who::blocked_then_unblocked),
    ("forged_siginfo_has_no_authority", who::forged_siginfo_has_no_authority),
    ("two_loads_are_isolated", who::two_loads_are_isolated),
    ("process_group", origin::process_group),
    ("successive_group_calls", origin::successive_group_calls),
    ("everyone", origin::everyone),
    ("terminal", origin::terminal),
    ("credentials", origin::credentials),
    ("sender_in_nested_pid_namespace", origin::sender_in_nested_pid_namespace),
    ("loader_in_nested_pid_namespace", origin::loader_in_nested_pid_namespace),
    ("kill_and_stop", ends::kill_and_stop),
    ("exits", ends::exits),
    ("attachment", ends::attachment),
    ("taken over", ends::taken_over),
    ("realtime_in_order", flood::realtime_in_order),
    ("a_successor_begins_with_a_new_quota", flood::a_successor_begins_with_a_new_quota),
    ("flooded_ghost_does_not_hide_others", flood::flooded_ghost_does_not_hide_others),
    ("full_ring_keeps_room_for_kills_and_exits", flood::full_ring_keeps_room_for_kills_and_exits),
    ("cost", flood::cost),
];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(actor::ARGUMENT) {
        return actor::main();
    }
    harness::main(TESTS)
}
