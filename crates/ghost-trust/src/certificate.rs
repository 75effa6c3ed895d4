//! What a certificate of the cluster says: cluster, role, serial number, validity.
//!
//! The role stands in a URI among the subject's alternative names:
//! ```text
//! ghostproc:0123456789abcdef:master
//! ghostproc:0123456789abcdef:node:3
//! ```
//! A certificate has exactly one such name; the extended key usage says the same again (server or client
//! authentication), for the TLS library's own checks.

use std::fmt;
use std::str::FromStr;

use ghost_proto::ids::NodeNumber;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const SCHEME: &str = "ghostproc";

/// A cluster's name, drawn at random with its CA: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 8]);

/// A certificate's serial number: 16 random bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Serial(pub [u8; 16]);

/// SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// What the holder of a certificate is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Node(NodeNumber),
}

/// Text that should be a number of fixed length in hexadecimal digits is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not {1} hexadecimal digits")]
pub struct NotHex(pub String, pub usize);

/// The certificate is not one that a cluster's CA issues.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    #[error("the certificate names no role in a cluster (no `ghostproc:` URI)")]
    NoRole,
    #[error("the certificate names more than one role")]
    ManyRoles,
    #[error("the certificate's role `{0}` is unknown")]
    UnknownRole(String),
    #[error("the certificate's serial number does not have 16 bytes")]
    Serial,
}

/// What stands in a certificate. It is an allegation until the signature has been verified ([`crate::verify`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub cluster: ClusterId,
    pub role: Role,
    pub serial: Serial,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

impl Claims {
    /// Reads a certificate.
    ///
    /// # Errors
    /// It is not one that a cluster's CA issues to a master or a node.
    pub fn read(der: &[u8]) -> Result<Claims, NotOurs> {
        let certificate = parse(der)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| NotOurs::Malformed(e.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let mut roles = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(SCHEME)?.strip_prefix(':'),
            _ => None,
        });
        let role = roles.next().ok_or(NotOurs::NoRole)?;
        if roles.next().is_some() {
            return Err(NotOurs::ManyRoles);
        }
        let (cluster, role) = parse_role(role).ok_or_else(|| NotOurs::UnknownRole(role.to_owned()))?;
        let serial = <[u8; 16]>::try_from(certificate.raw_serial()).map_err(|_| NotOurs::Serial)?;
        Ok(Claims {
            cluster,
            role,
            serial: Serial(serial),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

/// The name that stands in a certificate of this role.
pub fn role_uri(cluster: ClusterId, role: Role) -> String {
    format!("{SCHEME}:{cluster}:{role}")
}

/// The cluster that a CA certificate is of: its subject's common name is `ghostproc CLUSTER`.
///
/// # Errors
/// It is not a cluster's CA certificate.
pub fn cluster_of_ca(der: &[u8]) -> Result<ClusterId, NotOurs> {
    let certificate = parse(der)?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).ok_or(NotOurs::NoRole)?;
    name.strip_prefix(SCHEME).and_then(|rest| rest.trim().parse().ok()).ok_or(NotOurs::NoRole)
}

/// The common name of a cluster's CA.
pub(crate) fn ca_name(cluster: ClusterId) -> String {
    format!("{SCHEME} {cluster}")
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, NotOurs> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(NotOurs::Malformed("bytes follow it".to_owned())),
        Err(error) => Err(NotOurs::Malformed(error.to_string())),
    }
}

fn parse_role(text: &str) -> Option<(ClusterId, Role)> {
    let (cluster, role) = text.split_once(':')?;
    let cluster = cluster.parse().ok()?;
    if role == "master" {
        return Some((cluster, Role::Master));
    }
    let digits = role.strip_prefix("node:")?;
    let number = NodeNumber(digits.parse().ok()?);
    // One number has one spelling: "+3" and "03" parse as numbers too.
    let canonical = number.to_string() == digits && number >= NodeNumber(0) && number <= NodeNumber::MAX;
    canonical.then_some((cluster, Role::Node(number)))
}

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of(der: &[u8]) -> Fingerprint {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Fingerprint(bytes)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Master => f.write_str("master"),
            Role::Node(number) => write!(f, "node:{number}"),
        }
    }
}

/// Hexadecimal text both ways for the fixed-length numbers above.
macro_rules! hexadecimal {
    ($name:ident, $bytes:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<$name, NotHex> {
                let not_hex = || NotHex(text.to_owned(), 2 * $bytes);
                if text.len() != 2 * $bytes || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(not_hex());
                }
                let mut bytes = [0; $bytes];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| not_hex())?;
                }
                Ok($name(bytes))
            }
        }
    };
}

hexadecimal!(ClusterId, 8);
hexadecimal!(Serial, 16);
hexadecimal!(Fingerprint, 32);

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.to_string()
    }
}

impl TryFrom<String> for Serial {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Serial, NotHex> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_one_spelling() {
        let cluster = ClusterId([1, 2, 3, 4, 5, 6, 7, 8]);
        for role in [Role::Master, Role::Node(NodeNumber(0)), Role::Node(NodeNumber(65_535))] {
            let uri = role_uri(cluster, role);
            let text = uri.strip_prefix("ghostproc:").unwrap();
            assert_eq!(parse_role(text), Some((cluster, role)));
        }
        for bad in [
            "",
            "0102030405060708",
            "0102030405060708:",
            "0102030405060708:node:",
            "0102030405060708:node:-1",
            "0102030405060708:node:+3",
            "0102030405060708:node:03",
            "0102030405060708:node:65536",
            "0102030405060708:Master",
            "01020304050607:master",
            "010203040506070g:master",
        ] {
            assert_eq!(parse_role(bad), None, "{bad}");
        }
    }

    #[test]
    fn hexadecimal_text_survives() {
        let serial = Serial([0x7f; 16]);
        assert_eq!(serial.to_string().parse(), Ok(serial));
        assert!("7f".parse::<Serial>().is_err());
        assert!("é".repeat(16).parse::<Serial>().is_err());
    }
}
