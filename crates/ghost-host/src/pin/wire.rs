//! What the pin says of its files. They are named by number, and nothing about them ever changes.

use crate::fuse::{
    Attr, FOPEN_DIRECT_IO, FOPEN_NOFLUSH, ROOT, S_IFDIR, S_IFREG, Validity, attr_reply, entry_reply, open_reply,
};

/// Node id of file number 0.
pub(super) const FIRST_FILE: u64 = ROOT + 1;

/// The number that a name means, `None` if it is none.
pub(super) fn file_number(name: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(name).ok()?.parse().ok()?;
    number.checked_add(FIRST_FILE).map(|_| number)
}

fn attr(node: u64) -> Attr {
    let mode = if node == ROOT { S_IFDIR | 0o500 } else { S_IFREG | 0o400 };
    Attr { node, mode, links: 1, ..Attr::default() }
}

pub(super) fn entry(number: u64) -> Vec<u8> {
    entry_reply(&attr(number + FIRST_FILE), Validity::FOR_EVER, Validity::FOR_EVER)
}

pub(super) fn attributes(node: u64) -> Vec<u8> {
    attr_reply(&attr(node), Validity::FOR_EVER)
}

/// Reads bypass the page cache, each is a request of its own.
pub(super) fn opened() -> Vec<u8> {
    open_reply(FOPEN_DIRECT_IO | FOPEN_NOFLUSH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_number_or_nothing() {
        assert_eq!(file_number(b"17"), Some(17));
        for name in [&b""[..], b"x", b"-1", b"18446744073709551615", b"18446744073709551614"] {
            assert_eq!(file_number(name), None, "{name:?}");
        }
    }
}
