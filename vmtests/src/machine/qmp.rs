//! QEMU's monitor: what is done to a machine from outside.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub struct Monitor {
    reader: BufReader<UnixStream>,
}

impl Monitor {
    /// A monitor speaks first, and does nothing before it has been asked for its capabilities.
    pub fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut monitor = Self { reader: BufReader::new(stream) };
        monitor.read()?;
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    pub fn execute(&mut self, command: &str) -> Result<()> {
        self.reader.get_mut().write_all(format!("{}\n", json!({ "execute": command })).as_bytes())?;
        loop {
            let answer = self.read()?;
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            // An event.
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("QEMU's monitor")? == 0 {
            bail!("QEMU's monitor has gone");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
