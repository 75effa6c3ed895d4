//! Bytes in pieces: what waits to be sent, and what was sent and may have to be sent again, share the memory it was read into.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Pieces below this size are copied together: a piece of its own costs more than that, and keeps alive what it is a part of.
const SMALL: usize = 4 * 1024;
/// As much is copied together at most, so that what is old can go.
const TOGETHER: usize = 64 * 1024;

/// A queue of bytes.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    pieces: VecDeque<Bytes>,
    /// The last bytes, of small pieces.
    tail: BytesMut,
    length: usize,
}

impl Rope {
    pub const fn len(&self) -> usize {
        self.length
    }

    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn push(&mut self, bytes: Bytes) {
        if bytes.len() < SMALL {
            return self.put(|tail| tail.extend_from_slice(&bytes));
        }
        self.length += bytes.len();
        self.seal();
        self.pieces.push_back(bytes);
    }

    /// `put` appends to what it is given.
    pub fn put(&mut self, put: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        put(&mut self.tail);
        self.length += self.tail.len() - before;
        if self.tail.len() >= TOGETHER {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// The first bytes are not wanted any more.
    ///
    /// # Panics
    /// More than there are.
    pub fn advance(&mut self, mut n: usize) {
        self.length -= n;
        while let Some(first) = self.pieces.front_mut() {
            if first.len() > n {
                return first.advance(n);
            }
            n -= first.len();
            self.pieces.pop_front();
        }
        self.tail.advance(n);
    }

    pub fn clear(&mut self) {
        *self = Rope::default();
    }

    /// The first pieces, `most` at most and with so many bytes at most, for a call that writes several.
    pub fn slices(&self, most: usize, mut bytes: usize) -> Vec<IoSlice<'_>> {
        let pieces = self.pieces.iter().map(|piece| &**piece).chain(Some(&*self.tail)).take(most);
        let cut = pieces.map(|piece| {
            let n = piece.len().min(bytes);
            bytes -= n;
            &piece[..n]
        });
        cut.take_while(|piece| !piece.is_empty()).map(IoSlice::new).collect()
    }

    /// All of it, in pieces of `most` bytes at most.
    pub fn chunks(&mut self, most: usize) -> Vec<Bytes> {
        self.seal();
        let ends = |piece: &Bytes| (0..piece.len()).step_by(most).collect::<Vec<usize>>();
        let cut = |piece: &Bytes, from: usize| piece.slice(from..(from + most).min(piece.len()));
        self.pieces.iter().flat_map(|piece| ends(piece).into_iter().map(|from| cut(piece, from))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is put in and taken off, it is the same bytes in the same order.
        #[test]
        fn it_is_a_queue_of_bytes(steps in prop::collection::vec((0usize..9000, any::<bool>(), 0usize..12_000), 0..60)) {
            let (mut rope, mut model, mut next) = (Rope::default(), VecDeque::<u8>::new(), 0u8);
            for (size, as_piece, taken) in steps {
                let bytes: Vec<u8> = (0..size).map(|_| { next = next.wrapping_add(1); next }).collect();
                model.extend(&bytes);
                if as_piece {
                    rope.push(bytes.into());
                } else {
                    rope.put(|tail| tail.extend_from_slice(&bytes));
                }
                let taken = taken.min(rope.len());
                rope.advance(taken);
                model.drain(..taken);
                prop_assert_eq!((rope.len(), rope.is_empty()), (model.len(), model.is_empty()));
                let slices = rope.slices(usize::MAX, taken);
                prop_assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), taken.min(rope.len()));
                let sliced: Vec<u8> = rope.slices(usize::MAX, usize::MAX).iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert!(sliced.iter().eq(model.iter()));
            }
            let chunks = rope.chunks(1000);
            prop_assert!(chunks.iter().all(|chunk| (1..=1000).contains(&chunk.len())));
            prop_assert!(chunks.iter().flatten().eq(model.iter()));
        }
    }
}
