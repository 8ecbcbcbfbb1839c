//! Owners' flat elements (nftables mode), as their table says them: maps, and no chains to walk.
//!
//! What the real table does is in `kubesim_actors::ports::rules::flat`. Its base chains hook in
//! behind iptables' of the same hook and priority, which were there first.

use super::matches::{Key, state, state_of};
use super::walk::Outcome;
use super::{Hook, HookContext};
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::packet::Packet;
use kubesim_actors::ports::rules::flat::{
    FlatKey, FlatSet, FlatValue, Front, List, Policy, Treatment,
};
use kubesim_actors::ports::rules::{AddrType, FlatSettings, Protocol, RejectWith};
use kubesim_runtime::{Rng, Time};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// One owner's table.
#[derive(Clone, Debug)]
pub(super) struct FlatTable {
    pub owner: SmolStr,
    settings: FlatSettings,
    shared: FlatSet,
    /// In the order of their keys.
    local: Arc<[(FlatKey, FlatValue)]>,
    /// Which endpoint a client had for what it wrote, and until when it comes back to it.
    affinity: BTreeMap<(Ipv4Addr, Front), (Ipv4Addr, Time)>,
    /// Somebody has deleted it.
    pub gone: bool,
}

impl FlatTable {
    pub fn new(
        owner: SmolStr,
        settings: FlatSettings,
        shared: FlatSet,
        local: Arc<[(FlatKey, FlatValue)]>,
    ) -> Self {
        FlatTable { owner, settings, shared, local, affinity: BTreeMap::new(), gone: false }
    }

    /// The same table with other elements. What clients had is kept, unless it was deleted.
    pub fn apply(&mut self, mut next: FlatTable) {
        if !self.gone {
            next.affinity = std::mem::take(&mut self.affinity);
        }
        *self = next;
    }

    pub fn is_empty(&self) -> bool {
        self.gone || self.shared.is_empty() && self.local.is_empty()
    }

    /// The shared ones that no local one stands for, then the local ones.
    pub fn elements(&self) -> impl Iterator<Item = (FlatKey, FlatValue)> + '_ {
        let is_local = |key: &FlatKey| self.local.binary_search_by_key(key, |(k, _)| *k).is_ok();
        let shared = self.shared.iter().filter(move |(key, _)| !is_local(key));
        let shared = shared.map(|(key, value)| (*key, *value));
        shared.chain(self.local.iter().copied()).filter(|_| !self.gone)
    }

    /// What tells it from the table of another machine with the same owner: versions of one history
    /// are the same elements.
    pub fn alike(&self) -> [u64; 4] {
        let local = Arc::as_ptr(&self.local).cast::<()>() as u64;
        let local = if self.local.is_empty() { 0 } else { local };
        [self.shared.history(), self.shared.version(), local, u64::from(self.gone)]
    }

    /// Where the treatment of each front may lead.
    pub fn leads(&self) -> impl Iterator<Item = (Front, (Ipv4Addr, u16))> + '_ {
        let treated = self.elements().filter_map(|(key, value)| match (key, value) {
            (FlatKey::Service(front), FlatValue::Treatment(treatment)) => Some((front, treatment)),
            _ => None,
        });
        treated.flat_map(move |(front, treatment)| {
            let (everywhere, here) = match treatment.policy {
                Policy::Inside | Policy::Outside => (treatment.everywhere, 0),
                Policy::InsideLocal => (0, treatment.here),
                Policy::OutsideLocal => (treatment.everywhere, treatment.here),
            };
            let numbers = |list, count| (0..count).map(move |number| (list, number));
            let all = numbers(List::Everywhere, everywhere).chain(numbers(List::Here, here));
            all.filter_map(move |(list, number)| {
                match self.get(FlatKey::Endpoint { front, list, number })? {
                    FlatValue::To(ip, port) => Some((front, (ip, port))),
                    _ => None,
                }
            })
        })
    }

    fn get(&self, key: FlatKey) -> Option<FlatValue> {
        if self.gone {
            return None;
        }
        match self.local.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => Some(self.local[at].1),
            Err(_) => self.shared.get(&key).copied(),
        }
    }

    /// The nat chain of a hook, for the first packet of a connection.
    pub fn nat(
        &mut self,
        hook: Hook,
        packet: &mut Packet,
        dnat: bool,
        context: &HookContext<'_>,
        rng: &mut Rng,
    ) -> Outcome {
        match hook {
            Hook::Prerouting | Hook::Output => self.services(packet, context, rng),
            Hook::Postrouting if packet.mark & self.settings.mark != 0 && !self.gone => {
                packet.mark &= !self.settings.mark;
                Outcome::Masquerade { random_fully: true }
            }
            Hook::Postrouting if dnat && packet.src == packet.dst => {
                match self.get(FlatKey::Hairpin(packet.src)) {
                    Some(_) => Outcome::Masquerade { random_fully: true },
                    None => Outcome::Accept,
                }
            }
            _ => Outcome::Accept,
        }
    }

    /// The filter chain of a hook.
    pub fn filter(&self, hook: Hook, packet: &Packet, context: &HookContext<'_>) -> Outcome {
        let state = state_of(packet.ct);
        if hook == Hook::Forward && state == state::INVALID && !self.gone {
            return Outcome::Drop;
        }
        let asked = matches!(hook, Hook::Input | Hook::Forward | Hook::Output);
        if !asked || state != state::NEW {
            return Outcome::Accept;
        }
        let refused = |front| self.get(FlatKey::Refused(front)).is_some();
        let written = front_of(packet).is_some_and(refused);
        let node_port = || hook == Hook::Input && node_port(packet, context).is_some_and(refused);
        match written || node_port() {
            true => Outcome::Reject(RejectWith::PortUnreachable),
            false => Outcome::Accept,
        }
    }

    fn services(
        &mut self,
        packet: &mut Packet,
        context: &HookContext<'_>,
        rng: &mut Rng,
    ) -> Outcome {
        let fronts = [front_of(packet), node_port(packet, context)];
        let found = fronts.into_iter().flatten().find_map(|front| {
            match self.get(FlatKey::Service(front)) {
                Some(FlatValue::Treatment(treatment)) => Some((front, treatment)),
                _ => None,
            }
        });
        match found {
            Some((front, treatment)) => self.treat(front, treatment, packet, context, rng),
            None => Outcome::Accept,
        }
    }

    fn treat(
        &mut self,
        front: Front,
        treatment: Treatment,
        packet: &mut Packet,
        context: &HookContext<'_>,
        rng: &mut Rng,
    ) -> Outcome {
        let guarded = treatment.guarded && !mutated(Mutant::GuardOpen);
        if guarded && !self.admits(front, packet.src) {
            return Outcome::Drop;
        }
        let pod = self.settings.pods.contains(&packet.src);
        let own = || (context.has_type)(packet.src, AddrType::Local);
        let (list, masquerade) = match treatment.policy {
            Policy::Inside => (List::Everywhere, !pod),
            Policy::InsideLocal => (List::Here, !pod),
            Policy::Outside => (List::Everywhere, true),
            Policy::OutsideLocal if pod => (List::Everywhere, false),
            Policy::OutsideLocal if own() => (List::Everywhere, true),
            Policy::OutsideLocal => (List::Here, false),
        };
        if masquerade {
            packet.mark |= self.settings.mark;
        }
        match self.pick(front, list, treatment, packet, context.now, rng) {
            Some((to, port)) => Outcome::Dnat { to, port: Some(port) },
            None => Outcome::Drop,
        }
    }

    /// Whether one of the front's networks has the address.
    fn admits(&self, front: Front, client: Ipv4Addr) -> bool {
        (0..=32).any(|length| {
            let net = ipnet::Ipv4Net::new_assert(client, length).trunc();
            self.get(FlatKey::Source { front, net }).is_some()
        })
    }

    /// The endpoint that the client had, or any.
    fn pick(
        &mut self,
        front: Front,
        list: List,
        treatment: Treatment,
        packet: &Packet,
        now: Time,
        rng: &mut Rng,
    ) -> Option<(Ipv4Addr, u16)> {
        let count = match list {
            List::Everywhere => treatment.everywhere,
            List::Here => treatment.here,
        };
        if count == 0 {
            return None;
        }
        let client = (packet.src, front_of(packet)?);
        let had = self.affinity.get(&client).filter(|(_, until)| *until > now);
        let sticky = treatment.sticky && !mutated(Mutant::AffinityForgotten);
        let had = had.filter(|_| sticky).and_then(|(ip, _)| {
            let member = FlatKey::Member { front, list, ip: *ip };
            self.get(member)
        });
        let any = || {
            let number = rng.below(u64::from(count)) as u16;
            self.get(FlatKey::Endpoint { front, list, number })
        };
        let Some(FlatValue::To(ip, port)) = had.or_else(any) else { return None };
        if let Some(FlatValue::Seconds(seconds)) = self.get(FlatKey::Sticky(front)) {
            let until = now + Duration::from_secs(u64::from(seconds));
            self.affinity.insert(client, (ip, until));
        }
        Some((ip, port))
    }
}

/// What the client wrote; ICMP has no ports.
fn front_of(packet: &Packet) -> Option<Front> {
    let Key { dst, protocol, ports, .. } = Key::of(packet);
    let (_, port) = ports.filter(|_| protocol != Protocol::Icmp)?;
    Some(Front { ip: Ipv4Addr::from_bits(dst), protocol, port })
}

/// The same as a node port, if it is written to one of this node's addresses.
fn node_port(packet: &Packet, context: &HookContext<'_>) -> Option<Front> {
    let front = front_of(packet).filter(|front| !front.ip.is_loopback())?;
    let local = (context.has_type)(front.ip, AddrType::Local);
    local.then_some(Front { ip: Ipv4Addr::UNSPECIFIED, ..front })
}
