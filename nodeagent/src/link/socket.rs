//! The TCP connection to the master.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long one address of the master is tried.
const CONNECT: Duration = Duration::from_secs(5);
/// A master that says nothing for so long is asked whether it is there: seconds until the first question, between
/// questions, and their number. Together they stay below the default lease.
const KEEPALIVE: (u32, u32, u32) = (5, 2, 3);
/// Milliseconds that what was sent may stay unacknowledged.
const UNACKNOWLEDGED: u32 = 10_000;

/// Connects to the first of the addresses that answers.
///
/// # Errors
/// None does.
pub async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream> {
    let mut failure = anyhow!("the master has no address");
    for address in addresses {
        match timeout(CONNECT, try_address(*address)).await {
            Ok(Ok(stream)) => {
                settle(&stream).with_context(|| format!("the connection to {address}"))?;
                return Ok(stream);
            }
            Ok(Err(why)) => failure = anyhow!("{address}: {why}"),
            Err(_) => failure = anyhow!("{address}: no answer within {} s", CONNECT.as_secs()),
        }
    }
    Err(failure)
}

async fn try_address(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    ghost_sys::tcp::do_not_pace(&socket);
    socket.connect(address).await
}

fn settle(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let fd = stream.as_fd();
    let (idle, interval, count) = KEEPALIVE;
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    setsockopt(&fd, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(&fd, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(&fd, sockopt::TcpKeepCount, &count)?;
    setsockopt(&fd, sockopt::TcpUserTimeout, &UNACKNOWLEDGED)?;
    ghost_sys::tcp::limit_unsent(&fd, ghost_sys::tcp::UNSENT)?;
    Ok(())
}
