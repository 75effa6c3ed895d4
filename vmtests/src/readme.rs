//! The administrator's commands, taken from the README, so that what stands there is what is tried.
//!
//! They are the first fenced block below the heading that speaks of bare machines. A line is `PROMPT COMMAND`, a prompt the
//! machine's name and `#`, or a user's name and `$` (on the master). What is behind `   # ` is a comment; other lines are output.

use anyhow::{Result, ensure};

/// Of the heading above the block.
const HEADING: &str = "bare Debian machines";
/// As many as the README promises.
const MOST: usize = 10;

/// Who types a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    RootOf(String),
    User(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub who: Who,
    pub command: String,
}

pub fn steps(readme: &str) -> Result<Vec<Step>> {
    let mut lines = readme.lines().skip_while(|line| !(line.starts_with('#') && line.contains(HEADING)));
    let mut steps = Vec::new();
    let block = lines.by_ref().skip_while(|line| !line.starts_with("```")).skip(1).take_while(|line| !line.starts_with("```"));
    for line in block {
        let Some((prompt, command)) = line.split_once(' ') else { continue };
        let who = match (prompt.strip_suffix('#'), prompt.strip_suffix('$')) {
            (Some(machine), _) if !machine.is_empty() => Who::RootOf(machine.to_owned()),
            (_, Some(user)) if !user.is_empty() => Who::User(user.to_owned()),
            _ => continue,
        };
        let command = command.split("   #").next().unwrap_or(command).trim().to_owned();
        steps.push(Step { who, command });
    }
    ensure!(!steps.is_empty(), "the README has no block of commands below a heading with {HEADING:?}");
    ensure!(steps.len() <= MOST, "the README needs {} commands, more than {MOST}", steps.len());
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_say_who_types_and_comments_are_left_out() {
        let text = "# A\n```\nx# no\n```\n## From three bare Debian machines\ntext\n```\nmaster# apt install ./a_*.deb    # why\nn0# b\noutput\nalice$ bpsh -a hostname\n```\n```\nx# no\n```\n";
        let root = |name: &str, command: &str| Step { who: Who::RootOf(name.into()), command: command.into() };
        assert_eq!(
            steps(text).expect("steps"),
            [
                root("master", "apt install ./a_*.deb"),
                root("n0", "b"),
                Step { who: Who::User("alice".into()), command: "bpsh -a hostname".into() }
            ]
        );
    }

    #[test]
    fn a_readme_without_them_is_an_error() {
        assert!(steps("# A\n```\nmaster# a\n```\n").is_err());
    }
}
