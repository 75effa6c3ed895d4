//! What heartbeats of a hundred nodes cost the master: they are played here, on connections of their own, with certificates of their
//! own. Their leases are asked for and acknowledged as nodes do it; nothing else goes on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use ghost_proto::Control;
use ghost_proto::frame::{Decoder, Frame, MAX_CONTROL};
use ghost_proto::join::{JoinRequest, JoinToMaster, JoinToNode};
use ghost_proto::node::{LeaseAck, MasterToNode, NodeHello, NodeToMaster};
use ghost_trust::Token;
use ghost_trust::ca::request_certificate;
use ghost_trust::tls::{NodeIdentity, join_client_config, node_client_config, server_name};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::measure::Table;

/// Nodes that are played.
const NODES: u64 = 100;
/// The first of their numbers.
const FIRST: u64 = 1000;
/// Of a core.
const MOST: f64 = 0.001;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Leases that were acknowledged.
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);

pub fn measure(table: &mut Table) -> Result<()> {
    let ghostd = ghostd()?;
    let seconds = |span: Duration| -> Result<f64> {
        let (began, before) = (Instant::now(), processor_time(ghostd)?);
        std::thread::sleep(span);
        Ok((processor_time(ghostd)? - before) / began.elapsed().as_secs_f64())
    };
    let span = Duration::from_secs(30);
    // What it costs to be there, with the nodes of the cluster itself.
    let rest = seconds(span)?;
    for config in certificates()? {
        let tls = connect(config)?;
        std::thread::Builder::new().stack_size(128 * 1024).spawn(move || beat(tls))?;
    }
    std::thread::sleep(Duration::from_secs(5));
    let before = ACKNOWLEDGED.load(Ordering::Relaxed);
    let cost = seconds(span)? - rest;
    let leases = ACKNOWLEDGED.load(Ordering::Relaxed) - before;
    ensure!(leases > NODES * 4, "only {leases} leases were asked for: the nodes are not believed");
    table.row(
        "heartbeats of 100 nodes",
        format!("{:.3} % of a core", cost * 100.0),
        format!("{:.3} % at rest", rest * 100.0),
        format!("{:.0} us a lease", cost * span.as_secs_f64() / leases as f64 * 1e6),
        if cost <= MOST { "<= 0.1 %: kept" } else { "<= 0.1 %: BROKEN" },
    );
    Ok(())
}

fn ghostd() -> Result<u32> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // Its helpers have no words of their own; they have its name with more.
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "ghostd\n") && !words.is_empty() {
            return Ok(pid);
        }
    }
    bail!("no ghostd")
}

/// In seconds (Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat).
fn processor_time(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).context("schedstat")?;
    let nanoseconds: u64 = text.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
    Ok(nanoseconds as f64 / 1e9)
}

fn open(config: ClientConfig) -> Result<Tls> {
    let socket = TcpStream::connect("127.0.0.1:2223")
        .or_else(|_| TcpStream::connect("localhost:2223"))
        .context("ghostd's port")?;
    socket.set_nodelay(true)?;
    Ok(StreamOwned::new(ClientConnection::new(Arc::new(config), server_name())?, socket))
}

/// One message of the master's.
fn control(tls: &mut Tls, decoder: &mut Decoder, input: &mut BytesMut) -> Result<bytes::Bytes> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(Frame::Control(body)) = decoder.next(input)? {
            return Ok(body);
        }
        match tls.read(&mut buffer)? {
            0 => bail!("ghostd has closed the connection"),
            n => input.extend_from_slice(&buffer[..n]),
        }
    }
}

fn certificates() -> Result<Vec<ClientConfig>> {
    let last = FIRST + NODES - 1;
    let words =
        ["token".to_owned(), "--nodes".to_owned(), format!("{FIRST}-{last}"), "--uses".to_owned(), NODES.to_string()];
    let output = Command::new("bpctl").args(words).output().context("bpctl")?;
    let token: Token = String::from_utf8_lossy(&output.stdout).trim().parse().context("the token")?;
    (FIRST..=last).map(|number| certificate(&token, number)).collect()
}

fn certificate(token: &Token, number: u64) -> Result<ClientConfig> {
    let (request, key) = request_certificate()?;
    let mut tls = open(join_client_config(token.ca)?)?;
    let request = JoinRequest {
        version: ghost_proto::VERSION,
        token_id: token.id.0.to_vec().into(),
        token_secret: token.secret.as_bytes().to_vec().into(),
        node: Some(i32::try_from(number)?),
        hostname: format!("played{number}"),
        request: request.into(),
    };
    tls.write_all(&JoinToMaster::Request(request).to_frame())?;
    let body = control(&mut tls, &mut Decoder::new(MAX_CONTROL), &mut BytesMut::new())?;
    match JoinToNode::decode_body(body)? {
        Some(JoinToNode::Accepted(accepted)) => {
            let identity = NodeIdentity::new(accepted.certificate.to_vec().into(), key, accepted.ca.to_vec().into())?;
            Ok(node_client_config(&identity)?)
        }
        other => bail!("node {number} does not get in: {other:?}"),
    }
}

fn connect(config: ClientConfig) -> Result<Tls> {
    let mut tls = open(config)?;
    let hello =
        NodeHello { version: ghost_proto::VERSION, hostname: "played".to_owned(), holder: 1, ..NodeHello::default() };
    tls.write_all(&NodeToMaster::Hello(hello).to_frame())?;
    tls.flush()?;
    Ok(tls)
}

/// Acknowledges leases for ever.
fn beat(mut tls: Tls) {
    let (mut decoder, mut input) = (Decoder::new(MAX_CONTROL), BytesMut::new());
    while let Ok(body) = control(&mut tls, &mut decoder, &mut input) {
        if let Ok(Some(MasterToNode::Lease(lease))) = MasterToNode::decode_body(body) {
            // As of a node whose load changes all the time.
            let (mem_available_kib, mem_total_kib) = (1 << 20, 1 << 24);
            let ack = LeaseAck { seq: lease.seq, load_centi: 150, mem_available_kib, mem_total_kib };
            if tls.write_all(&NodeToMaster::LeaseAck(ack).to_frame()).and_then(|()| tls.flush()).is_err() {
                return;
            }
            ACKNOWLEDGED.fetch_add(1, Ordering::Relaxed);
        }
    }
}
