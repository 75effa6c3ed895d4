//! The administrator's commands, taken from the README, so that what stands there is what is tried.
//!
//! They are the first fenced block below the heading that says so. A line is `PROMPT COMMAND`; the prompt is `master#`, `n0#` or another
//! node's, or `alice$` (on the master). What is behind `   # ` is a comment; other lines are output.

use anyhow::{Result, ensure};

/// The heading above the block.
const MARK: &str = "## Quick start";
/// As many as the README promises.
const MOST: usize = 10;

/// Who types a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Master,
    Node(usize),
    User,
}

impl Who {
    /// A node's number.
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Node(number) => Some(*number),
            Self::Master | Self::User => None,
        }
    }

    pub fn is_node(&self) -> bool {
        self.node().is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub who: Who,
    pub command: String,
}

pub fn steps(readme: &str) -> Result<Vec<Step>> {
    let mut lines = readme.lines().skip_while(|line| !line.starts_with(MARK));
    let mut steps = Vec::new();
    let block =
        lines.by_ref().skip_while(|line| !line.starts_with("```")).skip(1).take_while(|line| !line.starts_with("```"));
    for line in block {
        let Some((prompt, command)) = line.split_once(' ') else { continue };
        let who = match prompt {
            "master#" => Who::Master,
            "alice$" => Who::User,
            other => match other.strip_prefix('n').and_then(|rest| rest.strip_suffix('#')?.parse().ok()) {
                Some(number) => Who::Node(number),
                None => continue,
            },
        };
        let command = command.split("   #").next().unwrap_or(command).trim().to_owned();
        steps.push(Step { who, command });
    }
    ensure!(!steps.is_empty(), "the README has no block of commands below {MARK:?}");
    ensure!(steps.len() <= MOST, "the README needs {} commands, more than {MOST}", steps.len());
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(who: Who, command: &str) -> Step {
        Step { who, command: command.to_owned() }
    }

    #[test]
    fn prompts_say_who_types_and_comments_are_left_out() {
        let text = "# A\n```\nmaster# no\n```\n## Quick start: x\n```\nmaster# apt install ./a_*.deb    # why\nn1# b\noutput\nalice$ bpsh -a hostname\n```\n```\nx# no\n```\n";
        assert_eq!(
            steps(text).expect("steps"),
            [step(Who::Master, "apt install ./a_*.deb"), step(Who::Node(1), "b"), step(Who::User, "bpsh -a hostname"),]
        );
    }

    #[test]
    fn a_readme_without_them_is_an_error() {
        assert!(steps("# A\n```\nmaster# a\n```\n").is_err());
    }
}
