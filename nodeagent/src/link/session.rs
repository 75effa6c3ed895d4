//! One connection to the master, from the first packet to the last.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{HEADER, Offer, peek};
use ghost_proto::instance::Instance;
use ghost_proto::node::{MasterToNode, Welcome};
use ghost_proto::view::MasterToAgent;
use ghost_sys::fdpass;
use ghost_trust::tls::{node_client_config, server_name};
use ghost_trust::{Distrust, Gulps, is_broken_off};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, ReadHalf, WriteHalf};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::holder_process::HolderProcess;
use super::input_rings::InputRings;
use super::own_frames::{OwnFrames, Piece};
use super::power;
use super::pulse::Pulse;
use super::sampler::Sampler;
use super::socket;
use super::splitter::Splitter;
use crate::identity::Identity;
use crate::master_address::MasterAddress;

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What is read from the holder ahead of what the master takes.
const AHEAD: usize = 512 * 1024;
/// Bytes read from the holder at once: bulk comes in memory that is shared, once there is much of it.
const FROM_HOLDER: usize = 64 * 1024;
/// Bytes that are encrypted ahead of what the network takes: a whole piece of the splitter's, which then goes with one call.
const ENCRYPTED: usize = 192 * 1024;
/// Bytes read from the master at once.
const READ: usize = 256 * 1024;
/// Socket buffer towards the holder, in bytes: a few times what is read at once.
const TO_HOLDER: usize = 1024 * 1024;

/// How far a session came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The master has said nothing.
    None,
    Welcomed,
}

/// Connects and carries frames until one side ends. `connected` is called when the master has begun to speak. `known`: the master's
/// addresses as they were last found.
pub async fn run(
    identity: &Identity,
    holder: &mut HolderProcess,
    pulse: &Pulse,
    known: &mut Vec<SocketAddr>,
    connected: impl FnOnce(),
) -> (Progress, Error) {
    let mut progress = Progress::None;
    let on_word = || {
        connected();
        Progress::Welcomed
    };
    match session(identity, holder, pulse, known, on_word, &mut progress).await {
        Ok(()) => (progress, anyhow!("the connection was closed")),
        Err(why) => (progress, why),
    }
}

async fn session(
    identity: &Identity,
    holder: &mut HolderProcess,
    pulse: &Pulse,
    known: &mut Vec<SocketAddr>,
    on_word: impl FnOnce() -> Progress,
    progress: &mut Progress,
) -> Result<()> {
    let addresses = resolve(&identity.master, known).await?;
    let config = node_client_config(&identity.tls).context("this node's certificate cannot be used")?;
    let tcp = socket::connect(&addresses).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut tls = timeout(HANDSHAKE, connector.connect(server_name(), Gulps::new(tcp, READ)))
        .await
        .map_err(|_| anyhow!("the master does not answer the TLS handshake"))?
        .map_err(explain)?;
    tls.get_mut().1.set_buffer_limit(Some(ENCRYPTED));
    let (own, instance) = (holder.connect(|| pulse.beat())?, holder.instance().clone());
    own.set_nonblocking(true).context("the holder's socket")?;
    // What came at once goes on at once; without the right to more it is the system's usual size.
    let _ = setsockopt(&own, sockopt::SndBufForce, &TO_HOLDER);
    // Who listens there, as the kernel knows it (net/unix/af_unix.c, unix_listen()).
    let holder_pid = getsockopt(&own, sockopt::PeerCredentials).context("the holder's PID")?.pid();
    let (mut sampler, figures) = Sampler::new(holder_pid.unsigned_abs())?;
    let (from_holder, mut to_holder) = UnixStream::from_std(own).context("the holder's socket")?.into_split();
    let mut offer = BytesMut::new();
    Offer { placed: true, fills: true }.encode(&mut offer);
    to_holder.write_all(&offer).await.context("writing to the holder")?;
    let (from_master, to_master) = tokio::io::split(tls);
    let inputs = InputRings::default();
    let (splitter, own) = (Splitter::new(inputs.clone()), OwnFrames::new(inputs));
    tokio::select! {
        ended = up(from_holder, splitter, figures, to_master, pulse) => ended,
        ended = down(from_master, to_holder, own, (&instance, &mut sampler), pulse, on_word, progress) => ended,
        () = pulse.is_missed() => {
            holder.end()?;
            bail!("the holder stood still for longer than its lease: it was ended, and with it all cluster processes of this node")
        }
    }
}

/// The master's addresses. Asking for a name may wait, which a thread does; where there can be none (a node whose PIDs are
/// exhausted must not lose its master for that), they are what they were.
async fn resolve(master: &MasterAddress, known: &mut Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
    if let Some(address) = master.literal() {
        return Ok(vec![address]);
    }
    let (tell, told) = oneshot::channel();
    let asked = master.clone();
    let thread = std::thread::Builder::new().name("resolver".into());
    match thread.spawn(move || tell.send(asked.resolve())) {
        Ok(_) => *known = told.await.context("resolving the master")??,
        Err(why) if known.is_empty() => return Err(why).context("no thread to resolve the master's name"),
        Err(_) => {}
    }
    Ok(known.clone())
}

/// What the holder says, control first, and figures for the view as bulk.
async fn up(
    holder: OwnedReadHalf,
    mut splitter: Splitter,
    mut figures: mpsc::Receiver<Bytes>,
    mut master: WriteHalf<TlsStream<Gulps<TcpStream>>>,
    pulse: &Pulse,
) -> Result<()> {
    let mut buffer = vec![0; FROM_HOLDER];
    loop {
        while let Ok(frame) = figures.try_recv() {
            splitter.bulk(frame);
        }
        // All that is there already: it may have something urgent behind its bulk.
        while splitter.waiting() < AHEAD {
            let (socket, mut descriptors): (&UnixStream, _) = (holder.as_ref(), Vec::new());
            let received = socket.try_io(Interest::READABLE, || fdpass::receive(socket, &mut buffer, &mut descriptors));
            splitter.descriptors.extend(descriptors);
            if let Ok(n) = &received {
                splitter.input.extend_from_slice(&buffer[..*n]);
            }
            match received {
                Ok(0) => bail!("the holder has closed its connection (its log says why), or has ended"),
                Ok(_) => {
                    pulse.beat();
                    splitter.cut()?;
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) => return Err(why).context("reading from the holder"),
            }
        }
        match splitter.next_piece() {
            Some(piece) => master.write_all(&piece).await.map_err(explain)?,
            None => {
                master.flush().await.map_err(explain)?;
                tokio::select! {
                    ready = holder.readable() => ready.context("the holder's socket")?,
                    Some(frame) = figures.recv() => splitter.bulk(frame),
                }
            }
        }
    }
}

/// What the master says, as it comes. It has sent control before bulk itself, and the holder reads at once. What is for
/// nodeagent itself is taken out.
async fn down(
    mut master: ReadHalf<TlsStream<Gulps<TcpStream>>>,
    mut holder: OwnedWriteHalf,
    mut own: OwnFrames,
    (instance, sampler): (&Instance, &mut Sampler),
    pulse: &Pulse,
    on_word: impl FnOnce() -> Progress,
    progress: &mut Progress,
) -> Result<()> {
    let mut on_word = Some(on_word);
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        if master.read_buf(&mut buffer).await.map_err(explain)? == 0 {
            bail!("the master has closed the connection{}", if on_word.is_some() { "; its log says why" } else { "" });
        }
        if let Some(on_word) = on_word.take() {
            *progress = on_word();
            if let Some(welcome) = first_message(&buffer) {
                pulse.lease_is(Duration::from_millis(welcome.lease_ms.into()));
            }
        }
        // TLS gives a record at a time: what else has come goes on with it. Its end is seen again.
        while buffer.len() < READ && matches!(at_once(master.read_buf(&mut buffer)).await, Some(Ok(1..))) {}
        while let Some(piece) = own.next(&mut buffer)? {
            match piece {
                Piece::Holder(bytes) => holder.write_all(&bytes).await.context("writing to the holder")?,
                Piece::Own(MasterToAgent::Power(order)) => power::begin(instance, order, sampler.frames()),
                Piece::Own(message) => sampler.request(message),
            }
        }
    }
}

/// What a future gives without waiting.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(given) => Poll::Ready(Some(given)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The master's first message, which comes in one piece.
fn first_message(input: &[u8]) -> Option<Welcome> {
    let (body, _) = peek(input)?;
    let body = input.get(HEADER..HEADER + body)?;
    match MasterToNode::decode_body(Bytes::copy_from_slice(body)) {
        Ok(Some(MasterToNode::Welcome(welcome))) => Some(welcome),
        _ => None,
    }
}

/// The reason for mistrust, where there is one, instead of the TLS library's words for it.
fn explain(why: io::Error) -> Error {
    match Distrust::of_io(&why) {
        Some(distrust) => anyhow!("the master is not trusted: {distrust}"),
        None if is_broken_off(&why) => anyhow!("the master has broken the connection off; its log says why"),
        None => Error::new(why).context("the TLS connection to the master"),
    }
}
