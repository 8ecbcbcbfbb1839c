//! The matches of a rule, compiled: small, and without names where a number will do.

use super::HookContext;
use super::family::{Bits, Filtered};
use super::recent::RecentLists;
use crate::kernel::family::{Family, V4};
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::packet::{Ct, L4, Packet};
use kubesim_actors::ports::rules::{AddrType, Address, CtStates, Match, Protocol};
use kubesim_runtime::Rng;
use smol_str::SmolStr;

/// What rules look at, taken from the packet once per table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<F: Family = V4> {
    pub src: Bits<F>,
    pub dst: Bits<F>,
    pub protocol: Protocol,
    /// `None` for ICMP: port matches never hold there.
    pub ports: Option<(u16, u16)>,
}

impl<F: Family> Key<F> {
    pub fn of(packet: &Packet<F>) -> Key<F> {
        let ports = match &packet.l4 {
            L4::Tcp(tcp) => Some((tcp.sport, tcp.dport)),
            L4::Udp { sport, dport } => Some((*sport, *dport)),
            L4::Icmp(_) => None,
        };
        let (src, dst) = (packet.src.bits(), packet.dst.bits());
        Key { src, dst, protocol: packet.protocol(), ports }
    }
}

/// `--ctstate` as bits (`XT_CONNTRACK_STATE_BIT`).
pub(super) mod state {
    pub const NEW: u8 = 1;
    pub const ESTABLISHED: u8 = 2;
    pub const RELATED: u8 = 4;
    pub const INVALID: u8 = 8;
    pub const UNTRACKED: u8 = 16;
}

/// The one state a packet is in. Without conntrack it is INVALID (xt_conntrack.c).
pub(super) fn state_of(ct: Ct) -> u8 {
    match ct {
        Ct::Untracked => state::UNTRACKED,
        Ct::None | Ct::Invalid | Ct::Attached => state::INVALID,
        Ct::Entry { related: true, .. } if mutated(Mutant::RelatedIsEstablished) => {
            state::ESTABLISHED
        }
        Ct::Entry { related: true, .. } => state::RELATED,
        Ct::Entry { new: true, .. } => state::NEW,
        Ct::Entry { .. } => state::ESTABLISHED,
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test<F: Family = V4> {
    Source { addr: Bits<F>, mask: Bits<F>, not: bool },
    Destination { addr: Bits<F>, mask: Bits<F>, not: bool },
    InInterface { name: SmolStr, not: bool },
    OutInterface { name: SmolStr, not: bool },
    Protocol { is: Protocol, not: bool },
    SourcePort { from: u16, to: u16, not: bool },
    DestinationPort { from: u16, to: u16, not: bool },
    Mark { value: u32, mask: u32, not: bool },
    SourceType { is: AddrType, not: bool },
    DestinationType { is: AddrType, not: bool },
    PhysdevIsIn { not: bool },
    Random { probability: u32 },
    RecentCheck { name: SmolStr, seconds: u32 },
    RecentSet { name: SmolStr },
    CtState { any: u8, not: bool },
    CtDnat,
}

impl<F: Family> Test<F> {
    /// `None` for what only people read.
    pub fn compile(from: &Match<F::Addr>) -> Option<Test<F>> {
        Some(match from {
            // A rule with another match is refused before it is walked.
            Match::Comment(_) | Match::Other(_) => return None,
            Match::Protocol { is, not } => Test::Protocol { is: *is, not: *not },
            Match::Source { net, not } => {
                let (addr, mask) = F::Addr::network(*net);
                Test::Source { addr: addr.bits(), mask: mask.bits(), not: *not }
            }
            Match::Destination { net, not } => {
                let (addr, mask) = F::Addr::network(*net);
                Test::Destination { addr: addr.bits(), mask: mask.bits(), not: *not }
            }
            Match::SourcePort { from, to, not } => {
                Test::SourcePort { from: *from, to: *to, not: *not }
            }
            Match::DestinationPort { from, to, not } => {
                Test::DestinationPort { from: *from, to: *to, not: *not }
            }
            Match::InInterface { name, not } => Test::InInterface { name: name.clone(), not: *not },
            Match::OutInterface { name, not } => {
                Test::OutInterface { name: name.clone(), not: *not }
            }
            Match::Mark { value, mask, not } => {
                Test::Mark { value: *value, mask: *mask, not: *not }
            }
            Match::SourceType { is, not } => Test::SourceType { is: *is, not: *not },
            Match::DestinationType { is, not } => Test::DestinationType { is: *is, not: *not },
            Match::PhysdevIsIn { not } => Test::PhysdevIsIn { not: *not },
            Match::Random { probability } => Test::Random { probability: *probability },
            Match::RecentCheck { name, seconds } => {
                Test::RecentCheck { name: name.clone(), seconds: *seconds }
            }
            Match::RecentSet { name } => Test::RecentSet { name: name.clone() },
            Match::CtState { any, not } => Test::CtState { any: state_bits(any), not: *not },
            Match::CtDnat => Test::CtDnat,
        })
    }

    /// The fields of `struct ipt_ip`: the kernel compares them before any extension
    /// (`ip_packet_match`, net/ipv4/netfilter/ip_tables.c).
    pub fn is_header(&self) -> bool {
        matches!(
            self,
            Test::Source { .. }
                | Test::Destination { .. }
                | Test::InInterface { .. }
                | Test::OutInterface { .. }
                | Test::Protocol { .. }
        )
    }

    /// Asking draws dice or changes a list, so it must happen exactly when the kernel would ask.
    pub fn has_side_effect(&self) -> bool {
        matches!(self, Test::Random { .. } | Test::RecentCheck { .. } | Test::RecentSet { .. })
    }

    pub fn needs_conntrack(&self) -> bool {
        matches!(self, Test::CtState { .. } | Test::CtDnat)
    }

    pub fn recent_name(&self) -> Option<&SmolStr> {
        match self {
            Test::RecentCheck { name, .. } | Test::RecentSet { name } => Some(name),
            _ => None,
        }
    }
}

fn state_bits(any: &CtStates) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    bit(any.new, state::NEW)
        | bit(any.established, state::ESTABLISHED)
        | bit(any.related, state::RELATED)
        | bit(any.invalid, state::INVALID)
        | bit(any.untracked, state::UNTRACKED)
}

/// What a test may see and touch.
pub(super) struct Scene<'a, F: Family = V4> {
    pub key: Key<F>,
    pub mark: u32,
    /// One bit of [`state`].
    pub state: u8,
    /// Conntrack has not seen it.
    pub untouched: bool,
    /// The entry has `IPS_DST_NAT`.
    pub dnat: bool,
    pub context: &'a HookContext<'a, F>,
    pub recent: &'a mut RecentLists<F>,
    pub rng: &'a mut Rng,
}

impl<F: Filtered> Scene<'_, F> {
    #[inline]
    pub fn holds(&mut self, test: &Test<F>) -> bool {
        match test {
            Test::Source { addr, mask, not } => (self.key.src & *mask == *addr) != *not,
            Test::Destination { addr, mask, not } => (self.key.dst & *mask == *addr) != *not,
            Test::Protocol { is, not } => (self.key.protocol == *is) != *not,
            Test::SourcePort { from, to, not } => match self.key.ports {
                Some((port, _)) => (*from <= port && port <= *to) != *not,
                None => false,
            },
            Test::DestinationPort { from, to, not } => match self.key.ports {
                Some((_, port)) => {
                    let not = *not && !mutated(Mutant::PortNotNegated);
                    (*from <= port && port <= *to) != not
                }
                None => false,
            },
            Test::Mark { value, mask, not } => (self.mark & mask == *value) != *not,
            Test::CtState { any, not } => (self.state & any != 0) != *not,
            Test::CtDnat => self.dnat,
            Test::InInterface { name, not } => interface_is(self.context.input, name) != *not,
            Test::OutInterface { name, not } => interface_is(self.context.output, name) != *not,
            Test::SourceType { is, not } => {
                (self.context.has_type)(F::Addr::of(self.key.src), *is) != *not
            }
            Test::DestinationType { is, not } => {
                (self.context.has_type)(F::Addr::of(self.key.dst), *is) != *not
            }
            Test::PhysdevIsIn { not } => self.context.physdev_in != *not,
            // The kernel compares 31 random bits with the threshold (xt_statistic.c).
            Test::Random { probability } => ((self.rng.u64() >> 33) as u32) < *probability,
            Test::RecentCheck { name, seconds } => {
                self.recent.check(name, self.key.src, *seconds, self.context.now)
            }
            Test::RecentSet { name } => {
                self.recent.set(name, self.key.src, self.context.now);
                true
            }
        }
    }
}

/// A packet without a device compares as one with an empty name; a trailing `+` is a prefix match.
pub(super) fn interface_is(device: Option<&str>, pattern: &str) -> bool {
    let device = device.unwrap_or("");
    match pattern.strip_suffix('+') {
        Some(prefix) => device.starts_with(prefix),
        None => device == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_a_prefix_and_no_device_has_an_empty_name() {
        assert!(interface_is(Some("veth12"), "veth+"));
        assert!(!interface_is(Some("eth0"), "veth+"));
        assert!(!interface_is(None, "eth0"));
        assert!(interface_is(None, "+"));
    }
}
