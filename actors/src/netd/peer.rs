//! What netds tell each other without the API: where a node is now, signed with the node's key.

use crate::objects::Name;
use std::net::Ipv4Addr;

/// UDP port on which netds listen to each other.
pub const PORT: u16 = 7946;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    pub node: Name,
    pub locator: Ipv4Addr,
    pub prefix_length: u8,
    /// The higher generation is the newer one.
    pub generation: u64,
    pub vtep_mac: crate::ports::network::Mac,
    /// Whether the sender wants a statement back.
    pub ask: bool,
}

/// A statement and its ed25519 signature (R and s, 32 bytes each) over its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signed {
    pub statement: Statement,
    pub signature: [[u8; 32]; 2],
}
