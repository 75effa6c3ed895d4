//! A stream's bytes in memory that two processes share: one writes, one reads.
//!
//! ```text
//! stream offset   0 ....... acknowledged ............ sent
//!                           |<--- at most a window --->|
//! ring            the byte at offset o lies at o % size
//! ```
//! The ring is as large as the stream's window, so a byte is overwritten only after its reader has acknowledged it: there are
//! no positions in shared memory that the other side could falsify, and nothing in it that would have to be believed.
//!
//! Invariants:
//! - The memory is there (fallocate) and cannot shrink (F_SEAL_SHRINK): touching it never raises SIGBUS, whatever the other side does, and
//!   however little memory is left (mm/shmem.c, `shmem_get_folio_gfp()` has none to give otherwise).
//! - No reference into the memory exists. Its bytes are copied, or handed to the kernel by address, so that what the other side
//!   writes meanwhile can change the stream's content at most, which is its own.

mod budget;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

pub use budget::{Budget, Share};

use bytes::BufMut;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The largest ring, in bytes: the largest window of a stream.
pub const MOST: usize = 4 * 1024 * 1024;
/// A stream gets a ring when it has carried this many bytes: most never do, and a ring costs page faults on both sides.
pub const WORTH_A_RING: u64 = 256 * 1024;
/// Pieces of a stream below this size go in the frame: they cost no more there than a place would.
pub const WORTH_PLACING: usize = 4096;
/// Pieces that [`Gather`] takes.
const PIECES: usize = 64;

/// Shared memory, mapped. Unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: it is memory of this process, not tied to a thread; all access goes through raw pointers, by the rules of the two
// types that own a mapping.
unsafe impl Send for Mapping {}
// SAFETY: as above; a race between copies yields bytes of the one or the other, which a ring's reader expects anyway.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, size: usize, protection: libc::c_int) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice; it touches nothing that is there.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, size })
    }

    fn copy_out(&self, offset: u64, length: usize, into: &mut impl BufMut) {
        for piece in self.pieces(offset, length) {
            let (mut from, mut left) = (piece.iov_base.cast_const().cast::<u8>(), piece.iov_len);
            while left > 0 {
                let room = into.chunk_mut();
                let n = left.min(room.len());
                assert!(n > 0, "a buffer with room for {length} bytes");
                // SAFETY: `n` bytes from `from` lie within the piece, and so within the mapping; the room has as many, and is
                // no part of the mapping. They are written when the buffer is told of them.
                unsafe {
                    std::ptr::copy_nonoverlapping(from, room.as_mut_ptr(), n);
                    from = from.add(n);
                    into.advance_mut(n);
                }
                left -= n;
            }
        }
    }

    /// Where `length` bytes from a stream's offset lie: a piece, and the rest from the beginning.
    ///
    /// # Panics
    /// More than the ring holds.
    fn pieces(&self, offset: u64, length: usize) -> [libc::iovec; 2] {
        assert!(length <= self.size, "{length} bytes in a ring of {}", self.size);
        let at = usize::try_from(offset % self.size as u64).unwrap_or(0);
        let first = length.min(self.size - at);
        // SAFETY: `at` is below the mapping's size.
        let start = unsafe { self.base.add(at) };
        [
            libc::iovec { iov_base: start.as_ptr().cast(), iov_len: first },
            libc::iovec { iov_base: self.base.as_ptr().cast(), iov_len: length - first },
        ]
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it was ever made.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

/// The writing end.
#[derive(Debug)]
pub struct RingWriter {
    mapping: Mapping,
}

impl RingWriter {
    /// A ring of `size` bytes (1 to [`MOST`]), and the descriptor by which the other side opens it.
    ///
    /// # Errors
    /// EINVAL: not such a size. EMFILE, ENFILE, ENOMEM, ENOSPC.
    pub fn new(size: usize) -> io::Result<(RingWriter, OwnedFd)> {
        if !(1..=MOST).contains(&size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let fd = memfd_create(c"ghostproc-stream", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        fallocate(&fd, FallocateFlags::empty(), 0, i64::try_from(size).unwrap_or(i64::MAX))?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_SEAL))?;
        let mapping = Mapping::new(fd.as_fd(), size, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok((RingWriter { mapping }, fd))
    }

    /// Maps a ring that was received, to write it.
    ///
    /// # Errors
    /// EINVAL: no ring, or one that could shrink. EPERM: it is not to be written. ENOMEM.
    pub fn open(fd: &impl AsFd) -> io::Result<RingWriter> {
        let size = sealed_size(fd.as_fd())?;
        Ok(RingWriter { mapping: Mapping::new(fd.as_fd(), size, libc::PROT_READ | libc::PROT_WRITE)? })
    }

    pub fn size(&self) -> usize {
        self.mapping.size
    }

    /// Copies bytes to a stream's offset, over those that lay a ring's size before.
    ///
    /// # Panics
    /// More than the ring holds.
    pub fn put(&self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for piece in self.mapping.pieces(offset, bytes.len()) {
            let (now, later) = rest.split_at(piece.iov_len);
            // SAFETY: the piece lies within the mapping, which is writable and is no Rust object's memory, so `now` is
            // elsewhere.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), piece.iov_base.cast(), now.len()) };
            rest = later;
        }
    }

    /// Appends the `length` bytes from a stream's offset to a buffer: for who cannot be sent there.
    ///
    /// # Panics
    /// More than the ring holds, or than the buffer takes.
    pub fn copy_out(&self, offset: u64, length: usize, into: &mut impl BufMut) {
        self.mapping.copy_out(offset, length, into);
    }

    /// Reads up to `most` bytes from a descriptor to a stream's offset. Gives how many; 0 means end of file.
    ///
    /// # Errors
    /// Those of readv(2).
    ///
    /// # Panics
    /// `most` is more than the ring holds.
    pub fn read_from(&self, fd: &impl AsFd, offset: u64, most: usize) -> io::Result<usize> {
        self.read_with(fd, offset, most, 0)
    }

    /// As [`Self::read_from`], without waiting.
    ///
    /// # Errors
    /// Those of [`crate::nowait::read_buf`].
    ///
    /// # Panics
    /// As above.
    pub fn read_from_nowait(&self, fd: &impl AsFd, offset: u64, most: usize) -> io::Result<usize> {
        self.read_with(fd, offset, most, libc::RWF_NOWAIT)
    }

    fn read_with(&self, fd: &impl AsFd, offset: u64, most: usize, flags: libc::c_int) -> io::Result<usize> {
        let pieces = self.mapping.pieces(offset, most);
        // SAFETY: both pieces lie within the mapping, which is writable; the kernel writes into them only; a position of -1 means
        // the file's.
        let n = unsafe { libc::preadv2(fd.as_fd().as_raw_fd(), pieces.as_ptr(), 2, -1, flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

/// The reading end.
#[derive(Debug)]
pub struct RingReader {
    mapping: Mapping,
}

impl RingReader {
    /// Maps a ring that was received.
    ///
    /// # Errors
    /// EINVAL: no ring, or one that could shrink. ENOMEM.
    pub fn open(fd: &impl AsFd) -> io::Result<RingReader> {
        let size = sealed_size(fd.as_fd())?;
        Ok(RingReader { mapping: Mapping::new(fd.as_fd(), size, libc::PROT_READ)? })
    }

    pub fn size(&self) -> usize {
        self.mapping.size
    }

    /// Appends the `length` bytes from a stream's offset to a buffer.
    ///
    /// # Panics
    /// More than the ring holds, or than the buffer takes.
    pub fn copy_out(&self, offset: u64, length: usize, into: &mut impl BufMut) {
        self.mapping.copy_out(offset, length, into);
    }
}

/// The reading end for one who must trust the writer with nothing: the memory is not mapped but read through its descriptor, so that
/// nothing which the writer does, or leaves without memory, can be a fault here.
#[derive(Debug)]
pub struct RingFile {
    fd: OwnedFd,
    size: usize,
}

impl RingFile {
    /// Takes a ring that was received.
    ///
    /// # Errors
    /// EINVAL: no ring, or one that could shrink.
    pub fn open(fd: OwnedFd) -> io::Result<RingFile> {
        let size = sealed_size(fd.as_fd())?;
        Ok(RingFile { fd, size })
    }

    /// Appends the `length` bytes from a stream's offset to a buffer.
    ///
    /// # Errors
    /// EINVAL: more than the ring holds. Those of pread(2).
    ///
    /// # Panics
    /// More than the buffer takes.
    pub fn copy_out(&self, offset: u64, length: usize, into: &mut impl BufMut) -> io::Result<()> {
        if length > self.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = usize::try_from(offset % self.size as u64).unwrap_or(0);
        let mut left = length;
        while left > 0 {
            let room = into.chunk_mut();
            let n = left.min(self.size - at).min(room.len());
            assert!(n > 0, "a buffer with room for {length} bytes");
            let position = libc::off_t::try_from(at).unwrap_or(libc::off_t::MAX);
            // SAFETY: the kernel writes at most `n` bytes into the room, which has as many.
            let n = unsafe { libc::pread(self.fd.as_raw_fd(), room.as_mut_ptr().cast(), n, position) };
            match usize::try_from(n) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    // SAFETY: the kernel has just written these bytes.
                    unsafe { into.advance_mut(n) };
                    (left, at) = (left - n, (at + n) % self.size);
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// How large a ring is that was received.
fn sealed_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let sealed = fcntl(fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain)?;
    let size = usize::try_from(nix::sys::stat::fstat(fd)?.st_size).unwrap_or(0);
    if !sealed.contains(seals()) || !(1..=MOST).contains(&size) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(size)
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// Pieces of memory and of rings that go out with one call, without a copy in this process.
pub struct Gather<'a> {
    pieces: [libc::iovec; PIECES],
    count: usize,
    borrowed: std::marker::PhantomData<&'a [u8]>,
}

impl Default for Gather<'_> {
    fn default() -> Self {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Gather { pieces: [none; PIECES], count: 0, borrowed: std::marker::PhantomData }
    }
}

impl<'a> Gather<'a> {
    /// Whether the next piece may find no place.
    pub fn is_full(&self) -> bool {
        self.count + 2 > PIECES
    }

    /// Appends bytes; does nothing if it is full.
    pub fn bytes(&mut self, bytes: &'a [u8]) {
        self.piece(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
    }

    /// Appends a ring's `length` bytes from a stream's offset; does nothing if it is full.
    ///
    /// # Panics
    /// More than the ring holds.
    pub fn ring(&mut self, ring: &'a RingReader, offset: u64, length: usize) {
        if !self.is_full() {
            for piece in ring.mapping.pieces(offset, length) {
                self.piece(piece);
            }
        }
    }

    fn piece(&mut self, piece: libc::iovec) {
        if let Some(place) = self.pieces.get_mut(self.count)
            && piece.iov_len > 0
        {
            *place = piece;
            self.count += 1;
        }
    }

    /// Writes at the current position, and waits for room if the descriptor does.
    ///
    /// # Errors
    /// Those of writev(2).
    pub fn write(&self, fd: &impl AsFd) -> io::Result<usize> {
        self.write_with(fd, 0)
    }

    /// Writes at the current position as much as goes without waiting.
    ///
    /// # Errors
    /// Those of [`crate::nowait::write`].
    pub fn write_nowait(&self, fd: &impl AsFd) -> io::Result<usize> {
        self.write_with(fd, libc::RWF_NOWAIT)
    }

    fn write_with(&self, fd: &impl AsFd, flags: libc::c_int) -> io::Result<usize> {
        let count = libc::c_int::try_from(self.count).unwrap_or(0);
        // SAFETY: the kernel reads the first `count` pieces, each of which lies in memory that is borrowed for as long as this
        // value lives; an offset of -1 means the file's position.
        let n = unsafe { libc::pwritev2(fd.as_fd().as_raw_fd(), self.pieces.as_ptr(), count, -1, flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn both_ends(size: usize) -> (RingWriter, RingReader) {
        let (writer, fd) = RingWriter::new(size).expect("ring");
        (writer, RingReader::open(&fd).expect("its other end"))
    }

    /// Numbers that repeat with a period that is no divisor of any ring's size here.
    fn bytes(from: u64, length: usize) -> Vec<u8> {
        (from..from + length as u64).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn bytes_come_out_as_they_went_in_around_the_end() {
        let (writer, fd) = RingWriter::new(10_000).expect("ring");
        let reader = RingReader::open(&fd).expect("its other end");
        let file = RingFile::open(fd).expect("its other end");
        assert_eq!((writer.size(), reader.size()), (10_000, 10_000));
        assert!(file.copy_out(0, 10_001, &mut Vec::new()).is_err(), "more than it holds");
        let mut offset = u64::from(u32::MAX);
        for length in [1, 9_999, 10_000, 3, 7_000, 7_000, 0] {
            writer.put(offset, &bytes(offset, length));
            let mut out = vec![b'x'];
            reader.copy_out(offset, length, &mut out);
            assert_eq!(out[1..], bytes(offset, length));
            out.truncate(1);
            file.copy_out(offset, length, &mut out).expect("read");
            assert_eq!(out[1..], bytes(offset, length));
            out.truncate(1);
            writer.copy_out(offset, length, &mut out);
            assert_eq!(out[1..], bytes(offset, length));
            offset += length as u64;
        }
    }

    #[test]
    fn a_descriptor_is_read_into_it_and_written_from_it() {
        let (writer, reader) = both_ends(1000);
        let (from, mut feed) = std::io::pipe().expect("pipe");
        let (mut sunk, to) = std::io::pipe().expect("pipe");
        feed.write_all(&bytes(900, 400)).expect("write");
        assert_eq!(writer.read_from_nowait(&from, 900, 100).expect("read"), 100);
        assert_eq!(writer.read_from(&from, 1000, 300).expect("read"), 300);
        let nothing = writer.read_from_nowait(&from, 1300, 100).expect_err("nothing there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let mut gather = Gather::default();
        gather.bytes(b"<");
        gather.ring(&reader, 900, 400);
        gather.bytes(b">");
        assert_eq!(gather.write_nowait(&to).expect("write"), 402);
        drop((gather, to, feed));
        let mut got = Vec::new();
        sunk.read_to_end(&mut got).expect("read");
        assert_eq!(got, [b"<", bytes(900, 400).as_slice(), b">"].concat());
        assert_eq!(writer.read_from(&from, 0, 10).expect("end of file"), 0);
    }

    #[test]
    fn it_takes_as_many_pieces_as_it_can_write() {
        let (_writer, reader) = both_ends(64);
        let (mut sunk, to) = std::io::pipe().expect("pipe");
        let mut gather = Gather::default();
        let mut taken = 0;
        while !gather.is_full() {
            // Around the end: two pieces each.
            gather.ring(&reader, 63, 2);
            taken += 2;
        }
        gather.ring(&reader, 63, 2);
        assert_eq!(gather.write(&to).expect("write"), taken);
        drop(to);
        let mut got = Vec::new();
        sunk.read_to_end(&mut got).expect("read");
        assert_eq!(got.len(), taken);
    }

    #[test]
    fn what_could_shrink_is_refused() {
        let loose = memfd_create(c"loose", MFdFlags::MFD_ALLOW_SEALING).expect("memfd");
        nix::unistd::ftruncate(&loose, 4096).expect("ftruncate");
        RingReader::open(&loose).expect_err("it could shrink");
        RingFile::open(loose).expect_err("it could shrink");
        RingFile::open(std::io::pipe().expect("pipe").0.into()).expect_err("no memory");
        RingReader::open(&std::io::pipe().expect("pipe").0).expect_err("no memory");
        RingReader::open(&std::fs::File::open("/dev/zero").expect("zero")).expect_err("no memory");
        for size in [0, MOST + 1] {
            RingWriter::new(size).expect_err("no such size");
        }
        let (_writer, ring) = RingWriter::new(4096).expect("ring");
        assert_eq!(nix::unistd::ftruncate(&ring, 0), Err(nix::errno::Errno::EPERM), "sealed");
        assert_eq!(nix::unistd::ftruncate(&ring, 8192), Err(nix::errno::Errno::EPERM), "sealed");
    }

    #[test]
    #[should_panic(expected = "in a ring of")]
    fn more_than_the_ring_is_never_touched() {
        both_ends(100).0.put(0, &[0; 101]);
    }
}
