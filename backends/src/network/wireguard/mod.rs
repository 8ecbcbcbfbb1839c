//! WireGuard devices: made over rtnetlink, told their keys and peers over their own generic netlink
//! family, which there is once the kernel has its module (a device of this kind loads it).
//!
//! The kernel moves endpoints itself and tells nobody, so what stands is read before each change:
//! one dump, a few hundred bytes a peer.

mod message;
mod plan;

use super::Node;
use super::errno;
use crate::netlink::{self, Messages, Netlink, Refusal};
use kubesim_actors::ports::network::{
    Errno, LinkKind, PrivateKey, PublicKey, Wireguard, WireguardPeer,
};
pub use message::{Change, Device, Standing};
use rtnetlink::LinkWireguard;
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

/// Peers of one message: with some 110 bytes each they have to fit into an attribute's 64 KiB.
const BATCH: usize = 256;

#[derive(Default)]
pub struct Devices {
    socket: Option<Socket>,
    /// The endpoints that were asked for last, by a device's number.
    asked: BTreeMap<u32, plan::Before>,
}

struct Socket {
    netlink: Netlink,
    family: u16,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Devices {
    pub fn forget(&mut self, link: u32) {
        self.asked.remove(&link);
    }

    /// A device of the network namespace in which the first one was read, by its number.
    pub fn read(&mut self, link: u32) -> Result<Device, Errno> {
        let Socket { netlink, family } = self.socket()?;
        message::read(netlink, *family, link).map_err(said)
    }

    fn socket(&mut self) -> Result<&mut Socket, Errno> {
        if self.socket.is_none() {
            self.socket = Some(Socket::open()?);
        }
        self.socket.as_mut().ok_or(Errno::Eopnotsupp)
    }

    fn set_device(&mut self, link: u32, spec: &Wireguard) -> Result<(), Errno> {
        let found = self.read(link)?;
        let key = clamped(spec.private_key);
        if (found.private_key, found.port) == (Some(key), spec.port) {
            return Ok(());
        }
        let Socket { netlink, family } = self.socket()?;
        let mut messages = Messages::default();
        message::put_device(&mut messages, *family, link, key, spec.port);
        netlink.request(&messages, |_| {}).map_err(said)
    }

    fn set_peers(&mut self, link: u32, peers: &[WireguardPeer]) -> Result<(), Errno> {
        // As it was, should anything be refused: then a move is still to be written.
        let before = self.asked.get(&link).cloned().unwrap_or_default();
        let found = self.read(link)?;
        let wanted = plan::wanted(peers, found.public_key);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let changes = plan::difference(&found, &wanted, &before, now);
        let Socket { netlink, family } = self.socket()?;
        let mut messages = Messages::default();
        for some in changes.chunks(BATCH) {
            messages.clear();
            message::put(&mut messages, *family, link, some);
            netlink.request(&messages, |_| {}).map_err(said)?;
        }
        let asked = wanted.values().map(|peer| (peer.public_key, peer.endpoint)).collect();
        self.asked.insert(link, asked);
        Ok(())
    }
}

impl Socket {
    fn open() -> Result<Socket, Errno> {
        let mut netlink = Netlink::open_generic().map_err(|error| errno::from_io(&error))?;
        let family = netlink::family(&mut netlink, message::FAMILY).map_err(|refused| {
            if refused.is_absent() { Errno::Eopnotsupp } else { said(refused) }
        })?;
        Ok(Socket { netlink, family })
    }
}

fn said(refusal: Refusal) -> Errno {
    errno::from_raw(refusal.code)
}

/// As the kernel keeps it (curve25519_clamp_secret, include/crypto/curve25519.h).
fn clamped(PrivateKey(mut key): PrivateKey) -> PrivateKey {
    key[0] &= 248;
    key[31] = key[31] & 127 | 64;
    PrivateKey(key)
}

impl Node {
    /// Key and port come before it is up: a device without a key can shake no hand, and one without
    /// a port would get any.
    pub(super) fn ensure_wireguard(&mut self, name: &str, spec: &Wireguard) -> Result<(), Errno> {
        self.refresh()?;
        match self.mirror.link(name) {
            Some(link) if link.kind == LinkKind::Wireguard => {}
            Some(_) => return Err(Errno::Eexist),
            None => {
                self.create(LinkWireguard::new(name).mtu(spec.mtu).build())?;
            }
        }
        let link = self.known(name)?;
        self.wireguard.set_device(link.index, spec)?;
        self.adjust(&link, None, spec.mtu)?;
        self.only_address(link.index, spec.address)
    }

    pub(super) fn set_wireguard_peers(
        &mut self,
        dev: &str,
        peers: &[WireguardPeer],
    ) -> Result<(), Errno> {
        self.refresh()?;
        let link = self.mirror.link(dev).ok_or(Errno::Enodev)?;
        if link.kind != LinkKind::Wireguard {
            return Err(Errno::Eopnotsupp);
        }
        let index = link.index;
        self.wireguard.set_peers(index, peers)
    }
}

/// A device of the calling thread's network namespace, by its number.
pub fn device(link: u32) -> Result<Device, Errno> {
    Devices::default().read(link)
}

/// The public half of a device's key, as the kernel computed it.
pub fn public_key(link: u32) -> Result<PublicKey, Errno> {
    device(link)?.public_key.ok_or(Errno::Einval)
}
