//! Frames that are written with one call, without being copied together.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

#[derive(Debug, Default)]
pub(super) struct Batch {
    /// None is empty.
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Batch {
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, places: &mut [IoSlice<'a>]) -> usize {
        let filled = places.iter_mut().zip(&self.pieces).map(|(place, piece)| *place = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.length, "{n} of {} bytes", self.length);
        self.length -= n;
        while let Some(first) = self.pieces.front_mut() {
            if first.len() > n {
                return first.advance(n);
            }
            n -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However it is taken, it is the pieces one behind the other.
        #[test]
        fn nothing_is_lost_or_twice(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..20), step in 1usize..30) {
            let mut batch = Batch::default();
            pieces.iter().for_each(|piece| batch.push(Bytes::copy_from_slice(piece)));
            let (whole, mut got) = (pieces.concat(), Vec::new());
            while batch.has_remaining() {
                prop_assert_eq!(batch.remaining(), whole.len() - got.len());
                let mut places = [IoSlice::new(&[]); 4];
                let filled = batch.chunks_vectored(&mut places);
                let seen: Vec<u8> = places[..filled].iter().flat_map(|place| place.to_vec()).collect();
                prop_assert!(seen.starts_with(batch.chunk()) && !batch.chunk().is_empty());
                let n = step.min(seen.len());
                got.extend_from_slice(&seen[..n]);
                batch.advance(n);
            }
            prop_assert_eq!(got, whole);
        }
    }
}
