//! What waits to go out on a connection: control before bulk, always.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use ghost_proto::frame::{Data, Placed};
use tokio::sync::Notify;

/// One thing to send.
pub(super) enum Parcel {
    /// A whole frame, and a descriptor that goes with it.
    Frame(Bytes, Option<OwnedFd>),
    Data(Data),
}

#[derive(Default)]
struct Waiting {
    control: VecDeque<(Bytes, Option<OwnedFd>)>,
    control_bytes: usize,
    bulk: VecDeque<Parcel>,
    closed: bool,
}

/// A connection's queue. Bulk is bounded by the streams' windows; control by the reader, which takes no further request of a
/// peer that does not fetch its answers ([`Outbox::has_room`]).
#[derive(Default)]
pub(super) struct Outbox {
    waiting: RefCell<Waiting>,
    filled: Notify,
    emptied: Notify,
}

/// Control bytes beyond which a peer's requests are left unread.
const CONTROL_ROOM: usize = 1024 * 1024;

impl Outbox {
    pub(super) fn control(&self, frame: Bytes, descriptor: Option<OwnedFd>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.closed {
            waiting.control_bytes += frame.len();
            waiting.control.push_back((frame, descriptor));
            self.filled.notify_one();
        }
    }

    pub(super) fn bulk(&self, data: Data) {
        self.push_bulk(Parcel::Data(data));
    }

    /// Says where bulk lies; with the descriptor of a new ring.
    pub(super) fn placed(&self, placed: Placed, descriptor: Option<OwnedFd>) {
        let mut frame = BytesMut::new();
        placed.encode(&mut frame);
        self.push_bulk(Parcel::Frame(frame.freeze(), descriptor));
    }

    /// A whole frame that goes with the bulk.
    pub(super) fn bulk_frame(&self, frame: Bytes) {
        self.push_bulk(Parcel::Frame(frame, None));
    }

    fn push_bulk(&self, parcel: Parcel) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.closed {
            waiting.bulk.push_back(parcel);
            self.filled.notify_one();
        }
    }

    /// Nothing more is taken; the writer ends when what waits is out.
    pub(super) fn close(&self) {
        self.waiting.borrow_mut().closed = true;
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    /// What is there now, without waiting.
    pub(super) fn try_next(&self) -> Option<Parcel> {
        let mut waiting = self.waiting.borrow_mut();
        if let Some((frame, descriptor)) = waiting.control.pop_front() {
            waiting.control_bytes -= frame.len();
            if waiting.control_bytes < CONTROL_ROOM {
                self.emptied.notify_one();
            }
            return Some(Parcel::Frame(frame, descriptor));
        }
        waiting.bulk.pop_front()
    }

    /// The next thing to send; `None` when the box is closed and empty.
    pub(super) async fn next(&self) -> Option<Parcel> {
        loop {
            if let Some(parcel) = self.try_next() {
                return Some(parcel);
            }
            if self.waiting.borrow().closed {
                return None;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.waiting.borrow();
        waiting.control.is_empty() && waiting.bulk.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting.borrow().closed
    }

    /// Waits until the peer has fetched its answers.
    pub(super) async fn has_room(&self) {
        while {
            let waiting = self.waiting.borrow();
            waiting.control_bytes >= CONTROL_ROOM && !waiting.closed
        } {
            self.emptied.notified().await;
        }
    }
}
