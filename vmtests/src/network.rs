//! The wire between the machines: a switch to whose Unix sockets QEMU's `-netdev stream` connects. No privilege, no port of the host.
//!
//! A frame that a machine does not take in time is dropped, as on a wire, so that one that stands still stops nobody.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Frames that wait for one machine.
const BACKLOG: usize = 1024;
/// Larger than any frame, also one that QEMU has joined (64 KiB and its header).
const LARGEST: usize = 128 << 10;

/// Who has which address.
#[derive(Debug, Default)]
struct Addresses(HashMap<[u8; 6], usize>);

/// Where a frame goes.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    To(usize),
    AllBut(usize),
    Nowhere,
}

impl Addresses {
    /// Notes the sender of a frame that came from `from`, and says where it is to go.
    fn way(&mut self, from: usize, frame: &[u8]) -> Way {
        let (Some(to), Some(sender)) = (frame.first_chunk::<6>(), frame.get(6..).and_then(<[u8]>::first_chunk::<6>))
        else {
            return Way::Nowhere;
        };
        self.0.insert(*sender, from);
        match self.0.get(to) {
            Some(&port) if port == from => Way::Nowhere,
            Some(&port) => Way::To(port),
            None => Way::AllBut(from),
        }
    }
}

#[derive(Default)]
struct Switch {
    addresses: Addresses,
    ports: Vec<SyncSender<Vec<u8>>>,
}

pub struct Network {
    directory: PathBuf,
    switch: Arc<Mutex<Switch>>,
}

impl Network {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), switch: Arc::default() }
    }

    /// A socket for one machine, to which QEMU may connect at once.
    pub fn port(&self) -> Result<PathBuf> {
        let (sender, frames) = sync_channel(BACKLOG);
        let number = {
            let mut switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
            switch.ports.push(sender);
            switch.ports.len() - 1
        };
        let path = self.directory.join(format!("port{number}"));
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        let switch = Arc::clone(&self.switch);
        std::thread::spawn(move || {
            let Ok((stream, _)) = listener.accept() else { return };
            let Ok(output) = stream.try_clone() else { return };
            std::thread::spawn(move || send(&frames, output));
            receive(&switch, number, stream);
        });
        Ok(path)
    }
}

/// QEMU's framing: the length in four bytes, then the frame (net/net.c, net_fill_rstate()).
fn send(frames: &Receiver<Vec<u8>>, mut output: UnixStream) {
    for frame in frames {
        let Ok(length) = u32::try_from(frame.len()) else { continue };
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(frame);
        if output.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn receive(switch: &Mutex<Switch>, from: usize, mut input: UnixStream) {
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let length = u32::from_be_bytes(length) as usize;
        if length > LARGEST {
            return;
        }
        let mut frame = vec![0; length];
        if input.read_exact(&mut frame).is_err() {
            return;
        }
        let mut switch = switch.lock().unwrap_or_else(PoisonError::into_inner);
        let way = switch.addresses.way(from, &frame);
        for (port, sender) in switch.ports.iter().enumerate() {
            if way == Way::To(port) || matches!(way, Way::AllBut(not) if not != port) {
                // Full: dropped.
                let _ = sender.try_send(frame.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Vec<u8> {
        [[to; 6], [from; 6]].concat()
    }

    #[test]
    fn a_frame_goes_to_everybody_until_its_owner_has_spoken() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.way(0, &frame(2, 1)), Way::AllBut(0));
        assert_eq!(addresses.way(1, &frame(1, 2)), Way::To(0));
        assert_eq!(addresses.way(0, &frame(2, 1)), Way::To(1));
        assert_eq!(addresses.way(0, &frame(0xff, 1)), Way::AllBut(0));
    }

    #[test]
    fn what_is_no_frame_goes_nowhere() {
        assert_eq!(Addresses::default().way(0, &[0; 11]), Way::Nowhere);
    }

    #[test]
    fn frames_arrive_whole() {
        let directory = std::env::temp_dir().join(format!("vmtests-network-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        let network = Network::new(&directory);
        let mut ends: Vec<UnixStream> =
            (0..2).map(|_| UnixStream::connect(network.port().expect("port")).expect("connected")).collect();
        let sent = frame(0xff, 1);
        ends[0].write_all(&(sent.len() as u32).to_be_bytes()).expect("sent");
        ends[0].write_all(&sent).expect("sent");
        let mut received = vec![0; 4 + sent.len()];
        ends[1].read_exact(&mut received).expect("received");
        assert_eq!(received[4..], sent);
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
