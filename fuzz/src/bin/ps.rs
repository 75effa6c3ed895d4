//! The filter behind `ps | bpstat -P`: however its input is cut, the same comes out, and without the column it is the input.

#![no_main]

use std::collections::HashMap;

use cli::bpstat::ps::Filter;
use ghostproc_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

fn filter<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let nodes = HashMap::from([(1, -1), (42, 3), (1_048_576, 0), (1_097_728, 100_000)]);
    let (mut filter, mut out) = (Filter::new(nodes), Vec::new());
    pieces.for_each(|piece| filter.feed(piece, &mut out));
    filter.finish(&mut out);
    out
}

/// The column: wide enough for the widest node, and the blank behind it.
const COLUMN: usize = 7;

fuzz_target!(|data: &[u8]| {
    let input = data.get(1..).unwrap_or(&[]);
    let whole = filter(std::iter::once(input));
    assert!(filter(pieces(data)) == whole, "cut otherwise, other output");
    let mut without = Vec::new();
    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        without.extend_from_slice(&line[COLUMN..]);
    }
    assert!(without == input, "without the column it is not the input");
});
