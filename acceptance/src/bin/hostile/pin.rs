//! Reads of a pin by processes that are not its launch's ghosts.
//!
//! A read that ghostd keeps cannot be killed: whoever is not a ghost must be refused at once.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use ghost_proto::Control;
use ghost_proto::client::MasterToClient;
use ghost_proto::frame::{Decoder, Frame, MAX_CONTROL};
use ghost_sys::ghost::RANK_SHIFT;

use super::{conversation, socket};

/// Gets a pin by an honest launch, and has it read by those who should not.
pub fn run() -> Result<()> {
    let (pin, _connection) = honest_pin()?;
    // Ourselves: the launcher, not a child of it.
    println!("launcher: {}", read(&pin, 0));
    println!("launcher, no such rank: {}", read(&pin, 1 << 20));
    // Not its last command: a shell becomes that one itself.
    let grandchild = "\"$0\" sleep-on-pin 0; true";
    println!("grandchild: {}", child(&pin, &["/bin/sh", "-c", grandchild])?);
    println!("child, no such rank: {}", child(&pin, &["", "sleep-on-pin", "77"])?);
    Ok(())
}

pub fn sleep_on_standard_input(rank: u64) -> Result<()> {
    println!("{}", read(std::io::stdin(), rank));
    Ok(())
}

fn read(pin: impl AsFd, rank: u64) -> String {
    let mut answer = [0; 64];
    match nix::sys::uio::pread(pin, &mut answer, (rank << RANK_SHIFT) as i64) {
        Ok(n) => format!("{n} bytes {:?}", &answer[..n]),
        Err(errno) => format!("{errno:?}"),
    }
}

/// What a child prints whose standard input is the pin.
fn child(pin: &OwnedFd, words: &[&str]) -> Result<String> {
    let own = std::env::current_exe()?;
    let program = if words[0].is_empty() { own.as_os_str() } else { words[0].as_ref() };
    let mut command = Command::new(program);
    command.args(&words[1..]);
    if !words[0].is_empty() {
        command.arg(&own);
    }
    command.stdin(Stdio::from(pin.try_clone()?));
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn honest_pin() -> Result<(OwnedFd, std::os::unix::net::UnixStream)> {
    let mut socket = socket::connect()?;
    let mut said = BytesMut::new();
    conversation::hello().encode_frame(&mut said);
    conversation::launch("0", conversation::program(&["/bin/sleep", "1000"])).encode_frame(&mut said);
    std::io::Write::write_all(&mut socket, &said)?;
    let (mut decoder, mut input, mut pins) = (Decoder::new(MAX_CONTROL), BytesMut::new(), Vec::new());
    loop {
        let mut buffer = [0; 4096];
        match ghost_sys::fdpass::receive(&socket, &mut buffer, &mut pins)? {
            0 => bail!("ghostd has closed the connection"),
            n => input.extend_from_slice(&buffer[..n]),
        }
        while let Some(frame) = decoder.next(&mut input)? {
            let Frame::Control(body) = frame else { continue };
            match MasterToClient::decode_body(body)? {
                Some(MasterToClient::Launched(_)) => {
                    return Ok((pins.pop().context("no pin came")?, socket));
                }
                Some(MasterToClient::Refused(refused)) => bail!("refused: {}", refused.text),
                _ => {}
            }
        }
    }
}
