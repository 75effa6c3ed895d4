//! BProc's options: nodes are selected, and what follows is done to them, in the order in which it was typed.

use clap::{ArgMatches, Args};
use ghost_proto::client::{NodeChange, Setting};
use ghost_proto::node_state::NodeStatus;

use crate::accounts::Kind;

/// Stands for what the configuration says.
const DEFAULT: &str = "default";

/// What can be typed of that.
#[derive(Debug, Args)]
#[command(next_help_heading = "Changing nodes (in the order in which it stands; -S and -M hold for what follows)")]
pub struct StepFlags {
    /// Nodes that are changed: 0,2-3, up, n[1-3], …
    #[arg(short = 'S', long = "select", value_name = "NODES", allow_hyphen_values = true)]
    select: Vec<String>,
    /// The master is changed
    #[arg(short = 'M', long, num_args = 0, default_missing_value = "master")]
    master: Vec<String>,
    /// Set the state; `unavailable` keeps all but root away, `up` lets them in again (root)
    #[arg(short = 's', long, value_name = "STATE", value_parser = NodeStatus::ALL.map(NodeStatus::name))]
    state: Vec<String>,
    /// Who may start programs there, as of a file: 0111 everybody, 0110 owner and group (owner, root)
    #[arg(short = 'm', long, value_name = "MODE", value_parser = mode)]
    mode: Vec<Typed>,
    /// Give them to a user, by name or number (root)
    #[arg(short = 'u', long, value_name = "USER")]
    user: Vec<String>,
    /// Give them to a group (root; the owner, to a group of his)
    #[arg(short = 'g', long, value_name = "GROUP")]
    group: Vec<String>,
    /// Root directory, on the node, of programs that are placed there from now on; / is the node's own (root)
    #[arg(short = 'r', long, value_name = "DIR")]
    root: Vec<String>,
    /// Restart them (root)
    #[arg(short = 'R', long, num_args = 0, default_missing_value = "reboot")]
    reboot: Vec<String>,
    /// Halt them (root)
    #[arg(short = 'H', long, num_args = 0, default_missing_value = "halt")]
    halt: Vec<String>,
    /// Switch them off (root)
    #[arg(short = 'P', long, num_args = 0, default_missing_value = "pwroff")]
    poweroff: Vec<String>,
}

/// A mode that was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Typed(Option<u32>);

/// A change, and of which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub nodes: String,
    /// As it was typed, for messages: `mode 0110`.
    pub what: String,
    pub change: NodeChange,
}

enum Word {
    Select(String),
    Change(String, NodeChange),
}

/// What was typed, in order.
///
/// # Errors
/// For people: what is wrong with it.
pub fn of(matches: &ArgMatches) -> Result<Vec<Step>, String> {
    let mut words: Vec<(usize, Word)> = Vec::new();
    for option in ["select", "master"] {
        words.extend(placed(matches, option).map(|(at, list): (_, String)| (at, Word::Select(list))));
    }
    for option in ["state", "reboot", "halt", "poweroff"] {
        let state = |state: String| Word::Change(format!("state {state}"), NodeChange::State(state));
        words.extend(placed(matches, option).map(|(at, name)| (at, state(name))));
    }
    for (at, Typed(value)) in placed(matches, "mode") {
        let what = value.map_or(format!("mode {DEFAULT}"), |bits| format!("mode {bits:04o}"));
        words.push((at, Word::Change(what, NodeChange::Mode(Setting { value }))));
    }
    for (at, name) in placed::<String>(matches, "user") {
        words.push((at, Word::Change(format!("owner {name}"), NodeChange::Owner(account(Kind::User, &name)?))));
    }
    for (at, name) in placed::<String>(matches, "group") {
        words.push((at, Word::Change(format!("group {name}"), NodeChange::Group(account(Kind::Group, &name)?))));
    }
    for (at, path) in placed::<String>(matches, "root") {
        words.push((at, Word::Change(format!("root directory {path}"), NodeChange::Root(path))));
    }
    words.sort_by_key(|(at, _)| *at);
    let (mut selected, mut used, mut steps) = (None, true, Vec::new());
    for (_, word) in words {
        match word {
            Word::Select(list) => (selected, used) = (Some(list), false),
            Word::Change(what, change) => {
                let nodes = selected.clone();
                let nodes = nodes.ok_or_else(|| format!("{what}: of which nodes? Write -S NODES before it"))?;
                used = true;
                steps.push(Step { nodes, what, change });
            }
        }
    }
    match selected {
        Some(list) if !used => {
            Err(format!("-S {list}: nothing is to be done; write -s, -m, -u, -g, -r, -R, -H or -P behind it"))
        }
        _ => Ok(steps),
    }
}

/// Values of an option, with their places on the command line.
fn placed<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, option: &str) -> impl Iterator<Item = (usize, T)> {
    let places: Vec<usize> = matches.indices_of(option).into_iter().flatten().collect();
    let values: Vec<T> = matches.get_many::<T>(option).into_iter().flatten().cloned().collect();
    places.into_iter().zip(values)
}

fn account(kind: Kind, name: &str) -> Result<Setting, String> {
    let value = if name == DEFAULT { None } else { Some(kind.id(name)?) };
    Ok(Setting { value })
}

fn mode(text: &str) -> Result<Typed, String> {
    if text == DEFAULT {
        return Ok(Typed(None));
    }
    let octal = !text.is_empty() && text.len() <= 4 && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(bits) if octal && bits <= 0o777 => Ok(Typed(Some(bits))),
        _ => Err(format!("write octal digits, as 0110; or `{DEFAULT}` for what the configuration says")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::Flags;
    use super::*;
    use clap::CommandFactory;

    fn steps(words: &[&str]) -> Result<Vec<(String, String)>, String> {
        let words = ["bpctl"].iter().chain(words);
        let matches = Flags::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        Ok(of(&matches)?.into_iter().map(|step| (step.nodes, step.what)).collect())
    }

    #[test]
    fn what_is_typed_is_done_in_its_order() {
        let wanted = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(nodes, what)| ((*nodes).to_owned(), (*what).to_owned())).collect()
        };
        for (words, list) in [
            (&["-S", "0-3", "-s", "unavailable"][..], &[("0-3", "state unavailable")][..]),
            (
                &["-S", "0", "-m", "110", "-u", "root", "-g0"],
                &[("0", "mode 0110"), ("0", "owner root"), ("0", "group 0")],
            ),
            (&["-S", "0", "-u", "root", "-m", "0110"], &[("0", "owner root"), ("0", "mode 0110")]),
            (
                &["-S", "0", "-R", "-S", "1", "-H", "-P"],
                &[("0", "state reboot"), ("1", "state halt"), ("1", "state pwroff")],
            ),
            (&["-M", "-s", "up", "-S", "-1", "-r", "/srv"], &[("master", "state up"), ("-1", "root directory /srv")]),
            (
                &["-S", "0", "-m", "default", "-s", "up", "-s", "boot"],
                &[("0", "mode default"), ("0", "state up"), ("0", "state boot")],
            ),
        ] {
            assert_eq!(steps(words).as_deref(), Ok(&wanted(list)[..]), "{words:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (words, part) in [
            (&["-s", "up"][..], "-S NODES"),
            (&["-S", "0"], "nothing is to be done"),
            (&["-S", "0", "-s", "up", "-S", "1"], "-S 1"),
            (&["-S", "0", "-s", "sideways"], "unavailable"),
            (&["-S", "0", "-m", "8"], "octal"),
            (&["-S", "0", "-m", "1777"], "octal"),
            (&["-S", "0", "-m", "a+x"], "octal"),
            (&["-S", "0", "-u", "no-such-user-here"], "no user"),
            (&["-S", "0", "-g", "no-such-group-here"], "no group"),
        ] {
            let error = steps(words).expect_err("an error");
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
}
