//! `bpstat`: what the nodes are, and which process of this host's table runs on which of them.

mod live;
mod nodes;
pub mod ps;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use ghost_proto::client::{ClientToMaster, MasterToClient, NodeInfo, NodesRequest, ProcessInfo, ProcessesRequest};
use serde::Serialize;

use crate::accounts::{Accounts, Kind};
use crate::connection::{Connection, ConnectionError, instance};
use crate::node_list::NodeList;
use nodes::Order;

/// Show nodes of the cluster and what runs on them
#[derive(Parser, Debug)]
#[command(
    name = "bpstat",
    version,
    disable_version_flag = true,
    override_usage = "bpstat [OPTIONS] [NODES]\n       ps xf | bpstat -P",
    after_help = "\
Examples:
  bpstat                 the nodes; those that are alike share a row
  bpstat -l 0-3          one row for each of these, with its address
  bpstat -t up           how many are up
  bpstat -l -S notup     those that are not, by status, and why
  bpstat -U -l           load and memory, anew when something changes
  ps xf | bpstat -P      ps, with a column for the node"
)]
struct Flags {
    /// Nodes that are alike in one row (the default)
    #[arg(short = 'c', long, group = "form")]
    compact: bool,
    /// One row for each node, with its address, load, memory in use, and processes of the cluster
    #[arg(short = 'l', long, group = "form")]
    long: bool,
    /// Addresses only, one a line
    #[arg(short = 'a', long, group = "form")]
    address: bool,
    /// Statuses only, one a line
    #[arg(short = 's', long, group = "form")]
    status: bool,
    /// Numbers only, one a line
    #[arg(short = 'n', long, group = "form")]
    number: bool,
    /// How many nodes there are
    #[arg(short = 't', long, group = "form")]
    total: bool,
    /// Processes: number here, node, number there if it is another
    #[arg(short = 'p', long, group = "form")]
    processes: bool,
    /// Put a column with the node before each line of ps's output
    #[arg(short = 'P', long, group = "form")]
    ps: bool,
    /// Everything as one JSON object (with -p: the processes)
    #[arg(long, conflicts_with_all = ["compact", "long", "address", "status", "number", "total", "ps"])]
    json: bool,
    /// Show it anew whenever it changes, until you end it
    #[arg(short = 'U', long, conflicts_with_all = ["processes", "ps"])]
    update: bool,
    /// Reverse the order
    #[arg(short = 'R', long)]
    reverse: bool,
    /// In the order of numbers (the default)
    #[arg(short = 'N', long, group = "order")]
    by_number: bool,
    /// In the order of statuses
    #[arg(short = 'S', long, group = "order")]
    by_status: bool,
    /// In the order of the node list
    #[arg(short = 'O', long, group = "order")]
    as_given: bool,
    /// Which cluster [default: $GHOSTPROC_INSTANCE]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Print version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// A node list such as 0,2-3 or up
    #[arg(allow_negative_numbers = true)]
    nodes: Option<String>,
}

/// The definition of the flags.
pub fn definition() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

impl nodes::Names for Accounts {
    fn user(&mut self, uid: u32) -> String {
        self.name(Kind::User, uid)
    }

    fn group(&mut self, gid: u32) -> String {
        self.name(Kind::Group, gid)
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            // Nobody left to tell if this fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ghost_sys::quiet::die_by(nix::libc::SIGPIPE),
        Err(error) => {
            crate::complain(&format!("bpstat: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Our reader is gone: we end as other filters do.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<io::Error>();
    source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let instance = instance(flags.instance.as_deref())?;
    let list = flags.nodes.as_deref().map(|nodes| NodeList::read(nodes, &instance)).transpose()?;
    let mut connection = Connection::open(&instance, "bpstat")?;
    if flags.ps {
        return filter(&mut connection);
    }
    if flags.processes {
        let processes = processes(&mut connection)?;
        return print(&if flags.json { processes_json(processes) } else { processes_table(processes) });
    }
    let order = match (flags.by_status, flags.as_given) {
        (true, _) => Order::Status,
        (_, true) => Order::Given,
        _ => Order::Number,
    };
    let mut accounts = Accounts::default();
    let mut text = |mut nodes: Vec<NodeInfo>| {
        nodes::sort(&mut nodes, order, flags.reverse);
        shown(flags, &nodes, &mut accounts)
    };
    if flags.update {
        return live::run(connection, &instance, list.as_ref(), text);
    }
    print(&text(nodes(&mut connection, list.as_ref(), flags.total || flags.json)?))
}

/// In the form that was asked for.
fn shown(flags: &Flags, nodes: &[NodeInfo], accounts: &mut Accounts) -> String {
    if flags.json {
        nodes::json(nodes, accounts)
    } else if flags.long {
        nodes::long(nodes, accounts)
    } else if flags.address {
        nodes::single(nodes, |node| nodes::address(node).to_owned())
    } else if flags.status {
        nodes::single(nodes, |node| node.status.clone())
    } else if flags.number {
        nodes::single(nodes, |node| node.node.to_string())
    } else if flags.total {
        format!("{}\n", nodes.len())
    } else {
        nodes::compact(nodes, accounts)
    }
}

/// `perhaps_none`: that there are none now is an answer as any other.
fn nodes(connection: &mut Connection, list: Option<&NodeList>, perhaps_none: bool) -> anyhow::Result<Vec<NodeInfo>> {
    let nodes = list.map_or_else(String::new, |list| list.text().to_owned());
    match connection.request(ClientToMaster::Nodes(NodesRequest { nodes, perhaps_none })) {
        Ok(MasterToClient::Nodes(reply)) => Ok(reply.nodes),
        Ok(_) => bail!("ghostd answered something else than was asked"),
        Err(ConnectionError::Refused(refused)) => {
            bail!(list.map_or_else(|| refused.text.clone(), |list| list.explain(&refused)))
        }
        Err(error) => Err(error.into()),
    }
}

fn processes(connection: &mut Connection) -> anyhow::Result<Vec<ProcessInfo>> {
    match connection.request(ClientToMaster::Processes(ProcessesRequest {}))? {
        MasterToClient::Processes(reply) => Ok(reply.processes),
        _ => bail!("ghostd answered something else than was asked"),
    }
}

/// PIDs and their nodes; the process's own number there where it is another.
fn processes_table(mut processes: Vec<ProcessInfo>) -> String {
    processes.sort_by_key(|process| process.pid);
    let rows = processes.iter().map(|process| {
        let there = Some(process.node_pid).filter(|pid| *pid != 0 && *pid != process.pid);
        vec![process.pid.to_string(), process.node.to_string(), there.map(|pid| pid.to_string()).unwrap_or_default()]
    });
    nodes::table(&["PID", "Node", "Node's PID"], rows)
}

/// The same for programs.
fn processes_json(mut processes: Vec<ProcessInfo>) -> String {
    #[derive(Serialize)]
    struct Process {
        pid: u32,
        node: i32,
        /// 0: it has not started yet.
        node_pid: u32,
        uid: u32,
    }
    #[derive(Serialize)]
    struct Processes {
        version: u32,
        processes: Vec<Process>,
    }
    processes.sort_by_key(|process| process.pid);
    let process = |p: ProcessInfo| Process { pid: p.pid, node: p.node, node_pid: p.node_pid, uid: p.uid };
    let all = Processes { version: 1, processes: processes.into_iter().map(process).collect() };
    serde_json::to_string(&all).unwrap_or_default() + "\n"
}

/// Copies standard input with a column for the node. ghostd is asked when the first line is there: by then, who writes has
/// seen the processes.
fn filter(connection: &mut Connection) -> anyhow::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut buffer = vec![0; 64 * 1024];
    let mut filter = None;
    let mut out = Vec::new();
    loop {
        let n = match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.context("cannot read standard input")?,
        };
        if filter.is_none() {
            let ghosts = processes(connection)?;
            let nodes: HashMap<u32, i32> = ghosts.iter().map(|process| (process.pid, process.node)).collect();
            filter = Some(ps::Filter::new(nodes));
        }
        let Some(filter) = &mut filter else { return Ok(()) };
        if n > 0 {
            filter.feed(&buffer[..n], &mut out);
        } else {
            filter.finish(&mut out);
        }
        output.write_all(&out)?;
        output.flush()?;
        out.clear();
        if n == 0 {
            return Ok(());
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_table_shows_other_numbers_only() {
        let process = |pid, node, node_pid| ProcessInfo { pid, node, node_pid, uid: 0 };
        let text = processes_table(vec![process(300, 2, 7), process(20, 0, 20), process(21, 1, 0)]);
        assert_eq!(text, "PID  Node  Node's PID\n20   0\n21   1\n300  2     7\n");
        let json = processes_json(vec![process(300, 2, 7), process(20, 0, 20)]);
        let first = r#"{"pid":20,"node":0,"node_pid":20,"uid":0}"#;
        assert!(json.starts_with(&format!(r#"{{"version":1,"processes":[{first},"#)), "{json}");
    }

    #[test]
    fn one_form_at_a_time() {
        assert!(Flags::try_parse_from(["bpstat", "-l", "-p"]).is_err());
        assert!(Flags::try_parse_from(["bpstat", "-l", "--json"]).is_err());
        assert!(Flags::try_parse_from(["bpstat", "-N", "-S"]).is_err());
        assert!(Flags::try_parse_from(["bpstat", "-RS", "-c", "up"]).is_ok());
        assert!(Flags::try_parse_from(["bpstat", "-l", "0-3"]).is_ok());
        assert_eq!(Flags::try_parse_from(["bpstat", "-1"]).expect("-1").nodes.as_deref(), Some("-1"));
    }
}
