//! What can be typed.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::steps::StepFlags;
use super::validity;

const HELP: &str = "\
Administer the cluster: nodes, and who may use them

Usage: bpctl -S NODES|-M [CHANGES]...
       bpctl COMMAND

Changes  in the order in which they stand, of the nodes of the last -S or -M
  -S, --select NODES  0,2-3 or up or n[1-3]    -M, --master  the master
  -s, --state STATE   unavailable (root's alone), error, down, up, boot …
  -m, --mode MODE     who may start programs: 0111 all, 0110 owner and group
  -u, --user USER     its owner                -g, --group GROUP
  -r, --root DIR      root directory of programs placed there later; / none
  -R, --reboot        -H, --halt               -P, --poweroff
  `default` for MODE, USER or GROUP: what ghostd.toml says
  root may do all of it, the owner -m, and -g to a group of his
Commands
  nodes list|add|remove|revoke|replace [NODES]  who belongs to the cluster
  token [--nodes NODES] [--uses N] [--expires T]  lets machines join
  doctor [-a]         what is wrong on the master and the nodes, and what to do
  metrics             what ghostd counts, in Prometheus' text format
  view on|off         whether /proc shows remote processes' own figures
  handover            the installed ghostd goes on in the running one's place
  completions SHELL   for bash, zsh, fish: source <(bpctl completions bash)
      --instance NAME  which cluster           -h, --help  -V, --version

Examples:
  bpctl -S 3 -s unavailable         keep users away from node 3; -s up ends it
  bpctl -S 0-7 -u alice -m 0100     only alice may start programs on 0 to 7
  bpctl token --nodes 0-63 > token   64 machines may join, as nodes 0 to 63
  bpctl nodes list notup            why nodes are not up

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 125 no ghostd.
";

/// Administer the cluster: nodes, who may use them, join tokens
#[derive(Debug, Parser)]
#[command(name = "bpctl", version, arg_required_else_help = true, override_help = HELP)]
#[command(override_usage = "bpctl -S NODES|-M [CHANGES]...\n       bpctl COMMAND")]
pub struct Flags {
    /// The cluster's instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]
    #[arg(long, global = true, value_name = "NAME")]
    pub instance: Option<String>,
    #[command(flatten)]
    pub steps: StepFlags,
    #[command(subcommand)]
    pub action: Option<Action>,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a token with which machines can join (root)
    Token(TokenFlags),
    /// List nodes and change which ones belong to the cluster
    #[command(subcommand)]
    Nodes(NodesAction),
    /// Let the ghostd that is installed now go on in the running one's place, with all that runs (root)
    Handover,
    /// Look at the master and all nodes: kernel features, rights, limits, clocks, releases, connections; what is wrong, and what to do (root)
    Doctor {
        /// Show also what is well
        #[arg(short, long)]
        all: bool,
    },
    /// Print what ghostd counts, in Prometheus' text format: nodes, launches, signals, bytes, times
    Metrics,
    /// Print completions of all commands for a shell, as for `source <(bpctl completions bash)`
    Completions {
        /// Which shell
        #[arg(value_parser = clap::value_parser!(clap_complete::Shell))]
        shell: clap_complete::Shell,
        /// Only of this command
        #[arg(value_parser = super::completions::COMMANDS)]
        command: Option<String>,
    },
    /// Whether /proc shows remote processes' own figures, until ghostd starts anew (root)
    View {
        #[arg(value_enum)]
        state: Switch,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Debug, Args)]
pub struct TokenFlags {
    /// Good for these node numbers only [default: any]
    #[arg(long, value_name = "NODES")]
    pub nodes: Option<String>,
    /// How many machines may join with it [default: one, or one for each of NODES]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
    /// How long it is valid: 90s, 30m, 12h, 7d [default: 1h]
    #[arg(long, value_name = "T", value_parser = validity::parse)]
    pub expires: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub enum NodesAction {
    /// Show nodes with state, address and, if down, the reason
    List {
        /// Node list: 0,2-3, up, notup, … [default: all]
        #[arg(value_name = "NODES")]
        nodes: Option<String>,
    },
    /// Make nodes exist; until they join they are down (root)
    Add {
        #[arg(value_name = "NODES")]
        nodes: String,
    },
    /// Forget nodes; their certificates are refused from now on (root)
    Remove {
        #[arg(value_name = "NODES")]
        nodes: String,
    },
    /// Refuse nodes from now on, also if they want to join; they stay listed (root)
    Revoke {
        #[arg(value_name = "NODES")]
        nodes: String,
    },
    /// Let other machines join under these numbers; the present certificates are refused (root)
    Replace {
        #[arg(value_name = "NODES")]
        nodes: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Flags::command().debug_assert();
    }
}
