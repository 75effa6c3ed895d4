//! Certificates and keys as PEM text, for files.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file's text does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no usable {what} in it: {why}")]
pub struct BadPem {
    what: &'static str,
    why: String,
}

/// A certificate as PEM.
pub fn write_certificate(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.as_ref()))
}

/// A private key as PEM: for a file that only root can read.
pub fn write_key(key: &PrivateKeyDer<'_>) -> String {
    let tag = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    pem::encode(&pem::Pem::new(tag, key.secret_der()))
}

/// The first certificate in a file's text.
///
/// # Errors
/// There is none, or it is cut off.
pub fn read_certificate(text: &str) -> Result<CertificateDer<'static>, BadPem> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| BadPem { what: "certificate", why: e.to_string() })
}

/// The first private key in a file's text.
///
/// # Errors
/// There is none, or it is cut off.
pub fn read_key(text: &str) -> Result<PrivateKeyDer<'static>, BadPem> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| BadPem { what: "private key", why: e.to_string() })
}
