//! Commands on the Unix socket.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::client::{ClientToMaster, MasterToClient, Refused};
use ghost_proto::frame::{Data, Decoder, Frame, MAX_CONTROL, Offer};
use ghost_proto::ids::LaunchId;
use ghost_sys::{fdpass, peer};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::outbox::{Outbox, Parcel};
use super::rings::{Inward, Rings};
use super::seats::Seats;
use super::{ClientPort, Driver, Shared, splice};
use crate::core::{ClientId, Event, User};

const READ_AT_ONCE: usize = 256 * 1024;
const SOCKET_BUFFER: usize = 1024 * 1024;
/// Frames are written together up to so many bytes: each call may wake the command.
const TOGETHER: usize = 16 * 1024;

/// Between two looks at whether the nodes have come back.
const GATHERING_LOOK: Duration = Duration::from_millis(2);

pub(super) type SharedSeats = Rc<RefCell<Seats>>;

/// `descriptors`: how many this process may have.
pub(super) fn seats(descriptors: u64) -> SharedSeats {
    Rc::new(RefCell::new(Seats::new(descriptors)))
}

pub(super) async fn accept(listener: UnixListener, shared: Shared) {
    let leaving = Rc::clone(&shared.borrow().leaving);
    loop {
        let accepted = tokio::select! {
            biased;
            // Who connects from here on is the next ghostd's.
            () = leaving.notified() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => begin(stream, &shared),
            Err(error) => {
                // Out of descriptors or memory: wait for some to come free.
                tracing::warn!("a command's connection was not taken: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn begin(stream: UnixStream, shared: &Shared) {
    let peer = match peer::peer_of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::debug!("a command left at once: {error}");
            return;
        }
    };
    // Bulk goes in large pieces; without the right to more it is the system's usual size.
    let _ = nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::SndBufForce, &SOCKET_BUFFER);
    let user = User { pid: peer.pid, uid: peer.uid, gid: peer.gid, groups: peer.groups };
    serve(stream, shared, user, Some(peer.pidfd), |client, user| Event::ClientJoined { client, user });
}

/// Serves a command until its connection ends. `pidfd`: its task, if it runs here.
pub(super) fn serve(
    stream: UnixStream,
    shared: &Shared,
    user: User,
    pidfd: Option<OwnedFd>,
    joined: impl FnOnce(ClientId, User) -> Event,
) {
    let seats = Rc::clone(&shared.borrow().seats);
    let uid = user.uid;
    if let Err(full) = seats.borrow_mut().take(uid) {
        let frame = MasterToClient::Refused(Refused { text: full.to_string(), position: None }).to_frame();
        let _ = stream.try_write(&frame);
        return;
    }
    let outbox = Rc::new(Outbox::default());
    let is_here = pidfd.is_some();
    let client = {
        let mut driver = shared.borrow_mut();
        let client = ClientId(driver.connection_id());
        let rings = Rings::new(driver.ring_budget.clone());
        let (outbox, pid) = (Rc::clone(&outbox), user.pid);
        driver.clients.insert(client, ClientPort { outbox, pidfd, pid, uid, pin: None, rings, spliced: None });
        driver.turn(joined(client, user));
        client
    };
    let stream = Rc::new(stream);
    let shared = Rc::clone(shared);
    let writer_box = Rc::clone(&outbox);
    let writer_stream = Rc::clone(&stream);
    let spliced = Rc::new(Cell::new(false));
    let writer_spliced = Rc::clone(&spliced);
    let mut writer = tokio::task::spawn_local(async move {
        if let Err(error) = write(&writer_stream, &writer_box).await {
            tracing::debug!("a command's connection broke: {error}");
        }
        writer_box.close();
        if writer_spliced.get() {
            return;
        }
        // The reader sees the end of the connection.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&*writer_stream),
            nix::sys::socket::Shutdown::Both,
        );
    });
    tokio::task::spawn_local(async move {
        match read(&stream, client, is_here, &outbox, &shared).await {
            Ok(None) => {}
            Ok(Some((other, begun))) => {
                spliced.set(true);
                outbox.close();
                let _ = (&mut writer).await;
                splice::carry(&stream, &other, begun).await;
            }
            Err(text) => outbox.control(MasterToClient::Refused(Refused { text, position: None }).to_frame(), None),
        }
        outbox.close();
        {
            let mut driver = shared.borrow_mut();
            driver.clients.remove(&client);
            driver.turn(Event::ClientGone { client });
        }
        seats.borrow_mut().leave(uid);
        if !spliced.get() {
            let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
        }
    });
}

/// Until the end of the connection, or until it is another one's, with what has come for that already; the error is for the command.
async fn read(
    stream: &UnixStream,
    client: ClientId,
    is_here: bool,
    outbox: &Outbox,
    shared: &Shared,
) -> Result<Option<(UnixStream, BytesMut)>, String> {
    let mut decoder = Decoder::new(MAX_CONTROL);
    let mut input = BytesMut::new();
    let mut inward = Inward::default();
    loop {
        outbox.has_room().await;
        if stream.readable().await.is_err() {
            return Ok(None);
        }
        input.reserve(READ_AT_ONCE);
        let received = stream.try_io(Interest::READABLE, || {
            fdpass::receive_buf(stream, &mut input, READ_AT_ONCE, &mut inward.descriptors)
        });
        match received {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Ok(None),
        }
        loop {
            let frame = match decoder.next(&mut input) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return Err(error.to_string()),
            };
            if outbox.is_closed() {
                return Ok(None);
            }
            let event = match frame {
                Frame::Control(body) => match ClientToMaster::decode_body(body) {
                    Ok(Some(ClientToMaster::Resume(message))) => {
                        let launch = shared.borrow().launch_of(client);
                        shared.borrow_mut().want_above(client);
                        Event::Resume { client, launch, message }
                    }
                    Ok(Some(message)) => Event::ClientSaid { client, message },
                    Ok(None) => continue,
                    Err(error) => return Err(format!("a message cannot be read: {error}")),
                },
                Frame::Data(data) => {
                    if is_here && inward.is_to_be_offered(&data) {
                        outbox.control(Offer { placed: true, fills: false }.to_frame(), None);
                    }
                    Event::ClientData { client, data }
                }
                Frame::Agent(_) | Frame::Relay(_) => continue,
                Frame::Offer(offer) => {
                    if let Some(port) = shared.borrow_mut().clients.get_mut(&client) {
                        port.rings.offer(offer.placed);
                    }
                    continue;
                }
                Frame::Placed(placed) => Event::ClientData { client, data: inward.fetch(placed)? },
            };
            if asks_for_nodes(&event) {
                while shared.borrow().is_gathering() {
                    tokio::time::sleep(GATHERING_LOOK).await;
                }
            }
            shared.borrow_mut().turn(event);
            let other = shared.borrow_mut().clients.get_mut(&client).and_then(|port| port.spliced.take());
            if let Some(other) = other {
                return Ok(Some((other, input)));
            }
        }
    }
}

fn asks_for_nodes(event: &Event) -> bool {
    use ClientToMaster::{Change, Launch, Nodes, Processes, Watch};
    let Event::ClientSaid { message, .. } = event else { return false };
    matches!(message, Launch(_) | Nodes(_) | Processes(_) | Change(_) | Watch(_))
}

async fn write(stream: &UnixStream, outbox: &Outbox) -> io::Result<()> {
    let mut small = BytesMut::new();
    loop {
        let next = if small.is_empty() { outbox.next().await } else { outbox.try_next() };
        let is_over = next.is_none() && small.is_empty();
        match next {
            Some(Parcel::Frame(frame, None)) if small.len() + frame.len() <= TOGETHER => {
                small.extend_from_slice(&frame);
                continue;
            }
            other => {
                write_frame(stream, small.split().freeze(), None).await?;
                match other {
                    Some(Parcel::Frame(frame, descriptor)) => write_frame(stream, frame, descriptor).await?,
                    Some(Parcel::Data(data)) => write_data(stream, data).await?,
                    None if is_over => return Ok(()),
                    None => {}
                }
            }
        }
    }
}

async fn write_frame(stream: &UnixStream, mut frame: Bytes, mut descriptor: Option<OwnedFd>) -> io::Result<()> {
    while !frame.is_empty() {
        stream.writable().await?;
        let sent = stream.try_io(Interest::WRITABLE, || {
            fdpass::send(stream, &frame, descriptor.as_ref().map(std::os::fd::AsFd::as_fd))
        });
        match sent {
            Ok(n) => {
                frame.advance(n);
                descriptor = None;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn write_data(stream: &UnixStream, mut data: Data) -> io::Result<()> {
    let mut head = BytesMut::new();
    data.put_head(&mut head);
    while !head.is_empty() || !data.bytes.is_empty() {
        match stream.try_write_vectored(&[IoSlice::new(&head), IoSlice::new(&data.bytes)]) {
            Ok(n) => {
                let of_head = n.min(head.len());
                head.advance(of_head);
                data.bytes.advance(n - of_head);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Driver {
    /// What the kernel has a command's task under.
    fn launch_of(&self, client: ClientId) -> Option<LaunchId> {
        let port = self.clients.get(&client)?;
        let state = self.programs.state(port.pidfd.as_ref()?.as_fd()).ok().flatten()?;
        state.launcher().then_some(LaunchId(state.ghost))
    }
}
