//! What was typed: options, node list, command.
//!
//! Options may stand before and after the node list, and end at the command: `bpsh 0-3 -p ls -l` prefixes, and `-l` is ls's.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;

use super::halt::HaltRule;
use super::outcome::ExitRule;

const HELP: &str = "\
Run a program on nodes of the cluster as if it ran here

Usage: bpsh [OPTIONS] NODES COMMAND [ARGUMENTS]...
       bpsh [OPTIONS] -a|-A COMMAND [ARGUMENTS]...

Where    -a, --all     all nodes that are up      -A, --all-not-down
         --dry-run     only say what would run    --instance NAME  which cluster
Program  --tty         in a terminal there      --host  in the node's mounts
         --chdir DIR   its directory, needed      --env NAME=VALUE
         -I, -O, -E FILE  --input, --output, --error: files on the node
         -n, --null-stdin  input from /dev/null   -N, --no-io  none at all
Output   -p, --prefix  lines with nodes '  3: '   --label  lines with '3: '
         -L, --lines   whole lines only           -b, --line-buffer BYTES
         -s, --sorted  node by node               -d, --divider
         --gather      equal output once          --json  events, a line each
Control  --timeout TIME  for all of it: 10, 1.5s, 2m; ends what runs; exit 124
         --halt[=now|soon[,fail|success|done=N|N%]]  end early [now,fail=1]
         --fanout N    at most N at once          -t, --time  print the time
         --exit max|first|rank0|count   whose exit status is bpsh's [max]
         --detach      print the ghosts' PIDs, go  -h, --help  -v, --version

NODES: 0,2-3 or 4- or up or notdown or n[1-3,8-20/2] or all!@broken; , ! & ^ ()
One argument with blanks or shell characters runs by /bin/sh -c; none: your
shell, at a terminal with --tty, else it reads its commands from the input.

Examples:
  bpsh 3 ls -l /tmp             run on node 3; bpsh --tty 3 vi: in a terminal
  bpsh -a --gather uname -r     on all that are up, equal answers together
  tar c . | bpsh -a tar x       standard input goes to every node
  bpsh -a --timeout 10 --json hostname   events for programs

Exit status: the program's, or the largest of them; 124 out of time, 125 not
started, 126 not executable, 127 not found, 128+n ended by signal n.
";

#[derive(Parser, Debug)]
#[command(
    name = "bpsh",
    version,
    about = "Run a program on nodes of the cluster as if it ran here",
    override_usage = "bpsh [OPTIONS] NODES COMMAND [ARGUMENTS]...\n       bpsh [OPTIONS] -a|-A COMMAND [ARGUMENTS]...",
    override_help = HELP,
    disable_version_flag = true,
    args_override_self = true
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
    /// Standard input from a file on the node
    #[arg(short = 'I', long, value_name = "FILE")]
    input: Option<OsString>,
    /// Standard output to a file on the node
    #[arg(short = 'O', long, value_name = "FILE")]
    output: Option<OsString>,
    /// Standard error to a file on the node
    #[arg(short = 'E', long, value_name = "FILE")]
    error: Option<OsString>,
    /// Show whole lines only
    #[arg(short = 'L', long)]
    lines: bool,
    /// Prefix each line with its node as BProc did, `  3: ` (implies -L)
    #[arg(short = 'p', long, conflicts_with = "label")]
    prefix: bool,
    /// Label each line with its node, `3: ` (implies -L); coloured on a terminal
    #[arg(long)]
    label: bool,
    /// Show the output node by node, in order
    #[arg(short = 's', long)]
    sorted: bool,
    /// Print a divider before each node's output
    #[arg(short = 'd', long)]
    divider: bool,
    /// Show equal output once, with the nodes that it is from
    #[arg(long, conflicts_with_all = ["lines", "prefix", "label", "divider", "line_buffer"])]
    gather: bool,
    /// Tell everything as events, one JSON object a line
    #[arg(long, conflicts_with_all = ["lines", "prefix", "label", "divider", "line_buffer", "gather", "sorted"])]
    json: bool,
    /// Longest line that is kept whole
    #[arg(short = 'b', long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    line_buffer: Option<u32>,
    /// Directory in which the program runs; it is not started where that is not there
    #[arg(long, value_name = "DIR")]
    chdir: Option<OsString>,
    /// A variable of the program's environment besides those of this one
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// How long all of it may take; what runs then is ended, exit status 124
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    timeout: Option<Duration>,
    /// End early: now or soon, when so many have failed, succeeded or are done
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "now,fail=1")]
    halt: Option<HaltRule>,
    /// At most so many at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    fanout: Option<u32>,
    /// Whose exit status is bpsh's
    #[arg(long, value_name = "RULE", default_value = "max", hide_default_value = true)]
    exit: ExitRule,
    /// Give the program a terminal there: keys, window size and full screen as at the one here
    #[arg(long, conflicts_with_all = ["null_stdin", "no_io", "input", "output", "error", "lines", "prefix", "label", "sorted", "divider"])]
    #[arg(conflicts_with_all = ["gather", "json", "detach", "fanout", "line_buffer"])]
    tty: bool,
    /// Root: in the mounts, network and IPC objects and with the host name of the node itself, whatever those of the cluster's programs are
    #[arg(long)]
    host: bool,
    /// Only say what would run where
    #[arg(long, conflicts_with = "json")]
    dry_run: bool,
    /// Print the PIDs of the ghosts, and leave them running
    #[arg(long, conflicts_with_all = ["dry_run", "json", "gather", "sorted", "fanout"])]
    detach: bool,
    /// This is the process that stays with what was detached
    #[arg(long, hide = true)]
    detached: bool,
    /// Print the total time to standard error
    #[arg(short = 't', long)]
    time: bool,
    /// Accepted for rsh's sake, and ignored: the user is always the same
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

/// The definition of the flags.
pub fn definition() -> clap::Command {
    <Typed as clap::CommandFactory>::command()
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// What stands before a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefix {
    /// BProc's: `  3: `.
    Padded,
    /// `3: `.
    Label { colour: bool },
}

/// How output is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// Whole lines, with at most this many bytes kept until the line's end comes.
    pub lines: Option<usize>,
    pub prefix: Option<Prefix>,
    pub sorted: bool,
    pub divider: bool,
    pub form: Form,
}

/// What output becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Streams,
    Gathered { colour: bool },
    Events,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    Run,
    /// Only say what would be run.
    DryRun,
    /// Start somebody who runs it.
    Detach,
    /// Be that somebody.
    Detached,
}

impl Style {
    /// Output is passed on as it comes, and nothing is added.
    fn is_plain(self) -> bool {
        self.lines.is_none() && self.prefix.is_none() && !self.sorted && !self.divider && self.form == Form::Streams
    }
}

impl Request {
    /// Of a single process bpsh has nothing to tell but its output, as it is, and how it ended.
    pub fn is_plain(&self) -> bool {
        // Its end is not bpsh's, which has a terminal to put in order.
        let judges =
            self.terminal || self.timeout.is_some() || self.halt.is_some() || self.time || self.exit == ExitRule::Count;
        self.task == Task::Run && self.style.is_plain() && !judges
    }

    /// No command was given: it is this shell, which reads its commands from a terminal of its own if bpsh is at one, else from standard
    /// input.
    ///
    /// # Errors
    /// What was asked for does not go with a terminal.
    pub fn with_shell(mut self, shell: OsString, at_terminal: bool) -> Result<Request, clap::Error> {
        self.command = vec![shell];
        if at_terminal && self.files[0].is_none() && !self.terminal {
            let streams = self.style.is_plain() && self.files.iter().all(Option::is_none) && self.fanout.is_none();
            if !streams {
                return Err(usage("a command is needed"));
            }
            self.terminal = true;
        }
        Ok(self)
    }
}

/// What is meant.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    pub task: Task,
    /// A node list, as typed.
    pub nodes: String,
    /// Empty: a shell.
    pub command: Vec<OsString>,
    /// It is to have a terminal.
    pub terminal: bool,
    /// In the node's own namespaces.
    pub host: bool,
    /// Whether standard input is forwarded.
    pub input: bool,
    /// Whether standard output and error are forwarded.
    pub outputs: [bool; 2],
    /// Files on the nodes that are standard input, output and error.
    pub files: [Option<OsString>; 3],
    pub chdir: Option<OsString>,
    pub env: Vec<(String, String)>,
    pub style: Style,
    pub timeout: Option<Duration>,
    pub halt: Option<HaltRule>,
    pub fanout: Option<usize>,
    pub exit: ExitRule,
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
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut typed = Typed::try_parse_from(&arguments)?;
    let nodes = match (typed.all, typed.all_not_down) {
        (false, false) => {
            if typed.words.is_empty() {
                return Err(usage("a node list and a command are needed"));
            }
            // Without the node list, all options stand before the command.
            let list = arguments.remove(arguments.len() - typed.words.len());
            typed = Typed::try_parse_from(&arguments)?;
            if typed.all || typed.all_not_down {
                return Err(usage("a node list and -a or -A cannot both be given"));
            }
            list.into_string().map_err(|_| usage("the node list is not text"))?
        }
        (true, false) => "up".to_owned(),
        (false, true) => "notdown".to_owned(),
        (true, true) => return Err(usage("-a and -A cannot both be given")),
    };
    if typed.words.is_empty() && (typed.null_stdin || typed.no_io || typed.detach || typed.detached) {
        // A shell would have nothing to do.
        return Err(usage("a command is needed"));
    }
    Ok(understand(typed, nodes))
}

fn understand(typed: Typed, nodes: String) -> Request {
    let lines = typed.lines || typed.prefix || typed.label;
    let files = [typed.input, typed.output, typed.error];
    let silent = typed.no_io || typed.detach || typed.detached;
    let colour = (typed.label || typed.gather) && super::colour::wanted();
    let prefix = match (typed.prefix, typed.label) {
        (true, _) => Some(Prefix::Padded),
        (_, true) => Some(Prefix::Label { colour }),
        _ => None,
    };
    let form = match (typed.gather, typed.json) {
        (true, _) => Form::Gathered { colour },
        (_, true) => Form::Events,
        _ => Form::Streams,
    };
    let task = match (typed.dry_run, typed.detach, typed.detached) {
        (true, ..) => Task::DryRun,
        (_, _, true) => Task::Detached,
        (_, true, _) => Task::Detach,
        _ => Task::Run,
    };
    Request {
        task,
        nodes,
        command: typed.words,
        terminal: typed.tty,
        host: typed.host,
        input: !typed.null_stdin && !silent && files[0].is_none(),
        outputs: [1, 2].map(|fd| !silent && files[fd].is_none()),
        files,
        chdir: typed.chdir,
        env: typed.env,
        style: Style {
            lines: lines.then(|| typed.line_buffer.map_or(LINE_BUFFER, |n| n as usize)),
            prefix,
            sorted: typed.sorted,
            divider: typed.divider,
            form,
        },
        timeout: typed.timeout,
        halt: typed.halt,
        fanout: typed.fanout.map(|n| n as usize),
        exit: typed.exit,
        time: typed.time,
        instance: typed.instance,
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
            ("bpsh -- 0 id -p", "0", &["id", "-p"]),
            ("bpsh --instance other up id", "up", &["id"]),
            ("bpsh n3 -n --timeout 5 id --timeout 6", "n3", &["id", "--timeout", "6"]),
            ("bpsh --halt 0 id", "0", &["id"]),
            ("bpsh 0 -I a -O b id -I c", "0", &["id", "-I", "c"]),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(command(line), (nodes.to_owned(), words), "{line}");
        }
    }

    #[test]
    fn options_count_on_both_sides_of_the_node_list() {
        let request = read("bpsh -p 0-3 -s -d -t --env A=1 id").expect("read");
        let padded = Some(Prefix::Padded);
        let style =
            Style { lines: Some(LINE_BUFFER), prefix: padded, sorted: true, divider: true, form: Form::Streams };
        assert_eq!(request.style, style);
        assert!(request.time);
        let request = read("bpsh 0 -L -b 100 -n id").expect("read");
        assert_eq!(request.style.lines, Some(100));
        assert_eq!((request.input, request.outputs), (false, [true; 2]));
        let request = read("bpsh -N 0 id").expect("read");
        assert_eq!((request.input, request.outputs), (false, [false; 2]));
        let request = read("bpsh -O out 0 -E err id").expect("read");
        assert_eq!((request.input, request.outputs), (true, [false; 2]));
        let request = read("bpsh -I in --timeout 10 0 --timeout 5 --env A=1 --env B= id").expect("read");
        assert_eq!((request.input, request.outputs), (false, [true; 2]));
        assert_eq!(request.timeout, Some(Duration::from_secs(5)));
        assert_eq!(request.env, [("A".into(), "1".into()), ("B".into(), String::new())]);
    }

    #[test]
    fn what_is_missing_or_contradicts_is_said() {
        for line in [
            "bpsh",
            "bpsh -n 0",
            "bpsh -a --detach",
            "bpsh --tty -p 0 id",
            "bpsh --tty -n 0",
            "bpsh --json 0 --tty id",
            "bpsh -a -A id",
            "bpsh 0 -a id",
            "bpsh -x 0 id",
            "bpsh -b 0 0 id",
            "bpsh --gather 0 -p id",
            "bpsh --json --gather 0 id",
            "bpsh -p --label 0 id",
            "bpsh --env =1 0 id",
            "bpsh --timeout 0 0 id",
            "bpsh --fanout 0 0 id",
            "bpsh --halt=never 0 id",
            "bpsh --exit=least 0 id",
            "bpsh --detach --json 0 id",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn without_a_command_it_is_a_shell() {
        let shell = |line: &str, at_terminal| read(line).expect("read").with_shell("/bin/sh".into(), at_terminal);
        let request = shell("bpsh 3 -l me", true).expect("a shell");
        assert_eq!((request.command, request.terminal), (vec![OsString::from("/bin/sh")], true));
        assert!(!shell("bpsh 3", false).expect("a shell").terminal);
        assert!(!shell("bpsh -a -p", false).expect("a shell").terminal);
        assert!(!shell("bpsh -I file 3", true).expect("a shell").terminal);
        assert!(shell("bpsh -a -p", true).is_err());
        assert!(read("bpsh --tty 3 vi").expect("read").terminal);
        assert!(read("bpsh 3 --host mount").expect("read").host && !read("bpsh 3 mount --host").expect("read").host);
    }

    #[test]
    fn help_fits_a_screen_and_has_every_option() {
        use clap::CommandFactory;
        let text = read("bpsh --help").expect_err("help").render().to_string();
        assert!(text.lines().count() <= 40, "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        for option in Typed::command().get_arguments().filter(|option| !option.is_hide_set()) {
            let long = option.get_long().map(|long| format!("--{long}"));
            assert!(long.is_some_and(|long| text.contains(&long)), "{option:?}");
            let short = option
                .get_short()
                .is_none_or(|short| [',', ' '].iter().any(|end| text.contains(&format!(" -{short}{end}"))));
            assert!(short, "{option:?}");
        }
    }
}
