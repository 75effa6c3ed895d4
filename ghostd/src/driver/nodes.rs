//! Nodes, and machines that want to become one, on the TLS port.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow, bail};
use bytes::{Buf, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{Decoder, Frame, MAX_CONTROL, MAX_CONTROL_STRANGER, MAX_DATA};
use ghost_proto::ids::NodeNumber;
use ghost_proto::join::JoinToMaster;
use ghost_proto::node::NodeToMaster;
use ghost_proto::view::AgentToMaster;
use ghost_trust::certificate::Claims;
use ghost_trust::tls::{self, Peer};
use ghost_trust::{Distrust, Gulps, Serial};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::batch::Batch;
use super::kernel::TURN;
use super::outbox::{Outbox, Parcel};
use super::{Driver, NodePort, Shared};
use crate::core::{Event, LinkId};

/// Connections that have not yet shown who they are; fewer where descriptors are few.
const MOST_STRANGERS: usize = 512;
const STRANGERS_SHARE: u64 = 8;
/// For the handshake and the first message.
const PATIENCE: Duration = Duration::from_secs(10);
const READ_AT_ONCE: usize = 256 * 1024;
/// The same of one that has not yet shown who it is.
const READ_OF_STRANGER: usize = 4 * 1024;
/// Frames are encrypted together from so many bytes on, at most a frame of bulk more: what is urgent waits for no more than that.
const TOGETHER: usize = MAX_DATA + 4096;
/// Bytes that are encrypted ahead of what the network takes: all that is encrypted together, which then goes with one call.
const ENCRYPTED: usize = TOGETHER + MAX_DATA + 16 * 1024;

/// `descriptors`: how many this process may have.
pub(super) async fn accept(listener: TcpListener, config: Arc<ServerConfig>, descriptors: u64, shared: Shared) {
    ghost_sys::tcp::do_not_pace(&listener);
    let acceptor = TlsAcceptor::from(config);
    let share = usize::try_from(descriptors / STRANGERS_SHARE).unwrap_or(MOST_STRANGERS);
    let strangers = Arc::new(Semaphore::new(MOST_STRANGERS.min(share)));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection was not taken: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&strangers).try_acquire_owned() else {
            refused(&shared, address, &anyhow!("too many connections have not shown who they are"));
            continue;
        };
        let (acceptor, shared) = (acceptor.clone(), Rc::clone(&shared));
        tokio::task::spawn_local(async move {
            let met = timeout(PATIENCE, meet(stream, address, &acceptor, &shared)).await;
            drop(permit);
            match met {
                Ok(Ok(Some(session))) => session.run(&shared).await,
                Ok(Ok(None)) => {}
                Ok(Err(why)) => refused(&shared, address, &why),
                Err(_) => {
                    let why = anyhow!("it did not say who it is within {} s", PATIENCE.as_secs());
                    refused(&shared, address, &why);
                }
            }
        });
    }
}

impl Driver {
    /// Of the nodes that are connected: until when their certificates are valid, in seconds since 1970.
    pub(super) fn certificates(&self) -> BTreeMap<NodeNumber, i64> {
        let mut all = BTreeMap::new();
        for port in self.nodes.values() {
            // A node may have come anew, with another certificate, before its old connection was seen to end.
            all.entry(port.number)
                .and_modify(|expires: &mut i64| *expires = port.expires.max(*expires))
                .or_insert(port.expires);
        }
        all
    }
}

fn refused(shared: &Shared, address: SocketAddr, why: &anyhow::Error) {
    shared.borrow_mut().connections_refused += 1;
    tracing::warn!(%address, "refused: {why:#}");
}

/// A node that has shown its certificate and said hello.
struct Session {
    link: LinkId,
    number: NodeNumber,
    stream: TlsStream<Gulps<TcpStream>>,
    decoder: Decoder,
    input: BytesMut,
    outbox: Rc<Outbox>,
}

/// Until when the certificate is valid that was shown, in seconds since 1970.
fn expiry(certificates: Option<&[CertificateDer<'_>]>) -> i64 {
    let claims = certificates.and_then(<[_]>::first).map(|certificate| Claims::read(certificate));
    claims.and_then(Result::ok).map_or(i64::MAX, |claims| claims.not_after)
}

/// Finds out who it is. A stranger is heard about joining, and goes.
async fn meet(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    shared: &Shared,
) -> Result<Option<Session>> {
    stream.set_nodelay(true)?;
    let stream = Gulps::new(stream, READ_OF_STRANGER);
    let mut stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => match Distrust::of_io(&error) {
            Some(distrust) => bail!("{distrust}"),
            None => bail!("TLS handshake: {error}"),
        },
    };
    let mut input = BytesMut::new();
    match tls::peer_node(stream.get_ref().1.peer_certificates())? {
        Peer::Stranger => {
            let mut decoder = Decoder::new(MAX_CONTROL_STRANGER);
            let Frame::Control(body) = next_frame(&mut stream, &mut decoder, &mut input).await? else {
                bail!("a machine without a certificate sent bulk data");
            };
            let Some(JoinToMaster::Request(request)) = JoinToMaster::decode_body(body)? else {
                bail!("a machine without a certificate wants something else than to join");
            };
            let answer = shared.borrow_mut().membership.handle_join(&request, address.ip(), SystemTime::now());
            stream.write_all(&answer.to_frame()).await?;
            stream.shutdown().await?;
            Ok(None)
        }
        Peer::Node { number, serial } => {
            let accepted = shared.borrow().membership.check_peer(number, serial);
            accepted?;
            let (socket, session) = stream.get_mut();
            socket.enlarge(READ_AT_ONCE);
            session.set_buffer_limit(Some(ENCRYPTED));
            let mut decoder = Decoder::new(MAX_CONTROL);
            let Frame::Control(body) = next_frame(&mut stream, &mut decoder, &mut input).await? else {
                bail!("node {number}: bulk data before the hello");
            };
            let hello = match NodeToMaster::decode_body(body)? {
                Some(NodeToMaster::Hello(hello)) => hello,
                Some(NodeToMaster::Renew(request)) => {
                    let answer = shared.borrow_mut().membership.renew(number, serial, &request, SystemTime::now());
                    stream.write_all(&answer.to_frame()).await?;
                    stream.shutdown().await?;
                    return Ok(None);
                }
                _ => bail!("node {number}: the first message is no hello"),
            };
            Ok(Some(welcome(shared, stream, (decoder, input), (number, serial), hello, address)))
        }
    }
}

fn welcome(
    shared: &Shared,
    stream: TlsStream<Gulps<TcpStream>>,
    (decoder, input): (Decoder, BytesMut),
    (number, serial): (NodeNumber, Serial),
    hello: ghost_proto::node::NodeHello,
    address: SocketAddr,
) -> Session {
    let mut driver = shared.borrow_mut();
    let link = LinkId(driver.connection_id());
    let outbox = Rc::new(Outbox::default());
    let expires = expiry(stream.get_ref().1.peer_certificates());
    driver.nodes.insert(link, NodePort { outbox: Rc::clone(&outbox), number, serial, expires });
    driver.membership.seen(number, serial, address.ip());
    tracing::info!(node = number.0, %address, hostname = hello.hostname, program = hello.program, "connected");
    driver.turn(Event::NodeConnected { node: number, link, hello, address: address.ip() });
    driver.relays.linked(number, &outbox);
    Session { link, number, stream, decoder, input, outbox }
}

async fn next_frame(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
    input: &mut BytesMut,
) -> Result<Frame> {
    loop {
        if let Some(frame) = decoder.next(input)? {
            return Ok(frame);
        }
        if stream.read_buf(input).await? == 0 {
            bail!("it closed the connection");
        }
    }
}

impl Session {
    async fn run(self, shared: &Shared) {
        let Session { link, number, stream, decoder, input, outbox } = self;
        let (reader, writer) = tokio::io::split(stream);
        let writer_box = Rc::clone(&outbox);
        let mut writer = tokio::task::spawn_local(async move { write(writer, &writer_box).await });
        let ended = tokio::select! {
            ended = read(reader, decoder, input, number, link, shared) => ended,
            written = &mut writer => match written {
                Ok(Err(error)) => Err(error.into()),
                _ => Ok(()),
            },
        };
        writer.abort();
        match ended {
            Ok(()) => tracing::info!(node = number.0, "disconnected"),
            Err(error) if is_end(&error) => tracing::warn!(node = number.0, "disconnected: it closed the connection"),
            Err(error) => tracing::warn!(node = number.0, "disconnected: {error:#}"),
        }
        outbox.close();
        let mut driver = shared.borrow_mut();
        driver.nodes.remove(&link);
        driver.turn(Event::NodeDisconnected { node: number, link });
    }
}

/// A nodeagent that ends says nothing more; the TLS library has long words for it.
fn is_end(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|why| why.kind() == std::io::ErrorKind::UnexpectedEof)
}

async fn read(
    mut reader: ReadHalf<TlsStream<Gulps<TcpStream>>>,
    mut decoder: Decoder,
    mut input: BytesMut,
    node: NodeNumber,
    link: LinkId,
    shared: &Shared,
) -> Result<()> {
    let mut began = Instant::now();
    loop {
        while let Some(frame) = decoder.next(&mut input)? {
            let event = match frame {
                Frame::Control(body) => match NodeToMaster::decode_body(body)? {
                    Some(message) => Event::NodeSaid { node, link, message },
                    None => continue,
                },
                Frame::Data(data) => Event::NodeData { node, link, data },
                Frame::Agent(body) => match AgentToMaster::decode_body(body)? {
                    Some(AgentToMaster::Examined(examined)) => {
                        shared.borrow_mut().examined(node, link, examined);
                        continue;
                    }
                    Some(message) => Event::AgentSaid { node, link, message },
                    None => continue,
                },
                Frame::Offer(_) => continue,
                Frame::Relay(relay) => {
                    super::relays::arrived(shared, node, link, relay);
                    continue;
                }
                Frame::Placed(_) => bail!("it refers to memory that is not shared with it"),
            };
            shared.borrow_mut().turn(event);
            if began.elapsed() >= TURN {
                tokio::task::yield_now().await;
                began = Instant::now();
            }
        }
        input.reserve(READ_AT_ONCE);
        if reader.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        began = Instant::now();
    }
}

async fn write(mut writer: WriteHalf<TlsStream<Gulps<TcpStream>>>, outbox: &Outbox) -> io::Result<()> {
    let (mut heads, mut batch) = (BytesMut::new(), Batch::default());
    while let Some(parcel) = outbox.next().await {
        let mut next = Some(parcel);
        while let Some(parcel) = next {
            match parcel {
                Parcel::Frame(frame, _) => batch.push(frame),
                Parcel::Data(data) => {
                    data.put_head(&mut heads);
                    batch.push(heads.split().freeze());
                    batch.push(data.bytes);
                }
            }
            next = outbox.try_next();
            if next.is_none() || batch.remaining() >= TOGETHER {
                writer.write_all_buf(&mut batch).await?;
            }
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}
