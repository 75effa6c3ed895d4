//! What only the tests' own programs do to themselves: fork without exec, processes of odd kinds, handlers, faults.
//!
//! Behind the feature `trials`, so that no program of the product contains it.

mod descriptors;
mod faults;
mod forks;
mod handlers;
mod mappings;
mod priority;
mod threads;
mod waits;

pub use descriptors::{close_from, close_on_exec};
pub use faults::{Fault, fault};
pub use forks::{Kind, fork, fork_of};
pub use handlers::{Entry, How, entries, handle};
pub use mappings::{Mappings, many_mappings};
pub use priority::set_nice;
pub use threads::end_thread;
pub use waits::wait;
