//! Randomness from the system, the only kind that keys, serials and secrets are made of.

use crate::identity::IdentityError;

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| IdentityError::crypto("draw random bytes", error))?;
    Ok(bytes)
}
