//! Which broadcast ARP frames a machine may have a use for.
//!
//! One machine asks, thousands hear it, and one answers. [`Kernel::heeds_arp`] says exactly whom a
//! frame concerns, and reads half a kernel for it; [`ArpInterest`] says it nearly, in 64 bytes.

use super::link::Kind as LinkKind;
use super::packet::Arp;
use super::route::{Fib, Kind};
use super::{Kernel, Mac, Namespace, NsId};
use rustc_hash::FxHashMap;
use std::net::Ipv4Addr;

/// Whom every address belongs to, as the last broadcasts said.
#[derive(Clone, Debug, Default)]
pub struct Announced(FxHashMap<Ipv4Addr, Mac>);

impl Announced {
    /// Notes the sender of a broadcast. True if its MAC address is news to anybody.
    pub fn note(&mut self, arp: &Arp) -> bool {
        self.0.insert(arp.sender_ip, arp.sender_mac) != Some(arp.sender_mac)
    }
}

/// Two filters (B. Bloom, 1970): over a machine's own addresses, and over the neighbours of whom
/// it does not know what was [`Announced`]. An ARP frame that asks for none of the former and
/// comes from none of the latter changes nothing there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArpInterest {
    own: Filter,
    doubtful: Filter,
}

impl ArpInterest {
    /// False is certain: [`Kernel::heeds_arp`] would say the same.
    #[inline]
    pub fn may_heed(&self, arp: &Arp) -> bool {
        self.own.has(arp.target_ip)
            || self.doubtful.has(arp.sender_ip)
            || arp.target_ip.is_loopback()
    }
    /// An address was announced with another MAC address than before.
    pub fn doubt(&mut self, ip: Ipv4Addr) {
        self.doubtful.add(ip);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Filter([u64; 4]);

impl Filter {
    fn bit(ip: Ipv4Addr) -> (usize, u64) {
        let hash = ip.to_bits().wrapping_mul(0x9e37_79b9) >> 24;
        (hash as usize / 64, 1 << (hash % 64))
    }
    fn has(&self, ip: Ipv4Addr) -> bool {
        let (word, bit) = Self::bit(ip);
        self.0[word] & bit != 0
    }
    fn add(&mut self, ip: Ipv4Addr) {
        let (word, bit) = Self::bit(ip);
        self.0[word] |= bit;
    }
}

/// What an interest was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    fib: u32,
    neighbours: u64,
}

impl Kernel {
    /// The host's interest, if it may have changed since the last call.
    #[inline]
    pub fn arp_interest(&mut self, announced: &Announced) -> Option<ArpInterest> {
        let host = self.spaces.get(NsId::HOST)?;
        let basis = Basis { fib: host.fib.generation(), neighbours: host.neighbours.generation() };
        (self.heard != Some(basis)).then(|| {
            self.heard = Some(basis);
            host.arp_interest(announced)
        })
    }
}

impl Namespace {
    fn arp_interest(&self, announced: &Announced) -> ArpInterest {
        let is_card = |dev| self.links.get(dev).is_some_and(|l| matches!(l.kind, LinkKind::Uplink));
        // A frame for a bridge is the bridge's to judge.
        let bridged = self.links.iter().any(|link| is_card(link.index) && link.master.is_some());
        let mut interest = ArpInterest::default();
        match self.fib.local_addresses().filter(|_| !bridged) {
            Some(own) => own.into_iter().for_each(|ip| interest.own.add(ip)),
            None => interest.own = Filter([u64::MAX; 4]),
        }
        for (_, ip, mac) in self.neighbours.known().filter(|(dev, ..)| is_card(*dev)) {
            if mac.is_none() || announced.0.get(&ip).copied() != mac {
                interest.doubtful.add(ip);
            }
        }
        interest
    }
}

impl Fib {
    /// The addresses that are this namespace's own, the loopback network aside. `None` if a whole
    /// network is (`ip route add local`).
    fn local_addresses(&self) -> Option<Vec<Ipv4Addr>> {
        let local = self.local.entries.iter().filter(|entry| entry.kind == Kind::Local);
        let mut addresses = Vec::new();
        for entry in local {
            let ip = Ipv4Addr::from(entry.to);
            match entry.plen {
                32 => addresses.push(ip),
                8.. if ip.is_loopback() => {}
                _ => return None,
            }
        }
        Some(addresses)
    }
}
