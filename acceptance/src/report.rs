//! What a failing test shows: the process trees of all members, from outside, and the ends of their logs.

use std::sync::Once;

use crate::{Cluster, tree};

/// Lines of each member's log.
const LOG_LINES: usize = 25;

/// From now on a panic of any thread prints the report first, while everything is still as it was.
pub(crate) fn on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let then = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            then(panic);
            eprintln!("{}", of(&Cluster::read()));
        }));
    });
}

pub fn of(cluster: &Cluster) -> String {
    let mut text = format!("---- processes of cluster {}\n{}", cluster.id, tree::picture(&cluster.snapshot()));
    for member in cluster.members() {
        text += &format!("---- log of {}\n{}\n", member.name, member.log_tail(LOG_LINES));
    }
    text + "----"
}
