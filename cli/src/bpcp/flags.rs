//! What was typed: options and operands.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Parser;

use super::operand::{self, Operand};
use super::receive::Wanted;

const HELP: &str = "\
Copy files to nodes of the cluster, from them, and between them

Usage: bpcp [OPTIONS] SOURCE TARGET
       bpcp [OPTIONS] SOURCE... DIRECTORY
       bpcp [OPTIONS] SOURCE          (on a node)

SOURCE and TARGET are paths here or NODES:PATH; on one side at least a node.
A target can be on many nodes at once, a source is on one. On a node master:PATH
names the master; a source alone goes to the directory of the bpsh that runs it.

  -r, --recursive      directories with all that is in them
  -p, --preserve       keep modes and times, and as root owners
      --sync           be told only when it is on the disk
  -q, --quiet          no progress line
      --instance NAME  which cluster
  -h, --help    -v, --version

NODES as everywhere: 3 or 0-63 or up or n[1-3] or @io. Paths on nodes that do
not begin with / are seen from the directory with the name of this one. A file
with a colon in its name is written ./a:b. bpcp has to be installed there, too.

Examples:
  bpcp data 3:/tmp              to node 3
  bpcp data 0-63:/tmp           to all of these at once
  bpcp -rp dir a b up:/srv      a directory and two files, with attributes
  bpcp 3:/tmp/result .          from node 3
  bpcp -r 3:/tmp/dir 4-7:/tmp   from node 3 to others
  bpsh -a -p bpcp /tmp/out      from whichever node has it

A file has its name when all of it is there and its checksum is right; until
then what had the name stays. Links are copied as links, holes stay holes,
pipes, sockets and devices are not copied. What fails on one node or for one
file is told at the end, the rest is copied.

Exit status: 0 if everything was copied, 1 if not, 2 wrong usage.
";

#[derive(Parser, Debug)]
#[command(
    name = "bpcp",
    version,
    about = "Copy files to nodes of the cluster, from them, and between them",
    override_usage = "bpcp [OPTIONS] SOURCE TARGET\n       bpcp [OPTIONS] SOURCE... DIRECTORY\n       bpcp [OPTIONS] SOURCE",
    override_help = HELP,
    disable_version_flag = true,
    args_override_self = true
)]
struct Typed {
    /// Directories with all that is in them
    #[arg(short = 'r', long, visible_short_alias = 'R')]
    recursive: bool,
    /// Keep modes, times and owners
    #[arg(short = 'p', long)]
    preserve: bool,
    /// Be told only when it is on the disk
    #[arg(long)]
    sync: bool,
    /// No progress line
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Which cluster [default: $GHOSTPROC_INSTANCE]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// This is the receiving end, on a node
    #[arg(long, hide = true, conflicts_with = "send")]
    receive: bool,
    /// The target has to be a directory
    #[arg(long, hide = true)]
    into: bool,
    /// This is the sending end, on a node
    #[arg(long, hide = true)]
    send: bool,
    /// This is the way from a node to the end on the master
    #[arg(long, hide = true)]
    reach: bool,
    /// Print version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[arg(hide = true, allow_negative_numbers = true)]
    words: Vec<OsString>,
}

/// The definition of the flags.
pub fn definition() -> clap::Command {
    <Typed as clap::CommandFactory>::command()
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    Copy(Request),
    Receive(Wanted),
    Send {
        recursive: bool,
        paths: Vec<PathBuf>,
    },
    /// Of the end on the master; and the instance.
    Reach(Vec<OsString>, Option<String>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub sources: Vec<Operand>,
    pub target: Operand,
    /// No target was given: it is the directory of the bpsh on the master.
    pub alone: bool,
    /// The target has to be a directory.
    pub into: bool,
    pub recursive: bool,
    pub preserve: bool,
    pub sync: bool,
    pub quiet: bool,
    pub instance: Option<String>,
}

/// Reads the command line, program name first.
///
/// # Errors
/// What clap has to say: usage errors, and the texts of `--help` and `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, clap::Error> {
    let mut typed = Typed::try_parse_from(arguments)?;
    let paths = |words: Vec<OsString>| words.into_iter().map(PathBuf::from).collect::<Vec<_>>();
    if typed.reach {
        return Ok(typed.reach());
    }
    if typed.send {
        return Ok(Task::Send { recursive: typed.recursive, paths: paths(typed.words) });
    }
    let Some(mut target) = typed.words.pop() else {
        return Err(usage("a source and a target are needed"));
    };
    if typed.receive {
        let (into, preserve, sync) = (typed.into, typed.preserve, typed.sync);
        return Ok(Task::Receive(Wanted { target: target.into(), into, preserve, sync }));
    }
    let alone = typed.words.is_empty();
    if alone {
        typed.words.push(std::mem::replace(&mut target, "master:./".into()));
    }
    let read = |word: &OsString| operand::read(word).map_err(|message| usage(&message));
    let sources = typed.words.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let into = sources.len() > 1 || target.as_bytes().ends_with(b"/");
    let target = read(&target)?;
    let on_nodes = |operand: &Operand| !matches!(operand, Operand::Here(_));
    if !on_nodes(&target) && !sources.iter().all(on_nodes) {
        let message =
            "source and target are both here, which is cp's business; a node is written before its path: 3:/tmp";
        return Err(usage(message));
    }
    Ok(Task::Copy(Request {
        alone,
        into,
        sources,
        target,
        recursive: typed.recursive,
        preserve: typed.preserve,
        sync: typed.sync,
        quiet: typed.quiet,
        instance: typed.instance,
    }))
}

impl Typed {
    fn reach(self) -> Task {
        let Typed { send, recursive, preserve, sync, into, words, instance, .. } = self;
        let mut arguments: Vec<OsString> = vec![if send { "--send" } else { "--receive" }.into()];
        let options = [(recursive, "-r"), (preserve, "-p"), (sync, "--sync"), (into, "--into")];
        arguments.extend(options.into_iter().filter(|(given, _)| *given).map(|(_, option)| option.into()));
        arguments.push("--".into());
        arguments.extend(words);
        Task::Reach(arguments, instance)
    }
}

fn usage(message: &str) -> clap::Error {
    use clap::CommandFactory;
    Typed::command().error(clap::error::ErrorKind::MissingRequiredArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Task, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn operands_and_options() {
        let Ok(Task::Copy(request)) = read("bpcp -rp a 3:b 0-3:/tmp") else { panic!("read") };
        assert!(request.recursive && request.preserve && request.into && request.sources.len() == 2);
        let Ok(Task::Copy(request)) = read("bpcp a 0:/tmp/b") else { panic!("read") };
        assert!(!request.recursive && !request.preserve && !request.into);
        let Ok(Task::Copy(request)) = read("bpcp 0:a d/") else { panic!("read") };
        assert!(request.into);
        let Ok(Task::Copy(_)) = read("bpcp -- -odd 0:-") else { panic!("read") };
        let Ok(Task::Copy(request)) = read("bpcp f") else { panic!("read") };
        assert!(request.alone && request.into && request.target == Operand::Master("./".into()));
        let Ok(Task::Reach(arguments, None)) = read("bpcp --reach --receive --into -- -x") else { panic!("read") };
        assert_eq!(arguments, ["--receive", "--into", "--", "-x"]);
        let Ok(Task::Receive(wanted)) = read("bpcp --receive --into -p -- /tmp") else { panic!("read") };
        assert_eq!(wanted, Wanted { target: "/tmp".into(), into: true, preserve: true, sync: false });
        assert_eq!(read("bpcp --send -- a").ok(), Some(Task::Send { recursive: false, paths: vec!["a".into()] }));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, part) in [
            ("bpcp", "a source and a target"),
            ("bpcp a b", "cp's business"),
            ("bpcp a 0:b c", "cp's business"),
            ("bpcp --nonsense a 0:b", "--nonsense"),
        ] {
            let message = read(line).expect_err(line).to_string();
            assert!(message.contains(part), "{line}: {message}");
        }
    }

    #[test]
    fn the_help_fits_a_screen() {
        assert!(
            HELP.lines().count() <= 40 && HELP.lines().all(|line| line.chars().count() <= 80),
            "{}",
            HELP.lines().count()
        );
    }
}
