//! The keys by which nodes know each other in WireGuard: those of their leases.
//!
//! A node's ed25519 key pair and an X25519 one are the same numbers, on two forms of one curve
//! (RFC 7748, section 4.1), so that whoever knows a node's lease knows its WireGuard key, and no
//! second key has to be made, kept and published. That one pair does for both is shown in E.
//! Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM" (2021).

use super::peer;
use crate::ports::network::{PrivateKey, PublicKey};
use ed25519_dalek::SigningKey;

pub fn private_key(key: &SigningKey) -> PrivateKey {
    PrivateKey(key.to_scalar_bytes())
}

/// A machine's pair, of the seed it was configured with.
pub fn pair(seed: &[u8; 32]) -> Option<(PrivateKey, PublicKey)> {
    let key = SigningKey::from_bytes(seed);
    Some((private_key(&key), public_key(&peer::key_text(&key))?))
}

/// Of a public key as Subnet objects hold it (64 hexadecimal digits). `None`: it is none, or one
/// of the few whose secrets anybody can compute.
pub fn public_key(text: &str) -> Option<PublicKey> {
    let key = peer::parse_key(text).filter(|key| !key.is_weak())?;
    Some(PublicKey(key.to_montgomery().to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What X25519 is for: both ends compute one secret, each with its own private half.
    #[test]
    fn both_ends_agree_on_a_secret() {
        let ends = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]));
        let secret = |mine: &SigningKey, theirs: &SigningKey| {
            let PrivateKey(mine) = private_key(mine);
            theirs.verifying_key().to_montgomery().mul_clamped(mine).to_bytes()
        };
        assert_eq!(secret(&ends[0], &ends[1]), secret(&ends[1], &ends[0]));
        for end in &ends {
            assert_eq!(Some(private_key(end).public_key()), public_key(&peer::key_text(end)));
        }
        let named = ends.map(|key| public_key(&peer::key_text(&key)).expect("a key"));
        assert_ne!(named[0], named[1]);
    }

    #[test]
    fn what_is_no_key_of_anybodys_is_refused() {
        for text in ["", "not a key", &"0".repeat(64), &format!("01{}", "0".repeat(62))] {
            assert_eq!(public_key(text), None, "{text:?}");
        }
    }
}
