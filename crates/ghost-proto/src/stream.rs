//! Byte streams with absolute offsets: who may send how much, and what is new.
//!
//! Both ends of a stream keep one of these. The sender has at most `window` bytes beyond the acknowledged offset in
//! flight, which is flow control and bounds every hop's memory. The receiver takes each byte once, whatever is repeated
//! after a reconnect.

/// The sending end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    sent: u64,
    acked: u64,
    window: u64,
}

/// The peer acknowledged what was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {acked} was acknowledged, only {sent} bytes were sent")]
pub struct BadAck {
    pub acked: u64,
    pub sent: u64,
}

impl Sender {
    pub const fn new(window: u32) -> Sender {
        Sender { sent: 0, acked: 0, window: window as u64 }
    }

    /// Bytes that may be sent now.
    pub const fn room(&self) -> usize {
        (self.acked + self.window).saturating_sub(self.sent) as usize
    }

    /// Takes note that `n` bytes go out; gives the offset of the first.
    pub const fn send(&mut self, n: usize) -> u64 {
        let offset = self.sent;
        self.sent += n as u64;
        offset
    }

    /// Everything sent so far has been acknowledged.
    pub const fn drained(&self) -> bool {
        self.acked == self.sent
    }

    pub const fn sent(&self) -> u64 {
        self.sent
    }

    pub const fn acked(&self) -> u64 {
        self.acked
    }

    /// Takes an acknowledgement; gives how many bytes it newly frees (0 for an old one).
    ///
    /// # Errors
    /// Beyond what was sent: the peer is broken or hostile.
    pub const fn ack(&mut self, offset: u64) -> Result<usize, BadAck> {
        if offset > self.sent {
            return Err(BadAck { acked: offset, sent: self.sent });
        }
        let freed = offset.saturating_sub(self.acked);
        self.acked += freed;
        Ok(freed as usize)
    }
}

/// The receiving end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    received: u64,
    consumed: u64,
    announced: u64,
    window: u64,
}

/// What arrived does not fit the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadData {
    #[error("bytes {expected} to {offset} of a stream are missing")]
    Gap { expected: u64, offset: u64 },
    #[error("a stream was sent to offset {end}, {limit} is the most allowed")]
    BeyondWindow { end: u64, limit: u64 },
}

impl Receiver {
    pub const fn new(window: u32) -> Receiver {
        Receiver { received: 0, consumed: 0, announced: 0, window: window as u64 }
    }

    /// One that has received and used up everything before `offset`.
    pub const fn from(window: u32, offset: u64) -> Receiver {
        Receiver { received: offset, consumed: offset, announced: offset, window: window as u64 }
    }

    /// Takes `len` bytes at `offset`; gives how many at the front are old and to be skipped.
    ///
    /// # Errors
    /// A gap, or more than the window allows.
    pub const fn receive(&mut self, offset: u64, len: usize) -> Result<usize, BadData> {
        if offset > self.received {
            return Err(BadData::Gap { expected: self.received, offset });
        }
        let end = offset.saturating_add(len as u64);
        let limit = self.consumed + self.window;
        if end > limit {
            return Err(BadData::BeyondWindow { end, limit });
        }
        let old = self.received - offset;
        if end > self.received {
            self.received = end;
            Ok(old as usize)
        } else {
            Ok(len)
        }
    }

    /// Takes note that `n` bytes have reached their goal.
    pub const fn consume(&mut self, n: usize) {
        self.consumed += n as u64;
    }

    /// The offset to acknowledge now, if it is worth a message: a quarter of the window, or `all` that is there.
    pub const fn ack_due(&mut self, all: bool) -> Option<u64> {
        let new = self.consumed - self.announced;
        if new > 0 && (all || new >= self.window / 4) {
            self.announced = self.consumed;
            Some(self.consumed)
        } else {
            None
        }
    }

    pub const fn received(&self) -> u64 {
        self.received
    }

    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    pub const fn window(&self) -> u32 {
        self.window as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_offsets_are_refused() {
        let mut sender = Sender::new(10);
        assert_eq!(sender.send(4), 0);
        assert_eq!(sender.ack(5), Err(BadAck { acked: 5, sent: 4 }));
        let mut receiver = Receiver::new(10);
        assert_eq!(receiver.receive(1, 1), Err(BadData::Gap { expected: 0, offset: 1 }));
        assert_eq!(receiver.receive(0, 11), Err(BadData::BeyondWindow { end: 11, limit: 10 }));
        assert!(receiver.receive(u64::MAX, 5).is_err());
        assert_eq!(receiver.receive(0, 10), Ok(0));
    }

    proptest! {
        /// Two ends with random sends, consumptions, lost acknowledgements and resends from the acknowledged offset: every
        /// byte arrives once, and never more than a window is between them.
        #[test]
        fn every_byte_once(window in 1u32..50, steps in prop::collection::vec((0usize..20, 0usize..20, any::<bool>(), any::<bool>()), 0..300)) {
            let (mut sender, mut receiver) = (Sender::new(window), Receiver::new(window));
            let (mut next, mut taken, mut buffered) = (0u64, 0u64, 0u64);
            for (send, consume, deliver_ack, resend) in steps {
                if resend && next > sender.acked() {
                    // After a reconnect everything beyond the acknowledged offset is sent again.
                    let len = (next - sender.acked()) as usize;
                    let skip = receiver.receive(sender.acked(), len).unwrap();
                    prop_assert_eq!(skip, len);
                }
                let n = send.min(sender.room());
                if n > 0 {
                    let offset = sender.send(n);
                    next += n as u64;
                    let skip = receiver.receive(offset, n).unwrap();
                    prop_assert_eq!(skip, 0);
                    buffered += n as u64;
                }
                prop_assert!(buffered <= u64::from(window));
                let n = (consume as u64).min(buffered);
                receiver.consume(n as usize);
                buffered -= n;
                taken += n;
                if let Some(offset) = receiver.ack_due(true) && deliver_ack {
                    sender.ack(offset).unwrap();
                }
                prop_assert_eq!(taken, receiver.consumed());
                prop_assert_eq!(next, receiver.received());
            }
        }
    }
}
