//! TLS settings of both ends: version 1.3 only, no resumption, no early data.
//!
//! ```text
//! master                                  peer
//!   server_config                         join_client_config    a machine with a token: shows no certificate
//!                                         node_client_config    a node: shows its certificate
//! ```
//! After the handshake the master asks [`peer_node`] who it is; a stranger may do nothing but join.
//! Sessions are not resumed: each one begins with the certificates, so a revoked node cannot come back by a ticket.

use std::sync::Arc;

use ghost_proto::ids::NodeNumber;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, ServerConfig};
use webpki::KeyUsage;

use crate::certificate::{Claims, Fingerprint, NotOurs, Role, Serial};
use crate::verify::{Distrust, FingerprintVerifier, MasterVerifier, NodeVerifier, TrustedCa};

/// The name that clients send and the protocol's name in the handshake (ALPN): another service on that port is noticed.
const SERVER_NAME: &str = "ghostproc-master";
const PROTOCOL: &[u8] = b"ghostproc/1";

/// The master's certificate, key, and its CA's certificate.
#[derive(Debug)]
pub struct MasterIdentity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub ca: CertificateDer<'static>,
}

/// A node's certificate, key, and its CA's certificate; found to belong together.
#[derive(Debug)]
pub struct NodeIdentity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    ca: CertificateDer<'static>,
    number: NodeNumber,
    serial: Serial,
}

/// Who is at the other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Without a certificate: may ask to join, nothing else.
    Stranger,
    /// With this node's certificate. Whether it is (still) a member is the master's list to say.
    Node { number: NodeNumber, serial: Serial },
}

/// Keys or certificates of this end are unusable. The texts have their reasons in them: nothing is behind them in a chain.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("own certificate: {0}")]
    Own(Distrust),
    #[error("key and certificate do not belong together: {0}")]
    Mismatch(rustls::Error),
    #[error("TLS settings: {0}")]
    Settings(rustls::Error),
}

impl From<Distrust> for TlsError {
    fn from(why: Distrust) -> TlsError {
        TlsError::Own(why)
    }
}

impl From<rustls::Error> for TlsError {
    fn from(why: rustls::Error) -> TlsError {
        TlsError::Settings(why)
    }
}

impl From<NotOurs> for TlsError {
    fn from(error: NotOurs) -> TlsError {
        TlsError::Own(error.into())
    }
}

impl NodeIdentity {
    /// Checks that the certificate is a node's, that the CA signed it, and that it is over this key. The clock is not asked.
    ///
    /// # Errors
    /// One of these does not hold.
    pub fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        ca: CertificateDer<'static>,
    ) -> Result<NodeIdentity, TlsError> {
        let provider = provider();
        let claims = TrustedCa::new(ca.clone(), &provider)?.judge(&certificate, KeyUsage::client_auth(), None)?;
        let number = match claims.role {
            Role::Node(number) => number,
            found @ Role::Master => return Err(Distrust::WrongRole { found, wanted: "a node" }.into()),
        };
        keys_match(&certificate, &key, &provider)?;
        Ok(NodeIdentity { certificate, key, ca, number, serial: claims.serial })
    }

    pub fn number(&self) -> NodeNumber {
        self.number
    }

    pub fn serial(&self) -> Serial {
        self.serial
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }
}

/// The master's side. A peer's certificate is optional, but one that is shown must be a node's of this cluster, valid by
/// this host's clock; otherwise the handshake fails with a [`Distrust`].
///
/// # Errors
/// The identity's parts do not belong together.
pub fn server_config(master: &MasterIdentity) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let ca = TrustedCa::new(master.ca.clone(), &provider)?;
    if let found @ Role::Node(_) = ca.judge(&master.certificate, KeyUsage::server_auth(), None)?.role {
        return Err(Distrust::WrongRole { found, wanted: "the master" }.into());
    }
    keys_match(&master.certificate, &master.key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(NodeVerifier { ca }))
        // The CA's certificate goes along for those who know only its fingerprint.
        .with_single_cert(vec![master.certificate.clone(), master.ca.clone()], master.key.clone_key())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// Who has shown these certificates in a handshake with [`server_config`] (`None` or empty: a stranger).
///
/// # Errors
/// The certificate is no node's; such a one does not get through the handshake.
pub fn peer_node(certificates: Option<&[CertificateDer<'_>]>) -> Result<Peer, Distrust> {
    let Some(certificate) = certificates.and_then(<[_]>::first) else {
        return Ok(Peer::Stranger);
    };
    let claims = Claims::read(certificate)?;
    match claims.role {
        Role::Node(number) => Ok(Peer::Node { number, serial: claims.serial }),
        found @ Role::Master => Err(Distrust::WrongRole { found, wanted: "a node" }),
    }
}

/// The side of a machine that wants to join: accepts exactly the master whose CA has this fingerprint.
///
/// # Errors
/// The TLS library refuses the settings.
pub fn join_client_config(fingerprint: Fingerprint) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = FingerprintVerifier { fingerprint, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(finish_client(config))
}

/// A node's side: accepts exactly the master of its cluster, and shows its own certificate. The clock is not asked.
///
/// # Errors
/// The TLS library refuses the key.
pub fn node_client_config(identity: &NodeIdentity) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = MasterVerifier { ca: TrustedCa::new(identity.ca.clone(), &provider)? };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    Ok(finish_client(config))
}

/// The name to give to the TLS library for the master. It decides nothing: certificates name roles, not hosts.
pub fn server_name() -> ServerName<'static> {
    match ServerName::try_from(SERVER_NAME) {
        Ok(name) => name,
        // Not reached, the name above is a valid one; any name would do as well.
        Err(_) => ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
    }
}

fn finish_client(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = true;
    config
}

fn keys_match(
    certificate: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<(), TlsError> {
    CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), provider).map(drop).map_err(TlsError::Mismatch)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // The client's order decides. 128 bits are beyond any attacker's reach, and a third faster than 256.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}
