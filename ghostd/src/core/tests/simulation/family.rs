//! Ghosts among themselves: whose children they are, who makes and who waits for whom, and their groups.

use ghost_host::pin::ReadToken;
use ghost_proto::ids::ProcId;
use ghost_sys::ghost::{Answer, Birth, Kin};
use nix::libc;

use super::super::super::Event;
use super::ghosts::{Ghost, INIT, Place};
use super::world::World;

/// Numbers of groups above this are nobody's.
const ANY_GROUP: u32 = 1 << 30;

impl World {
    /// Announces a ghost to the kernel, and has it made.
    pub fn beget(&mut self, token: ReadToken, maker: u32, process: ProcId, birth: Birth, tag: u32) {
        if let Some(maker) = self.ghosts.get_mut(&maker).filter(|ghost| !ghost.reaped) {
            maker.expecting = Some((process.0, tag));
        }
        if !self.dies_here() {
            self.answer(token.unique(), Some(Answer::Fork(birth)));
        }
    }

    pub fn withdraw(&mut self, process: ProcId, maker: u32) {
        let maker = self.ghosts.get_mut(&maker).filter(|ghost| !ghost.reaped);
        let expecting = maker.and_then(|maker| maker.expecting.take_if(|(expected, _)| *expected == process.0));
        self.feed_next(Event::Withdrawn { process, in_time: expecting.is_some() });
    }

    pub fn ghost_forks(&mut self, pid: u32, birth: &Birth) {
        let fails = !self.random.quick && self.random.percent(3);
        let taken = self.random.percent(3) || birth.pid == 0 || self.ghosts.contains_key(&birth.pid);
        let taker = self.taker_from(pid);
        let Some(maker) = self.ghosts.get_mut(&pid) else { return };
        if fails {
            return maker.set_outcome(libc::EAGAIN);
        }
        let expected = maker.expecting.take();
        let parent = match birth.kin {
            Kin::Child => pid,
            Kin::Sibling => maker.parent,
            Kin::Orphan => taker,
        };
        let mut child = Ghost::new(maker.client, birth.rank, parent, maker.pgid, maker.sid);
        if let Some((process, tag)) = expected {
            (child.process, child.tag) = (Some(process), tag);
        }
        let mut number = birth.pid;
        if taken {
            self.next_pid += 1;
            number = self.next_pid;
        }
        self.tally.ghosts_forked += 1;
        self.ghosts.insert(number, child);
        self.plan_step(number);
    }

    pub fn ghost_waits(&mut self, pid: u32, child: u32) {
        if let Some(child) = self.ghosts.get_mut(&child).filter(|child| child.parent == pid) {
            assert!(child.place == Place::Dead, "a ghost is told to wait for one that lives");
            child.reaped = true;
        }
    }

    /// setpgid(0, pgid).
    pub fn ghost_joins(&mut self, pid: u32, pgid: u32) {
        let Some(sid) = self.ghosts.get(&pid).map(|ghost| ghost.sid) else { return };
        let in_session = |ghost: &Ghost| ghost.sid == sid && !ghost.reaped;
        let exists = pgid == pid
            || self.ghosts.values().any(|ghost| in_session(ghost) && ghost.pgid == pgid)
            || self.clients.iter().any(|client| client.pid == pgid && !client.reaped && sid == pgid);
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        if exists && sid != pid {
            ghost.pgid = pgid;
        } else {
            ghost.set_outcome(libc::EPERM);
        }
    }

    /// Into a group with the number of a child that has ended: this one, if it is free.
    pub fn ghost_founds(&mut self, pid: u32, wanted: u32) {
        let taken = wanted == 0
            || self.ghosts.contains_key(&wanted)
            || self.ghosts.values().any(|ghost| ghost.pgid == wanted && !ghost.reaped)
            || self.clients.iter().any(|client| client.pid == wanted);
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        match ghost.sid == pid {
            true => ghost.set_outcome(libc::EPERM),
            false => ghost.pgid = if taken { ANY_GROUP + pid } else { wanted },
        }
    }

    /// Which group it is in.
    pub fn tell_group(&mut self, process: ProcId, pid: u32) {
        let pgid = self.ghosts.get(&pid).filter(|ghost| !ghost.reaped).map_or(0, |ghost| ghost.pgid);
        self.feed_next(Event::GroupIs { process, pgid });
    }

    /// setsid(); who is alone in a group with his own number leaves that first.
    pub fn ghost_leads(&mut self, pid: u32) {
        let is_group = self.ghosts.iter().any(|(other, ghost)| *other != pid && ghost.pgid == pid && !ghost.reaped);
        let Some(ghost) = self.ghosts.get_mut(&pid) else { return };
        if is_group {
            ghost.set_outcome(libc::EPERM);
        } else {
            (ghost.pgid, ghost.sid) = (pid, pid);
        }
    }

    /// Its parent is dead: the nearest above that takes them in gets them, or init, which waits for those that are dead.
    pub fn orphan_children(&mut self, parent: u32) {
        let taker = self.taker_from(parent);
        for ghost in self.ghosts.values_mut().filter(|ghost| ghost.parent == parent && !ghost.reaped) {
            ghost.parent = taker;
            ghost.reaped = ghost.place == Place::Dead && taker == INIT;
            self.tally.taken_in += u64::from(taker != INIT);
        }
    }

    /// Who gets the children of one that dies below this one, or is this one.
    fn taker_from(&self, mut at: u32) -> u32 {
        while let Some(ghost) = self.ghosts.get(&at) {
            if ghost.takes_in && ghost.place != Place::Dead {
                return at;
            }
            at = ghost.parent;
        }
        INIT
    }
}
