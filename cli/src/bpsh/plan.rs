//! `--dry-run`: what would run where. Pure but for [`show`].

use std::io::Write;

use ghost_proto::client::{Launched, RankPlan};
use ghost_proto::launch::ProgramSpec;

use super::outcome::{NOT_RUN, Verdict};
use super::report::{fold_lines, obstacle};
use super::session::Failure;

/// Prints the plan; success if everything in it can be started now.
///
/// # Errors
/// Standard output cannot be written.
pub fn show(launched: &Launched, program: &ProgramSpec) -> Result<Verdict, Failure> {
    let words: Vec<String> = program.argv.iter().map(|word| quoted(&String::from_utf8_lossy(word))).collect();
    let mut out = std::io::stdout().lock();
    for line in lines(&launched.ranks, &words.join(" ")) {
        writeln!(out, "{line}")?;
    }
    let all = launched.ranks.iter().all(|plan| plan.reason.is_empty());
    Ok(Verdict::Exit(if all { 0 } else { NOT_RUN }))
}

fn lines(ranks: &[RankPlan], command: &str) -> Vec<String> {
    fold_lines(ranks.iter().map(|plan| match plan.reason.as_str() {
        "" => (plan.node, format!("would run {command}")),
        reason => (plan.node, obstacle(plan.obstacle(), reason)),
    }))
}

/// A word as a shell would have to be given it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::client::Obstacle;

    #[test]
    fn nodes_with_the_same_prospects_share_a_line() {
        let plan = |node, reason: &str| RankPlan {
            node,
            reason: reason.to_owned(),
            obstacle: if reason.is_empty() { Obstacle::Other } else { Obstacle::Unreachable } as i32,
            ..RankPlan::default()
        };
        let ranks = [plan(0, ""), plan(1, ""), plan(2, "down (not connected)"), plan(3, "")];
        let expected = ["0-1,3: would run ls", "2: unreachable: down (not connected); does nodeagent run there?"];
        assert_eq!(lines(&ranks, "ls"), expected);
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        for (word, expected) in [("ls", "ls"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''")] {
            assert_eq!(quoted(word), expected);
        }
    }
}
