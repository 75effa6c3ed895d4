//! Output of a rank whose turn has not come: kept in memory while it is little, then in an unnamed file.
//!
//! What is taken is acknowledged, so that the node goes on working. When the disk is full the rest is kept in memory and
//! *not* acknowledged: the stream's window bounds it, and that one node waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::layout::Channel;

/// A piece that comes back out.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    pub channel: Channel,
    pub bytes: Bytes,
    pub credited: bool,
}

#[derive(Debug)]
pub struct Spill {
    /// In order: first what is in memory, then the file, then what the file had no room for.
    memory: VecDeque<(Channel, Bytes)>,
    in_memory: usize,
    limit: usize,
    file: Option<Spooled>,
    refused: VecDeque<(Channel, Bytes)>,
}

#[derive(Debug)]
struct Spooled {
    file: File,
    read: u64,
    written: u64,
}

/// Bytes before each piece in the file: channel and length.
const HEAD: usize = 8;

impl Spill {
    /// Keeps at most `limit` bytes in memory.
    pub fn new(limit: usize) -> Spill {
        Spill { memory: VecDeque::new(), in_memory: 0, limit, file: None, refused: VecDeque::new() }
    }

    /// Keeps a piece; whether it may be acknowledged.
    pub fn push(&mut self, channel: Channel, bytes: Bytes) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if !self.refused.is_empty() {
            self.refused.push_back((channel, bytes));
            return false;
        }
        if self.file.is_none() {
            if self.in_memory + bytes.len() <= self.limit {
                self.in_memory += bytes.len();
                // A copy: a small piece must not hold on to the large buffer that it arrived in.
                self.memory.push_back((channel, Bytes::copy_from_slice(&bytes)));
                return true;
            }
            self.file = tempfile::tempfile().ok().map(|file| Spooled { file, read: 0, written: 0 });
        }
        if self.file.as_mut().is_some_and(|file| file.append(channel, &bytes).is_ok()) {
            return true;
        }
        self.refused.push_back((channel, bytes));
        false
    }

    /// The oldest piece.
    ///
    /// # Errors
    /// The file cannot be read back.
    pub fn pop(&mut self) -> io::Result<Option<Kept>> {
        if let Some((channel, bytes)) = self.memory.pop_front() {
            self.in_memory -= bytes.len();
            return Ok(Some(Kept { channel, bytes, credited: true }));
        }
        if let Some(file) = &mut self.file {
            if let Some((channel, bytes)) = file.take()? {
                return Ok(Some(Kept { channel, bytes, credited: true }));
            }
            self.file = None;
        }
        Ok(self.refused.pop_front().map(|(channel, bytes)| Kept { channel, bytes, credited: false }))
    }

    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
            && self.refused.is_empty()
            && self.file.as_ref().is_none_or(|file| file.read == file.written)
    }
}

impl Spooled {
    fn append(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let mut head = [0; HEAD];
        head[0] = channel as u8;
        head[4..].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.file.write_all_at(&head, self.written)?;
        self.file.write_all_at(bytes, self.written + HEAD as u64)?;
        self.written += (HEAD + bytes.len()) as u64;
        Ok(())
    }

    fn take(&mut self) -> io::Result<Option<(Channel, Bytes)>> {
        if self.read == self.written {
            return Ok(None);
        }
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, self.read)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.read + HEAD as u64)?;
        self.read += (HEAD + length) as u64;
        Ok(Some((usize::from(head[0] & 1), Bytes::from(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_through_memory_and_file() {
        let mut spill = Spill::new(10);
        for round in 0..3u8 {
            let pieces: Vec<(usize, Bytes)> =
                (0..40u8).map(|i| (usize::from(i % 2), Bytes::from(vec![i ^ round; usize::from(i % 7) + 1]))).collect();
            for (channel, bytes) in &pieces {
                assert!(spill.push(*channel, bytes.clone()));
            }
            assert!(spill.file.is_some() && !spill.is_empty());
            for (channel, bytes) in pieces {
                assert_eq!(spill.pop().expect("pop"), Some(Kept { channel, bytes, credited: true }));
            }
            assert_eq!(spill.pop().expect("pop"), None);
            assert!(spill.is_empty());
        }
    }

    #[test]
    fn a_full_disk_makes_the_sender_wait_and_loses_nothing() {
        let mut spill = Spill::new(4);
        let full = File::options().read(true).write(true).open("/dev/full").expect("/dev/full");
        assert!(spill.push(0, Bytes::from_static(b"1234")));
        spill.file = Some(Spooled { file: full, read: 0, written: 0 });
        assert!(!spill.push(1, Bytes::from_static(b"5678")));
        assert!(!spill.push(0, Bytes::from_static(b"9")));
        let order: Vec<(usize, bool)> =
            std::iter::from_fn(|| spill.pop().expect("pop")).map(|kept| (kept.channel, kept.credited)).collect();
        assert_eq!(order, [(0, true), (1, false), (0, false)]);
    }
}
