//! The receiving ends on nodes: a bpsh that has the archive as its input, and whose events say what the nodes say.
//!
//! What a receiving end writes ([`Told`]), a line each: `made N` so far, `failed TEXT`, `refused TEXT` (nothing can be
//! received), and at last `end MADE FAILED`. Only after that line what was sent counts as received.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;

use super::archive::{self, Frame};
use super::receive::Count;

/// Room in a pipe for bulk, in bytes (pipe(7): as much as an ordinary user may ask for).
pub const PIPE: usize = 1024 * 1024;
/// Small frames are written when there are so many bytes of them.
const GATHERED: usize = 64 * 1024;
/// The number of the master.
pub const MASTER: i32 = -1;
/// Of a line that a node writes, so much is kept.
const LINE: usize = 16 * 1024;

/// More room in a pipe, if it is one and there may be more.
pub fn widen(fd: impl AsFd) {
    // It only goes slower without.
    let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
}

/// Until something can be done with one of them; a signal may end that early.
pub fn wait(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    match poll(fds, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes both, one behind the other. `full` is called when there is no room now.
pub fn write_both<W: Write>(
    to: &mut W,
    mut head: &[u8],
    mut body: &[u8],
    mut full: impl FnMut(&W) -> io::Result<()>,
) -> io::Result<()> {
    while !head.is_empty() || !body.is_empty() {
        match to.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Ok(n) => {
                let of_head = n.min(head.len());
                head = &head[of_head..];
                body = &body[n - of_head..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => full(to)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// As [`write_both`], `body` being one of [`super::pieces::Pieces`], whole or in part: into a pipe a whole one goes without a copy.
pub fn lend_both<W: Write + AsFd>(
    to: &mut W,
    head: &[u8],
    mut body: &[u8],
    mut full: impl FnMut(&W) -> io::Result<()>,
) -> io::Result<()> {
    let holds = fcntl(&*to, FcntlArg::F_GETPIPE_SZ).ok().and_then(|size| usize::try_from(size).ok());
    if body.len() != archive::MAX_DATA || holds.is_none_or(|size| size > PIPE) {
        return write_both(to, head, body, full);
    }
    write_both(to, head, &[], &mut full)?;
    while !body.is_empty() {
        match ghost_sys::pipe::lend(to, body) {
            Ok(n) => body = &body[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => full(to)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Frames as bytes, small ones together.
#[derive(Debug)]
pub struct Encoder {
    pending: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Encoder {
        let mut pending = Vec::with_capacity(2 * GATHERED);
        archive::begin(&mut pending);
        Encoder { pending }
    }

    /// `write` writes the whole of both.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn frame(
        &mut self,
        frame: &Frame<'_>,
        mut write: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        archive::encode(frame, &mut self.pending);
        match frame {
            Frame::Data(bytes) if self.pending.len() + bytes.len() < GATHERED => self.pending.extend_from_slice(bytes),
            Frame::Data(bytes) => {
                write(&self.pending, bytes)?;
                self.pending.clear();
            }
            Frame::End => {
                write(&self.pending, &[])?;
                self.pending.clear();
            }
            _ if self.pending.len() >= GATHERED => {
                write(&self.pending, &[])?;
                self.pending.clear();
            }
            _ => {}
        }
        Ok(())
    }
}

/// One line of what a receiving end says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Made(u64),
    Failed(String),
    Refused(String),
    End(Count),
}

impl Told {
    pub fn line(&self) -> String {
        match self {
            Told::Made(n) => format!("made {n}\n"),
            Told::Failed(text) => format!("failed {text}\n"),
            Told::Refused(text) => format!("refused {text}\n"),
            Told::End(Count { made, failed }) => format!("end {made} {failed}\n"),
        }
    }

    fn read(line: &str) -> Option<Told> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "made" => rest.parse().ok().map(Told::Made),
            "failed" => Some(Told::Failed(rest.to_owned())),
            "refused" => Some(Told::Refused(rest.to_owned())),
            "end" => {
                let (made, failed) = rest.split_once(' ')?;
                Some(Told::End(Count { made: made.parse().ok()?, failed: failed.parse().ok()? }))
            }
            _ => None,
        }
    }
}

/// An event of `bpsh --json`, as far as it matters here.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Event {
    event: String,
    rank: usize,
    node: i32,
    ranks: Vec<Place>,
    stream: String,
    text: Option<String>,
    base64: Option<String>,
    reason: String,
    code: Option<i32>,
    signal_name: Option<String>,
}

#[derive(Deserialize, Debug)]
struct Place {
    node: i32,
}

/// What is known of a receiving end. Pure.
#[derive(Debug, Default)]
pub struct Rank {
    node: i32,
    /// Lines that are not complete yet: output, error.
    partial: [String; 2],
    made: u64,
    end: Option<Count>,
    /// How it ended, or why it never began; told already.
    told: bool,
}

/// What all receiving ends have said. Pure.
#[derive(Debug, Default)]
pub struct Ranks {
    ranks: Vec<Rank>,
    /// Node and text of what failed.
    failures: Vec<(i32, String)>,
}

impl Ranks {
    fn event(&mut self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event>(line) else { return };
        if event.event == "begin" {
            self.ranks = event.ranks.iter().map(|place| Rank { node: place.node, ..Rank::default() }).collect();
            return;
        }
        let Some(rank) = self.ranks.get_mut(event.rank) else { return };
        let mut failed = |text: String| self.failures.push((event.node, text));
        match event.event.as_str() {
            "output" => {
                let text = event.text.or_else(|| {
                    let bytes = BASE64_STANDARD.decode(event.base64?).ok()?;
                    Some(String::from_utf8_lossy(&bytes).into_owned())
                });
                let channel = usize::from(event.stream == "stderr");
                let partial = &mut rank.partial[channel];
                partial.push_str(&text.unwrap_or_default());
                let mut rest = std::mem::take(partial);
                while let Some((line, behind)) = rest.split_once('\n') {
                    self.line(event.rank, event.node, channel, line);
                    rest = behind.to_owned();
                }
                if rest.len() <= LINE {
                    self.ranks[event.rank].partial[channel] = rest;
                }
            }
            "not_started" if event.code == Some(127) => {
                rank.told = true;
                failed(format!("{}; ghostproc's bpcp has to be in the PATH there, too", clean(&event.reason)));
            }
            "unreachable" | "forbidden" | "not_started" => {
                rank.told = true;
                failed(clean(&event.reason));
            }
            "lost" => {
                rank.told = true;
                failed("lost: nothing was heard from it for longer than its lease".to_owned());
            }
            "exit" if rank.end.is_none() && !rank.told => {
                rank.told = true;
                let how = match (event.signal_name, event.code) {
                    (Some(signal), _) => clean(&signal),
                    (None, code) => format!("exit {}", code.unwrap_or(-1)),
                };
                let made = rank.made;
                failed(format!("the receiving end has ended early ({how}); of what was sent, {made} were in place"));
            }
            _ => {}
        }
    }

    /// A whole line of a receiving end.
    fn line(&mut self, rank: usize, node: i32, channel: usize, line: &str) {
        let Some(rank) = self.ranks.get_mut(rank) else { return };
        let mut failed = |text: String| self.failures.push((node, text));
        match Told::read(line).filter(|_| channel == 0) {
            Some(Told::Made(n)) => rank.made = n,
            Some(Told::Failed(text)) => failed(clean(&text)),
            Some(Told::Refused(text)) => {
                rank.told = true;
                failed(clean(&text));
            }
            Some(Told::End(count)) => rank.end = Some(count),
            None => failed(clean(line)),
        }
    }

    /// The end, after so many entries: whether all have all.
    fn finish(&mut self, items: u64) -> bool {
        let mut all = !self.ranks.is_empty();
        for rank in &self.ranks {
            match rank.end {
                Some(Count { made, failed: 0 }) if made == items => {}
                Some(Count { made, failed }) => {
                    all = false;
                    if made + failed != items {
                        let text = format!("has received {} entries of {items}", made + failed);
                        self.failures.push((rank.node, text));
                    }
                }
                None => {
                    all = false;
                    if !rank.told {
                        self.failures.push((rank.node, "nothing is known of what it has received".to_owned()));
                    }
                }
            }
        }
        all
    }
}

/// What a node says is shown on a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The receiving ends while the archive goes to them.
#[derive(Debug)]
pub struct Launch {
    bpsh: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    encoder: Encoder,
    line: Vec<u8>,
    ranks: Ranks,
    /// Their lines come as they are, not as bpsh's events.
    plain: bool,
}

impl Launch {
    /// Starts a bpsh that is to read the archive.
    ///
    /// # Errors
    /// There is no bpsh.
    pub fn start(command: Command) -> io::Result<Launch> {
        Launch::over(command, false)
    }

    /// The same with the way to the one end on the master.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn on_master(command: Command) -> io::Result<Launch> {
        let mut launch = Launch::over(command, true)?;
        launch.ranks.ranks.push(Rank { node: MASTER, ..Rank::default() });
        Ok(launch)
    }

    fn over(mut command: Command, plain: bool) -> io::Result<Launch> {
        let mut bpsh = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (bpsh.stdin.take(), bpsh.stdout.take()) else {
            return Err(io::Error::other("no pipe"));
        };
        widen(&input);
        // Our ends only: the others' are theirs (pipe(7), each end is an open file description of its own).
        for fd in [input.as_fd(), output.as_fd()] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let (encoder, line, ranks) = (Encoder::new(), Vec::new(), Ranks::default());
        Ok(Launch { bpsh, input: Some(input), output, encoder, line, ranks, plain })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// EPIPE: no node takes anything any more.
    pub fn take(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        self.put(frame, false)
    }

    /// Sends data that lies in one of [`super::pieces::Pieces`].
    ///
    /// # Errors
    /// As above.
    pub fn lend(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(&Frame::Data(bytes), true)
    }

    fn put(&mut self, frame: &Frame<'_>, lasts: bool) -> io::Result<()> {
        let Launch { input, output, encoder, line, ranks, plain, .. } = self;
        let Some(input) = input else { return Err(io::ErrorKind::BrokenPipe.into()) };
        // What the nodes say is read meanwhile, else they would wait for us.
        let mut full = |input: &ChildStdin| {
            let mut fds =
                [PollFd::new(input.as_fd(), PollFlags::POLLOUT), PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            wait(&mut fds)?;
            if fds[1].any().unwrap_or(false) && !hear(output, line, ranks, *plain)? {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        };
        encoder.frame(frame, |head, body| match lasts {
            true => lend_both(input, head, body, &mut full),
            false => write_both(input, head, body, &mut full),
        })
    }

    /// Ends the input, hears what is left and waits: whether all nodes have all of so many entries, and what failed.
    pub fn finish(mut self, items: u64) -> (bool, Vec<(i32, String)>) {
        drop(self.input.take());
        // On an error as well: without its end nothing counts as received.
        while let Ok(true) = hear(&mut self.output, &mut self.line, &mut self.ranks, self.plain) {
            // An error shows in what is read.
            let _ = poll(&mut [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        }
        let status = self.bpsh.wait();
        let ended = status.is_ok();
        if self.plain && status.is_ok_and(|status| status.code() == Some(i32::from(crate::bpsh::NOT_RUN))) {
            // It has said why.
            self.ranks.ranks.iter_mut().for_each(|rank| rank.told = true);
        }
        let all = self.ranks.finish(items);
        (all && ended, self.ranks.failures)
    }
}

/// Reads what is there; false at the end.
fn hear(output: &mut ChildStdout, line: &mut Vec<u8>, ranks: &mut Ranks, plain: bool) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                for piece in buffer[..n].split_inclusive(|byte| *byte == b'\n') {
                    line.extend_from_slice(piece);
                    if piece.ends_with(b"\n") {
                        if plain {
                            ranks.line(0, MASTER, 0, String::from_utf8_lossy(line).trim_end());
                        } else {
                            ranks.event(line);
                        }
                        line.clear();
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// The standard output of this process, as a file.
///
/// # Errors
/// It is closed.
pub fn standard_output() -> io::Result<std::fs::File> {
    let fd: OwnedFd = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(lines: &[&str]) -> Ranks {
        let mut ranks = Ranks::default();
        let begin = r#"{"event":"begin","version":1,"ranks":[{"rank":0,"node":4},{"rank":1,"node":5}]}"#;
        ranks.event(begin.as_bytes());
        lines.iter().for_each(|line| ranks.event(line.as_bytes()));
        ranks
    }

    fn output(rank: usize, text: &str) -> String {
        let text = serde_json::to_string(text).expect("JSON");
        format!(r#"{{"event":"output","rank":{rank},"node":{},"stream":"stdout","text":{text}}}"#, rank + 4)
    }

    #[test]
    fn all_have_all_only_when_all_have_said_so() {
        let (first, second) = (output(0, "made 1\nmade 2\nend 2 0\n"), output(1, "end 2 0\n"));
        assert!(hear(&[&first, &second]).finish(2));
        assert!(!hear(&[&first, &second]).finish(3));
        assert!(!hear(&[&first]).finish(2));
        assert!(!hear(&[&first, &output(1, "end 2 0")]).finish(2), "half a line is none");
        assert!(!Ranks::default().finish(0));
        let halves = [output(1, "en"), output(1, "d 2 0\n")];
        assert!(hear(&[&first, &halves[0], &halves[1]]).finish(2));
    }

    #[test]
    fn what_fails_is_told_with_its_node() {
        let exit = r#"{"event":"exit","rank":1,"node":5,"signal":9,"signal_name":"SIGKILL"}"#;
        let mut ranks =
            hear(&[&output(0, "failed /x: No space left on device\nend 1 1\n"), &output(1, "made 1\n"), exit]);
        assert!(!ranks.finish(2));
        let early = "the receiving end has ended early (SIGKILL); of what was sent, 1 were in place";
        let told = [(4, "/x: No space left on device".to_owned()), (5, early.to_owned())];
        assert_eq!(ranks.failures, told);
        let absent = r#"{"event":"not_started","rank":0,"node":4,"reason":"bpcp: No such file","code":127}"#;
        assert!(hear(&[absent]).failures[0].1.contains("PATH"));
        assert_eq!(hear(&[&output(0, "failed \u{1b}[31mred\n")]).failures, [(4, "?[31mred".to_owned())]);
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let count = Count { made: 3, failed: 4 };
        for told in [Told::Made(7), Told::Failed("a b: c".into()), Told::Refused("x".into()), Told::End(count)] {
            assert_eq!(Told::read(told.line().trim_end()), Some(told));
        }
        assert_eq!(Told::read("something else"), None);
    }
}
