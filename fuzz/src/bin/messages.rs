//! Control messages of every direction: what was understood says the same when it is said again.

#![no_main]

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use ghost_proto::frame::{Decoder, Frame, MAX_CONTROL};
use ghost_proto::{Control, client, join, node, view, view_port};
use libfuzzer_sys::fuzz_target;

fn there_and_back<M: Control + Clone + Debug>(body: &Bytes) {
    let Ok(Some(message)) = M::decode_body(body.clone()) else {
        return;
    };
    let mut frame = BytesMut::from(&message.clone().to_frame()[..]);
    let again = match Decoder::new(MAX_CONTROL).next(&mut frame) {
        Ok(Some(Frame::Control(body) | Frame::Agent(body))) => M::decode_body(body),
        other => panic!("{message:?} is framed as {other:?}"),
    };
    // Compared as text: a number that is none (NaN) differs from itself.
    assert_eq!(format!("{:?}", again.expect("its own words").expect("known")), format!("{message:?}"));
}

fuzz_target!(|data: &[u8]| {
    let Some((&direction, body)) = data.split_first() else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    match direction % 14 {
        0 => there_and_back::<client::ClientToMaster>(&body),
        1 => there_and_back::<client::MasterToClient>(&body),
        2 => there_and_back::<node::MasterToNode>(&body),
        3 => there_and_back::<node::NodeToMaster>(&body),
        4 => there_and_back::<join::JoinToMaster>(&body),
        5 => there_and_back::<join::JoinToNode>(&body),
        6 => there_and_back::<view::MasterToAgent>(&body),
        7 => there_and_back::<view::AgentToMaster>(&body),
        8 => there_and_back::<view_port::GhostdToGuard>(&body),
        9 => there_and_back::<view_port::GuardToGhostd>(&body),
        10 => there_and_back::<view_port::GuardToServer>(&body),
        11 => there_and_back::<view_port::ServerToGuard>(&body),
        12 => there_and_back::<view_port::GhostdToServer>(&body),
        _ => there_and_back::<view_port::ServerToGhostd>(&body),
    }
});
