//! Join tokens: what a machine must hold to become a node.
//!
//! A token is one line of text:
//! ```text
//! ghostproc-join-1:BASE64URL(id 8 bytes | secret 32 | SHA-256 of the CA certificate 32 | checksum 4)
//! ```
//! The checksum (the first bytes of SHA-256 over the rest) tells a mistyped or cut token from a wrong one. The master
//! keeps only a hash of the secret: who reads its list of tokens cannot join with it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::certificate::Fingerprint;
use crate::random::{self, NoRandom};

const PREFIX: &str = "ghostproc-join-";
const VERSION: &str = "1";
const CHECKSUM: usize = 4;
const LENGTH: usize = 8 + 32 + 32 + CHECKSUM;

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub secret: Secret,
    /// Of the CA that the master must show.
    pub ca: Fingerprint,
}

/// Names a token, in the master's list and in messages; not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TokenId(pub [u8; 8]);

/// The secret part of a token. It is compared in constant time and not shown by `Debug`.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// What the master keeps of a secret.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SecretHash([u8; 32]);

/// Why text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it is empty; a token is the line that `bpctl token` prints on the master")]
    Empty,
    #[error("it is no token; a token begins with `ghostproc-join-1:` and is what `bpctl token` prints on the master")]
    NotAToken,
    #[error("it is of another version; make one with the `bpctl token` of this release")]
    OtherVersion,
    #[error("it is mistyped or cut off; copy the whole line that `bpctl token` printed")]
    Mistyped,
}

impl Token {
    /// A new token for the cluster of this CA.
    ///
    /// # Errors
    /// No random numbers.
    pub fn generate(ca: Fingerprint) -> Result<Token, NoRandom> {
        Ok(Token { id: TokenId(random::bytes()?), secret: Secret(random::bytes()?), ca })
    }
}

impl fmt::Display for Token {
    /// The whole token, secret included: for its one printing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&self.ca.0);
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{VERSION}:{}", URL_SAFE_NO_PAD.encode(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token; blanks and newlines around it do not matter.
    fn from_str(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let (version, body) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or(TokenError::NotAToken)?;
        if version != VERSION {
            return Err(TokenError::OtherVersion);
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Mistyped)?;
        let bytes = <[u8; LENGTH]>::try_from(bytes).map_err(|_| TokenError::Mistyped)?;
        let (content, sum) = bytes.split_at(LENGTH - CHECKSUM);
        if checksum(content) != *sum {
            return Err(TokenError::Mistyped);
        }
        let mut token = Token { id: TokenId([0; 8]), secret: Secret([0; 32]), ca: Fingerprint([0; 32]) };
        token.id.0.copy_from_slice(&content[..8]);
        token.secret.0.copy_from_slice(&content[8..40]);
        token.ca.0.copy_from_slice(&content[40..]);
        Ok(token)
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let digest = Fingerprint::of(content).0;
    [digest[0], digest[1], digest[2], digest[3]]
}

impl Secret {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the master keeps of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl SecretHash {
    fn of(secret: &[u8]) -> SecretHash {
        // The prefix keeps this hash apart from any other use of the same bytes.
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(b"ghostproc join token\0");
        context.update(secret);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        SecretHash(bytes)
    }

    /// Whether `secret`, as a stranger sent it, is the one. Takes the same time whatever is wrong with it.
    pub fn matches(&self, secret: &[u8]) -> bool {
        self.0.ct_eq(&SecretHash::of(secret).0).into()
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &SecretHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> String {
        Fingerprint(hash.0).to_string()
    }
}

impl TryFrom<String> for SecretHash {
    type Error = crate::certificate::NotHex;

    fn try_from(text: String) -> Result<SecretHash, Self::Error> {
        text.parse::<Fingerprint>().map(|bytes| SecretHash(bytes.0))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::certificate::ClusterId(self.0).fmt(f)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for TokenId {
    type Error = crate::certificate::NotHex;

    fn try_from(text: String) -> Result<TokenId, Self::Error> {
        text.parse::<crate::certificate::ClusterId>().map(|bytes| TokenId(bytes.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> Token {
        Token::generate(Fingerprint([7; 32])).unwrap()
    }

    #[test]
    fn the_text_is_one_line_and_survives() {
        let token = token();
        let text = token.to_string();
        assert!(!text.contains(char::is_whitespace));
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!("  {text}\r\n").parse(), Ok(token));
    }

    /// Tokens that have been handed out stay good over releases: these bytes do not change.
    #[test]
    fn the_text_has_the_documented_form() {
        let token = Token { id: TokenId([1; 8]), secret: Secret([2; 32]), ca: Fingerprint([3; 32]) };
        assert_eq!(
            token.to_string(),
            "ghostproc-join-1:AQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDUd3UEw"
        );
        assert_eq!(
            String::from(token.secret.hash()),
            "b83ac76d0ebc87e3806ff04e421257402b8a430ebcfabd192cf96fe3865ac1ba"
        );
    }

    #[test]
    fn debug_output_does_not_tell_the_secret() {
        let token = token();
        let shown = format!("{token:?} {:?}", token.secret.hash());
        assert!(shown.contains("Secret(…)") && shown.contains("SecretHash(…)"), "{shown}");
        assert!(!shown.contains(&Fingerprint(*token.secret.as_bytes()).to_string()));
    }

    #[test]
    fn wrong_texts_are_told_apart() {
        let text = token().to_string();
        assert_eq!("".parse::<Token>(), Err(TokenError::Empty));
        assert_eq!(" \n".parse::<Token>(), Err(TokenError::Empty));
        assert_eq!("hunter2".parse::<Token>(), Err(TokenError::NotAToken));
        assert_eq!(text.replace("join-1", "join-2").parse::<Token>(), Err(TokenError::OtherVersion));
        assert_eq!(text[..text.len() - 1].parse::<Token>(), Err(TokenError::Mistyped));
        assert_eq!(format!("{text}A").parse::<Token>(), Err(TokenError::Mistyped));
        assert_eq!(format!("{text} {text}").parse::<Token>(), Err(TokenError::Mistyped));
    }

    #[test]
    fn a_hash_matches_its_secret_only() {
        let (one, other) = (token(), token());
        assert!(one.secret.hash().matches(one.secret.as_bytes()));
        assert!(!one.secret.hash().matches(other.secret.as_bytes()));
        assert!(!one.secret.hash().matches(b""));
        assert!(!one.secret.hash().matches(&one.secret.as_bytes()[..31]));
    }

    proptest! {
        #[test]
        fn one_changed_character_is_found(position in 17usize..118, letter in "[A-Za-z0-9_-]") {
            let text = token().to_string();
            prop_assume!(position < text.len() && text[position..=position] != letter);
            let mut changed = text.clone();
            changed.replace_range(position..=position, &letter);
            prop_assert_eq!(changed.parse::<Token>(), Err(TokenError::Mistyped));
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in "\\PC{0,200}") {
            prop_assert!(text.parse::<Token>().is_err());
            let with_prefix = format!("ghostproc-join-1:{text}").parse::<Token>();
            prop_assert!(with_prefix.is_err());
        }
    }
}
