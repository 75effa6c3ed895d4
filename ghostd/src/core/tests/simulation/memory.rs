//! What may be kept, here and on the way: streams within their windows, tables within what there is.

use super::super::super::launches::LARGEST_WINDOW as WINDOW;
use super::super::super::signal_queue::MOST;
use super::world::World;

/// A piece of input is kept whole until its last byte is acknowledged.
const PIECE: usize = 60_000;
/// Group signals that are remembered.
const CALLS: usize = 64;
/// Control messages of a node that wait in nodeagent, in bytes; far more than there are.
const CONTROL: usize = 1 << 20;

impl World {
    /// 5: nothing is kept beyond its bound.
    pub fn check_memory(&self) {
        let core = &self.master.core;
        for launch in core.launches.values() {
            let kept: usize = launch.stdin.pieces.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(kept <= launch.window as usize + PIECE, "5: {kept} bytes of input of a command are kept");
        }
        for (id, process) in &core.processes {
            for output in &process.outputs {
                let waiting: usize = output.waiting.iter().map(|data| data.bytes.len()).sum();
                assert!(waiting <= WINDOW, "5: {waiting} bytes of output of {id:?} wait for its command");
            }
            let signals = process.signals.iter().count() + process.held_back.as_ref().map_or(0, Vec::len);
            assert!(signals <= 2 * MOST, "5: {signals} signals wait for {id:?}");
        }
        assert!(core.group_calls.len() <= CALLS, "5: {} group signals are remembered", core.group_calls.len());
        let (processes, begun) =
            (core.processes.len(), self.ghosts.len() + self.truth.len() + self.tally.forks as usize);
        // Ranks that were planned, and have no ghost yet.
        let planned: usize = core.launches.values().map(|launch| launch.ranks.len()).sum();
        assert!(processes <= begun + planned, "5: {processes} processes are known, {begun} there were");
        for (link, relay) in &self.relays {
            let of_node = self.truth.values().filter(|truth| truth.node == self.links[link].node).count();
            let (waiting, streams) = (relay.waiting(), 2 * of_node);
            assert!(waiting <= streams * (WINDOW + WINDOW / 8) + CONTROL, "5: {waiting} bytes wait in nodeagent");
        }
    }
}
