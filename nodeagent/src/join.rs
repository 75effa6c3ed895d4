//! `nodeagent join`: makes this machine a node.
//!
//! One exchange over TLS ([`ghost_proto::join`]): the master is known by the CA fingerprint in the token, before anything is
//! said to it; then the token's secret and a certificate request go out, and the certificate comes back. The clock is not
//! asked: a machine that believes it is 1970 joins like any other.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::BytesMut;
use ghost_proto::frame::{Decoder, Frame, MAX_CONTROL_STRANGER};
use ghost_proto::ids::NodeNumber;
use ghost_proto::join::{JoinAccepted, JoinRequest, JoinToMaster, JoinToNode};
use ghost_proto::words::harmless;
use ghost_proto::{Control, VERSION};
use ghost_trust::ca::request_certificate;
use ghost_trust::tls::{join_client_config, server_name};
use ghost_trust::{Distrust, Fingerprint, NodeIdentity, Token};
use rustls::{ClientConnection, StreamOwned};

use crate::identity::{Identity, Store};
use crate::master_address::MasterAddress;

/// How long one address of the master is tried.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the master may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// More than any token has, in bytes.
const MAX_TOKEN_FILE: u64 = 4096;
/// Of what a master says, so many characters.
pub(crate) const WORDS: usize = 1000;

/// Make this machine a node of the cluster of MASTER.
///
/// The token is read from standard input unless --token-file names a file; `bpctl token` on the master makes one.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  nodeagent join head.example.org < token\n  \
                        nodeagent join 10.0.0.1 --node 3 --token-file /root/token\n  \
                        ssh root@head bpctl token | nodeagent join head")]
pub struct JoinArgs {
    /// The master: HOST, HOST:PORT or [IPv6]:PORT
    #[arg(value_name = "MASTER[:PORT]")]
    pub master: String,
    /// Ask for this node number instead of the one that the master would give
    #[arg(long, value_name = "N")]
    pub node: Option<i32>,
    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Take the new identity even if this machine is a node already
    #[arg(long)]
    pub force: bool,
    /// Known so that it can be explained why it is refused
    #[arg(long = "token", hide = true, value_name = "TOKEN")]
    pub token_option: Option<String>,
    #[arg(hide = true)]
    pub surplus: Vec<String>,
}

/// Joins, and writes the identity. Gives a line for the user.
///
/// # Errors
/// Anything on the way, with what to do.
pub fn run(store: &Store, args: &JoinArgs) -> Result<String> {
    let like_a_token = |text: &String| text.starts_with("ghostproc-join-");
    if args.token_option.is_some() || like_a_token(&args.master) || args.surplus.iter().any(like_a_token) {
        bail!(
            "a token does not belong on the command line: every user sees it there (ps), and the shell's history keeps it. \
             It is read from standard input or --token-file; make a new one with `bpctl token`, this one is no secret any more"
        );
    }
    if let Some(surplus) = args.surplus.first() {
        bail!("`{surplus}` is one argument too many; only MASTER[:PORT] is expected");
    }
    let master: MasterAddress = args.master.parse()?;
    if store.exists() && !args.force {
        let who = match store.load() {
            Ok(identity) => format!("is node {} of {} already", identity.tls.number(), identity.master),
            Err(_) => "has joined already".to_owned(),
        };
        bail!("this machine {who} ({}); --force takes a new identity in its place", store.path().display());
    }
    let token = read_token(args)?;
    let prepared = store.prepare()?;
    let identity = join(&master, &token, args.node)?;
    prepared.save(&identity)?;
    Ok(format!("joined as node {} of cluster {}; start nodeagent now", identity.tls.number(), identity.cluster))
}

fn read_token(args: &JoinArgs) -> Result<Token> {
    let (text, from) = match &args.token_file {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("token file {}", path.display()))?;
            (read_line(file), path.display().to_string())
        }
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                eprintln!("Paste the token that `bpctl token` printed on the master, then press Enter:");
            }
            (read_line(stdin), "standard input".to_owned())
        }
    };
    let text = text.with_context(|| format!("the token cannot be read from {from}"))?;
    text.parse().map_err(|e| anyhow!("the token in {from} is not usable: {e}"))
}

/// The first line that is not blank.
fn read_line(source: impl Read) -> std::io::Result<String> {
    let mut lines = BufReader::new(source.take(MAX_TOKEN_FILE));
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 && line.trim().is_empty() {
        line.clear();
    }
    Ok(line)
}

/// The exchange with the master.
///
/// # Errors
/// It cannot be reached, is not the one that the token names, or refuses.
pub fn join(master: &MasterAddress, token: &Token, node: Option<i32>) -> Result<Identity> {
    let (request, key) = request_certificate().context("this machine's key cannot be made")?;
    let hostname = nix::unistd::gethostname().context("this machine's host name cannot be read")?;
    let hostname = hostname.into_string().map_err(|name| anyhow!("the host name {name:?} is not text"))?;
    let request = JoinRequest {
        version: VERSION,
        token_id: token.id.0.to_vec().into(),
        token_secret: token.secret.as_bytes().to_vec().into(),
        node,
        hostname,
        request: request.into(),
    };
    let accepted = match exchange(master, token.ca, request)? {
        JoinToNode::Accepted(accepted) => accepted,
        JoinToNode::Refused(refused) => bail!("{master} refuses: {}", harmless(&refused.text, WORDS)),
    };
    let JoinAccepted { node: number, certificate, ca, cluster } = accepted;
    if Fingerprint::of(&ca) != token.ca {
        bail!("{master} sent another CA certificate than the token names; nothing was written");
    }
    let tls = NodeIdentity::new(certificate.to_vec().into(), key, ca.to_vec().into())
        .with_context(|| format!("{master} sent a certificate that is not usable; nothing was written"))?;
    if tls.number() != NodeNumber(number) || node.is_some_and(|wish| wish != number) {
        bail!("{master} sent the certificate of node {}; nothing was written", tls.number());
    }
    Ok(Identity { tls, master: master.clone(), cluster: harmless(&cluster, WORDS) })
}

fn exchange(master: &MasterAddress, ca: Fingerprint, request: JoinRequest) -> Result<JoinToNode> {
    let socket = connect(master)?;
    let config = join_client_config(ca).context("TLS settings")?;
    let connection = ClientConnection::new(Arc::new(config), server_name()).context("TLS settings")?;
    let mut tls = StreamOwned::new(connection, socket);
    // The handshake is finished first: the secret goes to nobody but the master that the token names.
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).map_err(|error| explain(master, error))?;
    }
    tls.write_all(&JoinToMaster::Request(request).to_frame()).map_err(|error| explain(master, error))?;
    answer(&mut tls, master, |error| explain(master, error))
}

/// What the master answers.
pub(crate) fn answer(
    tls: &mut impl Read,
    master: &MasterAddress,
    explain: impl Fn(std::io::Error) -> anyhow::Error,
) -> Result<JoinToNode> {
    let mut decoder = Decoder::new(MAX_CONTROL_STRANGER);
    let mut input = BytesMut::new();
    let mut buffer = [0; 4096];
    loop {
        let n = tls.read(&mut buffer).map_err(&explain)?;
        if n == 0 {
            bail!("{master} closed the connection without an answer; ghostd's log there says why");
        }
        input.extend_from_slice(&buffer[..n]);
        while let Some(frame) = decoder.next(&mut input).with_context(|| format!("{master} sent no answer"))? {
            if let Frame::Control(body) = frame
                && let Some(answer) =
                    JoinToNode::decode_body(body).with_context(|| format!("{master} sent no answer"))?
            {
                return Ok(answer);
            }
        }
    }
}

pub(crate) fn connect(master: &MasterAddress) -> Result<TcpStream> {
    let addresses = master.resolve()?;
    let mut failures = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(socket) => {
                socket.set_read_timeout(Some(ANSWER)).and_then(|()| socket.set_write_timeout(Some(ANSWER)))?;
                return Ok(socket);
            }
            Err(error) => failures.push((address, error)),
        }
    }
    let said = |(address, error): &(SocketAddr, std::io::Error)| format!("{address}: {error}");
    bail!(
        "the master {master} cannot be reached ({}); does ghostd run there, and may this machine reach that port?",
        failures.iter().map(said).collect::<Vec<_>>().join("; ")
    )
}

fn explain(master: &MasterAddress, error: std::io::Error) -> anyhow::Error {
    match Distrust::of_io(&error) {
        Some(reason) => anyhow!("{master} is not the master that the token is for: {reason}; nothing was said to it"),
        None => anyhow!(error).context(format!("the connection to {master} failed")),
    }
}
