//! Connections that are made and left alone.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};

use super::socket;

/// For one connection: the kernel tries again when a queue is full.
const LONG: Duration = Duration::from_secs(60);
/// Between two counts.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that was made, whichever kind it is.
trait Idle: Read {
    fn leave_alone(&self) -> std::io::Result<()>;
}

impl Idle for UnixStream {
    fn leave_alone(&self) -> std::io::Result<()> {
        self.set_nonblocking(true)
    }
}

impl Idle for TcpStream {
    fn leave_alone(&self) -> std::io::Result<()> {
        self.set_nonblocking(true)
    }
}

pub fn on_socket(count: u64) -> Result<()> {
    keep(count, || UnixStream::connect(socket::path()))
}

pub fn on_port(address: SocketAddr, count: u64) -> Result<()> {
    keep(count, || TcpStream::connect_timeout(&address, LONG))
}

/// Makes them all, then says again and again how many are left, until it is killed.
fn keep<C: Idle>(count: u64, mut connect: impl FnMut() -> std::io::Result<C>) -> Result<()> {
    ghost_sys::inherit::raise_descriptor_limit();
    let mut held = Vec::new();
    for number in 0..count {
        let connection = connect().with_context(|| format!("connection {number}"))?;
        connection.leave_alone()?;
        held.push(connection);
    }
    let mut told = usize::MAX;
    loop {
        held.retain_mut(is_open);
        if held.len() != told {
            told = held.len();
            println!("{told} held");
        }
        std::thread::sleep(PAUSE);
    }
}

/// ghostd says why before it closes one, and nothing to one that is left.
fn is_open(connection: &mut impl Idle) -> bool {
    matches!(connection.read(&mut [0; 512]), Err(why) if why.kind() == std::io::ErrorKind::WouldBlock)
}
