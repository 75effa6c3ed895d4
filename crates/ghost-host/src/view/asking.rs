//! When a node is asked, and how long a reader waits for the answer: pure.
//!
//! Invariants:
//! - A file is asked for once, for all ghosts of the node, until the answer is there or is given up.
//! - A reader waits for a node [`WAIT`] at most; once a node has let somebody wait in vain nobody waits for it again before
//!   it has answered something.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::files::{Asked, FILES};

/// How long a reader waits for a node.
const WAIT: Duration = Duration::from_millis(200);
/// The same for a file that is read for the one process alone.
const WAIT_ALONE: Duration = Duration::from_millis(1000);
/// After this time without an answer a question is asked again.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// How long what somebody has looked at is asked for together with the rest.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The files of all threads, as they are asked for.
pub(super) const OF_THREADS: &str = "task/*/";
pub(super) const THREADS: [&str; 2] = ["task/*/stat", "task/*/status"];
pub(super) const DESCRIPTORS: &str = "fd";

/// A question to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub node: i32,
    pub files: Vec<String>,
    /// 0: all of the node.
    pub proc: u64,
}

/// What a reader of something too old is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub question: Option<Question>,
    /// `None`: take what there is.
    pub wait_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Node {
    /// When each file was asked for, of all (0) or of one process.
    asked: HashMap<(u64, String), Instant>,
    late: bool,
}

#[derive(Debug, Default)]
pub(super) struct Asking {
    nodes: HashMap<i32, Node>,
    /// When somebody last looked at a file of the kind that is asked for together.
    looked_at: HashMap<String, Instant>,
}

fn asked_of(name: &str) -> Asked {
    if name == DESCRIPTORS {
        return Asked::Alone;
    }
    if name.starts_with(OF_THREADS) {
        return Asked::Together;
    }
    FILES.iter().find(|file| file.name == name).map_or(Asked::Alone, |file| file.asked)
}

impl Asking {
    /// Somebody looks at a file of a process on a node (as named in a sample), and what is known of it is too old.
    pub(super) fn look(&mut self, node: i32, proc: u64, name: &str, now: Instant) -> Advice {
        let asked = asked_of(name);
        if asked == Asked::Together {
            self.looked_at.insert(name.to_owned(), now);
        }
        let (of, wait) = if asked == Asked::Alone { (proc, WAIT_ALONE) } else { (0, WAIT) };
        let state = self.nodes.entry(node).or_default();
        state.asked.retain(|_, at| now.saturating_duration_since(*at) < GIVEN_UP);
        if let Some(&at) = state.asked.get(&(of, name.to_owned())) {
            if now >= at + wait && of == 0 {
                state.late = true;
            }
            let wait_until = Some(at + wait).filter(|until| now < *until && !state.late);
            return Advice { question: None, wait_until };
        }
        let files: Vec<String> = match asked {
            Asked::Alone => vec![name.to_owned()],
            Asked::Always | Asked::Together => {
                self.looked_at.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED);
                let always = FILES.iter().filter(|file| file.asked == Asked::Always);
                // `comm` is in `stat`; what is this host's own is asked of nobody.
                let always = always.filter(|file| file.name != "comm" && file.source != super::files::Source::Own);
                let always = always.map(|file| file.name.to_owned());
                let together = self.looked_at.keys().cloned();
                let mut files: Vec<String> = always.chain(together).collect();
                if files.iter().any(|file| file.starts_with(OF_THREADS)) {
                    files.extend(THREADS.map(str::to_owned));
                }
                files.sort_unstable();
                files.dedup();
                files.retain(|file| !state.asked.contains_key(&(0, file.clone())));
                files
            }
        };
        for file in &files {
            state.asked.insert((of, file.clone()), now);
        }
        let wait_until = Some(now + wait).filter(|_| !state.late);
        Advice { question: Some(Question { node, files, proc: of }), wait_until }
    }

    /// A reader has waited for a node in vain.
    pub(super) fn in_vain(&mut self, node: i32, name: &str) {
        if asked_of(name) != Asked::Alone {
            self.nodes.entry(node).or_default().late = true;
        }
    }

    /// Figures of a node have come; `last`: all that was asked for with them. `procs`: whose.
    pub(super) fn answered(&mut self, node: i32, files: &[String], procs: impl Iterator<Item = u64>, last: bool) {
        let Some(state) = self.nodes.get_mut(&node) else { return };
        state.late = false;
        let procs: Vec<u64> = procs.collect();
        for file in files {
            for proc in &procs {
                state.asked.remove(&(*proc, file.clone()));
            }
            if last {
                state.asked.remove(&(0, file.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn all_ghosts_of_a_node_are_asked_for_once() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        let advice = asking.look(3, 7, "stat", now);
        let question = advice.question.expect("asked");
        assert_eq!((question.node, question.proc, advice.wait_until), (3, 0, Some(now + WAIT)));
        assert_eq!(question.files, ["cmdline", "stat", "statm", "status"]);
        // Other files of the kind, and other ghosts, wait for the same answer.
        for (proc, name) in [(7, "status"), (8, "stat")] {
            let advice = asking.look(3, proc, name, now + ms(10));
            assert_eq!(advice, Advice { question: None, wait_until: Some(now + WAIT) });
        }
        assert!(asking.look(4, 9, "stat", now).question.is_some(), "another node");
        asking.answered(3, &question.files, [7].into_iter(), false);
        assert!(asking.look(3, 8, "stat", now + ms(20)).question.is_none(), "the rest is still to come");
        asking.answered(3, &question.files, [8].into_iter(), true);
        assert!(asking.look(3, 7, "stat", now + ms(1_500)).question.is_some());
    }

    #[test]
    fn nobody_waits_for_a_node_that_was_late() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        assert!(asking.look(0, 7, "stat", now).question.is_some());
        assert_eq!(asking.look(0, 7, "stat", now + WAIT), Advice { question: None, wait_until: None });
        asking.in_vain(0, "stat");
        let later = asking.look(0, 7, "stat", now + GIVEN_UP);
        assert!(later.question.is_some() && later.wait_until.is_none());
        asking.answered(0, &["stat".to_owned()], [7].into_iter(), true);
        assert!(asking.look(0, 7, "stat", now + GIVEN_UP + ms(1)).wait_until.is_some());
    }

    #[test]
    fn what_was_looked_at_comes_along_for_a_while() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        assert_eq!(asking.look(0, 7, "wchan", now).question.expect("asked").files.last().expect("one"), "wchan");
        asking.answered(0, &["cmdline", "stat", "statm", "status", "wchan"].map(str::to_owned), [7].into_iter(), true);
        let files = asking.look(0, 7, "stat", now + ms(2_000)).question.expect("asked").files;
        assert!(files.contains(&"wchan".to_owned()));
        asking.answered(0, &files, [7].into_iter(), true);
        let files = asking.look(0, 7, "stat", now + REMEMBERED + ms(2_000)).question.expect("asked").files;
        assert!(!files.contains(&"wchan".to_owned()));
    }

    #[test]
    fn large_files_are_asked_for_of_the_one_alone() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        let question = asking.look(0, 7, "maps", now).question.expect("asked");
        assert_eq!((question.proc, question.files), (7, vec!["maps".to_owned()]));
        assert!(asking.look(0, 8, "maps", now).question.is_some());
        assert!(asking.look(0, 7, "maps", now).question.is_none());
        asking.answered(0, &["maps".to_owned()], [7].into_iter(), true);
        assert!(asking.look(0, 7, "maps", now).question.is_some());
        assert!(asking.look(0, 8, "maps", now).question.is_none());
        // That a process's memory map is busy says nothing of the node.
        asking.in_vain(0, "maps");
        assert!(asking.look(0, 7, "stat", now + ms(5)).wait_until.is_some());
    }
}
