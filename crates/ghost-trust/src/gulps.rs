//! Reading for TLS from a socket in large pieces (rustls asks for 4 KiB at a time), which may grow once it is known who is there: a
//! stranger's connection costs little memory, a node's few system calls.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection with a buffer before it for what is read; what is written goes through.
#[derive(Debug)]
pub struct Gulps<S> {
    inner: S,
    buffer: Vec<u8>,
    /// What of the buffer has been read and not yet taken.
    unread: std::ops::Range<usize>,
}

impl<S> Gulps<S> {
    /// `capacity`: bytes that are read at once.
    pub fn new(inner: S, capacity: usize) -> Gulps<S> {
        Gulps { inner, buffer: vec![0; capacity], unread: 0..0 }
    }

    /// Larger pieces from now on; nothing that was read is lost.
    pub fn enlarge(&mut self, capacity: usize) {
        if capacity > self.buffer.len() {
            self.buffer.resize(capacity, 0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gulps<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Gulps { inner, buffer, unread } = self.get_mut();
        if unread.start == unread.end {
            if out.remaining() >= buffer.len() {
                return Pin::new(inner).poll_read(cx, out);
            }
            let mut room = ReadBuf::new(buffer);
            ready!(Pin::new(inner).poll_read(cx, &mut room))?;
            *unread = 0..room.filled().len();
        }
        let count = unread.len().min(out.remaining());
        out.put_slice(&buffer[unread.start..unread.start + count]);
        unread.start += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gulps<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn nothing_is_lost_or_torn_when_the_pieces_grow() {
        let (mut far, near) = tokio::io::duplex(1 << 16);
        let sent: Vec<u8> = (0..50_000u32).map(|at| (at % 251) as u8).collect();
        far.write_all(&sent).await.expect("there is room");
        drop(far);
        let mut gulps = Gulps::new(near, 1000);
        let (mut got, mut piece) = (Vec::new(), [0; 77]);
        for capacity in [0, 1000, 1003, 20_000, 500] {
            // Some of the buffer is still unread.
            let count = gulps.read(&mut piece).await.expect("it is there");
            got.extend_from_slice(&piece[..count]);
            gulps.enlarge(capacity);
        }
        gulps.read_to_end(&mut got).await.expect("it is there");
        assert_eq!(got, sent);
    }
}
