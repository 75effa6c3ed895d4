//! One page.
//!
//! What flags do not say is a text of this form:
//! ```text
//! # DESCRIPTION
//! A paragraph; `words` in backquotes are bold.
//!
//! TERM:: what it means
//!   an example, as it is typed
//! # OPTIONS
//! # EXIT STATUS
//! ```
//! `# OPTIONS`, `# COMMANDS` stand where those of the definition go; nothing may stand below them.

use clap::{Arg, Command};
use roff::{Inline, Roff, bold, italic, roman};

/// Of the manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// 1: commands of users.
    User,
    /// 5: files.
    File,
    /// 8: daemons and administration.
    System,
}

impl Section {
    /// 1, 5 or 8.
    pub fn number(self) -> u8 {
        match self {
            Section::User => 1,
            Section::File => 5,
            Section::System => 8,
        }
    }
}

/// The page of a command.
pub fn page(command: &Command, section: Section, text: &str) -> String {
    let mut command = command.clone();
    command.build();
    let name = command.get_name().to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut roff = head(&name, section, &about);
    roff.control("SH", ["SYNOPSIS"]);
    let usage = command.render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        roff.control("PP", []);
        roff.text([bold(word), roman(format!(" {rest}"))]);
    }
    body(&mut roff, text, Some(&command));
    roff.to_roff()
}

/// A page about a file.
pub fn text_page(name: &str, section: Section, about: &str, text: &str) -> String {
    let mut roff = head(name, section, about);
    body(&mut roff, text, None);
    roff.to_roff()
}

fn head(name: &str, section: Section, about: &str) -> Roff {
    let mut roff = Roff::new();
    let (title, number) = (name.to_uppercase(), section.number().to_string());
    // Where other pages have a date.
    let release = format!("Release {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [title.as_str(), &number, &release, "Ghostproc", "Ghostproc Manual"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {}", lower(about)))]);
    roff
}

/// As it stands behind a dash.
fn lower(about: &str) -> String {
    let mut letters = about.chars();
    match letters.next() {
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => about.to_owned(),
    }
}

fn body(roff: &mut Roff, text: &str, command: Option<&Command>) {
    let mut example = false;
    for line in text.lines() {
        let is_example = line.starts_with("  ");
        if example != is_example {
            if is_example {
                roff.control("PP", []);
                roff.control("RS", ["4"]);
                roff.control("nf", []);
            } else {
                end_example(roff);
            }
            example = is_example;
        }
        if is_example {
            roff.text([roman(line.get(2..).unwrap_or_default().to_owned())]);
        } else if let Some(title) = line.strip_prefix("# ") {
            roff.control("SH", [title]);
            match (title, command) {
                ("OPTIONS", Some(command)) => options(roff, command),
                ("COMMANDS", Some(command)) => commands(roff, command, ""),
                _ => {}
            }
        } else if line.is_empty() {
            roff.control("PP", []);
        } else if let Some((term, meaning)) = line.split_once(":: ") {
            roff.control("TP", []);
            roff.text(inline(term, true));
            roff.text(inline(meaning, false));
        } else {
            roff.text(inline(line, false));
        }
    }
    if example {
        end_example(roff);
    }
}

fn end_example(roff: &mut Roff) {
    roff.control("fi", []);
    roff.control("RE", []);
}

/// Words in backquotes are bold; a term is bold outside of them as well.
fn inline(text: &str, term: bool) -> Vec<Inline> {
    let pieces = text.split('`').enumerate().filter(|(_, piece)| !piece.is_empty());
    pieces.map(|(index, piece)| if term || index % 2 == 1 { bold(piece) } else { roman(piece) }).collect()
}

fn options(roff: &mut Roff, command: &Command) {
    let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help" && is_told(arg);
    for arg in command.get_arguments().filter(shown) {
        roff.control("TP", []);
        roff.text(name_of(arg));
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let mut text = sentence(&help);
        if !values.is_empty() && arg.get_action().takes_values() {
            text += &format!(" One of `{}`.", values.join("`, `"));
        }
        for line in text.lines() {
            roff.text(inline(line, false));
        }
    }
}

/// An operand that needs no words stands in the synopsis alone.
fn is_told(arg: &Arg) -> bool {
    !arg.is_positional() || arg.get_help().is_some()
}

fn name_of(arg: &Arg) -> Vec<Inline> {
    let mut words = Vec::new();
    let values: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str().to_owned()).collect();
    let takes = arg.get_num_args().map_or(arg.get_action().takes_values(), |range| range.max_values() > 0);
    if let Some(short) = arg.get_short() {
        words.push(bold(format!("-{short}")));
    }
    if let Some(long) = arg.get_long() {
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.push(bold(format!("--{long}")));
    }
    if takes {
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let name = if values.is_empty() { arg.get_id().as_str().to_uppercase() } else { values.join(" ") };
        if words.is_empty() {
            words.push(italic(name));
        } else if optional {
            words.extend([roman("[="), italic(name), roman("]")]);
        } else {
            words.extend([roman(" "), italic(name)]);
        }
    }
    words
}

fn commands(roff: &mut Roff, command: &Command, above: &str) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("{above}{}", sub.get_name());
        if sub.has_subcommands() {
            commands(roff, sub, &format!("{name} "));
            continue;
        }
        let operands: Vec<String> = sub.get_positionals().map(|arg| arg.to_string()).collect();
        roff.control("SS", [format!("{name} {}", operands.join(" ")).trim_end()]);
        roff.text(inline(&sentence(&sub.get_about().map(ToString::to_string).unwrap_or_default()), false));
        let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help" && is_told(arg);
        if sub.get_arguments().any(|arg| own(&arg)) {
            let mut alone = Command::new("alone");
            for arg in sub.get_arguments().filter(own) {
                alone = alone.arg(arg.clone());
            }
            roff.control("RS", ["4"]);
            options(roff, &alone);
            roff.control("RE", []);
        }
    }
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', '!', '…']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("frob")
            .about("Frobnicate things")
            .arg(
                Arg::new("force")
                    .short('f')
                    .long("force")
                    .help("Even those that are done")
                    .action(clap::ArgAction::SetTrue),
            )
            .arg(Arg::new("when").long("when").value_name("TIME").help("Not before").num_args(0..=1))
            .arg(Arg::new("secret").long("secret").hide(true))
            .arg(Arg::new("things").value_name("THING"))
            .subcommand(
                Command::new("undo").about("Take it back").arg(Arg::new("number").value_name("N").required(true)),
            )
    }

    #[test]
    fn a_page_has_what_the_flags_and_the_text_say() {
        let text =
            "# DESCRIPTION\nIt `frobs`.\n\nTWICE:: and again\n# OPTIONS\n# COMMANDS\n# EXAMPLES\n  frob -f a\\b\n";
        let page = page(&command(), Section::User, text);
        for part in [
            ".TH FROB 1 \"Release ",
            "frob \\- frobnicate things",
            "It \\fBfrobs\\fR.",
            ".TP\n\\fBTWICE\\fR\nand again",
            "\\fB\\-f\\fR, \\fB\\-\\-force\\fR\nEven those that are done.",
            "\\fB\\-\\-when\\fR[=\\fITIME\\fR]\nNot before.",
            ".SS \"undo <N>\"\nTake it back.",
            ".nf\nfrob \\-f a\\\\b\n.fi",
        ] {
            assert!(page.contains(part), "{part:?} is not in\n{page}");
        }
        assert!(!page.contains("secret"), "{page}");
    }
}
