//! nodeagent's program between a real holder and a real TLS server.

mod support;

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use ghost_proto::ids::{NodeNumber, ProcId};
use ghost_proto::instance::Instance;
use ghost_proto::node::*;
use ghost_sys::notify::NotifySocket;
use ghost_trust::ca::request_certificate;
use ghost_trust::tls::{Peer, peer_node, server_config};
use ghost_trust::{Ca, NodeIdentity};
use nix::sys::signal::{Signal as Sig, kill};
use nix::unistd::Pid;
use nodeagent::identity::{Identity, Store};
use nodeagent::master_address::MasterAddress;
use support::*;
use tokio_rustls::TlsAcceptor;

const NODE: NodeNumber = NodeNumber(3);

/// A master's port. Each TLS session becomes a Unix socket that a test holds.
struct Master {
    address: SocketAddr,
    sessions: Receiver<UnixStream>,
}

impl Master {
    fn start(ca: &Ca) -> Master {
        let config = Arc::new(server_config(&ca.issue_master().expect("master")).expect("server"));
        let (give_address, address) = channel();
        let (give, sessions) = channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
                give_address.send(listener.local_addr().expect("address")).expect("a test");
                loop {
                    let (tcp, _) = listener.accept().await.expect("accept");
                    let Ok(mut tls) = TlsAcceptor::from(Arc::clone(&config)).accept(tcp).await else {
                        continue;
                    };
                    let peer = peer_node(tls.get_ref().1.peer_certificates());
                    assert!(matches!(peer, Ok(Peer::Node { number: NODE, .. })), "{peer:?}");
                    let (ours, theirs) = UnixStream::pair().expect("pair");
                    ours.set_nonblocking(true).expect("socket");
                    let mut ours = tokio::net::UnixStream::from_std(ours).expect("socket");
                    if give.send(theirs).is_err() {
                        return;
                    }
                    tokio::spawn(async move {
                        // Either end's end is the session's.
                        let _ = tokio::io::copy_bidirectional(&mut tls, &mut ours).await;
                    });
                }
            });
        });
        Master { address: address.recv().expect("bound"), sessions }
    }

    fn next(&self) -> Link {
        Link::over(self.sessions.recv_timeout(PATIENCE).expect("the node connects"))
    }
}

/// A machine that has joined.
struct Node {
    instance: Instance,
    agent: Option<Child>,
    notify: (NotifySocket, PathBuf),
}

impl Node {
    fn new(ca: &Ca, master: SocketAddr) -> Node {
        let instance = own_instance();
        let (request, key) = request_certificate().expect("request");
        let issued = ca.issue_node(&request, NODE, SystemTime::now(), Duration::from_secs(3600)).expect("certificate");
        let tls = NodeIdentity::new(issued.certificate, key, ca.certificate().clone()).expect("identity");
        let master = MasterAddress { host: master.ip().to_string(), port: master.port() };
        let identity = Identity { tls, master, cluster: "test".to_owned() };
        Store::of(&instance).prepare().expect("directory").save(&identity).expect("saved");
        let path = std::env::temp_dir().join(format!("{instance}.notify"));
        let socket = NotifySocket::bind(&path).expect("notify socket");
        Node { instance, agent: None, notify: (socket, path) }
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
        command.args(["--instance", self.instance.as_str()]).env("NOTIFY_SOCKET", &self.notify.1);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        self.agent = Some(command.spawn().expect("nodeagent"));
    }

    /// Signals the agent and waits for it; gives its code and what it has said.
    fn end(&mut self, signal: Sig) -> (Option<i32>, String) {
        let mut agent = self.agent.take().expect("it was started");
        kill(Pid::from_raw(agent.id() as i32), signal).expect("signal");
        let status = agent.wait().expect("wait");
        let mut text = vec![0; 65536];
        // The holder may still have its standard error open: what is there is enough.
        let stderr = agent.stderr.take().expect("piped");
        let n = ghost_sys::nowait::read_buf(&stderr, &mut &mut text[..], usize::MAX).unwrap_or(0);
        text.truncate(n);
        (status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// PID of the holder. (A connection to it would take the agent's place.)
    fn holder(&self) -> Option<i32> {
        let is_it = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.next().is_some_and(|program| program.ends_with(b"ghost-holder"))
                && words.any(|word| word == self.instance.as_str().as_bytes())
        };
        let all = std::fs::read_dir("/proc").expect("proc").flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
    }

    fn told(&self, wanted: &str) {
        eventually(wanted, || self.notify.0.receive().is_ok_and(|message| message.text.contains(wanted)));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some(holder) = self.holder() {
            let _ = kill(Pid::from_raw(holder), Sig::SIGKILL);
            eventually("the holder is gone", || self.holder().is_none());
        }
        let _ = std::fs::remove_dir_all(self.instance.run());
        let _ = std::fs::remove_dir_all(self.instance.state());
        let _ = std::fs::remove_file(&self.notify.1);
        // Its processes die after it.
        eventually("its cgroups are gone", || {
            remove_cgroups(&cgroups_of(&self.instance));
            !cgroups_of(&self.instance).exists()
        });
    }
}

/// What was launched, without what that has forked.
fn launched(hello: &NodeHello) -> Vec<u64> {
    let forked = |proc: u64| ghost_proto::tree::is_forked_on(ProcId(proc), NodeNumber(3));
    hello.processes.iter().map(|held| held.proc).filter(|proc| !forked(*proc)).collect()
}

#[test]
fn processes_outlive_the_agent_and_the_connection() {
    if !root() {
        return;
    }
    let ca = Ca::create().expect("CA");
    let master = Master::start(&ca);
    let mut node = Node::new(&ca, master.address);
    node.start();
    node.told("READY=1");
    let mut link = master.next();
    let first = link.hello();
    assert_eq!((first.epoch, first.processes.len()), (0, 0));
    link.welcome(7, 40_000);
    node.told("connected to");
    let ran = link.run(1, shell("echo out; id -u; exit 3"), 4321);
    assert_eq!((ran.stdout().as_str(), ran.status), ("out\n4321\n", 3 << 8));
    link.spawn(2, shell("echo begun; sleep 100"), 4321);
    link.started(2);
    link.wait_output(2, "begun");
    let holder = node.holder();

    // The connection breaks.
    drop(link);
    let mut link = master.next();
    let hello = link.hello();
    assert_eq!((hello.epoch, hello.holder, launched(&hello)), (7, first.holder, vec![2]));
    link.welcome(7, 40_000);

    // The agent dies, or is told to stop.
    for signal in [Sig::SIGKILL, Sig::SIGTERM] {
        node.end(signal);
        node.start();
        link = master.next();
        let hello = link.hello();
        assert_eq!((hello.epoch, hello.holder, launched(&hello)), (7, first.holder, vec![2]));
        link.welcome(7, 40_000);
        assert_eq!(node.holder(), holder);
    }
    assert_eq!(link.signal(signal(2, libc::SIGTERM)), 0);
    assert_eq!(link.ended(2), libc::SIGTERM);
}

#[test]
fn a_dead_holder_is_replaced_by_one_that_knows_nothing() {
    if !root() {
        return;
    }
    let ca = Ca::create().expect("CA");
    let master = Master::start(&ca);
    let mut node = Node::new(&ca, master.address);
    node.start();
    let mut link = master.next();
    let first = link.hello();
    link.welcome(7, 40_000);
    link.spawn(1, program(&["/bin/sleep", "100"]), 4321);
    link.started(1);
    kill(Pid::from_raw(node.holder().expect("a holder")), Sig::SIGKILL).expect("kill");
    let mut link = master.next();
    let hello = link.hello();
    assert_ne!(hello.holder, first.holder);
    assert_eq!((hello.epoch, hello.processes.len()), (0, 0));
    link.welcome(7, 40_000);
    assert_eq!(link.run(2, program(&["true"]), 4321).status, 0);
}

#[test]
fn an_interrupt_ends_the_processes_too() {
    if !root() {
        return;
    }
    let ca = Ca::create().expect("CA");
    let master = Master::start(&ca);
    let mut node = Node::new(&ca, master.address);
    node.start();
    let mut link = master.next();
    link.hello();
    link.welcome(7, 40_000);
    assert_eq!(link.run(1, program(&["true"]), 4321).status, 0);
    let (code, said) = node.end(Sig::SIGINT);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(node.holder(), None);
}

#[test]
fn a_foreign_master_hears_nothing() {
    if !root() {
        return;
    }
    let ca = Ca::create().expect("CA");
    let foreign = Master::start(&Ca::create().expect("CA"));
    let mut node = Node::new(&ca, foreign.address);
    node.start();
    node.told("not trusted");
    let heard = foreign.sessions.recv_timeout(Duration::from_millis(500));
    assert!(matches!(heard, Err(RecvTimeoutError::Timeout)), "{heard:?}");
    let (_, said) = node.end(Sig::SIGTERM);
    assert!(said.contains("not trusted"), "{said}");
}

#[test]
fn a_machine_that_has_not_joined_says_what_to_do() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_nodeagent")).args(["--instance", "t-nowhere"]).output().expect("runs");
    let mut text = String::new();
    output.stderr.as_slice().read_to_string(&mut text).expect("text");
    assert!(!output.status.success() && text.contains("nodeagent join MASTER"), "{text}");
}

/// Two streams at full speed and a command beside them: bytes unharmed, and the command's answer does not wait for the bulk.
#[test]
fn a_command_passes_by_bulk() {
    if !root() {
        return;
    }
    let ca = Ca::create().expect("CA");
    let master = Master::start(&ca);
    let mut node = Node::new(&ca, master.address);
    node.start();
    let mut link = master.next();
    link.hello();
    link.welcome(7, 40_000);
    link.spawn(1, program(&["yes"]), 4321);
    link.spawn(2, program(&["yes"]), 4321);
    link.spawn(3, program(&["/bin/sleep", "100"]), 4321);
    link.started(3);
    link.send(MasterToNode::Signal(Signal { seq: 9, confirm: true, ..signal(3, libc::SIGTERM) }));
    let mut received = [0u64; 4];
    let (mut before, mut ended) = (None, None);
    while before.is_none() || ended.is_none() || received[1] < 4 << 20 || received[2] < 4 << 20 {
        match link.next().expect("the connection lives") {
            Got::Data(data) if data.fd == 1 => {
                let at = &mut received[data.id as usize];
                assert_eq!(data.offset, *at);
                assert!(
                    data.bytes
                        .iter()
                        .zip(data.offset..)
                        .all(|(byte, at)| *byte == if at % 2 == 0 { b'y' } else { b'\n' })
                );
                *at += data.bytes.len() as u64;
                link.send(MasterToNode::Ack(Ack { proc: data.id, fd: 1, offset: *at }));
            }
            Got::Message(NodeToMaster::SignalDone(done)) => {
                assert_eq!((done.seq, done.errno), (9, 0));
                before = Some(received[1] + received[2]);
            }
            Got::Message(NodeToMaster::Ended(end)) => ended = Some((end.proc, end.status)),
            _ => {}
        }
    }
    assert_eq!(ended, Some((3, libc::SIGTERM)));
    // What was under way may have been before it: the streams' windows and the sockets' buffers, no more.
    assert!(before.is_some_and(|bytes| bytes < 4 << 20), "{before:?} bytes of bulk went first");
}
