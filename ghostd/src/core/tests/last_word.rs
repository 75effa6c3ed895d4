//! Launchers that stand still when what they launched is killed.

use ghost_proto::client::{self, ClientToMaster};
use ghost_proto::frame::Data;
use ghost_proto::ids::NodeNumber;
use ghost_proto::node::{self, NodeToMaster};

use super::transitions::{Bench, GHOST, output};
use crate::core::{Action, ClientId, Event, LinkId};

const KILL: Action = Action::KillLauncher { client: ClientId(1) };
const CONTINUE: Action = Action::ContinueLauncher { client: ClientId(1) };
const KILLED: i32 = 9;

fn stopped(plain: bool) -> Bench {
    let mut bench = Bench::new();
    bench.launch_as("0", plain);
    bench.begin();
    bench.node(0, 10, NodeToMaster::Stopped(node::Stopped { proc: 2, signal: 19 }));
    bench
}

fn hear(bench: &mut Bench, data: Data) -> Vec<Action> {
    bench.feed(Event::NodeData { node: NodeNumber(0), link: LinkId(10), data })
}

/// Both outputs end, with so many bytes of standard output before.
fn outputs_end(bench: &mut Bench, offset: u64) {
    hear(bench, output(2, offset, b"", true));
    hear(bench, Data { fd: 2, ..output(2, 0, b"", true) });
}

#[test]
fn it_is_killed_in_the_same_way() {
    let mut bench = stopped(true);
    outputs_end(&mut bench, 0);
    let mut actions = bench.end(KILLED);
    actions.extend(bench.feed(Event::Tick));
    assert!(actions.contains(&KILL) && !actions.contains(&CONTINUE), "{actions:?}");
    bench.feed(Event::ClientGone { client: ClientId(1) });
    bench.feed(Event::GhostExited { ghost: 2, launcher: false, pid: GHOST });
    bench.rest();
}

#[test]
fn it_gets_all_output_before() {
    let mut bench = stopped(true);
    hear(&mut bench, output(2, 0, b"abc", false));
    assert!(!bench.end(KILLED).contains(&KILL));
    outputs_end(&mut bench, 3);
    assert!(!bench.feed(Event::Tick).contains(&KILL), "it has not used it up");
    bench.say(ClientToMaster::Ack(client::Ack { rank: 0, fd: 1, offset: 3 }));
    let actions = bench.feed(Event::Tick);
    assert!(actions.contains(&KILL) && !actions.contains(&CONTINUE), "{actions:?}");
}

#[test]
fn it_goes_on_when_output_does_not_end() {
    let mut bench = stopped(true);
    bench.end(KILLED);
    assert!(bench.core.is_restless());
    let ticks: Vec<Vec<Action>> = (0..100).map(|_| bench.feed(Event::Tick)).collect();
    assert!(ticks.iter().flatten().all(|action| *action != KILL));
    assert!(ticks.iter().flatten().any(|action| *action == CONTINUE));
    assert!(!ticks[0].contains(&CONTINUE), "output may still be on its way");
}

#[test]
fn it_goes_on_if_it_has_something_to_tell() {
    let mut adorned = stopped(false);
    outputs_end(&mut adorned, 0);
    assert!(adorned.end(KILLED).contains(&CONTINUE));
    let mut terminated = stopped(true);
    outputs_end(&mut terminated, 0);
    assert!(terminated.end(15).contains(&CONTINUE), "it dies by that signal itself");
    // Nobody has stopped: it tells by itself.
    let mut running = Bench::new();
    running.launch_as("0", true);
    running.begin();
    outputs_end(&mut running, 0);
    let actions = running.end(KILLED);
    assert!(!actions.contains(&CONTINUE) && !actions.contains(&KILL));
}
