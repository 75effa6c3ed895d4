//! Judging a peer's certificate, and saying why it is not trusted.
//!
//! The same four questions for both roles: did this cluster's CA sign it directly; does its extended key usage fit; does it
//! name the role; is it valid in time. The last one is asked on the master only. On a node the certificate is judged at the
//! instant its own validity begins, whatever the node's clock says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{Claims, ClusterId, Fingerprint, NotOurs, Role, cluster_of_ca};

/// Why a peer's certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    #[error("the certificate was not issued by this cluster's CA, but for cluster {0}")]
    OtherCluster(ClusterId),
    #[error("the certificate claims to be of this cluster, but its CA did not sign it")]
    Forged,
    #[error("the certificate is not valid yet: this host's clock is {early} s behind its beginning")]
    NotYetValid { early: i64 },
    #[error("the certificate expired {late} s ago by this host's clock")]
    Expired { late: i64 },
    #[error("the certificate is the {found}'s, it does not serve as that of {wanted}")]
    WrongRole { found: Role, wanted: &'static str },
    #[error("the master's certificate comes without that of its CA")]
    NoCa,
    #[error("the master's CA is not the one that the token names: it has the fingerprint {found}")]
    OtherCa { found: Fingerprint },
    #[error("the certificate is not acceptable: {0}")]
    Chain(String),
}

impl Distrust {
    fn into_tls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }

    /// The reason inside a handshake's error, if the handshake failed by one of these.
    pub fn of_tls(error: &rustls::Error) -> Option<&Distrust> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
            _ => None,
        }
    }

    /// The reason inside the I/O error with which a TLS stream reports a failed handshake.
    pub fn of_io(error: &std::io::Error) -> Option<&Distrust> {
        Distrust::of_tls(error.get_ref()?.downcast_ref()?)
    }
}

/// Whether the other end has broken the connection off without a word, as one does that does not take this end's certificate (and tells
/// its own log why): the kernel calls it a reset where that end had not read all.
pub fn is_broken_off(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset)
}

/// A CA that this end trusts.
#[derive(Clone)]
pub(crate) struct TrustedCa {
    certificate: CertificateDer<'static>,
    cluster: ClusterId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl TrustedCa {
    pub(crate) fn new(certificate: CertificateDer<'static>, provider: &CryptoProvider) -> Result<TrustedCa, NotOurs> {
        let cluster = cluster_of_ca(&certificate)?;
        webpki::anchor_from_trusted_cert(&certificate).map_err(|e| NotOurs::Malformed(e.to_string()))?;
        Ok(TrustedCa { certificate, cluster, algorithms: provider.signature_verification_algorithms })
    }

    /// Judges a certificate in everything but its role's number; `now` absent: not in time either.
    pub(crate) fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        usage: KeyUsage,
        now: Option<UnixTime>,
    ) -> Result<Claims, Distrust> {
        let claims = Claims::read(certificate)?;
        if claims.cluster != self.cluster {
            return Err(Distrust::OtherCluster(claims.cluster));
        }
        let seconds = match now {
            Some(now) => i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            None => claims.not_before,
        };
        if seconds < claims.not_before {
            return Err(Distrust::NotYetValid { early: claims.not_before - seconds });
        }
        if seconds > claims.not_after {
            return Err(Distrust::Expired { late: seconds - claims.not_after });
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(0).unsigned_abs()));
        let chain = |e: webpki::Error| Distrust::Chain(e.to_string());
        let anchors = [webpki::anchor_from_trusted_cert(&self.certificate).map_err(chain)?];
        let end = EndEntityCert::try_from(certificate).map_err(chain)?;
        // No intermediates: the CA signs directly.
        let verdict = end.verify_for_usage(self.algorithms.all, &anchors, &[], time, usage, None, None);
        match verdict {
            Ok(_) => Ok(claims),
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => Err(Distrust::Forged),
            Err(other) => Err(chain(other)),
        }
    }
}

impl fmt::Debug for TrustedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedCa({})", self.cluster)
    }
}

/// On a node: is this the master of my cluster?
fn judge_master(ca: &TrustedCa, certificate: &CertificateDer<'_>) -> Result<(), Distrust> {
    // The role first: "it is node 3's" says more than the wrong usage that follows from it.
    if let Claims { role: found @ Role::Node(_), .. } = Claims::read(certificate)? {
        return Err(Distrust::WrongRole { found, wanted: "the master" });
    }
    ca.judge(certificate, KeyUsage::server_auth(), None).map(drop)
}

/// On the master: is this a node of my cluster, by its certificate?
fn judge_node(ca: &TrustedCa, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Distrust> {
    if let Claims { role: found @ Role::Master, .. } = Claims::read(certificate)? {
        return Err(Distrust::WrongRole { found, wanted: "a node" });
    }
    ca.judge(certificate, KeyUsage::client_auth(), Some(now)).map(drop)
}

/// Judges nodes; a peer without a certificate passes, as a stranger.
#[derive(Debug)]
pub(crate) struct NodeVerifier {
    pub(crate) ca: TrustedCa,
}

/// Judges the master by the CA that this node got when it joined.
#[derive(Debug)]
pub(crate) struct MasterVerifier {
    pub(crate) ca: TrustedCa,
}

/// Judges the master by the fingerprint of the CA that it shows along with its certificate.
#[derive(Debug)]
pub(crate) struct FingerprintVerifier {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for NodeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        judge_node(&self.ca, end_entity, now).map_err(Distrust::into_tls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.ca.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.ca.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for MasterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        judge_master(&self.ca, end_entity).map_err(Distrust::into_tls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.ca.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.ca.algorithms.supported_schemes()
    }
}

impl FingerprintVerifier {
    fn judge(&self, end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Distrust> {
        let ca =
            others.iter().find(|certificate| Fingerprint::of(certificate) == self.fingerprint).ok_or_else(|| {
                others.last().map_or(Distrust::NoCa, |ca| Distrust::OtherCa { found: Fingerprint::of(ca) })
            })?;
        let ca = TrustedCa::new(ca.clone().into_owned(), &self.provider)?;
        judge_master(&ca, end_entity)
    }
}

impl ServerCertVerifier for FingerprintVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates).map_err(Distrust::into_tls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Both ends offer TLS 1.3 alone, so an older signature is never asked for.
fn only_tls13() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken".to_owned())
}
