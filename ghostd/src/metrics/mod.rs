//! What ghostd tells of itself to who watches over it: figures in Prometheus' text format.
//!
//! Counting is the core's and the driver's ([`crate::core::Counts`]); here is what the figures are called and what they mean. Names
//! follow Prometheus' conventions: seconds and bytes, `_total` for what only grows. They are an interface: none changes its meaning.
//!
//! What is told is of all users together, as in `/proc/stat`, so that everybody may know it.

mod histogram;
mod own_process;
pub mod request;
mod text;

pub use histogram::Histogram;
pub use own_process::OwnProcess;
pub use text::CONTENT_TYPE;
use text::Text;

use std::collections::BTreeMap;

use ghost_proto::ids::NodeNumber;
use ghost_proto::node_state::NodeStatus;

use crate::core::{Census, Counts};

/// What the driver knows, and the core does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edge {
    pub release: &'static str,
    /// Ghostds that have gone on with what the one before had.
    pub takeovers: u64,
    /// Connections on the port of the nodes that were turned away.
    pub connections_refused: u64,
    /// Commands that got no connection, for there were too many.
    pub commands_refused: u64,
    pub fuse_requests: u64,
    pub records_dropped: u64,
    pub view: bool,
    /// Of connected nodes: until when their certificates are valid, in seconds since 1970.
    pub certificates: BTreeMap<NodeNumber, i64>,
    pub own: OwnProcess,
}

/// All of it, as a text.
pub fn page(counts: &Counts, census: &Census, edge: &Edge) -> String {
    let mut text = Text::default();
    text.gauges("ghostproc_build_info", "Release of ghostd.", "version", [(edge.release, 1)]);
    text.counter(
        "ghostproc_takeovers_total",
        "Ghostds that have gone on with what the one before had (restart, crash, handover), since the host was started.",
        edge.takeovers,
    );
    nodes(&mut text, counts, census, edge);
    commands(&mut text, counts, census, edge);
    processes(&mut text, counts, census);
    signals(&mut text, counts, census, edge);
    text.counters(
        "ghostproc_stream_bytes_total",
        "Bytes of standard streams: stdin from commands (once for all ranks), stdout and stderr from nodes.",
        "stream",
        ["stdin", "stdout", "stderr"].into_iter().zip(counts.stream_bytes),
    );
    text.counter(
        "ghostproc_fuse_requests_total",
        "Requests of the kernel to the file system on which ghosts sleep.",
        edge.fuse_requests,
    );
    text.gauge(
        "ghostproc_view_up",
        "1 while /proc shows remote processes' own figures, 0 while that is off or its server is being started again.",
        u8::from(edge.view),
    );
    edge.own.write(&mut text);
    text.into_string()
}

fn nodes(text: &mut Text, counts: &Counts, census: &Census, edge: &Edge) {
    let in_state = |state| census.nodes.iter().filter(|(_, status)| *status == state).count();
    text.gauges(
        "ghostproc_nodes",
        "Nodes of the cluster by state.",
        "state",
        NodeStatus::ALL.into_iter().map(|state| (state.name(), in_state(state))),
    );
    text.gauges(
        "ghostproc_node_up",
        "1 if the node is in state up.",
        "node",
        census.nodes.iter().map(|(number, status)| (number.to_string(), u8::from(*status == NodeStatus::Up))),
    );
    text.gauges(
        "ghostproc_node_certificate_expiry_seconds",
        "Until when the certificate is valid that the node has shown, since 1970; of connected nodes.",
        "node",
        edge.certificates.iter().map(|(number, expires)| (number.0.to_string(), expires)),
    );
    text.counter("ghostproc_node_connections_total", "Sessions of nodes that have begun.", counts.node_connections);
    text.counter(
        "ghostproc_node_reconnections_total",
        "Those of them that went on, with all processes, where the session before had ended.",
        counts.node_reconnections,
    );
    text.counter(
        "ghostproc_node_losses_total",
        "Nodes given up, or come back without what they ran: processes were declared dead.",
        counts.node_losses,
    );
    text.counter(
        "ghostproc_connections_refused_total",
        "Connections on the nodes' port that were turned away: no or a revoked certificate, silence, too many.",
        edge.connections_refused,
    );
    text.histogram(
        "ghostproc_node_round_trip_seconds",
        "From a lease to its acknowledgement: over the network, through nodeagent and the holder, and back.",
        &counts.round_trip,
    );
}

fn commands(text: &mut Text, counts: &Counts, census: &Census, edge: &Edge) {
    text.gauge("ghostproc_commands", "Commands that are connected, on the master and on nodes.", census.commands);
    text.counter("ghostproc_commands_total", "Commands that have connected.", counts.commands);
    text.counter(
        "ghostproc_commands_resumed_total",
        "Commands that went on with what an earlier ghostd had launched for them.",
        counts.commands_resumed,
    );
    text.counter(
        "ghostproc_commands_refused_total",
        "Commands that got no connection: too many.",
        edge.commands_refused,
    );
    text.counter(
        "ghostproc_requests_refused_total",
        "Requests of commands that were refused as a whole, such as a node list with a mistake.",
        counts.requests_refused,
    );
}

fn processes(text: &mut Text, counts: &Counts, census: &Census) {
    text.gauge("ghostproc_launches", "Launches whose command has not ended.", census.launches);
    text.counter("ghostproc_launches_total", "Launches that were asked for, whatever became of them.", counts.launches);
    text.gauge("ghostproc_processes", "Processes that run on nodes.", census.processes);
    text.gauge(
        "ghostproc_ghosts",
        "Ghosts in the master's process table, those of ended processes included.",
        census.ghosts,
    );
    text.counters(
        "ghostproc_processes_started_total",
        "Processes that have begun on nodes: launched, or forked by those.",
        "by",
        [("launch", counts.started), ("fork", counts.forked)],
    );
    text.counters(
        "ghostproc_processes_not_started_total",
        "Processes of launches that did not begin, by reason.",
        "reason",
        counts.all_not_started(),
    );
    text.counters(
        "ghostproc_processes_ended_total",
        "Processes that have ended: by exiting, by a signal, or declared dead because their node is lost.",
        "how",
        counts.all_ended(),
    );
    text.histogram(
        "ghostproc_launch_seconds",
        "From a command's request to the begin of its first process.",
        &counts.launch_time,
    );
    text.histogram(
        "ghostproc_process_start_seconds",
        "From the order to a node to begin a process to the answer that it has begun.",
        &counts.start_time,
    );
}

fn signals(text: &mut Text, counts: &Counts, census: &Census, edge: &Edge) {
    text.counter(
        "ghostproc_signals_forwarded_total",
        "Signals to ghosts that were passed on to their processes; one to a group counts once for each node.",
        counts.signals_forwarded,
    );
    text.counter(
        "ghostproc_signals_delivered_total",
        "Signals that nodes have confirmed. The last ones of a process that ends are not confirmed.",
        counts.signals_delivered,
    );
    text.counter(
        "ghostproc_signals_refused_total",
        "Signals that could not be delivered on the node: not permitted, or the process was gone.",
        counts.signals_refused,
    );
    text.counter(
        "ghostproc_signals_upwards_total",
        "Signals of remote processes that were sent on the master.",
        counts.signals_upwards,
    );
    text.gauge("ghostproc_signals_open", "Signals that wait for their node's confirmation.", census.open_signals);
    text.counter(
        "ghostproc_signal_records_dropped_total",
        "Records of signals that the kernel programs could not keep (a flood). What they told is looked up.",
        edge.records_dropped,
    );
    text.histogram(
        "ghostproc_signal_seconds",
        "From the kernel's record of a signal to the node's confirmation that its process has it.",
        &counts.signal_time,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_told_also_when_no_node_is_in_it() {
        let nodes = vec![(0, NodeStatus::Up), (1, NodeStatus::Up), (7, NodeStatus::Down)];
        let census = Census { nodes, ..Census::default() };
        let text = page(&Counts::default(), &census, &Edge { release: "1.2.3", ..Edge::default() });
        for line in [
            "ghostproc_build_info{version=\"1.2.3\"} 1",
            "ghostproc_nodes{state=\"up\"} 2",
            "ghostproc_nodes{state=\"down\"} 1",
            "ghostproc_nodes{state=\"pwroff\"} 0",
            "ghostproc_node_up{node=\"1\"} 1",
            "ghostproc_node_up{node=\"7\"} 0",
            "ghostproc_processes_not_started_total{reason=\"unreachable\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }

    /// Names and texts are what Prometheus' own checker (`promtool check metrics`) asks for.
    #[test]
    fn names_follow_the_conventions() {
        let text = page(&Counts::default(), &Census::default(), &Edge::default());
        let mut seen = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(!seen.contains(&name), "{name} is there twice");
            seen.push(name);
            assert!(name.starts_with("ghostproc_") || name.starts_with("process_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} "))).unwrap();
            assert!(help.ends_with('.') && !help.contains('\\'), "{name}: {help}");
        }
        assert!(seen.len() > 30);
    }
}
