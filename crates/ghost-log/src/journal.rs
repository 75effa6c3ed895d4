//! The log in systemd's journal, with fields to select by: `journalctl NODE=3`, `journalctl GHOST_PID=4711`.
//!
//! | of a line | in the journal |
//! |---|---|
//! | text and fields, as on a terminal | `MESSAGE` |
//! | level | `PRIORITY` as of syslog(3) |
//! | `node`, `pid`, `uid` | `NODE`, `GHOST_PID`, `UID` |
//! | another field `x` | `GHOSTPROC_X` |
//! | part of the program | `TARGET` |
//!
//! The protocol is documented: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
//!
//! Invariant: nobody waits for the journal. A line that it does not take at once (it stands still, or is flooded) is lost, and the next
//! one that it takes is followed by the number of those.

use std::fmt::{Debug, Write};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// Bytes of one value that are written: larger datagrams than a socket's buffer are not taken.
const LONGEST: usize = 16 * 1024;

/// Writes what is logged to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    identifier: String,
    lost: AtomicU64,
}

impl Journal {
    /// # Errors
    /// Nobody listens there.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Journal> {
        let (socket, path) = (UnixDatagram::unbound()?, path.into());
        socket.set_nonblocking(true)?;
        // An empty datagram is no entry.
        match socket.send_to(&[], &path) {
            Err(why) if why.kind() != io::ErrorKind::WouldBlock => return Err(why),
            _ => {}
        }
        let own = std::env::current_exe().ok();
        let name = own.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        Ok(Journal { socket, path, identifier: name.unwrap_or_default(), lost: AtomicU64::new(0) })
    }

    fn send(&self, level: Level, target: &str, line: Line) {
        let mut entry = Vec::with_capacity(256);
        put(&mut entry, "PRIORITY", priority(level));
        put(&mut entry, "SYSLOG_IDENTIFIER", &self.identifier);
        put(&mut entry, "TARGET", target);
        put(&mut entry, "MESSAGE", &(line.text + &line.tail));
        for (name, value) in &line.fields {
            put(&mut entry, name, value);
        }
        // By name each time: a journald that was started again has another socket.
        if self.socket.send_to(&entry, &self.path).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let before = self.lost.swap(0, Ordering::Relaxed);
        self.send(*metadata.level(), metadata.target(), line);
        match before {
            0 => {}
            before if self.lost.load(Ordering::Relaxed) == 0 => {
                let text = format!("{before} lines before the last were lost: the journal did not take them");
                self.send(Level::WARN, module_path!(), Line { text, ..Line::default() });
            }
            before => _ = self.lost.fetch_add(before, Ordering::Relaxed),
        }
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Line {
    text: String,
    /// The fields, behind the text.
    tail: String,
    fields: Vec<(String, String)>,
}

impl Line {
    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.text = value;
            return;
        }
        let _ = write!(self.tail, " {}={value}", field.name());
        self.fields.push((name_of(field.name()), value));
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}

fn name_of(field: &str) -> String {
    match field {
        "node" => "NODE".to_owned(),
        "pid" => "GHOST_PID".to_owned(),
        "uid" => "UID".to_owned(),
        other => {
            let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            format!("GHOSTPROC_{}", other.chars().map(letter).collect::<String>())
        }
    }
}

/// A value with ends of lines is written with its length, so that none can bring in fields of its own.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(LONGEST)];
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A journal that is read by the test, and what logs to it.
    fn journal() -> (tempfile::TempDir, UnixDatagram, impl Subscriber + Send + Sync) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("socket");
        let reader = UnixDatagram::bind(&path).expect("bind");
        reader.set_nonblocking(true).expect("nonblocking");
        let subscriber = tracing_subscriber::registry().with(Journal::new(path).expect("journal"));
        (directory, reader, subscriber)
    }

    /// The next entry, if there is one.
    fn next(reader: &UnixDatagram) -> Option<String> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            match reader.recv(&mut bytes) {
                Ok(0) => {}
                Ok(length) => return Some(String::from_utf8_lossy(&bytes[..length]).into_owned()),
                Err(_) => return None,
            }
        }
    }

    #[test]
    fn fields_have_names_to_select_by() {
        let (_directory, reader, subscriber) = journal();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(node = 3, pid = 4711u32, uid = 1000u32, hostname = "n3", peer = %"[::1]:7", "was lost");
        });
        let entry = next(&reader).expect("an entry");
        for line in [
            "PRIORITY=4",
            "MESSAGE=was lost node=3 pid=4711 uid=1000 hostname=n3 peer=[::1]:7",
            "NODE=3",
            "GHOST_PID=4711",
            "UID=1000",
            "GHOSTPROC_HOSTNAME=n3",
            "GHOSTPROC_PEER=[::1]:7",
        ] {
            assert!(entry.lines().any(|found| found == line), "{line} is not in {entry}");
        }
        assert_eq!(next(&reader), None);
    }

    #[test]
    fn what_is_logged_brings_in_no_fields_of_its_own() {
        let (_directory, reader, subscriber) = journal();
        tracing::subscriber::with_default(subscriber, || tracing::info!(hostname = "x\nUID=0", "said\nUID=0"));
        let entry = next(&reader).expect("an entry");
        let length = "x\nUID=0".len() as u8 as char;
        assert!(entry.contains(&format!("GHOSTPROC_HOSTNAME\n{length}\0\0\0\0\0\0\0x\nUID=0\n")), "{entry:?}");
        assert!(!entry.starts_with("MESSAGE=") && !entry.contains("\nMESSAGE="), "{entry:?}");
    }

    /// Nobody reads: a writer that waited would stand here for ever.
    #[test]
    fn a_journal_that_stands_still_is_not_waited_for() {
        let (_directory, reader, subscriber) = journal();
        const MANY: u64 = 20_000;
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..MANY {
                tracing::info!(number, "too much");
            }
            let taken = std::iter::from_fn(|| next(&reader)).count() as u64;
            assert!((1..MANY).contains(&taken), "{taken}");
            tracing::info!("again");
            let last: Vec<String> = std::iter::from_fn(|| next(&reader)).collect();
            assert_eq!(last.len(), 2, "{last:?}");
            assert!(last[0].contains("MESSAGE=again\n"), "{last:?}");
            assert!(last[1].contains(&format!("MESSAGE={} lines before the last were lost", MANY - taken)), "{last:?}");
        });
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let (_directory, reader, subscriber) = journal();
        let long = "é".repeat(100_000);
        tracing::subscriber::with_default(subscriber, || tracing::info!("x{long}"));
        let entry = next(&reader).expect("an entry");
        assert!(!entry.contains('\u{fffd}') && entry.len() < LONGEST + 500);
    }

    #[test]
    fn without_a_journal_there_is_none() {
        assert!(Journal::new("/nonexistent/socket").is_err());
    }
}
