//! Ghosts are made: of all ranks at once, or of a few at a time (`--fanout`).

use std::os::fd::AsFd;

use ghost_proto::client::{ClientToMaster, Launched, MakeGhost};

use super::super::ghosts::Flock;
use super::super::program;
use super::super::report::Event;
use super::{Failure, Session, failure};

impl Session {
    /// Makes a ghost for every rank that can start and has its turn. A signal that comes meanwhile is seen by ghostd, who passes
    /// it on to the ranks whose ghosts were not there yet to hear it.
    pub(super) fn begin(&mut self, launched: &Launched) -> Result<(), Failure> {
        self.pin = self.connection.take_descriptor();
        let places = self.ranks.iter().enumerate().map(|(rank, state)| state.place(rank)).collect();
        self.output.event(&Event::begin(self.program.argv.iter().map(|word| &word[..]), places));
        let mut refused = Vec::new();
        for (rank, plan) in (0u32..).zip(&launched.ranks) {
            if plan.reason.is_empty() {
                self.waiting.push_back(rank);
            } else {
                refused.push((rank as usize, plan.obstacle(), plan.reason.clone()));
            }
        }
        if launched.makes_ghosts {
            self.flock = Flock::elsewhere();
        } else if !self.waiting.is_empty() && self.pin.is_none() {
            return Err(failure("ghostd sent no pin: is its version another one?"));
        }
        self.refused(refused);
        self.vacancies = self.fanout;
        self.fill_vacancies();
        Ok(())
    }

    /// Begins as many as may run besides those that do.
    pub(super) fn fill_vacancies(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let name = program::name(&self.program);
        while self.vacancies > 0
            && let Some(rank) = self.waiting.pop_front()
        {
            if self.flock.is_elsewhere() {
                self.vacancies -= 1;
                self.flock.expect(rank);
                self.connection.queue(ClientToMaster::MakeGhost(MakeGhost { rank }));
                continue;
            }
            let Some(pin) = &self.pin else { return };
            self.vacancies -= 1;
            if let Err(error) = self.flock.spawn(pin.as_fd(), rank, &name) {
                // Settling it makes room for the next.
                self.no_ghost(rank, error.raw_os_error().unwrap_or(0));
            }
        }
        if self.waiting.is_empty() {
            self.pin = None;
        }
    }
}
