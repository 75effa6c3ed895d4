//! ghostd's Unix socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use acceptance::random::Random;
use anyhow::{Context, Result};
use ghost_proto::instance::Instance;

use super::{PATIENCE, conversation};

/// Connections that are left open, silent, until the end.
const MOST_IDLE: usize = 200;

pub fn path() -> PathBuf {
    Instance::default().ghostd_socket()
}

pub fn connect() -> Result<UnixStream> {
    let socket = UnixStream::connect(path()).context("ghostd's socket")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

pub fn run(seed: u64, rounds: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut idle = Vec::new();
    for _ in 0..rounds {
        let mut socket = connect()?;
        let frames = conversation::generate(&mut random);
        for frame in frames {
            if !say(&mut random, &mut socket, &frame) {
                break;
            }
        }
        match random.below(4) {
            0 if idle.len() < MOST_IDLE => {
                idle.push(socket);
                continue;
            }
            1 => {
                let _ = socket.shutdown(Shutdown::Write);
            }
            _ => {}
        }
        listen(&mut random, &mut socket);
    }
    Ok(())
}

/// In one piece, in two, or with a descriptor that nobody asked for; false: ghostd has had enough, which is its right.
fn say(random: &mut Random, socket: &mut UnixStream, frame: &[u8]) -> bool {
    match random.below(4) {
        0 if !frame.is_empty() => {
            let (first, rest) = frame.split_at(random.below(frame.len() as u64) as usize);
            socket.write_all(first).and_then(|()| socket.write_all(rest)).is_ok()
        }
        1 => {
            let Ok(null) = std::fs::File::open("/dev/null") else { return false };
            let sent = ghost_sys::fdpass::send(socket, frame, Some(null.as_fd()));
            sent.is_ok_and(|n| socket.write_all(&frame[n..]).is_ok())
        }
        _ => socket.write_all(frame).is_ok(),
    }
}

/// Takes some of the answer, not always all of it.
fn listen(random: &mut Random, socket: &mut UnixStream) {
    let _ = socket.set_read_timeout(Some(Duration::from_millis(1 + random.below(10))));
    let mut buffer = [0; 4096];
    if random.below(2) == 0 {
        let _ = socket.read(&mut buffer);
    }
}
