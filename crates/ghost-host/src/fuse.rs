//! FUSE messages as bytes (include/uapi/linux/fuse.h), for the two file systems of this crate. Everything is native-endian,
//! as the kernel on the other side is this one.

/// Large enough for any request of a file system without writes (FUSE_MIN_READ_BUFFER is 8,192).
pub(crate) const READ_BUFFER: usize = 64 * 1024;
/// Names, attributes and entries stay valid for this long, in seconds, where nothing about them ever changes.
pub(crate) const FOR_EVER: u64 = 1 << 30;
/// Node id of the root directory.
pub(crate) const ROOT: u64 = 1;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const READLINK: u32 = 5;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const READDIR: u32 = 28;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
const MAJOR: u32 = 7;
/// The protocol minor that these layouts are of.
const MINOR: u32 = 38;

/// Flags of INIT; those from bit 32 on go into `flags2`. What the kernel does not know it ignores.
pub(crate) const ASYNC_READ: u64 = 1;
pub(crate) const AUTO_INVAL_DATA: u64 = 1 << 12;
pub(crate) const NO_OPEN_SUPPORT: u64 = 1 << 17;
pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
pub(crate) const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
const INIT_EXT: u64 = 1 << 30;
pub(crate) const HAS_RESEND: u64 = 1 << 39;

/// Of a server's message to the kernel: all requests that were read and not answered are to be read again (since 6.9).
pub(crate) const NOTIFY_RESEND: i32 = 7;
/// The first minor version of the protocol that has it (include/uapi/linux/fuse.h: 7.40, Linux 6.9).
pub(crate) const RESENDING_MINOR: u32 = 40;

pub(crate) const FOPEN_DIRECT_IO: u32 = 1;
/// No FLUSH on close(2): it would wait for the server where no signal can end it, also the server itself.
pub(crate) const FOPEN_NOFLUSH: u32 = 1 << 5;

pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;

/// A request, as far as it is needed here.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub unique: u64,
    pub node: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub body: Body<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    Init {
        minor: u32,
        max_readahead: u32,
    },
    /// A name in the directory `node`.
    Lookup {
        name: &'a [u8],
    },
    GetAttr,
    ReadLink,
    Open,
    Read {
        offset: u64,
        size: u32,
    },
    ReadDir {
        offset: u64,
        size: u32,
    },
    Release,
    Interrupt {
        target: u64,
    },
    /// Content, a size or other attributes are to be changed.
    Change,
    /// The kernel forgets so many look-ups of `node`. Needs no answer.
    Forget {
        lookups: u64,
    },
    /// The same of several nodes. Needs no answer.
    BatchForget(Forgotten<'a>),
    Other,
}

/// Nodes, each with a number of look-ups: `struct fuse_forget_one`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten<'a>(&'a [u8]);

impl Forgotten<'_> {
    pub(crate) fn each(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.chunks_exact(16).filter_map(|pair| Some((u64_at(pair, 0)?, u64_at(pair, 8)?)))
    }
}

impl Request<'_> {
    /// `None` if the bytes are too short for what they claim to be: the kernel does not send that.
    pub fn parse(bytes: &[u8]) -> Option<Request<'_>> {
        let opcode = u32_at(bytes, 4)?;
        let body = bytes.get(IN_HEADER..)?;
        let body = match opcode {
            INIT => Body::Init { minor: u32_at(body, 4)?, max_readahead: u32_at(body, 8)? },
            LOOKUP => Body::Lookup { name: body.split(|&b| b == 0).next()? },
            GETATTR => Body::GetAttr,
            READLINK => Body::ReadLink,
            SETATTR | WRITE => Body::Change,
            OPEN => Body::Open,
            READ => Body::Read { offset: u64_at(body, 8)?, size: u32_at(body, 16)? },
            READDIR => Body::ReadDir { offset: u64_at(body, 8)?, size: u32_at(body, 16)? },
            RELEASE => Body::Release,
            INTERRUPT => Body::Interrupt { target: u64_at(body, 0)? },
            FORGET => Body::Forget { lookups: u64_at(body, 0)? },
            BATCH_FORGET => {
                let count = u32_at(body, 0)? as usize;
                Body::BatchForget(Forgotten(body.get(8..count.checked_mul(16)?.checked_add(8)?)?))
            }
            _ => Body::Other,
        };
        Some(Request {
            unique: u64_at(bytes, 8)?,
            node: u64_at(bytes, 16)?,
            uid: u32_at(bytes, 24)?,
            gid: u32_at(bytes, 28)?,
            pid: u32_at(bytes, 32)?,
            body,
        })
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..offset + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// What stat(2) shows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attr {
    pub node: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Kind and permission bits.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
}

/// How long something is believed: seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity(pub u64, pub u32);

impl Validity {
    pub(crate) const NONE: Validity = Validity(0, 0);
    pub(crate) const FOR_EVER: Validity = Validity(FOR_EVER, 0);
}

impl From<std::time::Duration> for Validity {
    fn from(duration: std::time::Duration) -> Validity {
        Validity(duration.as_secs(), duration.subsec_nanos())
    }
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
    fn attr(self, attr: &Attr) -> Self {
        let (seconds, nanoseconds) = (attr.time_ns / 1_000_000_000, (attr.time_ns % 1_000_000_000) as u32);
        self.u64(attr.node)
            .u64(attr.size)
            .u64(attr.size.div_ceil(512))
            .u64(seconds)
            .u64(seconds)
            .u64(seconds)
            .u32(nanoseconds)
            .u32(nanoseconds)
            .u32(nanoseconds)
            .u32(attr.mode)
            .u32(attr.links)
            .u32(attr.uid)
            .u32(attr.gid)
            .u32(0)
            .u32(4096)
            .u32(0)
    }
}

/// `struct fuse_out_header`.
pub(crate) fn out_header(unique: u64, error: i32, body: usize) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    header[0..4].copy_from_slice(&u32::try_from(OUT_HEADER + body).unwrap_or(u32::MAX).to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..16].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// `struct fuse_init_out`.
pub(crate) fn init_reply(minor: u32, max_readahead: u32, flags: u64) -> Vec<u8> {
    let flags = flags | INIT_EXT;
    let writer = Writer::default()
        .u32(MAJOR)
        .u32(minor.min(MINOR))
        .u32(max_readahead)
        .u32(flags as u32)
        .u16(64) // max_background
        .u16(48) // congestion_threshold
        .u32(4096) // max_write
        .u32(1) // time_gran
        .u16(0) // max_pages
        .u16(0) // map_alignment
        .u32((flags >> 32) as u32);
    let mut bytes = writer.0;
    bytes.resize(64, 0);
    bytes
}

/// `struct fuse_entry_out`: how long the name means this file, and how long its attributes are believed.
pub(crate) fn entry_reply(attr: &Attr, name: Validity, attributes: Validity) -> Vec<u8> {
    Writer::default().u64(attr.node).u64(0).u64(name.0).u64(attributes.0).u32(name.1).u32(attributes.1).attr(attr).0
}

/// `struct fuse_entry_out` that says for how long there is no such name (fs/fuse/dir.c `fuse_lookup`: node id 0).
pub(crate) fn no_entry_reply(validity: Validity) -> Vec<u8> {
    entry_reply(&Attr::default(), validity, Validity::NONE)
}

/// `struct fuse_attr_out`.
pub(crate) fn attr_reply(attr: &Attr, validity: Validity) -> Vec<u8> {
    Writer::default().u64(validity.0).u32(validity.1).u32(0).attr(attr).0
}

/// A notification (include/uapi/linux/fuse.h, FUSE_NOTIFY_INVAL_INODE) that a file's attributes are not to be believed any
/// longer. Its content is left alone: dropping pages can wait for a read that the server itself has to answer.
pub(crate) fn forget_attributes(node: u64) -> Vec<u8> {
    const NOTIFY_INVAL_INODE: i32 = 2;
    let mut message = out_header(0, NOTIFY_INVAL_INODE, 24).to_vec();
    // A negative offset: attributes alone (fs/fuse/inode.c fuse_reverse_inval_inode).
    message.extend(Writer::default().u64(node).u64(u64::MAX).u64(0).0);
    message
}

/// `struct fuse_open_out`.
pub(crate) fn open_reply(flags: u32) -> Vec<u8> {
    Writer::default().u64(0).u32(flags).u32(0).0
}

/// A directory's names from number `offset` on, as `struct fuse_dirent`, as many as fit in `size` bytes. The kind is that of
/// the mode.
pub(crate) fn directory_reply<'a>(
    names: impl Iterator<Item = (&'a [u8], u64, u32)>,
    offset: u64,
    size: u32,
) -> Vec<u8> {
    let mut writer = Writer::default();
    for ((name, node, mode), index) in names.zip(1u64..).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
        let padded = (24 + name.len()).next_multiple_of(8);
        if writer.0.len() + padded > size as usize {
            break;
        }
        let end = writer.0.len() + padded;
        writer = writer.u64(node).u64(index).u32(name.len() as u32).u32((mode >> 12) & 0xf);
        writer.0.extend_from_slice(name);
        writer.0.resize(end, 0);
    }
    writer.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_kernels_sizes() {
        // include/uapi/linux/fuse.h, protocol 7.38
        assert_eq!(init_reply(38, 0, HAS_RESEND).len(), 64);
        assert_eq!(entry_reply(&Attr::default(), Validity::NONE, Validity::NONE).len(), 128);
        assert_eq!(attr_reply(&Attr::default(), Validity::NONE).len(), 104);
        assert_eq!(open_reply(0).len(), 16);
        assert_eq!(forget_attributes(7).len(), 40);
    }

    #[test]
    fn a_directory_comes_in_pieces_that_fit() {
        let names = [(&b"a"[..], 7, S_IFREG), (b"longer-name", 8, S_IFDIR), (b"c", 9, S_IFLNK)];
        let whole = directory_reply(names.into_iter(), 0, 4096);
        assert_eq!(whole.len(), 32 + 40 + 32);
        assert_eq!(directory_reply(names.into_iter(), 0, 71), whole[..32]);
        assert_eq!(directory_reply(names.into_iter(), 1, 72), whole[32..]);
        assert!(directory_reply(names.into_iter(), 3, 72).is_empty());
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let request = |opcode: u32, body: &[u64]| {
            let mut bytes = vec![0; IN_HEADER];
            bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
            bytes[16..24].copy_from_slice(&7u64.to_ne_bytes());
            bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
            bytes
        };
        let one = request(FORGET, &[3]);
        let parsed = Request::parse(&one).expect("whole");
        assert_eq!((parsed.node, parsed.body), (7, Body::Forget { lookups: 3 }));
        let many = request(BATCH_FORGET, &[2, 70, 1, 80, 5]);
        match Request::parse(&many).expect("whole").body {
            Body::BatchForget(forgotten) => assert_eq!(forgotten.each().collect::<Vec<_>>(), [(70, 1), (80, 5)]),
            other => panic!("{other:?}"),
        }
        // It claims more than there is.
        assert_eq!(Request::parse(&request(BATCH_FORGET, &[3, 70, 1, 80, 5])), None);
        assert_eq!(Request::parse(&request(BATCH_FORGET, &[u64::MAX, 70, 1])), None);
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
