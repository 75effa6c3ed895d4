//! Memory that the holder has given for what processes read: bulk of the master's is put there, and its frame says only where.
//!
//! Invariant: nothing is put beyond a ring, and nothing of one process into another's. Where in the ring is for the master to say, as it
//! is for the bytes themselves; the holder sees to the window.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ghost_proto::frame::Placed;
use ghost_sys::ring::{RingWriter, WORTH_PLACING};

/// By process. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct InputRings(Rc<RefCell<HashMap<u64, RingWriter>>>);

impl InputRings {
    pub fn insert(&self, process: u64, ring: RingWriter) {
        self.0.borrow_mut().insert(process, ring);
    }

    pub fn remove(&self, process: u64) {
        self.0.borrow_mut().remove(&process);
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Whether bytes go into a ring.
    pub fn take(&self, data: &Placed) -> bool {
        let length = data.length as usize;
        let fits = |ring: &RingWriter| length <= ring.size();
        data.fd == 0 && length >= WORTH_PLACING && self.0.borrow().get(&data.id).is_some_and(fits)
    }

    /// Puts some of these bytes there. If the ring was given up meanwhile nobody wants them.
    pub fn put(&self, process: u64, offset: u64, bytes: &[u8]) {
        if let Some(ring) = self.0.borrow().get(&process).filter(|ring| bytes.len() <= ring.size()) {
            ring.put(offset, bytes);
        }
    }
}
