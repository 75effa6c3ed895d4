//! The few FUSE messages that the pin needs, as bytes (include/uapi/linux/fuse.h). Everything is native-endian, as the
//! kernel on the other side is this one.

/// Large enough for any request of a file system without writes (FUSE_MIN_READ_BUFFER is 8,192).
pub(super) const READ_BUFFER: usize = 64 * 1024;
/// Node id of file number 0; 1 is the root directory.
pub(super) const FIRST_FILE: u64 = 2;
/// Names, attributes and entries stay valid for this long, in seconds: nothing about them ever changes.
const FOR_EVER: u64 = 1 << 30;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const MAJOR: u32 = 7;
/// The protocol minor that these layouts are of.
const MINOR: u32 = 38;
const INIT_EXT: u32 = 1 << 30;
/// FUSE_HAS_RESEND, bit 39: in `flags2`.
const HAS_RESEND: u32 = 1 << 7;
const FOPEN_DIRECT_IO: u32 = 1;
/// No FLUSH on close(2): it would wait for the server where no signal can end it, also the server itself.
const FOPEN_NOFLUSH: u32 = 1 << 5;

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;

/// A request, as far as the pin needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub unique: u64,
    pub node: u64,
    pub uid: u32,
    pub pid: u32,
    pub body: Body,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    Init {
        minor: u32,
        max_readahead: u32,
    },
    /// The name as a file number, `None` if it is none.
    Lookup {
        number: Option<u64>,
    },
    GetAttr,
    Open,
    Read {
        offset: u64,
    },
    Release,
    Interrupt {
        target: u64,
    },
    /// Needs no answer.
    Forget,
    Other,
}

impl Request {
    /// `None` if the bytes are too short for what they claim to be: the kernel does not send that.
    pub(super) fn parse(bytes: &[u8]) -> Option<Request> {
        let opcode = u32_at(bytes, 4)?;
        let body = bytes.get(IN_HEADER..)?;
        let body = match opcode {
            INIT => Body::Init { minor: u32_at(body, 4)?, max_readahead: u32_at(body, 8)? },
            LOOKUP => Body::Lookup { number: file_number(body) },
            GETATTR => Body::GetAttr,
            OPEN => Body::Open,
            READ => Body::Read { offset: u64_at(body, 8)? },
            RELEASE => Body::Release,
            INTERRUPT => Body::Interrupt { target: u64_at(body, 0)? },
            FORGET | BATCH_FORGET => Body::Forget,
            _ => Body::Other,
        };
        Some(Request {
            unique: u64_at(bytes, 8)?,
            node: u64_at(bytes, 16)?,
            uid: u32_at(bytes, 24)?,
            pid: u32_at(bytes, 32)?,
            body,
        })
    }
}

fn file_number(name: &[u8]) -> Option<u64> {
    let name = name.split(|&b| b == 0).next()?;
    let number: u64 = std::str::from_utf8(name).ok()?.parse().ok()?;
    number.checked_add(FIRST_FILE).map(|_| number)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// Builds replies field by field.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// `struct fuse_attr`.
    fn attr(self, node: u64) -> Self {
        let mode = if node == 1 { S_IFDIR | 0o500 } else { S_IFREG | 0o400 };
        self.u64(node)
            .u64(0)
            .u64(0)
            .u64(0)
            .u64(0)
            .u64(0)
            .u32(0)
            .u32(0)
            .u32(0)
            .u32(mode)
            .u32(1)
            .u32(0)
            .u32(0)
            .u32(0)
            .u32(4096)
            .u32(0)
    }
}

/// `struct fuse_out_header`.
pub(super) fn out_header(unique: u64, error: i32, body: usize) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    header[0..4].copy_from_slice(&u32::try_from(OUT_HEADER + body).unwrap_or(u32::MAX).to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..16].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// `struct fuse_init_out`.
pub(super) fn init_reply(minor: u32, max_readahead: u32) -> Vec<u8> {
    let writer = Writer::default()
        .u32(MAJOR)
        .u32(minor.min(MINOR))
        .u32(max_readahead)
        .u32(INIT_EXT) // flags; what the kernel does not know it ignores
        .u16(64) // max_background
        .u16(48) // congestion_threshold
        .u32(4096) // max_write
        .u32(1) // time_gran
        .u16(0) // max_pages
        .u16(0) // map_alignment
        .u32(HAS_RESEND); // flags2
    let mut bytes = writer.0;
    bytes.resize(64, 0);
    bytes
}

/// `struct fuse_entry_out` of file `number`.
pub(super) fn entry_reply(number: u64) -> Vec<u8> {
    let node = number + FIRST_FILE;
    Writer::default().u64(node).u64(0).u64(FOR_EVER).u64(FOR_EVER).u32(0).u32(0).attr(node).0
}

/// `struct fuse_attr_out`.
pub(super) fn attr_reply(node: u64) -> Vec<u8> {
    Writer::default().u64(FOR_EVER).u32(0).u32(0).attr(node).0
}

/// `struct fuse_open_out`: reads bypass the page cache, each is a request of its own.
pub(super) fn open_reply() -> Vec<u8> {
    Writer::default().u64(0).u32(FOPEN_DIRECT_IO | FOPEN_NOFLUSH).u32(0).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_kernels_sizes() {
        // include/uapi/linux/fuse.h, protocol 7.38
        assert_eq!(init_reply(38, 0).len(), 64);
        assert_eq!(entry_reply(0).len(), 128);
        assert_eq!(attr_reply(1).len(), 104);
        assert_eq!(open_reply().len(), 16);
    }

    #[test]
    fn a_name_is_a_number_or_nothing() {
        assert_eq!(file_number(b"17\0"), Some(17));
        for name in [&b"\0"[..], b"x\0", b"-1\0", b"18446744073709551615\0", b"18446744073709551614\0"] {
            assert_eq!(file_number(name), None, "{name:?}");
        }
    }

    #[test]
    fn short_requests_are_no_requests() {
        let whole = [0u8; IN_HEADER + 40];
        for length in 0..IN_HEADER {
            assert_eq!(Request::parse(&whole[..length]), None);
        }
        let mut read = whole;
        read[4..8].copy_from_slice(&READ.to_ne_bytes());
        assert_eq!(Request::parse(&read[..IN_HEADER + 10]), None);
        assert!(Request::parse(&read).is_some());
    }
}
