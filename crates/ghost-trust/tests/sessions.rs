//! Real TLS sessions over loopback: who gets through to whom, and what the one that refuses says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ghost_proto::ids::NodeNumber;
use ghost_trust::ca::{NODE_TERM, request_certificate};
use ghost_trust::tls::{join_client_config, node_client_config, peer_node, server_config, server_name};
use ghost_trust::{Ca, Distrust, Fingerprint, MasterIdentity, NodeIdentity, Peer, Role};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// A clock that stands still.
#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn node(ca: &Ca, number: i32) -> NodeIdentity {
    let (request, key) = request_certificate().unwrap();
    let issued = ca.issue_node(&request, NodeNumber(number), SystemTime::now(), NODE_TERM).unwrap();
    NodeIdentity::new(issued.certificate, key, ca.certificate().clone()).unwrap()
}

/// What each end made of the session.
struct Outcome {
    /// Who the peer is, or the handshake's error.
    master: Result<Peer, std::io::Error>,
    /// What the client read after the handshake.
    client: Result<String, std::io::Error>,
}

fn session(server: ServerConfig, client: ClientConfig) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let master = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(server)).unwrap(), socket);
        let mut letter = [0];
        tls.read_exact(&mut letter)?;
        let peer = peer_node(tls.conn.peer_certificates()).unwrap();
        tls.write_all(b"seen")?;
        tls.conn.send_close_notify();
        tls.flush()?;
        Ok(peer)
    });
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(client), server_name()).unwrap(), socket);
    let mut seen = String::new();
    let client = tls.write_all(b"x").and_then(|()| tls.read_to_string(&mut seen)).map(|_| seen);
    drop(tls);
    Outcome { master: master.join().unwrap(), client }
}

#[track_caller]
fn master_refuses(outcome: Outcome) -> Distrust {
    assert!(outcome.client.is_err(), "the client read {:?}", outcome.client);
    let error = outcome.master.expect_err("the master took the peer");
    Distrust::of_io(&error).unwrap_or_else(|| panic!("no reason in {error:?}")).clone()
}

#[track_caller]
fn client_refuses(outcome: Outcome) -> Distrust {
    assert!(outcome.master.is_err(), "the master saw {:?}", outcome.master);
    let error = outcome.client.expect_err("the client took the master");
    Distrust::of_io(&error).unwrap_or_else(|| panic!("no reason in {error:?}")).clone()
}

#[test]
fn a_node_and_its_master_know_each_other() {
    let ca = Ca::create().unwrap();
    let identity = node(&ca, 3);
    let outcome = session(server_config(&ca.issue_master().unwrap()).unwrap(), node_client_config(&identity).unwrap());
    assert_eq!(outcome.master.unwrap(), Peer::Node { number: NodeNumber(3), serial: identity.serial() });
    assert_eq!(outcome.client.unwrap(), "seen");
}

#[test]
fn a_machine_with_the_fingerprint_is_a_stranger() {
    let ca = Ca::create().unwrap();
    let client = join_client_config(ca.fingerprint()).unwrap();
    let outcome = session(server_config(&ca.issue_master().unwrap()).unwrap(), client);
    assert_eq!(outcome.master.unwrap(), Peer::Stranger);
    assert_eq!(outcome.client.unwrap(), "seen");
}

#[test]
fn a_machine_does_not_join_another_ca() {
    let (ca, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let client = join_client_config(ca.fingerprint()).unwrap();
    let outcome = session(server_config(&other.issue_master().unwrap()).unwrap(), client);
    assert_eq!(client_refuses(outcome), Distrust::OtherCa { found: other.fingerprint() });
}

/// Certificates are public: showing the right CA beside a certificate that it did not sign must not help.
#[test]
fn the_right_ca_beside_a_foreign_certificate_does_not_help() {
    let (ca, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let foreign = other.issue_master().unwrap();
    let mut server = server_config(&foreign).unwrap();
    let key = rustls::sign::CertifiedKey::from_der(
        vec![foreign.certificate.clone(), ca.certificate().clone()],
        foreign.key.clone_key(),
        &rustls::crypto::ring::default_provider(),
    )
    .unwrap();
    server.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
    let outcome = session(server, join_client_config(ca.fingerprint()).unwrap());
    assert_eq!(client_refuses(outcome), Distrust::OtherCluster(other.cluster()));
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let (ca, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let stranger = node(&other, 3);
    // It accepts any master here, so that the master's own judgement is seen.
    let client = lenient(&stranger);
    let outcome = session(server_config(&ca.issue_master().unwrap()).unwrap(), client);
    assert_eq!(master_refuses(outcome), Distrust::OtherCluster(other.cluster()));
}

#[test]
fn a_node_refuses_the_master_of_another_cluster() {
    let (ca, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let client = node_client_config(&node(&ca, 3)).unwrap();
    let outcome = session(server_config(&other.issue_master().unwrap()).unwrap(), client);
    assert_eq!(client_refuses(outcome), Distrust::OtherCluster(other.cluster()));
}

#[test]
fn a_node_cannot_play_the_master() {
    let ca = Ca::create().unwrap();
    let false_master = node(&ca, 3);
    let as_master = MasterIdentity {
        certificate: false_master.certificate().clone(),
        key: false_master.key().clone_key(),
        ca: ca.certificate().clone(),
    };
    assert!(server_config(&as_master).is_err(), "our own settings refuse it already");
    // A hostile node is not bound to our settings.
    let mut server = server_config(&ca.issue_master().unwrap()).unwrap();
    let key = rustls::sign::CertifiedKey::from_der(
        vec![as_master.certificate, as_master.ca],
        as_master.key,
        &rustls::crypto::ring::default_provider(),
    )
    .unwrap();
    server.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
    let server = Arc::new(server);
    for client in [node_client_config(&node(&ca, 4)).unwrap(), join_client_config(ca.fingerprint()).unwrap()] {
        let outcome = session(ServerConfig::clone(&server), client);
        let found = Role::Node(NodeNumber(3));
        assert_eq!(client_refuses(outcome), Distrust::WrongRole { found, wanted: "the master" });
    }
}

#[test]
fn the_master_certificate_is_no_node() {
    let ca = Ca::create().unwrap();
    let master = ca.issue_master().unwrap();
    assert!(NodeIdentity::new(master.certificate.clone(), master.key.clone_key(), master.ca.clone()).is_err());
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_auth_cert(vec![master.certificate.clone()], master.key.clone_key())
        .unwrap();
    let outcome = session(server_config(&master).unwrap(), client);
    assert_eq!(master_refuses(outcome), Distrust::WrongRole { found: Role::Master, wanted: "a node" });
}

/// A CA that calls itself by the same name is another key all the same.
#[test]
fn a_forged_certificate_is_refused() {
    let ca = Ca::create().unwrap();
    let genuine = node(&ca, 3);
    let mut der = genuine.certificate().to_vec();
    // The last bytes are the signature's.
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = NodeIdentity::new(der.into(), genuine.key().clone_key(), ca.certificate().clone());
    let error = forged.expect_err("a certificate with a changed signature was taken").to_string();
    assert!(error.contains("did not sign"), "{error}");
}

#[test]
fn the_clock_of_a_node_does_not_matter() {
    let ca = Ca::create().unwrap();
    for seconds in [0, 1, 32_503_680_000] {
        let mut joining = join_client_config(ca.fingerprint()).unwrap();
        joining.time_provider = Arc::new(At(seconds));
        let outcome = session(server_config(&ca.issue_master().unwrap()).unwrap(), joining);
        assert_eq!(outcome.master.unwrap(), Peer::Stranger, "at {seconds}");
        let mut joined = node_client_config(&node(&ca, 3)).unwrap();
        joined.time_provider = Arc::new(At(seconds));
        let outcome = session(server_config(&ca.issue_master().unwrap()).unwrap(), joined);
        assert!(matches!(outcome.master.unwrap(), Peer::Node { number: NodeNumber(3), .. }), "at {seconds}");
    }
}

#[test]
fn the_clock_of_the_master_decides() {
    let ca = Ca::create().unwrap();
    let identity = node(&ca, 3);
    let at = |seconds: u64| {
        let mut server = server_config(&ca.issue_master().unwrap()).unwrap();
        server.time_provider = Arc::new(At(seconds));
        session(server, node_client_config(&identity).unwrap())
    };
    assert!(at(now()).master.is_ok());
    assert!(at(now() + NODE_TERM.as_secs() - 60).master.is_ok());
    let late = master_refuses(at(now() + NODE_TERM.as_secs() + 3600));
    assert!(matches!(late, Distrust::Expired { late } if (3590..=3610).contains(&late)), "{late}");
    let early = master_refuses(at(0));
    assert!(matches!(early, Distrust::NotYetValid { .. }), "{early}");
}

#[test]
fn an_older_tls_is_not_spoken() {
    let ca = Ca::create().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = server_config(&ca.issue_master().unwrap()).unwrap();
    let master = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(server)).unwrap(), socket);
        tls.read(&mut [0]).expect_err("a handshake without TLS 1.3 went through").to_string()
    });
    // A TLS 1.2 ClientHello: record and handshake headers, version, random, no session, one cipher suite, no compression,
    // one extension (ECDSA with P-256 and SHA-256).
    let mut hello = vec![0x16, 3, 1, 0, 55, 1, 0, 0, 51, 3, 3];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    TcpStream::connect(address).unwrap().write_all(&hello).unwrap();
    let error = master.join().unwrap();
    assert_eq!(error, "peer is incompatible: SupportedVersionsExtensionRequired");
}

#[test]
fn a_saved_ca_is_the_same_ca() {
    let ca = Ca::create().unwrap();
    let certificate = ghost_trust::pem_file::write_certificate(ca.certificate());
    let again = Ca::load(&certificate, &ca.key_pem()).unwrap();
    assert_eq!((again.fingerprint(), again.cluster()), (ca.fingerprint(), ca.cluster()));
    let outcome =
        session(server_config(&again.issue_master().unwrap()).unwrap(), node_client_config(&node(&ca, 1)).unwrap());
    assert!(outcome.master.is_ok() && outcome.client.is_ok());
    let other = Ca::create().unwrap();
    assert!(Ca::load(&certificate, &other.key_pem()).is_err(), "a foreign key was taken");
    assert!(Ca::load("", &ca.key_pem()).is_err());
    assert!(Ca::load(&certificate, &certificate).is_err());
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let ca = Ca::create().unwrap();
    // This one asks to be the master, and a CA.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let uri = ghost_trust::certificate::role_uri(ca.cluster(), Role::Master);
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let request = params.serialize_request(&key).unwrap();
    let issued = ca.issue_node(request.der(), NodeNumber(7), SystemTime::now(), NODE_TERM).unwrap();
    let claims = ghost_trust::certificate::Claims::read(&issued.certificate).unwrap();
    assert_eq!(claims.role, Role::Node(NodeNumber(7)));
    assert_eq!(claims.serial, issued.serial);

    let (mut request, _) = request_certificate().unwrap();
    let last = request.len() - 1;
    request[last] ^= 1;
    assert!(ca.issue_node(&request, NodeNumber(7), SystemTime::now(), NODE_TERM).is_err(), "a bad signature was taken");
    for bad in [&b""[..], b"\x30\x00", &[0; 300], &vec![b'x'; 100_000]] {
        assert!(ca.issue_node(bad, NodeNumber(7), SystemTime::now(), NODE_TERM).is_err());
    }
}

#[test]
fn a_fingerprint_is_of_the_whole_certificate() {
    let ca = Ca::create().unwrap();
    let mut der = ca.certificate().to_vec();
    assert_eq!(Fingerprint::of(&der), ca.fingerprint());
    der[100] ^= 1;
    assert_ne!(Fingerprint::of(&der), ca.fingerprint());
}

/// A node's settings, except that it takes any master.
fn lenient(identity: &NodeIdentity) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_auth_cert(vec![identity.certificate().clone()], identity.key().clone_key())
        .unwrap()
}

/// Takes any master: the hostile or careless client.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
