//! Frames of all links: however the bytes are cut, the same frames come out, and what a frame encodes to is what it was.

#![no_main]

use bytes::BytesMut;
use ghost_proto::frame::{Decoder, Frame, FrameError, MAX_CONTROL_STRANGER};
use ghostproc_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

/// A header, and the largest body: what a decoder may set aside before the bytes are there.
const MOST: usize = 1 << 20;

fn drain(decoder: &mut Decoder, input: &mut BytesMut, out: &mut Vec<Frame>) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next(input)? {
        out.push(frame);
    }
    assert!(input.capacity() <= MOST, "{} bytes set aside", input.capacity());
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let (mut decoder, mut input, mut whole) =
        (Decoder::new(MAX_CONTROL_STRANGER), BytesMut::from(data.get(1..).unwrap_or(&[])), Vec::new());
    let result = drain(&mut decoder, &mut input, &mut whole);
    let (mut decoder, mut input, mut cut) = (Decoder::new(MAX_CONTROL_STRANGER), BytesMut::new(), Vec::new());
    let mut piecewise = Ok(());
    for piece in pieces(data) {
        input.extend_from_slice(piece);
        piecewise = drain(&mut decoder, &mut input, &mut cut);
        if piecewise.is_err() {
            break;
        }
    }
    assert_eq!((&whole, result), (&cut, piecewise));
    for frame in &whole {
        let mut bytes = BytesMut::new();
        match frame {
            Frame::Data(data) => data.encode(&mut bytes),
            Frame::Placed(placed) => placed.encode(&mut bytes),
            Frame::Offer(offer) => offer.encode(&mut bytes),
            Frame::Relay(relay) => bytes.extend_from_slice(&relay.to_frame()),
            Frame::Control(_) | Frame::Agent(_) => continue,
        }
        assert_eq!(Decoder::new(MAX_CONTROL_STRANGER).next(&mut bytes).as_ref(), Ok(&Some(frame.clone())));
    }
});
