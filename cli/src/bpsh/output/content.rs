//! Bytes of a stream that are here, or lie in the stream's ring.
//!
//! What lies in a ring stays there until it is acknowledged, which is when it has been written.

use std::rc::Rc;

use bytes::{Buf, Bytes};
use ghost_sys::ring::{Gather, RingReader};

#[derive(Clone, Debug)]
pub enum Content {
    Here(Bytes),
    /// This many bytes from this offset of the stream.
    Ring {
        ring: Rc<RingReader>,
        offset: u64,
        length: usize,
    },
}

impl Content {
    pub fn len(&self) -> usize {
        match self {
            Content::Here(bytes) => bytes.len(),
            Content::Ring { length, .. } => *length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last byte.
    pub fn last(&self) -> Option<u8> {
        match self {
            Content::Here(bytes) => bytes.last().copied(),
            Content::Ring { ring, offset, length } => {
                let mut byte = Vec::with_capacity(1);
                ring.copy_out(*offset + length.checked_sub(1)? as u64, 1, &mut byte);
                byte.pop()
            }
        }
    }

    /// Takes bytes off the front, at most all.
    pub fn advance(&mut self, n: usize) {
        match self {
            Content::Here(bytes) => bytes.advance(n),
            Content::Ring { offset, length, .. } => {
                *offset += n as u64;
                *length -= n;
            }
        }
    }

    /// The bytes themselves, copied out of a ring.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Content::Here(bytes) => bytes,
            Content::Ring { ring, offset, length } => {
                let mut bytes = Vec::with_capacity(length);
                ring.copy_out(offset, length, &mut bytes);
                Bytes::from(bytes)
            }
        }
    }

    /// Adds the first bytes, at most this many, to what goes out next.
    pub fn gather<'a>(&'a self, most: usize, gather: &mut Gather<'a>) {
        match self {
            Content::Here(bytes) => gather.bytes(&bytes[..bytes.len().min(most)]),
            Content::Ring { ring, offset, length } => gather.ring(ring, *offset, most.min(*length)),
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Content {
        Content::Here(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ghost_sys::ring::RingWriter;
    use std::io::Read;

    #[test]
    fn what_lies_in_a_ring_is_as_good_as_what_is_here() {
        let (writer, fd) = RingWriter::new(8).expect("ring");
        writer.put(100, b"abcdefg");
        let ring = Rc::new(RingReader::open(&fd).expect("its other end"));
        for mut content in [Content::Ring { ring, offset: 100, length: 7 }, Bytes::from_static(b"abcdefg").into()] {
            content.advance(2);
            assert_eq!(content.last(), Some(b'g'));
            assert_eq!((content.len(), content.is_empty()), (5, false));
            let (mut reader, to) = std::io::pipe().expect("pipe");
            let mut gather = Gather::default();
            content.gather(3, &mut gather);
            content.gather(100, &mut gather);
            gather.write(&to).expect("write");
            drop(to);
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("read");
            assert_eq!(text, "cdecdefg");
            assert_eq!(content.into_bytes(), "cdefg");
        }
    }
}
