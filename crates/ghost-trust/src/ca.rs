//! The cluster's certificate authority: its key, and the certificates it issues.
//!
//! The CA's and the master's certificates do not expire: their keys lie side by side on the master, so an end of their
//! validity would stop the cluster and protect nothing. Who belongs to the cluster is the master's list of serial numbers.
//! Nodes' certificates have a term, as a second line.

use std::time::{Duration, SystemTime};

use ghost_proto::ids::NodeNumber;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::certificate::{ClusterId, Fingerprint, NotOurs, Role, Serial, ca_name, cluster_of_ca, role_uri};
use crate::random::{self, NoRandom};
use crate::tls::MasterIdentity;

const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

/// How far before its issue a node's certificate begins to be valid: the master's clock may be set back a little.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);
/// How long a node's certificate is valid unless the configuration says otherwise: 10 years.
pub const NODE_TERM: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The longest request for a certificate that is looked at, in bytes; one with a P-256 key has some 200.
const MAX_REQUEST: usize = 16 * 1024;

/// The cluster's certificate authority, with its private key.
pub struct Ca {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A node's new certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    pub serial: Serial,
}

/// Why the CA could not be made, read, or would not sign. The texts have their reasons in them: nothing is behind them in a chain.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
    #[error("the CA certificate is not usable: {0}")]
    NotOurs(NotOurs),
    #[error("the CA's file is not usable: {0}")]
    Pem(String),
    #[error("the CA's key and certificate do not belong together")]
    Mismatch,
    #[error("the clock says a time that no certificate can carry")]
    Clock,
    #[error(transparent)]
    Random(#[from] NoRandom),
    #[error("a certificate could not be made: {0}")]
    Make(rcgen::Error),
}

impl From<rcgen::Error> for CaError {
    fn from(why: rcgen::Error) -> CaError {
        CaError::Make(why)
    }
}

impl Ca {
    /// A new CA, of a new cluster.
    ///
    /// # Errors
    /// No random numbers, or the key could not be made.
    pub fn create() -> Result<Ca, CaError> {
        let cluster = ClusterId(random::bytes()?);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = parameters(draw_serial()?);
        params.distinguished_name.push(DnType::CommonName, ca_name(cluster));
        // It signs masters and nodes directly, never another CA.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        let issuer = Issuer::new(params, key);
        Ok(Ca { cluster, certificate, issuer })
    }

    /// The CA from its two files' contents.
    ///
    /// # Errors
    /// One of them is not what it should be, or they do not belong together.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Ca, CaError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|e| CaError::Pem(format!("certificate: {e}")))?;
        let key = KeyPair::from_pem(key_pem).map_err(|e| CaError::Pem(format!("key: {e}")))?;
        let cluster = cluster_of_ca(&certificate).map_err(CaError::NotOurs)?;
        if !contains_key(&certificate, &key) {
            return Err(CaError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Ca { cluster, certificate, issuer })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The private key as PEM: for a file that only root can read.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A new key and certificate for the master.
    ///
    /// # Errors
    /// No random numbers, or the key could not be made.
    pub fn issue_master(&self) -> Result<MasterIdentity, CaError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = parameters(draw_serial()?);
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, "ghostproc master");
        params.subject_alt_names = vec![role_name(self.cluster, Role::Master)?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(MasterIdentity { certificate, key, ca: self.certificate.clone() })
    }

    /// A certificate for node `number` over the key in a signing request, valid for `term` from `now`. Nothing but the
    /// key is taken from the request.
    ///
    /// # Errors
    /// The request is malformed, its signature is not by the key it carries, or its key is of an unsupported kind.
    pub fn issue_node(
        &self,
        request: &[u8],
        number: NodeNumber,
        now: SystemTime,
        term: Duration,
    ) -> Result<Issued, CaError> {
        if request.len() > MAX_REQUEST {
            return Err(CaError::Request(format!("{} bytes, {MAX_REQUEST} are allowed", request.len())));
        }
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|e| CaError::Request(e.to_string()))?;
        let serial = draw_serial()?;
        let mut params = parameters(serial);
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, format!("ghostproc node {number}"));
        params.subject_alt_names = vec![role_name(self.cluster, Role::Node(number))?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date(now.checked_sub(BACKDATE).map_or(EPOCH, |time| time.max(EPOCH)))?;
        params.not_after = date(now.checked_add(term).ok_or(CaError::Clock)?)?;
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?.der().clone();
        Ok(Issued { certificate, serial })
    }
}

/// A signing request for a new key: what a node sends to get its certificate, and the key as PKCS #8 DER.
///
/// # Errors
/// No random numbers, or the key could not be made.
pub fn request_certificate() -> Result<(Vec<u8>, PrivateKeyDer<'static>), CaError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let params = CertificateParams::default();
    let request = params.serialize_request(&key)?;
    Ok((request.der().to_vec(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))))
}

/// Parameters that all certificates share: the serial number, and no end of validity (RFC 5280 4.1.2.5).
fn parameters(serial: Serial) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial.0));
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params
}

fn role_name(cluster: ClusterId, role: Role) -> Result<SanType, CaError> {
    Ok(SanType::URI(Ia5String::try_from(role_uri(cluster, role))?))
}

/// A positive number of exactly 16 bytes in DER: the top bit of the first byte is clear, the next one set.
fn draw_serial() -> Result<Serial, NoRandom> {
    let mut bytes: [u8; 16] = random::bytes()?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(Serial(bytes))
}

/// A time as a certificate carries it, in whole seconds.
fn date(time: SystemTime) -> Result<OffsetDateTime, CaError> {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).map_err(|_| CaError::Clock)?,
        Err(_) => return Err(CaError::Clock),
    };
    // Beyond the year 9999 there is no notation: such a term means none.
    let last = rcgen::date_time_ymd(9999, 12, 31);
    Ok(OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(last).min(last))
}

fn contains_key(certificate: &[u8], key: &KeyPair) -> bool {
    use x509_parser::prelude::{FromDer, X509Certificate};
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw(),
        Err(_) => false,
    }
}
