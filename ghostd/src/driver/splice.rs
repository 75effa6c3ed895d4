//! A command on a node and bpcp's other end here: bytes go from one to the other, and mean nothing to ghostd.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::client::{MasterToClient, Reached, Refused, Serve};
use tokio::net::UnixStream;

use super::Driver;
use crate::core::ClientId;

/// Bytes that are on their way in one direction.
const AT_ONCE: usize = 64 * 1024;

impl Driver {
    /// Has `server` run bpcp, with a socket of which `client` gets the other end.
    pub(super) fn splice(&mut self, client: ClientId, server: ClientId, arguments: Vec<Bytes>) {
        let pair = std::os::unix::net::UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            Ok((UnixStream::from_std(ours)?, theirs))
        });
        let outcome = match (pair, self.clients.get(&server)) {
            (Ok((ours, theirs)), Some(port)) => {
                port.outbox.control(MasterToClient::Serve(Serve { arguments }).to_frame(), Some(theirs.into()));
                Ok(ours)
            }
            (Err(error), _) => Err(format!("ghostd cannot connect it: {error}")),
            (Ok(_), None) => Err("the bpsh that launched this is about to end".to_owned()),
        };
        let Some(port) = self.clients.get_mut(&client) else { return };
        match outcome {
            Ok(ours) => {
                port.outbox.control(MasterToClient::Reached(Reached {}).to_frame(), None);
                port.spliced = Some(ours);
            }
            Err(text) => {
                port.outbox.control(MasterToClient::Refused(Refused { text, position: None }).to_frame(), None);
                port.outbox.close();
            }
        }
    }
}

/// Carries bytes until one of the two ends; `begun`: what has come from the first already.
pub(super) async fn carry(client: &UnixStream, other: &UnixStream, begun: BytesMut) {
    // What an end has said before it went is on its way; nobody is left to answer.
    let ended = tokio::select! {
        ended = one_way(client, other, begun) => ended,
        ended = one_way(other, client, BytesMut::new()) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!("bpcp on a node: {error}");
    }
    let _ = nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(client), nix::sys::socket::Shutdown::Both);
}

async fn one_way(from: &UnixStream, to: &UnixStream, mut bytes: BytesMut) -> io::Result<()> {
    loop {
        while !bytes.is_empty() {
            to.writable().await?;
            match to.try_write(&bytes) {
                Ok(n) => bytes.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        from.readable().await?;
        bytes.reserve(AT_ONCE);
        match from.try_read_buf(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
