//! What bpcp sends: however it is cut, the same comes out, and every name is one component.

#![no_main]

use cli::bpcp::archive::{BadArchive, Decoder, Frame, encode, is_name};
use ghostproc_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

/// The frames as they would be written, neighbouring data as one, and how it ended.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<BadArchive>) {
    let (mut decoder, mut out, mut data) = (Decoder::default(), Vec::new(), Vec::new());
    let mut depth = 0;
    for mut piece in pieces {
        loop {
            let room = decoder.room();
            let n = room.len().min(piece.len());
            room[..n].copy_from_slice(&piece[..n]);
            piece = &piece[n..];
            decoder.filled(n);
            loop {
                let frame = match decoder.next_frame() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => {
                        out.append(&mut data);
                        return (out, Some(error));
                    }
                };
                match frame {
                    Frame::Data(bytes) => {
                        data.extend_from_slice(bytes);
                        continue;
                    }
                    Frame::Directory { name, .. } => {
                        assert!(is_name(name) || name.is_empty() && depth == 0, "a directory's name");
                        depth += 1;
                    }
                    Frame::Leave => depth -= 1,
                    Frame::File { name, .. } | Frame::Link { name, .. } => assert!(is_name(name), "a name"),
                    Frame::Hole(_) | Frame::FileEnd { .. } | Frame::Failed(_) | Frame::End => {}
                }
                out.append(&mut data);
                encode(&frame, &mut out);
            }
            if piece.is_empty() {
                break;
            }
        }
    }
    out.append(&mut data);
    (out, None)
}

fuzz_target!(|data: &[u8]| {
    let input = data.get(1..).unwrap_or(&[]);
    assert!(decode(pieces(data)) == decode(std::iter::once(input)), "cut otherwise, something else");
});
