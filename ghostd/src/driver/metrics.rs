//! Telling what ghostd counts: to `bpctl metrics`, and to who asks over HTTP, where `metrics_listen` says so.
//!
//! Whoever reaches that port is a stranger: a request has few bytes and little time, few are served at once, and who does not
//! fetch his answer keeps no more than that answer waiting.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ghost_proto::Control;
use ghost_proto::client::MasterToClient;
use ghost_proto::metrics::MetricsReply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Driver, Members, Shared, boot_time};
use crate::core::ClientId;
use crate::metrics::request::{self, LONGEST};
use crate::metrics::{Edge, OwnProcess, page};

/// Connections that are served at once.
const MOST: usize = 16;
/// For a request to come, and for the answer to be fetched.
const ASKING: Duration = Duration::from_secs(2);
const ANSWERING: Duration = Duration::from_secs(5);
/// Until it is tried again to listen on an address that cannot be had.
const RETRY: Duration = Duration::from_secs(5);

/// How old an answer to a stranger may be: it costs a look at everything, however fast they ask.
const FRESH: Duration = Duration::from_millis(200);

/// Where strangers may ask.
#[derive(Default)]
pub(super) struct Door {
    listens: Option<AbortHandle>,
    /// What the last one was told, and when.
    told: Option<(Duration, String)>,
}

impl Driver {
    pub(super) fn tell_metrics(&self, client: ClientId) {
        if let Some(port) = self.clients.get(&client) {
            let reply = MetricsReply { text: self.metrics() };
            port.outbox.control(MasterToClient::Metrics(reply).to_frame(), None);
        }
    }

    fn metrics_for_strangers(&mut self) -> String {
        let now = boot_time();
        match &self.door.told {
            Some((when, text)) if now.saturating_sub(*when) < FRESH => text.clone(),
            _ => {
                let text = self.metrics();
                self.door.told = Some((now, text.clone()));
                text
            }
        }
    }

    fn metrics(&self) -> String {
        let edge = Edge {
            release: env!("CARGO_PKG_VERSION"),
            // The first one of a host is the first generation.
            takeovers: self.store.generation().saturating_sub(1),
            connections_refused: self.connections_refused,
            commands_refused: self.seats.borrow().refused(),
            fuse_requests: self.pin.requests(),
            records_dropped: self.programs.dropped(),
            view: self.view.is_some() && self.core.shows_views(),
            certificates: self.certificates(),
            own: OwnProcess::now(),
        };
        page(self.core.counts(), &self.core.census(&Members(&self.membership)), &edge)
    }
}

/// From now on figures are told here, or nowhere.
pub(super) fn open(shared: &Shared, address: Option<SocketAddr>) {
    let listens = address.map(|address| tokio::task::spawn_local(listen(address, Rc::clone(shared))).abort_handle());
    let before = std::mem::replace(&mut shared.borrow_mut().door.listens, listens);
    if let Some(before) = before {
        before.abort();
    }
}

async fn listen(address: SocketAddr, shared: Shared) {
    let listener = bind(address).await;
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        // Who comes while all places are taken waits in the kernel, in order.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection that asks for metrics was not taken: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            if let Err(why) = serve(stream, &shared).await {
                tracing::debug!("somebody who asks for metrics was left: {why}");
            }
            drop(place);
        });
    }
}

/// That another program has the port is no reason for ghostd to end, or never to listen there.
async fn bind(address: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "metrics are told here");
                return listener;
            }
            Err(why) if !said => {
                tracing::error!(%address, "metrics cannot be told here (`metrics_listen`), it is tried again: {why}");
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let asked = timeout(ASKING, read(&mut stream)).await??;
    let answer = request::answer(request::understand(&asked), || shared.borrow_mut().metrics_for_strangers());
    timeout(ANSWERING, async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    })
    .await?
}

/// A request; of one that is too long its beginning.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut asked, mut looked) = (Vec::with_capacity(1024), 0);
    while !request::is_whole(&asked[looked..]) && asked.len() < LONGEST {
        // Of its end a part may be there.
        looked = asked.len().saturating_sub(3);
        let room = LONGEST - asked.len();
        if (&mut *stream).take(room as u64).read_buf(&mut asked).await? == 0 {
            break;
        }
    }
    Ok(asked)
}
