//! `bpcp`: copy files to nodes, from them, and between them.
//!
//! ```text
//! files here --> send --+                          +--> receive --> files here
//!                       +--> frames (archive) -----+
//! bpcp --send on a node +    over bpsh's streams   +--> bpcp --receive on nodes
//! ```
//! Everything on nodes is done by the same program, started there by bpsh as the user. What was typed ([`flags`], [`operand`])
//! becomes a [`copy`]; [`archive`] is what goes over the streams, [`launch`] how the receiving ends answer.

pub mod archive;
mod copy;
pub mod flags;
mod launch;
mod operand;
mod pieces;
mod place;
mod progress;
mod reach;
mod receive;
mod send;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags};

use archive::{Decoder, Frame};
use flags::Task;
use launch::{Encoder, Told, lend_both, write_both};
use receive::{Receiver, Wanted};
use send::{Sender, Sink};

/// Not everything was copied; wrong usage.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    let task = match flags::parse(std::env::args_os()) {
        Ok(task) => task,
        Err(error) => {
            // Nobody left to tell if this fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let done = match task {
        Task::Copy(request) => copy::run(&request),
        Task::Receive(wanted) => receive(wanted),
        Task::Send { recursive, paths } => send(recursive, &paths),
        Task::Reach(arguments, named) => return reached(arguments, named.as_deref()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            crate::complain(&format!("bpcp: {error:#}"));
            ExitCode::from(if error.is::<copy::Usage>() { USAGE } else { FAILED })
        }
    }
}

/// Says why the master's end cannot be reached, if so, and ends as bpsh would that cannot start something.
fn reached(arguments: Vec<std::ffi::OsString>, named: Option<&str>) -> ExitCode {
    use std::os::unix::ffi::OsStringExt;
    let arguments = arguments.into_iter().map(|argument| argument.into_vec().into()).collect();
    let instance = crate::connection::instance(named).map_err(anyhow::Error::from);
    match instance.and_then(|instance| reach::run(&instance, arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain(&format!("bpcp: {error:#}"));
            ExitCode::from(crate::bpsh::NOT_RUN)
        }
    }
}

/// A name as people can be shown it.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.into_owned() }
}

/// The receiving end on a node: the archive comes over standard input, what has become of it goes to standard output.
fn receive(wanted: Wanted) -> anyhow::Result<bool> {
    let (stdin, mut out) = (io::stdin(), launch::standard_output()?);
    launch::widen(&stdin);
    let mut input = std::fs::File::from(std::os::fd::AsFd::as_fd(&stdin).try_clone_to_owned()?);
    let mut receiver = match Receiver::begin(wanted) {
        Ok(receiver) => receiver,
        Err(text) => {
            out.write_all(Told::Refused(text).line().as_bytes())?;
            return Ok(false);
        }
    };
    let mut decoder = Decoder::default();
    let mut told = 0;
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => receiver.take(&frame),
                Ok(None) => break,
                Err(error) => {
                    out.write_all(Told::Refused(error.to_string()).line().as_bytes())?;
                    // Nothing half written stays.
                    receiver.take(&Frame::Failed(&[]));
                    return Ok(false);
                }
            }
        }
        let mut lines: String = receiver.failures().into_iter().map(|text| Told::Failed(text).line()).collect();
        let count = receiver.count();
        if decoder.ended() {
            lines.push_str(&Told::End(count).line());
            out.write_all(lines.as_bytes())?;
            return Ok(count.failed == 0);
        }
        if count.made > told {
            told = count.made;
            lines.push_str(&Told::Made(told).line());
        }
        out.write_all(lines.as_bytes())?;
        match input.read(decoder.room()) {
            Ok(0) => {
                receiver.take(&Frame::Failed(&[]));
                out.write_all(Told::Refused("the sending end has gone early".to_owned()).line().as_bytes())?;
                return Ok(false);
            }
            Ok(n) => decoder.filled(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The sending end on a node: the archive goes to standard output.
fn send(recursive: bool, paths: &[PathBuf]) -> anyhow::Result<bool> {
    struct Out {
        encoder: Encoder,
        file: std::fs::File,
    }
    fn has_room(file: &std::fs::File) -> io::Result<()> {
        launch::wait(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)])
    }
    impl Sink for Out {
        fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
            let Out { encoder, file } = self;
            encoder.frame(frame, |head, body| write_both(file, head, body, has_room))
        }

        fn lasting(&mut self, bytes: &[u8]) -> io::Result<()> {
            let Out { encoder, file } = self;
            encoder.frame(&Frame::Data(bytes), |head, body| lend_both(file, head, body, has_room))
        }
    }
    let mut out = Out { encoder: Encoder::new(), file: launch::standard_output()? };
    launch::widen(&out.file);
    let mut sender = Sender::new(&mut out, recursive);
    for path in paths {
        sender.send(path)?;
    }
    out.frame(&Frame::End)?;
    Ok(true)
}
