//! WireGuard's messages (include/uapi/linux/wireguard.h; what the kernel makes of them:
//! drivers/net/wireguard/netlink.c). Numbers are in the machine's byte order, a port of a
//! `struct sockaddr_in` in the network's.

use crate::netlink::{Attributes, Messages, Netlink, Refusal, Writer, be16, flag, ne16, ne64};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{PrivateKey, PublicKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// `WG_GENL_NAME`
pub const FAMILY: &str = "wireguard";

/// `WG_CMD_*`
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
/// `WGDEVICE_A_*`
const INDEX: u16 = 1;
const PRIVATE_KEY: u16 = 3;
const PUBLIC_KEY: u16 = 4;
const LISTEN_PORT: u16 = 6;
const PEERS: u16 = 8;
/// `WGPEER_A_*`
const PEER_KEY: u16 = 1;
const PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const ENDPOINT: u16 = 4;
const KEEPALIVE: u16 = 5;
const LAST_HANDSHAKE: u16 = 6;
const RECEIVED: u16 = 7;
const SENT: u16 = 8;
const ALLOWED: u16 = 9;
/// `WGALLOWEDIP_A_*`
const FAMILY_OF: u16 = 1;
const ADDRESS: u16 = 2;
const PREFIX_LENGTH: u16 = 3;
/// `WGPEER_F_*`
const REMOVE_ME: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
const UPDATE_ONLY: u32 = 4;

const AF_INET: u16 = 2;

/// A device as it stands in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `None`: it has no key yet.
    pub private_key: Option<PrivateKey>,
    pub public_key: Option<PublicKey>,
    /// 0: not chosen yet.
    pub port: u16,
    pub peers: BTreeMap<PublicKey, Standing>,
}

/// A peer as it stands in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub endpoint: Option<SocketAddrV4>,
    pub allowed: BTreeSet<Ipv4Net>,
    /// It has a preshared key, a keepalive or networks of IPv6, which we give to none.
    pub embellished: bool,
    /// Since the epoch; zero: never.
    pub handshake: Duration,
    /// Bytes of WireGuard's messages, since the peer was made.
    pub received: u64,
    pub sent: u64,
}

/// What is written of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// All there is to it.
    Peer {
        key: PublicKey,
        endpoint: SocketAddrV4,
        allowed: Ipv4Net,
    },
    /// Only where it gets its packets from, and what was added to it goes.
    Allowed {
        key: PublicKey,
        allowed: Ipv4Net,
    },
    Endpoint {
        key: PublicKey,
        endpoint: SocketAddrV4,
    },
    Remove(PublicKey),
}

/// `REMOVE_ME` for what is gone already and `UPDATE_ONLY` for what is not there do nothing.
pub fn put(to: &mut Messages, family: u16, link: u32, changes: &[Change]) {
    set(to, family, link, |message| {
        message.nest(PEERS, |peers| {
            for change in changes {
                peers.nest(0, |peer| change.write(peer));
            }
        });
    });
}

pub fn put_device(to: &mut Messages, family: u16, link: u32, key: PrivateKey, port: u16) {
    set(to, family, link, |message| {
        message.bytes(PRIVATE_KEY, &key.0);
        message.ne16(LISTEN_PORT, port);
    });
}

fn set(to: &mut Messages, family: u16, link: u32, write: impl FnOnce(&mut Writer<'_>)) {
    to.push_generic(family, flag::REQUEST | flag::ACK, SET_DEVICE, |message| {
        message.ne32(INDEX, link);
        write(message);
    });
}

impl Change {
    fn write(&self, peer: &mut Writer<'_>) {
        match *self {
            Change::Peer { key, endpoint, allowed } => {
                peer.bytes(PEER_KEY, &key.0);
                peer.ne32(PEER_FLAGS, REPLACE_ALLOWED);
                write_endpoint(peer, endpoint);
                write_allowed(peer, allowed);
            }
            Change::Allowed { key, allowed } => {
                peer.bytes(PEER_KEY, &key.0);
                peer.ne32(PEER_FLAGS, REPLACE_ALLOWED | UPDATE_ONLY);
                // All zeros: none.
                peer.bytes(PRESHARED_KEY, &[0; 32]);
                peer.ne16(KEEPALIVE, 0);
                write_allowed(peer, allowed);
            }
            Change::Endpoint { key, endpoint } => {
                peer.bytes(PEER_KEY, &key.0);
                peer.ne32(PEER_FLAGS, UPDATE_ONLY);
                write_endpoint(peer, endpoint);
            }
            Change::Remove(key) => {
                peer.bytes(PEER_KEY, &key.0);
                peer.ne32(PEER_FLAGS, REMOVE_ME);
            }
        }
    }
}

/// `struct sockaddr_in`
fn write_endpoint(peer: &mut Writer<'_>, endpoint: SocketAddrV4) {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    bytes[2..4].copy_from_slice(&endpoint.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&endpoint.ip().octets());
    peer.bytes(ENDPOINT, &bytes);
}

fn write_allowed(peer: &mut Writer<'_>, net: Ipv4Net) {
    peer.nest(ALLOWED, |all| {
        all.nest(0, |one| {
            one.ne16(FAMILY_OF, AF_INET);
            one.bytes(ADDRESS, &net.network().octets());
            one.u8(PREFIX_LENGTH, net.prefix_len());
        });
    });
}

/// Everything of a device. `EOPNOTSUPP`: it is of another kind; `ENODEV`: it is not there.
pub fn read(netlink: &mut Netlink, family: u16, link: u32) -> Result<Device, Refusal> {
    let mut messages = Messages::default();
    let flags = flag::REQUEST | flag::DUMP;
    messages.push_generic(family, flags, GET_DEVICE, |m| m.ne32(INDEX, link));
    netlink.dump(&messages, |device: &mut Device, message| {
        device.take_in(Attributes::of(message.body));
    })
}

impl Device {
    /// One part of several: only the first speaks of the device, and a peer with more networks
    /// than fit goes on in the next, as one with a key and networks only.
    fn take_in(&mut self, part: Attributes<'_>) {
        self.private_key = part.get(PRIVATE_KEY).and_then(key).map(PrivateKey).or(self.private_key);
        self.public_key = part.get(PUBLIC_KEY).and_then(key).map(PublicKey).or(self.public_key);
        self.port = part.get(LISTEN_PORT).and_then(ne16).unwrap_or(self.port);
        for (_, bytes) in part.inside(PEERS) {
            let peer = Attributes(bytes);
            let Some(key) = peer.get(PEER_KEY).and_then(key) else { continue };
            self.peers.entry(PublicKey(key)).or_default().take_in(peer);
        }
    }
}

impl Standing {
    fn take_in(&mut self, peer: Attributes<'_>) {
        for (kind, value) in peer {
            match kind {
                PRESHARED_KEY => self.embellished |= value.iter().any(|byte| *byte != 0),
                KEEPALIVE => self.embellished |= ne16(value) != Some(0),
                ENDPOINT => self.endpoint = endpoint(value),
                LAST_HANDSHAKE => self.handshake = time(value).unwrap_or_default(),
                RECEIVED => self.received = count(value),
                SENT => self.sent = count(value),
                ALLOWED => {
                    for (_, bytes) in Attributes(value) {
                        match network(Attributes(bytes)) {
                            Some(net) => drop(self.allowed.insert(net)),
                            None => self.embellished = true,
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn key(value: &[u8]) -> Option<[u8; 32]> {
    value.try_into().ok()
}

fn count(value: &[u8]) -> u64 {
    ne64(value).unwrap_or_default()
}

/// `None` if it is one of IPv6.
fn endpoint(value: &[u8]) -> Option<SocketAddrV4> {
    let family = ne16(value.get(..2)?)?;
    let ip = <[u8; 4]>::try_from(value.get(4..8)?).ok()?;
    let port = be16(value.get(2..4)?)?;
    (family == AF_INET).then(|| SocketAddrV4::new(ip.into(), port))
}

/// `struct __kernel_timespec`: seconds and nanoseconds, 64 bits each.
fn time(value: &[u8]) -> Option<Duration> {
    let word = |at: usize| Some(i64::from_ne_bytes(value.get(at..at + 8)?.try_into().ok()?));
    let (seconds, nanoseconds) = (word(0)?, word(8)?);
    Some(Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?))
}

/// `None` if it is one of IPv6.
fn network(one: Attributes<'_>) -> Option<Ipv4Net> {
    let ip = <[u8; 4]>::try_from(one.get(ADDRESS)?).ok()?;
    let length = *one.get(PREFIX_LENGTH)?.first()?;
    Ipv4Net::new(Ipv4Addr::from(ip), length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut Writer::on(&mut bytes));
        bytes
    }

    /// A peer with many networks is told of in two parts.
    #[test]
    fn parts_are_put_together() {
        let net = |text: &str| text.parse::<Ipv4Net>().expect("a network");
        let at = SocketAddrV4::new([192, 168, 0, 7].into(), 51_820);
        let key = PublicKey([7; 32]);
        let first = bytes(|m| {
            m.bytes(PUBLIC_KEY, &[9; 32]);
            m.ne16(LISTEN_PORT, 51_820);
            m.nest(PEERS, |peers| {
                peers.nest(0, |peer| {
                    Change::Peer { key, endpoint: at, allowed: net("10.244.1.0/24") }.write(peer);
                    peer.bytes(
                        LAST_HANDSHAKE,
                        &[5_i64.to_ne_bytes(), 6_i64.to_ne_bytes()].concat(),
                    );
                });
            });
        });
        let second = bytes(|m| {
            m.nest(PEERS, |peers| {
                peers.nest(0, |peer| {
                    peer.bytes(PEER_KEY, &key.0);
                    write_allowed(peer, net("10.9.0.0/16"));
                });
            });
        });
        let mut device = Device::default();
        device.take_in(Attributes(&first));
        device.take_in(Attributes(&second));
        assert_eq!((device.public_key, device.port), (Some(PublicKey([9; 32])), 51_820));
        let found = &device.peers[&key];
        assert_eq!((found.endpoint, found.embellished), (Some(at), false));
        assert_eq!(found.allowed, BTreeSet::from([net("10.244.1.0/24"), net("10.9.0.0/16")]));
        assert_eq!(found.handshake, Duration::new(5, 6));
    }

    #[test]
    fn what_we_give_to_none_is_seen() {
        for embellish in [
            |peer: &mut Writer<'_>| peer.bytes(PRESHARED_KEY, &[1; 32]),
            |peer: &mut Writer<'_>| peer.ne16(KEEPALIVE, 25),
            |peer: &mut Writer<'_>| {
                peer.nest(ALLOWED, |all| {
                    all.nest(0, |one| {
                        one.bytes(ADDRESS, &[0; 16]);
                        one.u8(PREFIX_LENGTH, 0);
                    });
                });
            },
        ] {
            let mut standing = Standing::default();
            standing.take_in(Attributes(&bytes(embellish)));
            assert!(standing.embellished);
        }
        let mut standing = Standing::default();
        standing.take_in(Attributes(&bytes(|peer| {
            peer.bytes(PRESHARED_KEY, &[0; 32]);
            peer.ne16(KEEPALIVE, 0);
        })));
        assert_eq!(standing, Standing::default());
    }
}
