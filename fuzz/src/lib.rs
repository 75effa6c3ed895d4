//! What the fuzz targets have in common.

/// The bytes as a list of pieces whose lengths the first byte chooses: what arrives from a socket is cut anywhere.
pub fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (&step, rest) = data.split_first().unwrap_or((&0, &[]));
    rest.chunks(usize::from(step).max(1))
}
