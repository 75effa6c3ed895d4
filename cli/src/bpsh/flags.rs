//! What was typed: options, node list, command.
//!
//! Options may stand before and after the node list, and end at the command: `bpsh 0-3 -p ls -l` prefixes, and `-l` is ls's.

use std::ffi::OsString;

use clap::Parser;

const EXAMPLES: &str = "\
NODES is a list such as 0,2-3 or 4- or up or notdown; -1 is the master.
A single argument with blanks or shell characters runs by /bin/sh -c.

Examples:
  bpsh 3 ls -l /tmp             run on node 3
  bpsh -a -p uname -r           on all that are up, with node numbers
  bpsh 0-3 -s -d 'ps | wc -l'   a shell line on each, shown node by node
  tar c . | bpsh -a tar x       standard input goes to every node

Exit status: the program's, or the largest of them; 125 if nothing was started.";

#[derive(Parser, Debug)]
#[command(
    name = "bpsh",
    version,
    about = "Run a program on nodes of the cluster",
    override_usage = "bpsh [OPTIONS] NODES COMMAND [ARGUMENTS]...\n       bpsh [OPTIONS] -a|-A COMMAND [ARGUMENTS]...",
    after_help = EXAMPLES,
    disable_version_flag = true
)]
struct Typed {
    /// On all nodes that are up
    #[arg(short = 'a', long)]
    all: bool,
    /// On all nodes that are not down
    #[arg(short = 'A', long)]
    all_not_down: bool,
    /// Standard input is /dev/null
    #[arg(short = 'n', long)]
    null_stdin: bool,
    /// No standard input, output or error at all
    #[arg(short = 'N', long)]
    no_io: bool,
    /// Show whole lines only
    #[arg(short = 'L', long)]
    lines: bool,
    /// Prefix each line with its node (implies -L)
    #[arg(short = 'p', long)]
    prefix: bool,
    /// Show the output node by node, in order
    #[arg(short = 's', long)]
    sorted: bool,
    /// Print a divider before each node's output
    #[arg(short = 'd', long)]
    divider: bool,
    /// Longest line that is kept whole
    #[arg(short = 'b', long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    line_buffer: Option<u32>,
    /// Print the total time to standard error
    #[arg(short = 't', long)]
    time: bool,
    /// Accepted for rsh's sake
    #[arg(short = 'l', value_name = "USER", hide = true)]
    login: Option<OsString>,
    /// Which cluster [default: $GHOSTPROC_INSTANCE]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Print version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[arg(hide = true, trailing_var_arg = true, allow_negative_numbers = true)]
    words: Vec<OsString>,
}

/// Standard input of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    Forwarded,
    Null,
}

/// How output is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// Whole lines, with at most this many bytes kept until the line's end comes.
    pub lines: Option<usize>,
    pub prefix: bool,
    pub sorted: bool,
    pub divider: bool,
}

/// What is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// A node list, as typed.
    pub nodes: String,
    pub command: Vec<OsString>,
    pub input: Input,
    /// Whether standard output and error are forwarded.
    pub output: bool,
    pub style: Style,
    pub time: bool,
    pub instance: Option<String>,
}

/// Line buffer when -b is not given, in bytes.
const LINE_BUFFER: usize = 64 * 1024;

/// Reads the command line, program name first.
///
/// # Errors
/// What clap has to say: usage errors, and the texts of `--help` and `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, clap::Error> {
    let mut typed = Typed::try_parse_from(arguments)?;
    let mut words = std::mem::take(&mut typed.words);
    let nodes = match (typed.all, typed.all_not_down) {
        (false, false) => {
            if words.is_empty() {
                return Err(usage("a node list and a command are needed"));
            }
            let nodes = words.remove(0).into_string().map_err(|_| usage("the node list is not text"))?;
            let after = Typed::try_parse_from(std::iter::once(OsString::from("bpsh")).chain(words))?;
            if after.all || after.all_not_down {
                return Err(usage("a node list and -a or -A cannot both be given"));
            }
            words = typed.add(after);
            nodes
        }
        (true, false) => "up".to_owned(),
        (false, true) => "notdown".to_owned(),
        (true, true) => return Err(usage("-a and -A cannot both be given")),
    };
    if words.is_empty() {
        return Err(usage("a command is needed"));
    }
    let lines = (typed.lines || typed.prefix).then(|| typed.line_buffer.map_or(LINE_BUFFER, |n| n as usize));
    Ok(Request {
        nodes,
        command: words,
        input: if typed.null_stdin || typed.no_io { Input::Null } else { Input::Forwarded },
        output: !typed.no_io,
        style: Style { lines, prefix: typed.prefix, sorted: typed.sorted, divider: typed.divider },
        time: typed.time,
        instance: typed.instance,
    })
}

impl Typed {
    /// Adds the options that stood after the node list; gives the words behind them.
    fn add(&mut self, after: Typed) -> Vec<OsString> {
        self.null_stdin |= after.null_stdin;
        self.no_io |= after.no_io;
        self.lines |= after.lines;
        self.prefix |= after.prefix;
        self.sorted |= after.sorted;
        self.divider |= after.divider;
        self.time |= after.time;
        self.line_buffer = after.line_buffer.or(self.line_buffer);
        self.instance = after.instance.or(self.instance.take());
        after.words
    }
}

fn usage(message: &str) -> clap::Error {
    use clap::CommandFactory;
    Typed::command().error(clap::error::ErrorKind::MissingRequiredArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn command(line: &str) -> (String, Vec<String>) {
        let request = read(line).expect(line);
        (request.nodes, request.command.into_iter().map(|word| word.into_string().expect("text")).collect())
    }

    #[test]
    fn options_stop_at_the_command() {
        for (line, nodes, words) in [
            ("bpsh 3 ls -l /tmp", "3", &["ls", "-l", "/tmp"][..]),
            ("bpsh -a ls -l -a", "up", &["ls", "-l", "-a"]),
            ("bpsh -A -n ls --help", "notdown", &["ls", "--help"]),
            ("bpsh -p 0-3 -s -b 100 ls -d", "0-3", &["ls", "-d"]),
            ("bpsh -l me 0 id", "0", &["id"]),
            ("bpsh 0 -l me id", "0", &["id"]),
            ("bpsh -1 id", "-1", &["id"]),
            ("bpsh 0 -- -odd -p", "0", &["-odd", "-p"]),
            ("bpsh 0 sh -- x", "0", &["sh", "--", "x"]),
            ("bpsh --instance other up id", "up", &["id"]),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(command(line), (nodes.to_owned(), words), "{line}");
        }
    }

    #[test]
    fn options_count_on_both_sides_of_the_node_list() {
        let request = read("bpsh -p 0-3 -s -d -t id").expect("read");
        assert_eq!(request.style, Style { lines: Some(LINE_BUFFER), prefix: true, sorted: true, divider: true });
        assert!(request.time);
        let request = read("bpsh 0 -L -b 100 -n id").expect("read");
        assert_eq!(request.style.lines, Some(100));
        assert_eq!((request.input, request.output), (Input::Null, true));
        let request = read("bpsh -N 0 id").expect("read");
        assert_eq!((request.input, request.output), (Input::Null, false));
    }

    #[test]
    fn what_is_missing_or_contradicts_is_said() {
        for line in ["bpsh", "bpsh 0", "bpsh -a", "bpsh -a -A id", "bpsh 0 -a id", "bpsh -x 0 id", "bpsh -b 0 0 id"] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_fits_a_screen() {
        let text = read("bpsh --help").expect_err("help").render().to_string();
        assert!(text.lines().count() <= 40, "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
