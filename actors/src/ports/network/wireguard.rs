//! WireGuard (<https://www.wireguard.com/papers/wireguard.pdf>): who may speak through a device is
//! said by keys, and where he is is found out again and again.

use curve25519_dalek::MontgomeryPoint;
use ipnet::Ipv4Net;
use std::fmt;
use std::net::SocketAddrV4;

/// An X25519 public key (RFC 7748): who somebody is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PublicKey(pub [u8; 32]);

/// 64 hexadecimal digits.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Its private half. The kernel clamps it (RFC 7748, section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrivateKey(pub [u8; 32]);

impl PrivateKey {
    pub fn public_key(self) -> PublicKey {
        PublicKey(MontgomeryPoint::mul_base_clamped(self.0).to_bytes())
    }
}

/// What is written down anywhere is no longer private.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wireguard {
    pub private_key: PrivateKey,
    /// UDP.
    pub port: u16,
    pub mtu: u32,
    pub address: Ipv4Net,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireguardPeer {
    pub public_key: PublicKey,
    /// Where it is first looked for; from then on it is where it last spoke from.
    pub endpoint: SocketAddrV4,
    /// What is sent to it, and from where it may send (cryptokey routing).
    pub allowed: Ipv4Net,
}
