//! What can be typed.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::validity;

/// Administer the cluster: join tokens and nodes
#[derive(Debug, Parser)]
#[command(name = "bpctl", version, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:\n  \
    bpctl token > token                      one machine may join, within an hour\n  \
    bpctl token --nodes 0-63 --expires 1d    64 machines may, as nodes 0 to 63\n  \
    bpctl nodes list                         all nodes, and why those are down that are\n  \
    bpctl nodes replace 3                    the next machine that joins may be node 3\n\n\
    Exit status: 0 done, 1 refused, 2 wrong usage, 125 ghostd could not be asked")]
pub struct Flags {
    /// The cluster's instance name [default: $GHOSTPROC_INSTANCE, else ghostproc]
    #[arg(long, global = true, value_name = "NAME")]
    pub instance: Option<String>,
    #[command(subcommand)]
    pub action: Action,
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
