//! One copy, seen from where it was asked for: sources one after the other, to here or to nodes.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};
use ghost_proto::client::{ClientToMaster, MasterToClient, NodeInfo, NodesRequest};
use ghost_proto::instance::Instance;

use super::archive::{Decoder, Frame};
use super::flags::Request;
use super::launch::{self, Launch};
use super::operand::Operand;
use super::progress::Progress;
use super::receive::{Receiver, Wanted};
use super::send::{Sender, Sink};
use crate::bpsh::report::fold_lines;
use crate::connection::{Connection, ConnectionError, instance, is_on_node};
use crate::node_list::NodeList;

/// It was called as it cannot be here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(&'static str);

/// So many failures are told one by one.
const TOLD: usize = 1000;

/// Copies: whether everything was copied. What failed has been told.
///
/// # Errors
/// It cannot begin.
pub fn run(request: &Request) -> anyhow::Result<bool> {
    let instance = instance(request.instance.as_deref())?;
    let names_master = [&request.target].into_iter().chain(&request.sources).any(|o| matches!(o, Operand::Master(_)));
    if names_master && !is_on_node(&instance) {
        match request.alone {
            true => bail!(Usage("a target is needed; `bpcp FILE` alone is for nodes: bpsh -a -p bpcp FILE")),
            false => bail!(Usage("the master is named on nodes only; on the master write the path alone")),
        }
    }
    let mut resolver = Resolver { instance, connection: None };
    let sources = resolver.sources(&request.sources)?;
    let to = match &request.target {
        Operand::Here(path) => {
            let wanted =
                Wanted { target: path.clone(), into: request.into, preserve: request.preserve, sync: request.sync };
            To::Here(Box::new(Receiver::begin(wanted).map_err(anyhow::Error::msg)?))
        }
        Operand::Master(path) => {
            let command =
                reaching(request, &[&["--receive"], &receiving_options(request)[..]].concat(), [path.as_path()])?;
            To::Nodes(Box::new(Launch::on_master(command).context("cannot run bpcp")?))
        }
        Operand::There { nodes, path } => {
            resolver.nodes(nodes)?;
            To::Nodes(Box::new(Launch::start(receiving(request, nodes, path)?).context("cannot run bpsh")?))
        }
    };
    drop(resolver);
    let mut outbound = Outbound {
        to,
        items: 0,
        depth: 0,
        in_file: false,
        whole: true,
        from: None,
        failures: Vec::new(),
        progress: Progress::new(request.quiet),
    };
    for source in &sources {
        // Who takes nothing any more tells why at the end.
        if outbound.source(source, request).is_err() {
            outbound.whole = false;
            break;
        }
    }
    Ok(outbound.finish())
}

/// What is to be sent, from one place.
#[derive(Debug)]
enum Source<'a> {
    Here(&'a Path),
    There { node: i32, paths: Vec<&'a Path> },
    Master(&'a Path),
}

struct Resolver {
    instance: Instance,
    connection: Option<Connection>,
}

impl Resolver {
    /// # Errors
    /// It is no node list, or there are no such nodes, or ghostd cannot be asked.
    fn nodes(&mut self, typed: &str) -> anyhow::Result<Vec<NodeInfo>> {
        let list = NodeList::read(typed, &self.instance)?;
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.instance, "bpcp")?);
        }
        let connection = self.connection.as_mut().context("no connection")?;
        let nodes = match connection
            .request(ClientToMaster::Nodes(NodesRequest { nodes: list.text().to_owned(), ..NodesRequest::default() }))
        {
            Ok(MasterToClient::Nodes(reply)) => reply.nodes,
            Ok(_) => bail!("ghostd answered something else than was asked"),
            Err(ConnectionError::Refused(refused)) => bail!(list.explain(&refused)),
            Err(error) => return Err(error.into()),
        };
        ensure!(!nodes.is_empty(), "{typed}: none of the nodes; `bpstat` shows them");
        Ok(nodes)
    }

    /// Neighbours from one node are sent by one launch.
    fn sources<'a>(&mut self, operands: &'a [Operand]) -> anyhow::Result<Vec<Source<'a>>> {
        let mut sources: Vec<Source<'a>> = Vec::new();
        for operand in operands {
            match operand {
                Operand::Here(path) => sources.push(Source::Here(path)),
                Operand::Master(path) => sources.push(Source::Master(path)),
                Operand::There { nodes, path } => {
                    let [NodeInfo { node: number, .. }] = self.nodes(nodes)?[..] else {
                        bail!("{nodes}:{}: a source is on one node; copy from one after the other", path.display());
                    };
                    match sources.last_mut() {
                        Some(Source::There { node, paths })
                            if *node == number && paths[0].is_absolute() == path.is_absolute() =>
                        {
                            paths.push(path);
                        }
                        _ => sources.push(Source::There { node: number, paths: vec![path] }),
                    }
                }
            }
        }
        Ok(sources)
    }
}

/// The bpsh beside this program, else the one in the PATH.
fn bpsh(request: &Request) -> Command {
    let mut command = Command::new(crate::beside("bpsh"));
    if let Some(instance) = &request.instance {
        command.args(["--instance", instance]);
    }
    command
}

/// Paths that are not absolute are seen from the directory with the name of this one, which has to be there.
fn from_here(command: &mut Command, relative: bool) -> anyhow::Result<()> {
    let directory = if relative { std::env::current_dir().context("the working directory")? } else { "/".into() };
    command.arg("--chdir").arg(directory);
    Ok(())
}

fn receiving(request: &Request, nodes: &str, path: &Path) -> anyhow::Result<Command> {
    let mut command = bpsh(request);
    command.arg("--json");
    from_here(&mut command, path.is_relative())?;
    command.args(["--", nodes, "bpcp", "--receive"]);
    command.args(receiving_options(request)).arg("--").arg(path);
    Ok(command)
}

fn receiving_options(request: &Request) -> Vec<&'static str> {
    let options = [(request.into, "--into"), (request.preserve, "-p"), (request.sync, "--sync")];
    options.into_iter().filter(|(wanted, _)| *wanted).map(|(_, option)| option).collect()
}

/// This program once more, as the way to the end on the master.
fn reaching<'a>(
    request: &Request,
    options: &[&str],
    paths: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program")?);
    command.arg("--reach").args(options);
    if let Some(instance) = &request.instance {
        command.args(["--instance", instance]);
    }
    command.arg("--").args(paths);
    Ok(command)
}

fn sending(request: &Request, node: i32, paths: &[&Path]) -> anyhow::Result<Child> {
    let mut command = bpsh(request);
    command.arg("-n");
    from_here(&mut command, paths.iter().any(|path| path.is_relative()))?;
    command.args(["--", &node.to_string(), "bpcp", "--send"]);
    if request.recursive {
        command.arg("-r");
    }
    command.arg("--").args(paths);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run bpsh")
}

fn sending_there(request: &Request, path: &Path) -> anyhow::Result<Child> {
    let options: &[&str] = if request.recursive { &["--send", "-r"] } else { &["--send"] };
    let mut command = reaching(request, options, [path])?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run bpcp")
}

/// Where it goes.
enum To {
    Here(Box<Receiver>),
    Nodes(Box<Launch>),
}

/// All that is sent, from whatever source, on its way.
struct Outbound {
    to: To,
    /// Files, directories and links that have begun.
    items: u64,
    depth: usize,
    in_file: bool,
    /// Everything could be read so far.
    whole: bool,
    /// The node that it comes from.
    from: Option<i32>,
    /// Node, if it is one, and text.
    failures: Vec<(Option<i32>, String)>,
    progress: Progress,
}

impl Sink for Outbound {
    fn lasting(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.to {
            To::Nodes(launch) => {
                self.progress.bytes(bytes.len() as u64);
                launch.lend(bytes)
            }
            To::Here(_) => self.frame(&Frame::Data(bytes)),
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        match frame {
            Frame::Directory { .. } => (self.items, self.depth) = (self.items + 1, self.depth + 1),
            Frame::Leave => self.depth -= 1,
            Frame::File { name, size, .. } => {
                self.items += 1;
                self.in_file = true;
                self.progress.file(name, *size);
            }
            Frame::Data(bytes) => self.progress.bytes(bytes.len() as u64),
            Frame::Hole(length) => self.progress.bytes(*length),
            Frame::FileEnd { .. } => self.in_file = false,
            Frame::Link { .. } => self.items += 1,
            Frame::Failed(text) => {
                self.whole = false;
                self.failures.push((self.from, String::from_utf8_lossy(text).into_owned()));
                if !std::mem::take(&mut self.in_file) {
                    return Ok(());
                }
            }
            Frame::End => {}
        }
        self.pass(frame)
    }
}

impl Outbound {
    fn pass(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        match &mut self.to {
            To::Here(receiver) => {
                receiver.take(frame);
                self.failures.extend(receiver.failures().into_iter().map(|text| (None, text)));
                Ok(())
            }
            To::Nodes(launch) => launch.take(frame),
        }
    }

    /// # Errors
    /// Nobody takes anything any more.
    fn source(&mut self, source: &Source<'_>, request: &Request) -> io::Result<()> {
        match source {
            Source::Here(path) => {
                self.from = None;
                Sender::new(self, request.recursive).send(path)
            }
            Source::Master(path) => {
                self.from = None;
                self.take_from(sending_there(request, path))
            }
            Source::There { node, paths } => {
                self.from = Some(*node);
                self.take_from(sending(request, *node, paths))
            }
        }
    }

    fn take_from(&mut self, child: anyhow::Result<Child>) -> io::Result<()> {
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return self.broken(&format!("{error:#}")),
        };
        let Some(mut output) = child.stdout.take() else { return self.broken("no pipe") };
        launch::widen(&output);
        let relayed = self.relay(&mut output);
        drop(output);
        let status = child.wait();
        match relayed? {
            None => Ok(()),
            // bpsh has said why.
            Some(_) if status.is_ok_and(|status| matches!(status.code(), Some(125..=127))) => {
                self.whole = false;
                self.close()
            }
            Some(reason) => self.broken(&reason),
        }
    }

    /// Passes on what a sending end sends; why it is not all, if it is not.
    fn relay(&mut self, input: &mut impl Read) -> io::Result<Option<String>> {
        let mut decoder = Decoder::default();
        loop {
            loop {
                match decoder.next_frame() {
                    Ok(Some(Frame::End)) => return Ok(None),
                    Ok(Some(frame)) => self.frame(&frame)?,
                    Ok(None) => break,
                    Err(error) => return Ok(Some(error.to_string())),
                }
            }
            match input.read(decoder.room()) {
                Ok(0) => return Ok(Some("the sending end has ended early".to_owned())),
                Ok(n) => decoder.filled(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Some(crate::connection::plain(&error))),
            }
        }
    }

    /// The source has ended where it should not have.
    fn broken(&mut self, reason: &str) -> io::Result<()> {
        self.whole = false;
        self.failures.push((self.from, reason.to_owned()));
        self.close()
    }

    /// Closes what is open: of a file nothing is kept.
    fn close(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.in_file) {
            self.pass(&Frame::Failed(&[]))?;
        }
        while self.depth > 0 {
            self.frame(&Frame::Leave)?;
        }
        Ok(())
    }

    /// Waits for the end and tells what failed: whether everything was copied.
    fn finish(mut self) -> bool {
        // Who takes nothing any more tells why.
        let ended = self.pass(&Frame::End).is_ok();
        let (all, told) = match self.to {
            To::Here(receiver) => {
                let count = receiver.count();
                (count.failed == 0 && count.made == self.items, Vec::new())
            }
            To::Nodes(launch) => launch.finish(self.items),
        };
        self.progress.clear();
        for (_, text) in told.iter().filter(|(node, _)| *node == launch::MASTER) {
            crate::complain(&format!("bpcp: master: {text}"));
        }
        let told = told.into_iter().filter(|(node, _)| *node != launch::MASTER);
        let nodes: Vec<(i32, String)> = self
            .failures
            .into_iter()
            .filter_map(|(node, text)| match node {
                Some(node) => Some((node, text)),
                None => {
                    crate::complain(&format!("bpcp: {text}"));
                    None
                }
            })
            .chain(told)
            .collect();
        let more = nodes.len().saturating_sub(TOLD);
        for line in fold_lines(nodes.into_iter().take(TOLD)) {
            crate::complain(&format!("bpcp: {line}"));
        }
        if more > 0 {
            crate::complain(&format!("bpcp: and {more} more failures"));
        }
        all && ended && self.whole
    }
}
