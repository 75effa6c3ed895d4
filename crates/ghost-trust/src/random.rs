//! Random bytes from the kernel.

use ring::rand::{SecureRandom, SystemRandom};

/// The kernel gave no random bytes (getrandom(2) failed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel gave no random bytes (getrandom)")]
pub struct NoRandom;

/// `N` random bytes.
///
/// # Errors
/// getrandom(2) failed: no kernel that the product runs on does that.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}
