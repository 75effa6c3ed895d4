//! Who stands above a launch: its launcher, and the leaders of that one's group and session.
//!
//! It is looked for after the launcher has been told to make its ghosts, and before the first of them is looked at: then
//! nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ghost_proto::standin::{Origin, Original};
use ghost_sys::identity;
use tokio::sync::Notify;

use super::{Driver, Shared};
use crate::core::{ClientId, Event};

/// How long what is known of a leader is believed. It says what the leader is called, and whose it is; who may signal it, the
/// kernel is asked anew each time.
const BELIEVED: Duration = Duration::from_secs(2);
/// Leaders that are remembered.
const MOST: usize = 256;

/// Launches whose launchers are to be looked at.
#[derive(Default)]
pub(super) struct Above {
    wanted: VecDeque<(ClientId, u32, u32)>,
    some: Rc<Notify>,
    leaders: HashMap<u32, (Instant, Original)>,
}

impl Above {
    /// The launcher of this client's launch is to be looked at when there is time.
    pub(super) fn want(&mut self, client: ClientId, pid: u32, uid: u32) {
        self.wanted.push_back((client, pid, uid));
        self.some.notify_one();
    }

    /// `None`: some of it is out of this PID namespace's sight, or is its init.
    fn of(&mut self, launcher: u32, uid: u32) -> Option<Origin> {
        let group = identity::group(launcher).ok().filter(|&pid| pid > 1)?;
        let session = identity::session(launcher).ok().filter(|&pid| pid > 1)?;
        let parent = original(launcher, uid);
        let group = if group == launcher { parent.clone() } else { self.leader(group, uid) };
        let session = match session {
            pid if pid == launcher => parent.clone(),
            pid if pid == group.pid => group.clone(),
            pid => self.leader(pid, uid),
        };
        Some(Origin { parent, group, session })
    }

    fn leader(&mut self, pid: u32, uid: u32) -> Original {
        if let Some((when, known)) = self.leaders.get(&pid)
            && when.elapsed() < BELIEVED
        {
            return known.clone();
        }
        if self.leaders.len() >= MOST {
            self.leaders.clear();
        }
        let leader = original(pid, uid);
        self.leaders.insert(pid, (Instant::now(), leader.clone()));
        leader
    }
}

/// Of who has gone its number is left, as long as it is a group's or a session's.
fn original(pid: u32, uid: u32) -> Original {
    match identity::name_and_user(pid) {
        Ok((comm, uid)) => Original { pid, uid, comm: Bytes::from(comm) },
        Err(_) => Original { pid, uid, comm: Bytes::new() },
    }
}

/// Looks at launchers when everything else has been done.
pub(super) fn watch(shared: &Shared) {
    let (some, shared) = (Rc::clone(&shared.borrow().above.some), Rc::clone(shared));
    tokio::task::spawn_local(async move {
        loop {
            some.notified().await;
            shared.borrow_mut().look_above();
        }
    });
}

impl Driver {
    /// The launcher of this client's launch is to be looked at when there is time.
    pub(super) fn want_above(&mut self, client: ClientId) {
        if let Some(port) = self.clients.get(&client).filter(|port| port.pidfd.is_some()) {
            self.above.want(client, port.pid, port.uid);
        }
    }

    /// What is above a launcher that is there.
    pub(super) fn origin_of(&mut self, launcher: u32, uid: u32) -> Option<Origin> {
        self.above.of(launcher, uid)
    }

    /// To be called before a ghost's first read is looked at.
    pub(super) fn look_above(&mut self) {
        while let Some((client, pid, uid)) = self.above.wanted.pop_front() {
            if let Some(origin) = self.above.of(pid, uid) {
                self.turn(Event::Above { client, origin });
            }
        }
    }
}
