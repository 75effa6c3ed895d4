//! What is counted is what has happened, once.

use std::time::Duration;

use ghost_proto::client::{self, ClientToMaster, StartStage};
use ghost_proto::frame::Data;
use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::node::{self, NodeToMaster};

use super::super::{Action, Event, LinkId};
use super::FourNodes;
use super::transitions::{Bench, CLIENT, GHOST};

#[test]
fn a_launch_a_signal_and_an_end_count_one_each() {
    let mut bench = Bench::new();
    let before = bench.core.counts().clone();
    assert_eq!((before.commands, before.node_connections, before.node_reconnections), (1, 2, 0));
    bench.launch("0");
    bench.now += Duration::from_millis(3);
    bench.begin();
    let counts = bench.core.counts();
    assert_eq!((counts.launches, counts.started, counts.forked), (1, 1, 0));
    assert_eq!((counts.launch_time.count(), counts.launch_time.sum()), (1, Duration::from_millis(3)));
    assert_eq!((counts.start_time.count(), counts.start_time.sum()), (1, Duration::ZERO));
    let census = bench.core.census(&FourNodes);
    assert_eq!((census.launches, census.processes, census.ghosts, census.open_signals), (1, 1, 1, 0));
    bench.signal(15);
    assert_eq!(bench.core.census(&FourNodes).open_signals, 1);
    bench.now += Duration::from_millis(2);
    let done = || NodeToMaster::SignalDone(node::SignalDone { proc: 2, seq: 1, errno: 0 });
    bench.node(0, 10, done());
    bench.node(0, 10, done());
    let counts = bench.core.counts();
    assert_eq!((counts.signals_forwarded, counts.signals_delivered, counts.signals_refused), (1, 1, 0));
    assert_eq!((counts.signal_time.count(), counts.signal_time.sum()), (1, Duration::from_millis(2)));
    bench.end(0);
    bench.end(0);
    let ended: Vec<_> = bench.core.counts().all_ended().collect();
    assert_eq!(ended, [("exited", 1), ("killed", 0), ("lost", 0)]);
    assert_eq!(bench.core.census(&FourNodes).processes, 0);
}

#[test]
fn bytes_count_once_also_when_they_come_again() {
    let mut bench = Bench::running();
    for (offset, bytes) in [(0, "abc"), (0, "abc"), (2, "cde")] {
        let data = Data { id: 2, offset, fd: 1, eof: false, bytes: bytes.into() };
        bench.feed(Event::NodeData { node: NodeNumber(0), link: LinkId(10), data });
    }
    let data = Data { id: ghost_proto::frame::ALL_RANKS, offset: 0, fd: 0, eof: false, bytes: "input".into() };
    bench.feed(Event::ClientData { client: CLIENT, data });
    assert_eq!(bench.core.counts().stream_bytes, [5, 5, 0]);
}

#[test]
fn what_does_not_start_counts_by_its_reason() {
    let mut bench = Bench::new();
    // 2 is not connected, 3 is root's.
    bench.launch("0,2,3");
    bench.read(GHOST, 0);
    bench.feed(Event::Adopted { process: ProcId(2), ok: true, pgid: 100 });
    bench.read(GHOST, 0);
    let stage = StartStage::Exec as i32;
    let failed = node::StartFailed { proc: 2, stage, errno: 2, text: String::new() };
    bench.node(0, 10, NodeToMaster::StartFailed(failed));
    let counted: Vec<_> = bench.core.counts().all_not_started().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [("forbidden", 1), ("unreachable", 1), ("not_found", 1)]);
    assert_eq!(bench.core.counts().started, 0);
    let mut bench = Bench::new();
    bench.say(ClientToMaster::Launch(client::Launch { nodes: "nonsense!".into(), ..Default::default() }));
    assert_eq!((bench.core.counts().requests_refused, bench.core.counts().launches), (1, 0));
}

#[test]
fn a_node_that_is_lost_is_counted_with_what_it_ran() {
    let mut bench = Bench::running();
    bench.disconnect(0, 10);
    bench.connect(0, 12, 1000, 70, &[2]);
    let counts = bench.core.counts();
    assert_eq!((counts.node_connections, counts.node_reconnections, counts.node_losses), (3, 1, 0));
    bench.disconnect(0, 12);
    bench.now += Duration::from_secs(60);
    bench.feed(Event::Tick);
    let counts = bench.core.counts();
    assert_eq!(counts.all_ended().collect::<Vec<_>>(), [("exited", 0), ("killed", 0), ("lost", 1)]);
    // Node 1 has not answered for as long, but was connected until now.
    assert_eq!(counts.node_losses, 1);
}

#[test]
fn a_node_that_ran_nothing_is_no_loss() {
    let mut bench = Bench::running();
    // Started anew, with another holder.
    bench.disconnect(1, 11);
    bench.connect(1, 13, 2000, 0, &[]);
    bench.disconnect(1, 13);
    bench.now += Duration::from_secs(60);
    bench.feed(Event::Tick);
    assert_eq!((bench.core.counts().node_connections, bench.core.counts().node_losses), (3, 0));
}

#[test]
fn a_round_trip_is_from_a_lease_to_its_acknowledgement() {
    let mut bench = Bench::new();
    bench.now += Duration::from_secs(5);
    bench.feed(Event::Tick);
    bench.now += Duration::from_millis(40);
    let ack = |seq| NodeToMaster::LeaseAck(node::LeaseAck { seq, ..node::LeaseAck::default() });
    bench.node(0, 10, ack(1));
    // Not what was asked last.
    bench.node(1, 11, ack(77));
    let round_trip = &bench.core.counts().round_trip;
    assert_eq!((round_trip.count(), round_trip.sum()), (1, Duration::from_millis(40)));
}

#[test]
fn whoever_asks_is_told() {
    let mut bench = Bench::new();
    let told = bench.say(ClientToMaster::Metrics(ghost_proto::metrics::MetricsRequest {}));
    assert_eq!(told, [Action::TellMetrics { client: CLIENT }]);
}
