//! The nodes' port: what a machine without a certificate can say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use acceptance::random::Random;
use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::Data;
use ghost_proto::join::{JoinRequest, JoinToMaster};
use ghost_proto::node::{NodeHello, NodeToMaster};
use ghost_trust::tls::{join_client_config, server_name};
use ghost_trust::{Fingerprint, Token};
use rustls::{ClientConnection, StreamOwned};

use super::PATIENCE;

/// Connections that are left open, silent, until the end.
const MOST_IDLE: usize = 100;

pub fn run(address: SocketAddr, seed: u64, rounds: u64) -> Result<()> {
    let token: Token = std::io::read_to_string(std::io::stdin())?.trim().parse().context("the token")?;
    let mut random = Random::new(seed);
    let mut idle = Vec::new();
    for _ in 0..rounds {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("the nodes' port")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        match random.below(6) {
            0 => {
                let count = 1 + random.below(30_000) as usize;
                let _ = stream.write_all(&random.bytes(count));
            }
            1 => {
                let _ = stream.write_all(&records(&mut random));
            }
            2 => {
                let _ = stream.write_all(&client_hello(&mut random, token.ca)?);
            }
            3 if idle.len() < MOST_IDLE => {
                idle.push(stream);
                continue;
            }
            _ => {
                inside(&mut random, stream, &token)?;
                continue;
            }
        }
        // What is answered, and that the connection ends, does not matter; that it is not waited for for ever does.
        stream.set_read_timeout(Some(std::time::Duration::from_millis(50)))?;
        let _ = stream.read(&mut [0; 1000]);
    }
    Ok(())
}

/// TLS records (RFC 8446, 5.1) that promise anything.
fn records(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(10) {
        bytes.push(*random.choose(&[20, 21, 22, 23, 24, 0, 255]));
        bytes.extend([3, *random.choose(&[0, 1, 3, 4, 255])]);
        let length: u16 = *random.choose(&[0, 1, 2, 512, 0x4000, 0x4001, 0x4100, 0xffff]);
        bytes.extend(length.to_be_bytes());
        let body = random.below(u64::from(length) + 1) as usize;
        bytes.extend(random.bytes(body));
    }
    bytes
}

/// A real client's first words, damaged.
fn client_hello(random: &mut Random, ca: Fingerprint) -> Result<Vec<u8>> {
    let mut client = ClientConnection::new(Arc::new(join_client_config(ca)?), server_name())?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(3) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            _ => {
                let keep = at.max(1);
                bytes.truncate(keep);
            }
        }
    }
    Ok(bytes)
}

/// Through the handshake as a stranger, then what a stranger may not say.
fn inside(random: &mut Random, stream: TcpStream, token: &Token) -> Result<()> {
    let client = ClientConnection::new(Arc::new(join_client_config(token.ca)?), server_name())?;
    let mut stream = StreamOwned::new(client, stream);
    let said = match random.below(6) {
        0 => {
            let length: u32 = *random.choose(&[65_537, 8 << 20, u32::MAX]);
            let mut frame = length.to_le_bytes().to_vec();
            frame.extend([0; 4]);
            frame
        }
        1 => {
            let mut frame = BytesMut::new();
            Data { id: 1, offset: 0, fd: 1, eof: false, bytes: Bytes::from(random.bytes(500)) }.encode(&mut frame);
            frame.to_vec()
        }
        2 => NodeToMaster::Hello(NodeHello { version: 1, hostname: "n0".to_owned(), ..NodeHello::default() })
            .to_frame()
            .to_vec(),
        3 => {
            let count = 1 + random.below(3_000) as usize;
            random.bytes(count)
        }
        _ => join(random, token).to_frame().to_vec(),
    };
    // Refused at any moment.
    if stream.write_all(&said).and_then(|()| stream.flush()).is_ok() && random.below(2) == 0 {
        let _ = stream.sock.set_read_timeout(Some(std::time::Duration::from_millis(200)));
        let _ = stream.read(&mut [0; 4096]);
    }
    Ok(())
}

/// Requests that must not be granted: none has the secret.
fn join(random: &mut Random, token: &Token) -> JoinToMaster {
    let known = random.below(2) == 0;
    let length = *random.choose(&[0, 1, 31, 32, 33, 5_000]);
    let request = *random.choose(&[0, 1, 300, 20_000]);
    JoinToMaster::Request(JoinRequest {
        version: *random.choose(&[0, 1, 2, u32::MAX]),
        token_id: if known { Bytes::copy_from_slice(&token.id.0) } else { Bytes::from(random.bytes(8)) },
        token_secret: Bytes::from(random.bytes(length)),
        node: *random.choose(&[None, Some(0), Some(-1), Some(i32::MIN), Some(i32::MAX)]),
        hostname: String::from_utf8_lossy(&random.bytes(300)).into_owned(),
        request: Bytes::from(random.bytes(request)),
    })
}
