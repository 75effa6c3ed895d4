//! Output as events of `--json`: pieces that are text stand as text, others in base64. A character that a piece cuts in two waits
//! for its end.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};

use super::super::report::{Content, Event, Place};
use super::layout::Channel;

#[derive(Debug)]
pub struct Events {
    /// Node of each rank, and its name.
    nodes: Vec<(i32, String)>,
    /// At most three bytes: the beginning of a character.
    tails: Vec<[BytesMut; 2]>,
}

impl Events {
    pub fn new(nodes: Vec<(i32, String)>) -> Events {
        let tails = nodes.iter().map(|_| Default::default()).collect();
        Events { nodes, tails }
    }

    pub fn place(&self, rank: usize) -> Place<'_> {
        let (node, name) = self.nodes.get(rank).map_or((-1, ""), |(node, name)| (*node, name.as_str()));
        Place { rank, node, name }
    }

    /// The line for a piece of a rank's stream, if it makes one.
    pub fn output(&mut self, rank: usize, channel: Channel, bytes: Bytes, seconds: f64) -> Option<String> {
        let tail = &mut self.tails.get_mut(rank)?[channel];
        let mut bytes = if tail.is_empty() {
            bytes
        } else {
            tail.extend_from_slice(&bytes);
            tail.split().freeze()
        };
        *tail = BytesMut::from(bytes.split_off(bytes.len() - incomplete(&bytes)).as_ref());
        self.line(rank, channel, &bytes, seconds)
    }

    /// What waited for more, at the end.
    pub fn finish(&mut self, rank: usize, seconds: f64) -> String {
        let mut lines = String::new();
        for channel in 0..2 {
            let Some(tails) = self.tails.get_mut(rank) else { continue };
            let tail = tails[channel].split().freeze();
            lines.push_str(&self.line(rank, channel, &tail, seconds).unwrap_or_default());
        }
        lines
    }

    fn line(&self, rank: usize, channel: Channel, bytes: &[u8], seconds: f64) -> Option<String> {
        if bytes.is_empty() {
            return None;
        }
        let content = match std::str::from_utf8(bytes) {
            Ok(text) => Content::Text(text),
            Err(_) => Content::Base64(BASE64_STANDARD.encode(bytes)),
        };
        let stream = ["stdout", "stderr"][channel];
        Some(Event::Output { place: self.place(rank), stream, bytes: content }.line(seconds))
    }
}

/// How many bytes at the end are the beginning of a character that may still be completed.
fn incomplete(bytes: &[u8]) -> usize {
    let head = bytes.len() - bytes.len().min(3);
    let Some(start) = bytes[head..].iter().rposition(|byte| byte & 0xc0 != 0x80).map(|at| head + at) else { return 0 };
    match std::str::from_utf8(&bytes[start..]) {
        Err(error) if error.error_len().is_none() => bytes.len() - start - error.valid_up_to(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strings(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut events = Events::new(vec![(3, String::new())]);
        let mut lines = String::new();
        for piece in pieces {
            lines.push_str(&events.output(0, 0, Bytes::copy_from_slice(piece), 1.0).unwrap_or_default());
        }
        lines.push_str(&events.finish(0, 1.0));
        let parse = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let field = |name: &str| value.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            (field("text"), field("base64"))
        };
        lines.lines().map(parse).collect()
    }

    #[test]
    fn text_is_text_and_the_rest_is_base64() {
        let text = |text: &str| (text.to_owned(), String::new());
        assert_eq!(strings(&[b"a\n", b"b"]), [text("a\n"), text("b")]);
        assert_eq!(strings(&["ä".as_bytes().split_at(1).0, "ä".as_bytes().split_at(1).1]), [text("ä")]);
        assert_eq!(strings(&[b"a\xe2\x82"]), [text("a"), (String::new(), "4oI=".into())]);
        assert_eq!(strings(&[b"\xff\xff\xff\xff"]), [(String::new(), "/////w==".into())]);
        assert_eq!(strings(&[b""]), []);
    }

    proptest! {
        /// However a stream is cut, its events give it back; text stays text.
        #[test]
        fn events_give_the_stream_back(text in "\\PC{0,40}", cuts in prop::collection::vec(1usize..6, 1..40), binary in any::<bool>()) {
            let mut stream = text.clone().into_bytes();
            if binary {
                stream.push(0xff);
            }
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let mut back = Vec::new();
            for (text, base64) in strings(&pieces) {
                prop_assert!(binary || base64.is_empty());
                back.extend_from_slice(text.as_bytes());
                back.extend(BASE64_STANDARD.decode(base64).expect("base64"));
            }
            prop_assert_eq!(back, stream);
        }
    }
}
