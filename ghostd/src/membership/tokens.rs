//! The tokens that are out: what is kept of them, and whether one that comes back is good.
//!
//! A token that has expired or is used up is kept a week longer, so that the reason can be given; then it is unknown.
//! Only somebody who knows the secret learns that reason.

use ghost_proto::ids::NodeNumber;
use ghost_trust::Token;
use ghost_trust::token::{SecretHash, TokenId};
use serde::{Deserialize, Serialize};

use super::refusal::{AdminRefusal, JoinRefusal};

/// Validity unless the administrator says otherwise, in seconds.
pub const DEFAULT_VALIDITY: u64 = 3600;
/// Longest validity, in seconds: ten years.
const MAX_VALIDITY: u64 = 10 * 365 * 86_400;
/// How long a void token is remembered, in seconds.
const REMEMBERED: u64 = 7 * 86_400;
/// The most tokens that are kept.
const MAX_TOKENS: usize = 1000;

/// The list of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub(super) list: Vec<StoredToken>,
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredToken {
    id: TokenId,
    secret_sha256: SecretHash,
    /// In order, each once; empty: any.
    #[serde(with = "super::store::numbers")]
    nodes: Vec<NodeNumber>,
    uses_left: u32,
    /// Seconds since 1970.
    expires: u64,
}

/// A token that came back and is good.
#[derive(Clone, Copy, Debug)]
pub struct GoodToken<'a>(&'a StoredToken);

/// One use of a token, to be spent when it has served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use(TokenId);

impl GoodToken<'_> {
    /// The nodes that it is good for, in order; empty: any.
    pub fn nodes(&self) -> &[NodeNumber] {
        &self.0.nodes
    }

    pub fn into_use(self) -> Use {
        Use(self.0.id)
    }
}

impl Tokens {
    /// Keeps a new token. `uses` 0 means once for every node of the list (once, if the list is empty), `validity` 0 means
    /// [`DEFAULT_VALIDITY`]. Gives the number of uses and the validity in seconds.
    ///
    /// # Errors
    /// Too many tokens are out, or the validity is too long.
    pub fn add(
        &mut self,
        token: &Token,
        nodes: Vec<NodeNumber>,
        uses: u32,
        validity: u64,
        now: u64,
    ) -> Result<(u32, u64), AdminRefusal> {
        self.list.retain(|token| now < token.expires.saturating_add(REMEMBERED));
        if self.list.len() >= MAX_TOKENS {
            // Void ones are remembered for a reason, but not at the price of refusing a new one.
            self.list.retain(|token| now < token.expires && token.uses_left > 0);
        }
        if self.list.len() >= MAX_TOKENS {
            return Err(AdminRefusal::TooManyTokens(self.list.len()));
        }
        let validity = if validity == 0 { DEFAULT_VALIDITY } else { validity };
        if validity > MAX_VALIDITY {
            return Err(AdminRefusal::TooLong(MAX_VALIDITY));
        }
        let each_once = u32::try_from(nodes.len().max(1)).unwrap_or(u32::MAX);
        let uses = if uses == 0 { each_once } else { uses };
        let expires = now.saturating_add(validity);
        self.list.push(StoredToken {
            id: token.id,
            secret_sha256: token.secret.hash(),
            nodes,
            uses_left: uses,
            expires,
        });
        Ok((uses, validity))
    }

    /// Whether a token that a stranger shows is good at `now`.
    ///
    /// # Errors
    /// It is not, with the reason.
    pub fn check(&self, id: &[u8], secret: &[u8], now: u64) -> Result<GoodToken<'_>, JoinRefusal> {
        let token = self.list.iter().find(|token| token.id.0 == *id).ok_or(JoinRefusal::UnknownToken)?;
        let id = token.id;
        // The secret first: who does not know it learns nothing about the token.
        if !token.secret_sha256.matches(secret) {
            return Err(JoinRefusal::WrongSecret { id });
        }
        if now >= token.expires {
            return Err(JoinRefusal::Expired { id, ago: now - token.expires });
        }
        if token.uses_left == 0 {
            return Err(JoinRefusal::UsedUp { id });
        }
        Ok(GoodToken(token))
    }

    /// Takes one use off.
    pub fn spend(&mut self, spent: &Use) {
        if let Some(token) = self.list.iter_mut().find(|token| token.id == spent.0) {
            token.uses_left = token.uses_left.saturating_sub(1);
        }
    }
}
