//! Finds, in the bytes that the master sends to the holder, the frames that are for nodeagent itself.

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{HEADER, MAX_CONTROL, peek};
use ghost_proto::view::MasterToAgent;

/// What is next in the bytes.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// For the holder, as it came: frames, or parts of them.
    Holder(Bytes),
    Own(MasterToAgent),
}

/// The master does not speak the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMaster {
    #[error("the master sent a frame of {0} bytes to nodeagent")]
    TooLarge(usize),
    #[error("a message of the master to nodeagent cannot be read: {0}")]
    Unreadable(String),
}

/// Where in a frame the bytes stand.
#[derive(Debug, Default)]
pub struct OwnFrames {
    /// Bytes that are still to come of a frame for the holder.
    passing: usize,
}

impl OwnFrames {
    /// Takes the next piece off `input`; `None` if there is nothing whole in it.
    ///
    /// # Errors
    /// See [`BadMaster`].
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, BadMaster> {
        // As much as can go on at once.
        let mut length = 0;
        loop {
            let more = self.passing.min(input.len() - length);
            length += more;
            self.passing -= more;
            if self.passing > 0 {
                break;
            }
            match peek(&input[length..]) {
                Some((body, false)) => self.passing = HEADER + body,
                Some((body, true)) if length == 0 => return self.own(body, input),
                _ => break,
            }
        }
        Ok((length > 0).then(|| Piece::Holder(input.split_to(length).freeze())))
    }

    fn own(&mut self, body: usize, input: &mut BytesMut) -> Result<Option<Piece>, BadMaster> {
        if body > MAX_CONTROL {
            return Err(BadMaster::TooLarge(body));
        }
        if input.len() < HEADER + body {
            return Ok(None);
        }
        input.advance(HEADER);
        match MasterToAgent::decode_body(input.split_to(body).freeze()) {
            Ok(Some(message)) => Ok(Some(Piece::Own(message))),
            // One of a later version.
            Ok(None) => self.next(input),
            Err(why) => Err(BadMaster::Unreadable(why.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_proto::node::{Lease, MasterToNode};
    use ghost_proto::view::Sample;
    use proptest::prelude::*;

    fn own(seq: u64) -> MasterToAgent {
        MasterToAgent::Sample(Sample { seq, files: vec!["stat".into(); 20], ..Sample::default() })
    }

    proptest! {
        /// However the bytes arrive, the holder gets all of its own and nothing else, and nodeagent the rest.
        #[test]
        fn each_gets_its_own(kinds in prop::collection::vec(any::<bool>(), 0..30), cut in 1usize..300) {
            let (mut wire, mut holders, mut ours) = (BytesMut::new(), BytesMut::new(), Vec::new());
            for (seq, is_own) in kinds.into_iter().enumerate() {
                let seq = seq as u64;
                if is_own {
                    wire.extend_from_slice(&own(seq).to_frame());
                    ours.push(own(seq));
                } else {
                    let frame = MasterToNode::Lease(Lease { seq, second: false }).to_frame();
                    wire.extend_from_slice(&frame);
                    holders.extend_from_slice(&frame);
                }
            }
            let (mut frames, mut input) = (OwnFrames::default(), BytesMut::new());
            let (mut to_holder, mut to_us) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(cut) {
                input.extend_from_slice(chunk);
                while let Some(piece) = frames.next(&mut input).unwrap() {
                    match piece {
                        Piece::Holder(bytes) => to_holder.extend_from_slice(&bytes),
                        Piece::Own(message) => to_us.push(message),
                    }
                }
            }
            prop_assert_eq!(to_holder, holders);
            prop_assert_eq!(to_us, ours);
        }
    }

    #[test]
    fn a_frame_too_large_is_refused_by_its_head() {
        let mut input = BytesMut::from(&[0xff, 0xff, 0xff, 0x7f, 16, 0, 0, 0][..]);
        assert_eq!(OwnFrames::default().next(&mut input), Err(BadMaster::TooLarge(0x7fff_ffff)));
    }
}
