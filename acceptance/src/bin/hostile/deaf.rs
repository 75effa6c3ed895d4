//! A client that wants much and takes nothing.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use ghost_proto::Control;
use ghost_proto::client::ClientToMaster;
use ghost_proto::client::ProcessesRequest;

use super::{conversation, socket};

/// Asks again and again without ever reading an answer, then stays.
pub fn run(time: Duration) -> Result<()> {
    let mut socket = socket::connect()?;
    socket.write_all(&conversation::hello().to_frame())?;
    socket.set_write_timeout(Some(Duration::from_millis(500)))?;
    let question = ClientToMaster::Processes(ProcessesRequest {}).to_frame().repeat(1_000);
    let mut sent = 0u64;
    // Until ghostd takes no more: it must not keep answers that nobody fetches.
    while sent < 256 << 20 {
        match socket.write(&question) {
            Ok(n) => sent += n as u64,
            Err(_) => break,
        }
    }
    println!("{sent} bytes were taken");
    std::thread::sleep(time);
    Ok(())
}
