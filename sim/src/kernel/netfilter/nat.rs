//! Network address translation (net/netfilter/nf_nat_core.c, nf_nat_proto.c,
//! nf_nat_masquerade.c): the first packet decides, all later ones follow.

use super::conntrack::Conntrack;
use super::entry::Entry;
use super::family::Filtered;
use super::port::{Range, unique};
use super::tuple::Tuple;
use super::walk::Outcome;
use super::{Hook, HookContext};
use crate::kernel::family::Family;
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::packet::{Ct, Icmp, L4, Packet};
use kubesim_actors::ports::rules::Protocol;
use kubesim_runtime::{Hasher, Rng};

/// Which end a hook rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manip {
    Source,
    Destination,
}

impl Manip {
    /// `HOOK2MANIP`
    pub fn at(hook: Hook) -> Manip {
        match hook {
            Hook::Prerouting | Hook::Output => Manip::Destination,
            Hook::Input | Hook::Postrouting | Hook::Forward => Manip::Source,
        }
    }
    fn other(self) -> Manip {
        match self {
            Manip::Source => Manip::Destination,
            Manip::Destination => Manip::Source,
        }
    }
}

impl<F: Family> Entry<F> {
    fn initialized(&self, manip: Manip) -> bool {
        match manip {
            Manip::Source => self.src_nat_done,
            Manip::Destination => self.dst_nat_done,
        }
    }
    /// Whether a packet of this direction is rewritten at this end. The reply's source is the
    /// original's destination.
    fn rewrites(&self, manip: Manip, reply: bool) -> bool {
        match if reply { manip.other() } else { manip } {
            Manip::Source => self.src_nat,
            Manip::Destination => self.dst_nat,
        }
    }
    fn tuple(&self, reply: bool) -> &Tuple<F> {
        if reply { &self.reply } else { &self.original }
    }
}

/// Whether the nat chains have to be asked for this packet at this hook: only for the packet that
/// opens a connection, and once for each end; but also for the reset that answers it where it was
/// rejected before its end was decided (nf_nat_inet_fn).
pub(super) fn undecided<F: Filtered>(
    conntrack: &Conntrack<F>,
    packet: &Packet<F>,
    hook: Hook,
) -> bool {
    let id = match packet.ct {
        Ct::Entry { id, reply: false, new: true, .. } => id,
        Ct::Entry { id, related: true, .. } if !matches!(packet.l4, L4::Icmp(_)) => id,
        _ => return false,
    };
    let entry = conntrack.get(id);
    let settled = |entry: &Entry<F>| entry.confirmed || entry.dying;
    entry.is_some_and(|entry| !settled(entry) && !entry.initialized(Manip::at(hook)))
}

/// Binds the connection as the nat chains said (`nf_nat_setup_info`). `false`: the packet goes,
/// since the link it leaves by has no address to masquerade with.
pub(super) fn bind<F: Filtered>(
    conntrack: &mut Conntrack<F>,
    packet: &Packet<F>,
    hook: Hook,
    outcome: Outcome<F>,
    context: &HookContext<'_, F>,
    rng: &mut Rng,
) -> bool {
    let Ct::Entry { id, .. } = packet.ct else {
        return true;
    };
    let Some(entry) = conntrack.get(id) else {
        return true;
    };
    let manip = Manip::at(hook);
    let before = entry.reply.inverse();
    let mut range = null_range(&before, manip);
    let mut masqueraded = None;
    match (outcome, manip) {
        (Outcome::Dnat { to, port }, Manip::Destination) => {
            let port = port.filter(|_| !mutated(Mutant::DnatKeepsPort));
            range = Range { ip: to, port, random_fully: false };
        }
        (Outcome::Snat { to }, Manip::Source) => range.ip = to,
        // Locally made and without a source yet: not meant to be masqueraded.
        (Outcome::Masquerade { random_fully }, Manip::Source) if before.src != F::UNSPECIFIED => {
            let Some(ip) = (context.masquerade_to)(packet.dst) else {
                return false;
            };
            range = Range { ip, port: None, random_fully };
            masqueraded = context.output.map(link_hash);
        }
        _ => {}
    }
    let own = &entry.original;
    let taken = |tuple: &Tuple<F>| {
        !mutated(Mutant::TakenPort) && conntrack.taken(&tuple.inverse(), own, context.now)
    };
    let kept = conntrack.moved.port(&entry.original, range.ip);
    let after = unique(before, range, manip, kept, taken, rng);
    let Some(entry) = conntrack.get_mut(id) else {
        return true;
    };
    entry.reply = after.inverse();
    let changed = after != before;
    let (original, reply) = (entry.original, entry.reply);
    match manip {
        Manip::Source => {
            entry.src_nat_done = true;
            entry.src_nat |= changed;
            if changed {
                conntrack.moved.insert(id, &original, &reply);
            }
        }
        Manip::Destination => {
            entry.dst_nat_done = true;
            entry.dst_nat |= changed;
        }
    }
    if let (Some(_), Some(entry)) = (masqueraded, conntrack.get_mut(id)) {
        entry.masqueraded = masqueraded;
    }
    true
}

/// No rule said anything: the address stays; a source port still moves if its tuple is taken
/// (`nf_nat_alloc_null_binding`).
fn null_range<F: Family>(before: &Tuple<F>, manip: Manip) -> Range<F> {
    let ip = match manip {
        Manip::Source => before.src,
        Manip::Destination => before.dst,
    };
    Range { ip, port: None, random_fully: false }
}

/// Rewrites a packet as its connection is bound (`nf_nat_packet`). `false`: the packet goes and
/// so does the entry, since what was masqueraded for one link now leaves by another
/// (`nf_nat_oif_changed`).
pub(super) fn translate<F: Filtered>(
    conntrack: &mut Conntrack<F>,
    packet: &mut Packet<F>,
    hook: Hook,
    context: &HookContext<'_, F>,
) -> bool {
    let Ct::Entry { id, reply, .. } = packet.ct else {
        return true;
    };
    let Some(entry) = conntrack.get(id) else {
        return true;
    };
    let manip = Manip::at(hook);
    if let (Some(link), Hook::Postrouting, false) = (entry.masqueraded, hook, reply)
        && context.output.map(link_hash) != Some(link)
    {
        conntrack.kill_id(id, context.now);
        return false;
    }
    if !entry.rewrites(manip, reply) {
        return true;
    }
    // What the packet becomes is what the other direction expects, turned round.
    let other = *entry.tuple(!reply);
    let target = other.inverse();
    if let L4::Icmp(Icmp::Error { about, .. }) = &mut packet.l4 {
        let quoted = *about;
        match manip {
            Manip::Source => {
                (about.dst, about.dport) = (other.dst, other.dport);
                packet.src = target.src;
            }
            Manip::Destination => {
                (about.src, about.sport) = (other.src, other.sport);
                packet.dst = target.dst;
            }
        }
        if about.protocol == Protocol::Icmp {
            (about.sport, about.dport) = (other.sport, 0);
        }
        if F::VERSION == 6 && mutated(Mutant::Icmp6QuoteKept) {
            *about = quoted;
        }
        return true;
    }
    rewrite(packet, &target, manip);
    true
}

fn rewrite<F: Family>(packet: &mut Packet<F>, target: &Tuple<F>, manip: Manip) {
    let (mine, to): (&mut F::Addr, _) = match manip {
        Manip::Source => (&mut packet.src, target.src),
        Manip::Destination => (&mut packet.dst, target.dst),
    };
    *mine = to;
    match (&mut packet.l4, manip) {
        (L4::Tcp(tcp), Manip::Source) => tcp.sport = target.sport,
        (L4::Tcp(tcp), Manip::Destination) => tcp.dport = target.dport,
        (L4::Udp { sport, .. }, Manip::Source) => *sport = target.sport,
        (L4::Udp { dport, .. }, Manip::Destination) => *dport = target.dport,
        (L4::Icmp(Icmp::EchoRequest { id, .. } | Icmp::EchoReply { id, .. }), _) => {
            *id = target.sport;
        }
        (L4::Icmp(Icmp::Error { .. } | Icmp::Discovery(_)), _) => {}
    }
}

/// A link's name, short enough for every entry.
pub(super) fn link_hash(name: &str) -> u32 {
    let mut hasher = Hasher::default();
    hasher.str(name);
    hasher.finish() as u32
}
