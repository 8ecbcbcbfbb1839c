//! Bugs that can be put into the model on purpose, to see that `kubesim fidelity` finds them. They
//! are there with the feature `mutants` only; in other builds [`mutated`] is `false` to the
//! compiler, and nothing is left of it.

#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicU8, Ordering};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// An on-link gateway may be a broadcast address.
    BroadcastGateway = 1,
    /// A link that goes up gets no broadcast routes.
    NoBroadcastRoute,
    /// A packet with a TTL of one is forwarded.
    TtlOnePasses,
    /// Routers cut up what says that it may not be.
    DfOverlooked,
    /// A gateway's packets are handed to their destination.
    GatewayOverlooked,
    /// `conf.all.forwarding` does not reach links that are there.
    ForwardingForNewLinks,
    /// `rp_filter` of a link counts alone, without that of `all`.
    RpFilterOfLinkOnly,
    /// `RETURN` is taken for `ACCEPT`.
    ReturnAccepts,
    /// `!` before `--dport` is overlooked.
    PortNotNegated,
    /// `MARK` forgets the mask.
    MarkWithoutMask,
    /// What is related counts as established.
    RelatedIsEstablished,
    /// DNAT keeps the port that the client wrote.
    DnatKeepsPort,
    /// A port that is taken is given again.
    TakenPort,
    /// The search of a long chain overlooks rules without an address or a port.
    IndexOverlooks,
    /// Each SYN puts off the end of a connection that nobody answers.
    SynRenews,
    /// The first answer of UDP makes it a stream.
    UdpStreamAtOnce,
    /// A reset does not end a connection that nobody has answered.
    ResetEndsNothing,
    /// A client of a sticky Service gets any endpoint.
    AffinityForgotten,
    /// A guarded front is open to all.
    GuardOpen,
    /// A bridge sends a frame back by the port that it came in by.
    Hairpin,
    /// A bridge floods what it knows the way of.
    FloodKnown,
    /// A tunnel takes what is for another one.
    AnyVni,
    /// Neighbours are learned from whoever announces itself.
    LearnsFromAnnouncements,
    /// `arp_ignore` is not asked.
    IgnoresNothing,
    /// 127.0.0.0/8 is no stranger on any link.
    LocalnetRouted,
    /// An answer within a second of another overwrites it.
    NoLocktime,
    /// Neighbour discovery is a connection.
    DiscoveryTracked,
    /// An ICMPv6 error quotes what was seen here, not what its addressee wrote.
    Icmp6QuoteKept,
    /// Of routes of IPv6 with one metric the link that is wanted is not preferred.
    AnyLinkOfMetric,
    /// The route to a subnet of IPv6 stays when its last address goes.
    SubnetOutlivesAddress,
    /// What comes from a link-local address is forwarded.
    LinkLocalForwarded,
    /// What `conf.all` of IPv6 has already is not carried to links again.
    SameForAllIsNoNews,
    /// Whatever an advertisement says overrides what is known.
    OverrideIgnored,
}

/// Whether this bug is in.
#[cfg(feature = "mutants")]
pub(super) fn mutated(which: Mutant) -> bool {
    ACTIVE.load(Ordering::Relaxed) == which as u8
}
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(super) const fn mutated(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// From now on this bug is in, in the whole process; or none.
#[cfg(feature = "mutants")]
pub fn activate(which: Option<Mutant>) {
    ACTIVE.store(which.map_or(0, |which| which as u8), Ordering::Relaxed);
}
