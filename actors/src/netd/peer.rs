//! What netds tell each other without the API: where a node is now, signed with the node's key.

use crate::objects::Name;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::net::Ipv4Addr;

/// UDP port on which netds listen to each other.
pub const PORT: u16 = 7946;

/// Begins every signed text, so that a signature means nothing elsewhere.
const CONTEXT: &[u8] = b"net.kubesim.dev/statement/v1\0";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    pub node: Name,
    pub locator: Ipv4Addr,
    pub prefix_length: u8,
    /// The higher generation is the newer one.
    pub generation: u64,
    pub vtep_mac: crate::ports::network::Mac,
    pub ask: Ask,
    /// In an answer: the newest generation of the asker that the sender knows; else 0. It tells
    /// the asker that its last move is known, or that its own count fell behind (a lost disk).
    pub heard: u64,
}

/// What the sender of a statement wants of who hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ask {
    /// It is an answer itself.
    Nothing = 0,
    /// A statement back.
    Back = 1,
    /// That too, and that it is passed on, as it is, to the servers: the sender does not find
    /// them any more. They answer it where it says it is.
    Servers = 2,
}

impl std::hash::Hash for Ask {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(*self as u8);
    }
}

/// A statement and its ed25519 signature (R and s, 32 bytes each) over its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signed {
    pub statement: Statement,
    pub signature: [[u8; 32]; 2],
}

impl Statement {
    /// The text that is signed: the context, the name's length and bytes, then every field in
    /// order, big-endian.
    fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CONTEXT.len() + self.node.len() + 40);
        bytes.extend_from_slice(CONTEXT);
        bytes.extend_from_slice(&(self.node.len() as u64).to_be_bytes());
        bytes.extend_from_slice(self.node.as_bytes());
        bytes.extend_from_slice(&self.locator.octets());
        bytes.push(self.prefix_length);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.vtep_mac.0);
        bytes.push(self.ask as u8);
        bytes.extend_from_slice(&self.heard.to_be_bytes());
        bytes
    }

    pub fn sign(self, key: &SigningKey) -> Signed {
        let bytes = key.sign(&self.canonical()).to_bytes();
        let mut signature = [[0; 32]; 2];
        signature[0].copy_from_slice(&bytes[..32]);
        signature[1].copy_from_slice(&bytes[32..]);
        Signed { statement: self, signature }
    }
}

impl Signed {
    /// Whether the holder of `public_key` (64 hex digits) said this.
    pub fn is_by(&self, public_key: &str) -> bool {
        let Some(key) = parse_key(public_key) else {
            return false;
        };
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.signature[0]);
        bytes[32..].copy_from_slice(&self.signature[1]);
        key.verify_strict(&self.statement.canonical(), &Signature::from_bytes(&bytes)).is_ok()
    }
}

/// A public key as Subnet objects hold it: 64 hex digits.
pub fn key_text(key: &SigningKey) -> String {
    key.verifying_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn parse_key(text: &str) -> Option<VerifyingKey> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    VerifyingKey::from_bytes(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::network::Mac;

    fn statement() -> Statement {
        Statement {
            node: "laptop".into(),
            locator: [10, 20, 0, 7].into(),
            prefix_length: 24,
            generation: 3,
            vtep_mac: Mac([2, 0, 0, 0, 0, 1]),
            ask: Ask::Back,
            heard: 0,
        }
    }

    #[test]
    fn only_the_key_holder_and_only_the_same_words_verify() {
        let (mine, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let signed = statement().sign(&mine);
        assert!(signed.is_by(&key_text(&mine)));
        assert!(!signed.is_by(&key_text(&other)));
        assert!(!signed.is_by("not a key"));
        let altered: [fn(&mut Statement); 6] = [
            |s| s.node = "laptoq".into(),
            |s| s.locator = [10, 20, 0, 8].into(),
            |s| s.prefix_length = 16,
            |s| s.generation = 4,
            |s| s.ask = Ask::Servers,
            |s| s.heard = 9,
        ];
        for alter in altered {
            let mut forged = signed.clone();
            alter(&mut forged.statement);
            assert!(!forged.is_by(&key_text(&mine)), "{forged:?}");
        }
    }
}
