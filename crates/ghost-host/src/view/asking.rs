//! When a node is asked, and how long a reader waits for the answer: pure.
//!
//! Invariants:
//! - A file is asked for once, for all ghosts of the node, until the answer is there or is given up.
//! - Nodes whose ghosts were looked at together the last time are asked together: whoever looks through all ghosts waits for
//!   the slowest node, not for one after the other. A node is asked in vain at most once after somebody has looked at it.
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
pub(super) const REMEMBERED: Duration = Duration::from_secs(10);
/// Looks this close to one another are one.
const TOGETHER: Duration = Duration::from_millis(2000);

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
    pub questions: Vec<Question>,
    /// `None`: take what there is.
    pub wait_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Node {
    /// When each file was asked for, of all (0) or of one process.
    asked: HashMap<(u64, String), Instant>,
    late: bool,
    /// When somebody last looked at one of its ghosts, and what was known was too old.
    looked_at: Option<Instant>,
    /// Its ghosts.
    ghosts: usize,
}

#[derive(Debug, Default)]
pub(super) struct Asking {
    nodes: HashMap<i32, Node>,
    /// When somebody last looked at a file of the kind that is asked for together.
    looked_at: HashMap<String, Instant>,
}

impl Node {
    /// Forgets questions that are given up.
    fn forget_old(&mut self, now: Instant) {
        self.asked.retain(|_, at| now.saturating_duration_since(*at) < GIVEN_UP);
    }
}

/// Whether two nodes were last looked at in one look; those that nobody has looked at for long, too: whoever looks after a
/// long time may look at all.
fn together(one: Option<Instant>, other: Option<Instant>, now: Instant) -> bool {
    let lately = |at: Option<Instant>| at.filter(|at| now.saturating_duration_since(*at) < REMEMBERED);
    match (lately(one), lately(other)) {
        (Some(one), Some(other)) => one.max(other) - one.min(other) < TOGETHER,
        (None, None) => true,
        _ => false,
    }
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
    /// A node has one ghost more.
    pub(super) fn ghost_comes(&mut self, node: i32) {
        self.nodes.entry(node).or_default().ghosts += 1;
    }

    /// A node has one ghost less.
    pub(super) fn ghost_goes(&mut self, node: i32) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.ghosts = state.ghosts.saturating_sub(1);
            if state.ghosts == 0 {
                self.nodes.remove(&node);
            }
        }
    }

    /// Somebody looks at a file of a process on a node (as named in a sample), and what is known of it is too old.
    pub(super) fn look(&mut self, node: i32, proc: u64, name: &str, now: Instant) -> Advice {
        let asked = asked_of(name);
        if asked == Asked::Together {
            self.looked_at.insert(name.to_owned(), now);
        }
        let (of, wait) = if asked == Asked::Alone { (proc, WAIT_ALONE) } else { (0, WAIT) };
        let state = self.nodes.entry(node).or_default();
        state.forget_old(now);
        let before = if asked == Asked::Alone { None } else { state.looked_at.replace(now) };
        if let Some(&at) = state.asked.get(&(of, name.to_owned())) {
            if now >= at + wait && of == 0 {
                state.late = true;
            }
            let wait_until = Some(at + wait).filter(|until| now < *until && !state.late);
            return Advice { questions: Vec::new(), wait_until };
        }
        let wait_until = Some(now + wait).filter(|_| !state.late);
        if asked == Asked::Alone {
            state.asked.insert((of, name.to_owned()), now);
            return Advice { questions: vec![Question { node, files: vec![name.to_owned()], proc: of }], wait_until };
        }
        let files = self.of_all(now);
        let mut questions = Vec::new();
        for (&other, state) in &mut self.nodes {
            state.forget_old(now);
            if other != node && (state.ghosts == 0 || !together(before, state.looked_at, now)) {
                continue;
            }
            let mut files = files.clone();
            files.retain(|file| !state.asked.contains_key(&(0, file.clone())));
            if files.is_empty() {
                continue;
            }
            state.asked.extend(files.iter().map(|file| ((0, file.clone()), now)));
            questions.push(Question { node: other, files, proc: 0 });
        }
        // Whoever waits, waits for this one first.
        questions.sort_unstable_by_key(|question| (question.node != node, question.node));
        Advice { questions, wait_until }
    }

    /// What is asked for of all ghosts.
    fn of_all(&mut self, now: Instant) -> Vec<String> {
        self.looked_at.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED);
        let always = FILES.iter().filter(|file| file.asked == Asked::Always);
        // `comm` is in `stat`; what is this host's own is asked of nobody.
        let always = always.filter(|file| file.name != "comm" && file.source != super::files::Source::Own);
        let always = always.map(|file| file.name.to_owned());
        let mut files: Vec<String> = always.chain(self.looked_at.keys().cloned()).collect();
        if files.iter().any(|file| file.starts_with(OF_THREADS)) {
            files.extend(THREADS.map(str::to_owned));
        }
        files.sort_unstable();
        files.dedup();
        files
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

    fn one(advice: &Advice) -> Question {
        assert_eq!(advice.questions.len(), 1);
        let Question { node, files, proc } = &advice.questions[0];
        Question { node: *node, files: files.clone(), proc: *proc }
    }

    fn nodes(advice: &Advice) -> Vec<i32> {
        advice.questions.iter().map(|question| question.node).collect()
    }

    #[test]
    fn nodes_that_are_looked_at_together_are_asked_together() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        for node in [0, 1, 2, 2] {
            asking.ghost_comes(node);
        }
        let answered = |asking: &mut Asking| {
            for node in 0..3 {
                asking.answered(node, &["cmdline", "stat", "statm", "status"].map(str::to_owned), [].into_iter(), true);
            }
        };
        // Nobody has looked for long: it may be a look at all.
        assert_eq!(nodes(&asking.look(1, 7, "stat", now)), [1, 0, 2]);
        assert!(nodes(&asking.look(2, 8, "stat", now + ms(5))).is_empty());
        answered(&mut asking);
        // It was at two of them.
        let now = now + ms(3_000);
        assert_eq!(nodes(&asking.look(2, 8, "stat", now)), [2, 1]);
        answered(&mut asking);
        // And then at one only; a question about one file alone is no look at all.
        assert_eq!(nodes(&asking.look(1, 7, "maps", now + ms(100))), [1]);
        let now = now + ms(3_000);
        assert_eq!(nodes(&asking.look(2, 8, "stat", now)), [2]);
        answered(&mut asking);
        // A node without ghosts is not asked.
        asking.ghost_goes(0);
        asking.ghost_goes(2);
        let now = now + REMEMBERED;
        assert_eq!(nodes(&asking.look(2, 8, "stat", now)), [2, 1]);
    }

    #[test]
    fn all_ghosts_of_a_node_are_asked_for_once() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        let advice = asking.look(3, 7, "stat", now);
        let question = one(&advice);
        assert_eq!((question.node, question.proc, advice.wait_until), (3, 0, Some(now + WAIT)));
        assert_eq!(question.files, ["cmdline", "stat", "statm", "status"]);
        // Other files of the kind, and other ghosts, wait for the same answer.
        for (proc, name) in [(7, "status"), (8, "stat")] {
            let advice = asking.look(3, proc, name, now + ms(10));
            assert_eq!(advice, Advice { questions: Vec::new(), wait_until: Some(now + WAIT) });
        }
        assert!(asking.look(4, 9, "stat", now).questions.len() == 1, "another node");
        asking.answered(3, &question.files, [7].into_iter(), false);
        assert!(asking.look(3, 8, "stat", now + ms(20)).questions.is_empty(), "the rest is still to come");
        asking.answered(3, &question.files, [8].into_iter(), true);
        assert!(asking.look(3, 7, "stat", now + ms(1_500)).questions.len() == 1);
    }

    #[test]
    fn nobody_waits_for_a_node_that_was_late() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        assert!(asking.look(0, 7, "stat", now).questions.len() == 1);
        assert_eq!(asking.look(0, 7, "stat", now + WAIT), Advice { questions: Vec::new(), wait_until: None });
        asking.in_vain(0, "stat");
        let later = asking.look(0, 7, "stat", now + GIVEN_UP);
        assert!(later.questions.len() == 1 && later.wait_until.is_none());
        asking.answered(0, &["stat".to_owned()], [7].into_iter(), true);
        assert!(asking.look(0, 7, "stat", now + GIVEN_UP + ms(1)).wait_until.is_some());
    }

    #[test]
    fn what_was_looked_at_comes_along_for_a_while() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        assert_eq!(one(&asking.look(0, 7, "wchan", now)).files.last().expect("one"), "wchan");
        asking.answered(0, &["cmdline", "stat", "statm", "status", "wchan"].map(str::to_owned), [7].into_iter(), true);
        let files = one(&asking.look(0, 7, "stat", now + ms(2_000))).files;
        assert!(files.contains(&"wchan".to_owned()));
        asking.answered(0, &files, [7].into_iter(), true);
        let files = one(&asking.look(0, 7, "stat", now + REMEMBERED + ms(2_000))).files;
        assert!(!files.contains(&"wchan".to_owned()));
    }

    #[test]
    fn large_files_are_asked_for_of_the_one_alone() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        let question = one(&asking.look(0, 7, "maps", now));
        assert_eq!((question.proc, question.files), (7, vec!["maps".to_owned()]));
        assert!(asking.look(0, 8, "maps", now).questions.len() == 1);
        assert!(asking.look(0, 7, "maps", now).questions.is_empty());
        asking.answered(0, &["maps".to_owned()], [7].into_iter(), true);
        assert!(asking.look(0, 7, "maps", now).questions.len() == 1);
        assert!(asking.look(0, 8, "maps", now).questions.is_empty());
        // That a process's memory map is busy says nothing of the node.
        asking.in_vain(0, "maps");
        assert!(asking.look(0, 7, "stat", now + ms(5)).wait_until.is_some());
    }
}
