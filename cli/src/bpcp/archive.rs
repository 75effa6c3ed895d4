//! What goes from the sending end to the receiving one: a versioned stream of frames. Pure.
//!
//! ```text
//! stream: "bpcp" 0 version:u16, frames, End
//! frame:  kind:u8 length:u32 body              (little endian)
//!
//! entry:  Directory entry* Leave | File (Data | Hole)* (FileEnd | Failed) | Link | Failed
//! ```
//! Invariant: whatever the bytes, a name that the decoder gives is one component: not empty, not `.` or `..`, without `/` and NUL.
//! So nothing can name what is not below the target. (The empty name stands for the target itself, once, at the top.) Lengths are
//! checked before memory is set aside, a file's length and checksum (CRC-32 of its data) before its end is given out.

/// Longest body of Data, in bytes; the decoder gives it out in pieces.
pub const MAX_DATA: usize = 256 * 1024;
/// Directories within one another.
pub const MAX_DEPTH: usize = 256;
/// NAME_MAX (limits.h).
pub const MAX_NAME: usize = 255;
/// PATH_MAX without its NUL: a symbolic link's target.
pub const MAX_TARGET: usize = 4095;
/// A reason.
pub const MAX_TEXT: usize = 8 * 1024;

const MAGIC: [u8; 7] = *b"bpcp\0\x01\0";
const HEAD: usize = 5;
const ATTRIBUTES: usize = 36;
/// The longest body of a frame other than Data.
const MAX_BODY: usize = ATTRIBUTES + 2 + MAX_NAME + MAX_TEXT;
/// Bytes that are read at a time.
const READ: usize = 256 * 1024;

/// Of a file, directory or link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// Permissions, set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub accessed: Time,
    pub modified: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    /// Below 10^9.
    pub nanoseconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    Directory {
        name: &'a [u8],
        attributes: Attributes,
    },
    /// The directory is complete.
    Leave,
    File {
        name: &'a [u8],
        attributes: Attributes,
        /// As it was before it was read.
        size: u64,
    },
    Data(&'a [u8]),
    /// So many bytes that nobody has written.
    Hole(u64),
    FileEnd {
        size: u64,
        /// Of the data.
        checksum: u32,
    },
    Link {
        name: &'a [u8],
        attributes: Attributes,
        target: &'a [u8],
    },
    /// Something could not be read; of a file, if one is open, nothing is to be kept.
    Failed(&'a [u8]),
    End,
}

/// What came is no archive, or a damaged one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadArchive {
    #[error("what came is no archive of this version of bpcp")]
    Magic,
    #[error("what came is no archive: a frame of kind {0} and {1} bytes")]
    Frame(u8, u32),
    #[error("what came is no archive: a name that is none")]
    Name,
    #[error("directories lie more than {MAX_DEPTH} deep")]
    Depth,
    #[error("what came is no archive: a frame out of its place")]
    Order,
    #[error("what came is damaged: length or checksum differ")]
    Damaged,
}

mod kind {
    pub const DIRECTORY: u8 = 1;
    pub const LEAVE: u8 = 2;
    pub const FILE: u8 = 3;
    pub const DATA: u8 = 4;
    pub const HOLE: u8 = 5;
    pub const FILE_END: u8 = 6;
    pub const LINK: u8 = 7;
    pub const FAILED: u8 = 8;
    pub const END: u8 = 9;
}

/// The beginning of an archive.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
}

/// Appends a frame; of Data only what stands before the bytes. Names and texts that are too long are cut.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let mut length = None;
    let kind = match frame {
        Frame::Directory { name, attributes } => {
            put_attributes(attributes, out);
            out.extend_from_slice(cut(name, MAX_NAME));
            kind::DIRECTORY
        }
        Frame::Leave => kind::LEAVE,
        Frame::File { name, attributes, size } => {
            put_attributes(attributes, out);
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(cut(name, MAX_NAME));
            kind::FILE
        }
        Frame::Data(bytes) => {
            length = Some(bytes.len());
            kind::DATA
        }
        Frame::Hole(length) => {
            out.extend_from_slice(&length.to_le_bytes());
            kind::HOLE
        }
        Frame::FileEnd { size, checksum } => {
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&checksum.to_le_bytes());
            kind::FILE_END
        }
        Frame::Link { name, attributes, target } => {
            put_attributes(attributes, out);
            let name = cut(name, MAX_NAME);
            out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(name);
            out.extend_from_slice(cut(target, MAX_TARGET));
            kind::LINK
        }
        Frame::Failed(text) => {
            out.extend_from_slice(cut(text, MAX_TEXT));
            kind::FAILED
        }
        Frame::End => kind::END,
    };
    let length = u32::try_from(length.unwrap_or(out.len() - start - HEAD)).unwrap_or(u32::MAX);
    out[start] = kind;
    out[start + 1..start + HEAD].copy_from_slice(&length.to_le_bytes());
}

fn cut(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

fn put_attributes(attributes: &Attributes, out: &mut Vec<u8>) {
    for number in [attributes.mode, attributes.uid, attributes.gid] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for time in [attributes.accessed, attributes.modified] {
        out.extend_from_slice(&time.seconds.to_le_bytes());
        out.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
}

/// Whether this can be the name of something in a directory.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// Takes an archive apart as it arrives.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What is in the buffer and has not been given out.
    begin: usize,
    end: usize,
    /// Of the Data frame that has begun.
    data_left: usize,
    depth: usize,
    /// The file that is open.
    file: Option<Progress>,
    began: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Progress {
    size: u64,
    checksum: crc32fast::Hasher,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            buffer: vec![0; READ],
            begin: 0,
            end: 0,
            data_left: 0,
            depth: 0,
            file: None,
            began: false,
            ended: false,
        }
    }
}

impl Decoder {
    /// Room for more; to be called when [`Self::next_frame`] has given everything.
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        &mut self.buffer[self.end..]
    }

    /// So many bytes of the room have been filled.
    pub fn filled(&mut self, n: usize) {
        self.end = self.buffer.len().min(self.end + n);
    }

    /// The archive's end has come.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn taken(&mut self, n: usize) -> &[u8] {
        let begin = self.begin;
        self.begin += n;
        &self.buffer[begin..begin + n]
    }

    /// The next frame, or of Data the next piece of one, if there is one.
    ///
    /// # Errors
    /// [`BadArchive`]; there is no going on behind it.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, BadArchive> {
        if !self.began {
            if self.end - self.begin < MAGIC.len() {
                return Ok(None);
            }
            if self.taken(MAGIC.len()) != MAGIC {
                return Err(BadArchive::Magic);
            }
            self.began = true;
        }
        if self.data_left == 0 {
            let there = &self.buffer[self.begin..self.end];
            let Some(head) = there.first_chunk::<HEAD>() else { return Ok(None) };
            let (kind, length) = (head[0], u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
            let body = length as usize;
            if self.ended {
                return Err(BadArchive::Order);
            }
            if kind != kind::DATA {
                if body > MAX_BODY {
                    return Err(BadArchive::Frame(kind, length));
                }
                if there.len() < HEAD + body {
                    return Ok(None);
                }
                let begin = self.begin + HEAD;
                self.begin = begin + body;
                let frame = read(kind, &self.buffer[begin..begin + body]).ok_or(BadArchive::Frame(kind, length))?;
                check(&frame, &mut self.depth, &mut self.file, &mut self.ended)?;
                return Ok(Some(frame));
            }
            if body == 0 || body > MAX_DATA {
                return Err(BadArchive::Frame(kind, length));
            }
            self.file.as_mut().ok_or(BadArchive::Order)?.grow(u64::from(length))?;
            self.begin += HEAD;
            self.data_left = body;
        }
        let n = self.data_left.min(self.end - self.begin);
        if n == 0 {
            return Ok(None);
        }
        self.data_left -= n;
        let (begin, end) = (self.begin, self.begin + n);
        self.begin = end;
        let bytes = &self.buffer[begin..end];
        let file = self.file.as_mut().ok_or(BadArchive::Order)?;
        file.checksum.update(bytes);
        Ok(Some(Frame::Data(bytes)))
    }
}

impl Progress {
    fn grow(&mut self, n: u64) -> Result<(), BadArchive> {
        self.size = self.size.checked_add(n).filter(|size| i64::try_from(*size).is_ok()).ok_or(BadArchive::Damaged)?;
        Ok(())
    }
}

/// Whether a frame may come here, and what it makes of the state.
fn check(
    frame: &Frame<'_>,
    depth: &mut usize,
    file: &mut Option<Progress>,
    ended: &mut bool,
) -> Result<(), BadArchive> {
    match frame {
        Frame::Hole(length) => return file.as_mut().ok_or(BadArchive::Order)?.grow(*length),
        Frame::FileEnd { size, checksum } => {
            let file = file.take().ok_or(BadArchive::Order)?;
            let right = file.size == *size && file.checksum.finalize() == *checksum;
            return if right { Ok(()) } else { Err(BadArchive::Damaged) };
        }
        Frame::Failed(_) => {
            *file = None;
            return Ok(());
        }
        _ if file.is_some() => return Err(BadArchive::Order),
        Frame::Directory { name, .. } => {
            if !(is_name(name) || name.is_empty() && *depth == 0) {
                return Err(BadArchive::Name);
            }
            *depth += 1;
            if *depth > MAX_DEPTH {
                return Err(BadArchive::Depth);
            }
        }
        Frame::Leave => *depth = depth.checked_sub(1).ok_or(BadArchive::Order)?,
        Frame::File { name, .. } => {
            if !is_name(name) {
                return Err(BadArchive::Name);
            }
            *file = Some(Progress::default());
        }
        Frame::Link { name, target, .. } => {
            if !is_name(name) || target.is_empty() || target.contains(&0) {
                return Err(BadArchive::Name);
            }
        }
        Frame::End => {
            if *depth > 0 {
                return Err(BadArchive::Order);
            }
            *ended = true;
        }
        Frame::Data(_) => {}
    }
    Ok(())
}

fn read(kind: u8, body: &[u8]) -> Option<Frame<'_>> {
    let mut body = Body(body);
    let frame = match kind {
        kind::DIRECTORY => Frame::Directory { attributes: body.attributes()?, name: body.rest() },
        kind::LEAVE => Frame::Leave,
        kind::FILE => {
            Frame::File { attributes: body.attributes()?, size: u64::from_le_bytes(body.array()?), name: body.rest() }
        }
        kind::HOLE => Frame::Hole(u64::from_le_bytes(body.array()?)),
        kind::FILE_END => {
            Frame::FileEnd { size: u64::from_le_bytes(body.array()?), checksum: u32::from_le_bytes(body.array()?) }
        }
        kind::LINK => {
            let attributes = body.attributes()?;
            let [length] = body.array()?;
            let name = body.take(usize::from(length))?;
            Frame::Link { name, attributes, target: Some(body.rest()).filter(|target| target.len() <= MAX_TARGET)? }
        }
        kind::FAILED => Frame::Failed(Some(body.rest()).filter(|text| text.len() <= MAX_TEXT)?),
        kind::END => Frame::End,
        _ => return None,
    };
    body.0.is_empty().then_some(frame)
}

/// What is left of a body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let attributes = Attributes {
            mode: u32::from_le_bytes(self.array()?),
            uid: u32::from_le_bytes(self.array()?),
            gid: u32::from_le_bytes(self.array()?),
            accessed: self.time()?,
            modified: self.time()?,
        };
        (attributes.mode <= 0o7777).then_some(attributes)
    }

    fn time(&mut self) -> Option<Time> {
        let time = Time { seconds: i64::from_le_bytes(self.array()?), nanoseconds: u32::from_le_bytes(self.array()?) };
        (time.nanoseconds < 1_000_000_000).then_some(time)
    }
}

#[cfg(test)]
mod tests;
