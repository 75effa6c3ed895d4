//! One connection to the master, from the first packet to the last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use bytes::BytesMut;
use ghost_trust::Distrust;
use ghost_trust::tls::{node_client_config, server_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::holder_process::HolderProcess;
use super::socket;
use super::splitter::Splitter;
use crate::identity::Identity;

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What is read from the holder ahead of what the master takes.
const AHEAD: usize = 512 * 1024;
const READ: usize = 256 * 1024;

/// How far a session came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The master has said nothing.
    None,
    Welcomed,
}

/// Connects and carries frames until one side ends. `connected` is called when the master has begun to speak.
pub async fn run(identity: &Identity, holder: &mut HolderProcess, connected: impl FnOnce()) -> (Progress, Error) {
    let mut progress = Progress::None;
    let on_word = || {
        connected();
        Progress::Welcomed
    };
    match session(identity, holder, on_word, &mut progress).await {
        Ok(()) => (progress, anyhow!("the connection was closed")),
        Err(why) => (progress, why),
    }
}

async fn session(
    identity: &Identity,
    holder: &mut HolderProcess,
    on_word: impl FnOnce() -> Progress,
    progress: &mut Progress,
) -> Result<()> {
    let master = identity.master.clone();
    let addresses = tokio::task::spawn_blocking(move || master.resolve()).await.context("resolving the master")??;
    let config = node_client_config(&identity.tls).context("this node's certificate cannot be used")?;
    let tcp = socket::connect(&addresses).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let tls = timeout(HANDSHAKE, connector.connect(server_name(), tcp))
        .await
        .map_err(|_| anyhow!("the master does not answer the TLS handshake"))?
        .map_err(explain)?;
    let own = holder.connect()?;
    own.set_nonblocking(true).context("the holder's socket")?;
    let (from_holder, to_holder) = UnixStream::from_std(own).context("the holder's socket")?.into_split();
    let (from_master, to_master) = tokio::io::split(tls);
    tokio::select! {
        ended = up(from_holder, to_master) => ended,
        ended = down(from_master, to_holder, on_word, progress) => ended,
    }
}

/// What the holder says, control first.
async fn up(holder: OwnedReadHalf, mut master: WriteHalf<TlsStream<TcpStream>>) -> Result<()> {
    let mut splitter = Splitter::default();
    loop {
        // All that is there already: it may have something urgent behind its bulk.
        while splitter.waiting() < AHEAD {
            splitter.input.reserve(READ);
            match holder.try_read_buf(&mut splitter.input) {
                Ok(0) => bail!("the holder has closed its connection (its log says why), or has ended"),
                Ok(_) => splitter.cut()?,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) => return Err(why).context("reading from the holder"),
            }
        }
        match splitter.next() {
            Some(piece) => master.write_all(&piece).await.map_err(explain)?,
            None => {
                master.flush().await.map_err(explain)?;
                holder.readable().await.context("the holder's socket")?;
            }
        }
    }
}

/// What the master says, as it comes. It has sent control before bulk itself, and the holder reads at once.
async fn down(
    mut master: ReadHalf<TlsStream<TcpStream>>,
    mut holder: OwnedWriteHalf,
    on_word: impl FnOnce() -> Progress,
    progress: &mut Progress,
) -> Result<()> {
    let mut on_word = Some(on_word);
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.clear();
        buffer.reserve(READ);
        if master.read_buf(&mut buffer).await.map_err(explain)? == 0 {
            bail!("the master has closed the connection{}", if on_word.is_some() { "; its log says why" } else { "" });
        }
        if let Some(on_word) = on_word.take() {
            *progress = on_word();
        }
        holder.write_all(&buffer).await.context("writing to the holder")?;
    }
}

/// The reason for mistrust, where there is one, instead of the TLS library's words for it.
fn explain(why: io::Error) -> Error {
    match Distrust::of_io(&why) {
        Some(distrust) => anyhow!("the master is not trusted: {distrust}"),
        None => Error::new(why).context("the TLS connection to the master"),
    }
}
