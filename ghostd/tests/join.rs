//! A machine becomes a node over real TLS: `nodeagent join` on one side, the master's membership on the other.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use ghost_proto::Control;
use ghost_proto::client::{Admin, NodeRequest, TokenRequest};
use ghost_proto::frame::{Decoder, Frame, MAX_CONTROL_STRANGER};
use ghost_proto::ids::NodeNumber;
use ghost_proto::join::JoinToMaster;
use ghost_trust::tls::{node_client_config, peer_node, server_config, server_name};
use ghost_trust::{MasterIdentity, Peer};
use ghostd::config::Config;
use ghostd::files::Files;
use ghostd::init;
use ghostd::membership::Membership;
use nodeagent::identity::Store;
use nodeagent::join::{self, JoinArgs};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// A master that answers joins and greets its nodes.
struct Master {
    dir: tempfile::TempDir,
    address: SocketAddr,
    membership: Arc<Mutex<Membership>>,
    /// Why sessions ended, in their order.
    log: Arc<Mutex<Vec<String>>>,
}

impl Master {
    fn start() -> Master {
        Master::start_with(|files| files.load_master().unwrap())
    }

    fn start_with(identity: impl FnOnce(&Files) -> MasterIdentity) -> Master {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { config: dir.path().join("etc/ghostd.toml"), state: dir.path().join("lib") };
        init::run(&files, None, false).unwrap();
        let config = Config::load(&files.config).unwrap();
        let membership = Arc::new(Mutex::new(Membership::open(&files, &config).unwrap()));
        let tls = Arc::new(server_config(&identity(&files)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (members, lines) = (membership.clone(), log.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let said = serve(socket.unwrap(), &tls, &members);
                lines.lock().unwrap().push(said);
            }
        });
        Master { dir, address, membership, log }
    }

    fn token(&self, nodes: &str, expires_s: u64) -> String {
        let request = Admin::Token(TokenRequest { nodes: nodes.into(), uses: 0, expires_s });
        self.membership.lock().unwrap().admin(&request, SystemTime::now()).unwrap().remove(0)
    }

    fn args(&self, token: &str, node: Option<i32>) -> JoinArgs {
        let file = self.dir.path().join("token");
        fs::write(&file, format!("\n  {token}\n")).unwrap();
        JoinArgs {
            master: self.address.to_string(),
            node,
            token_file: Some(file),
            force: false,
            token_option: None,
            surplus: Vec::new(),
        }
    }

    fn store(&self, name: &str) -> Store {
        Store::at(self.dir.path().join("machines").join(name))
    }

    /// Waits until a session ended with these words.
    #[track_caller]
    fn says(&self, part: &str) {
        for _ in 0..1000 {
            if self.log.lock().unwrap().iter().any(|line| line.contains(part)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the master said {:?}", self.log.lock().unwrap());
    }
}

/// What ghostd does with a connection, in little.
fn serve(socket: TcpStream, tls: &Arc<ServerConfig>, membership: &Mutex<Membership>) -> String {
    let peer_address = socket.peer_addr().unwrap().ip();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut tls = StreamOwned::new(ServerConnection::new(tls.clone()).unwrap(), socket);
    while tls.conn.is_handshaking() {
        if let Err(error) = tls.conn.complete_io(&mut tls.sock) {
            return format!("handshake: {error}");
        }
    }
    let mut membership = membership.lock().unwrap();
    let said = match peer_node(tls.conn.peer_certificates()) {
        Ok(Peer::Node { number, serial }) => match membership.check_peer(number, serial) {
            Ok(()) => {
                membership.seen(number, serial, peer_address);
                tls.write_all(format!("welcome {number}").as_bytes()).unwrap();
                format!("welcome {number}")
            }
            Err(refusal) => refusal.to_string(),
        },
        Ok(Peer::Stranger) => {
            let (mut decoder, mut input, mut buffer) = (Decoder::new(MAX_CONTROL_STRANGER), BytesMut::new(), [0; 4096]);
            let body = loop {
                match decoder.next(&mut input).unwrap() {
                    Some(Frame::Control(body)) => break body,
                    Some(_) => return "data of a stranger".to_owned(),
                    None => match tls.read(&mut buffer) {
                        Ok(0) | Err(_) => return "gone".to_owned(),
                        Ok(n) => input.extend_from_slice(&buffer[..n]),
                    },
                }
            };
            let Ok(Some(JoinToMaster::Request(request))) = JoinToMaster::decode_body(body) else {
                return "not a request".to_owned();
            };
            let answer = membership.handle_join(&request, peer_address, SystemTime::now());
            let said = format!("{answer:?}");
            tls.write_all(&answer.to_frame()).unwrap();
            said
        }
        Err(distrust) => distrust.to_string(),
    };
    tls.conn.send_close_notify();
    let _ = tls.flush();
    said
}

/// A session as nodeagent has it; what the master says.
fn connect(store: &Store) -> Result<String, std::io::Error> {
    let identity = store.load().unwrap();
    let socket = TcpStream::connect(identity.master.resolve().unwrap()[0]).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let client = ClientConnection::new(Arc::new(node_client_config(&identity.tls).unwrap()), server_name()).unwrap();
    let mut text = String::new();
    StreamOwned::new(client, socket).read_to_string(&mut text).map(|_| text)
}

#[track_caller]
fn refused(result: anyhow::Result<String>, part: &str) {
    let error = format!("{:#}", result.expect_err("the machine joined"));
    assert!(error.contains(part), "{error}");
}

#[test]
fn a_machine_joins_and_connects() {
    let master = Master::start();
    let token = master.token("0-7", 0);
    let first = master.store("a");
    let line = join::run(&first, &master.args(&token, None)).unwrap();
    assert!(line.starts_with("joined as node 0 of cluster "), "{line}");
    join::run(&master.store("b"), &master.args(&token, Some(5))).unwrap();
    assert_eq!(connect(&first).unwrap(), "welcome 0");
    assert_eq!(connect(&master.store("b")).unwrap(), "welcome 5");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(first.path().to_owned()), 0o700);
    assert_eq!(mode(first.path().join("key.pem")), 0o600);
    let listed = master.membership.lock().unwrap().node(NodeNumber(5)).unwrap();
    assert_eq!(listed.address, Some("127.0.0.1".parse().unwrap()));
    assert!(!listed.hostname.is_empty());
}

#[test]
fn the_masters_reason_reaches_the_person() {
    let master = Master::start();
    let token = master.token("3", 0);
    let store = master.store("a");
    refused(
        join::run(&store, &master.args(&token, Some(4))),
        "node 4 is not among those that the token is good for (3)",
    );
    assert!(!store.exists(), "a refused machine has an identity");
    join::run(&store, &master.args(&token, None)).unwrap();
    refused(join::run(&master.store("b"), &master.args(&token, None)), "used up");
    let short = master.token("", 1);
    std::thread::sleep(Duration::from_millis(2100));
    refused(join::run(&master.store("b"), &master.args(&short, None)), "expired");
}

#[test]
fn a_token_in_the_wrong_place_or_form_is_explained() {
    let master = Master::start();
    let token = master.token("", 0);
    let store = master.store("a");
    let mut args = master.args(&token, None);
    args.surplus.push(token.clone());
    refused(join::run(&store, &args), "does not belong on the command line");
    args = master.args(&token, None);
    args.token_option = Some("x".to_owned());
    refused(join::run(&store, &args), "does not belong on the command line");
    args = master.args(&token, None);
    args.master = token.clone();
    refused(join::run(&store, &args), "does not belong on the command line");
    refused(join::run(&store, &master.args(&token[..60], None)), "mistyped or cut off");
    refused(join::run(&store, &master.args("", None)), "it is empty");
    refused(join::run(&store, &master.args("secret", None)), "it is no token");
    args = master.args(&token, None);
    args.token_file = Some("/no/such/file".into());
    refused(join::run(&store, &args), "token file /no/such/file");
}

/// The token of one cluster shown to the master of another: the fingerprint does not fit, and the secret stays here.
#[test]
fn the_secret_goes_to_the_right_master_only() {
    let (right, wrong) = (Master::start(), Master::start());
    let token = right.token("", 0);
    let store = wrong.store("a");
    refused(join::run(&store, &wrong.args(&token, None)), "not the master that the token is for");
    // The session ended in the handshake: no request was sent.
    wrong.says("handshake: ");
    assert!(!store.exists());
}

#[test]
fn a_machine_joins_once() {
    let master = Master::start();
    let store = master.store("a");
    join::run(&store, &master.args(&master.token("", 0), None)).unwrap();
    let again = master.token("", 0);
    refused(join::run(&store, &master.args(&again, None)), "is node 0 of 127.0.0.1:");
    let before = store.load().unwrap().tls.serial();
    let replace = Admin::ReplaceNodes(NodeRequest { nodes: "0".into() });
    master.membership.lock().unwrap().admin(&replace, SystemTime::now()).unwrap();
    let old_directory = master.dir.path().join("machines/old");
    fs::create_dir(&old_directory).unwrap();
    for file in fs::read_dir(store.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), old_directory.join(file.file_name())).unwrap();
    }
    join::run(&store, &JoinArgs { force: true, ..master.args(&again, None) }).unwrap();
    assert_ne!(store.load().unwrap().tls.serial(), before);
    assert_eq!(connect(&store).unwrap(), "welcome 0");
    assert_eq!(connect(&Store::at(old_directory)).unwrap(), "");
    assert!(fs::read_dir(master.dir.path().join("machines")).unwrap().count() == 2, "something was left behind");
}

#[test]
fn a_revoked_and_a_removed_node_are_turned_away() {
    let master = Master::start();
    let token = master.token("1-2", 0);
    let (one, two) = (master.store("one"), master.store("two"));
    join::run(&one, &master.args(&token, Some(1))).unwrap();
    join::run(&two, &master.args(&token, Some(2))).unwrap();
    let nodes = |nodes: &str| NodeRequest { nodes: nodes.into() };
    for request in [Admin::RevokeNodes(nodes("1")), Admin::RemoveNodes(nodes("2"))] {
        master.membership.lock().unwrap().admin(&request, SystemTime::now()).unwrap();
    }
    assert_eq!(connect(&one).unwrap(), "");
    master.says("node 1 is revoked");
    assert_eq!(connect(&two).unwrap(), "");
    master.says("node 2 is not a member");
}

#[test]
fn an_identity_is_read_whole_or_not_at_all() {
    let master = Master::start();
    let store = master.store("a");
    let error = format!("{:#}", store.load().expect_err("an identity out of nothing"));
    assert!(error.contains("nodeagent join"), "{error}");
    let token = master.token("1-2", 0);
    join::run(&store, &master.args(&token, None)).unwrap();
    let other = master.store("b");
    join::run(&other, &master.args(&token, None)).unwrap();
    fs::copy(other.path().join("key.pem"), store.path().join("key.pem")).unwrap();
    let error = format!("{:#}", store.load().expect_err("another one's key was taken"));
    assert!(error.contains("do not belong together"), "{error}");
}

#[test]
fn a_master_that_is_not_there_is_named() {
    let master = Master::start();
    let args = JoinArgs { master: "127.0.0.1:1".into(), ..master.args(&master.token("", 0), None) };
    refused(join::run(&master.store("a"), &args), "the master 127.0.0.1:1 cannot be reached");
}
