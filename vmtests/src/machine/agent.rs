//! The runner's end of the agent's port.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::protocol::{Reply, Request};

/// Numbers of commands and greetings: never twice in a run.
static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn next_number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

type Waiting = Arc<Mutex<HashMap<u64, Sender<Reply>>>>;

pub struct Agent {
    writer: Mutex<UnixStream>,
    /// Who waits for what is said of a number.
    waiting: Waiting,
}

impl Agent {
    pub fn new(stream: UnixStream) -> Result<Self> {
        let waiting = Waiting::default();
        let (reader, heard) = (BufReader::new(stream.try_clone()?), Arc::clone(&waiting));
        std::thread::spawn(move || {
            for line in reader.split(b'\n').map_while(Result::ok) {
                let Ok(reply) = serde_json::from_slice::<Reply>(&line) else { continue };
                let (Reply::Here { nonce: id, .. } | Reply::Output { id, .. } | Reply::Exit { id, .. }) = reply;
                if let Some(sender) = heard.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
                    // Who does not wait any more needs no answer.
                    let _ = sender.send(reply);
                }
            }
        });
        Ok(Self { writer: Mutex::new(stream), waiting })
    }

    /// What is said of a number from now on.
    pub fn listen(&self, id: u64) -> Receiver<Reply> {
        let (sender, receiver) = channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        receiver
    }

    pub fn forget(&self, id: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub fn say(&self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(&line).context("the agent's port")
    }
}
