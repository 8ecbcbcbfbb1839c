//! `kubesim fidelity --mutant`: the model with a bug in it, and where that has to be seen.

use super::Domain;
use kubesim_sim::kernel::mutants::{Mutant, activate};

/// Each bug with its name and a domain whose cases find it.
pub const ALL: [(Mutant, &str, Domain); 33] = [
    (Mutant::BroadcastGateway, "broadcast-gateway", Domain::Routes),
    (Mutant::NoBroadcastRoute, "no-broadcast-route", Domain::Routes),
    (Mutant::TtlOnePasses, "ttl-one-passes", Domain::Forwarding),
    (Mutant::DfOverlooked, "df-overlooked", Domain::Forwarding),
    (Mutant::GatewayOverlooked, "gateway-overlooked", Domain::Forwarding),
    (Mutant::LocalnetRouted, "localnet-routed", Domain::Forwarding),
    (Mutant::ForwardingForNewLinks, "forwarding-for-new-links", Domain::Forwarding),
    (Mutant::RpFilterOfLinkOnly, "rp-filter-of-link-only", Domain::Forwarding),
    (Mutant::ReturnAccepts, "return-accepts", Domain::IptablesLegacy),
    (Mutant::PortNotNegated, "port-not-negated", Domain::IptablesNft),
    (Mutant::MarkWithoutMask, "mark-without-mask", Domain::IptablesLegacy),
    (Mutant::RelatedIsEstablished, "related-is-established", Domain::IptablesLegacy),
    (Mutant::DnatKeepsPort, "dnat-keeps-port", Domain::IptablesNft),
    (Mutant::TakenPort, "taken-port", Domain::Conntrack),
    (Mutant::IndexOverlooks, "index-overlooks", Domain::IptablesLegacy),
    (Mutant::SynRenews, "syn-renews", Domain::Conntrack),
    (Mutant::UdpStreamAtOnce, "udp-stream-at-once", Domain::Conntrack),
    (Mutant::ResetEndsNothing, "reset-ends-nothing", Domain::Conntrack),
    (Mutant::AffinityForgotten, "affinity-forgotten", Domain::Nftables),
    (Mutant::GuardOpen, "guard-open", Domain::Nftables),
    (Mutant::Hairpin, "hairpin", Domain::Bridge),
    (Mutant::FloodKnown, "flood-known", Domain::Bridge),
    (Mutant::AnyVni, "any-vni", Domain::Vxlan),
    (Mutant::LearnsFromAnnouncements, "learns-from-announcements", Domain::Neighbours),
    (Mutant::IgnoresNothing, "ignores-nothing", Domain::Neighbours),
    (Mutant::NoLocktime, "no-locktime", Domain::Neighbours),
    (Mutant::SubnetOutlivesAddress, "subnet-outlives-address", Domain::Routes6),
    (Mutant::SameForAllIsNoNews, "same-for-all-is-no-news", Domain::Routes6),
    (Mutant::AnyLinkOfMetric, "any-link-of-metric", Domain::Forwarding6),
    (Mutant::LinkLocalForwarded, "link-local-forwarded", Domain::Forwarding6),
    (Mutant::OverrideIgnored, "override-ignored", Domain::Neighbours6),
    (Mutant::DiscoveryTracked, "discovery-tracked", Domain::Ip6tablesLegacy),
    (Mutant::Icmp6QuoteKept, "icmp6-quote-kept", Domain::Ip6tablesNft),
];

/// Puts a bug in; the error names those that there are.
pub fn put_in(name: &str) -> Result<(), String> {
    let known = ALL.iter().find(|(_, known, _)| *known == name);
    let Some((which, ..)) = known else {
        let names: Vec<&str> = ALL.iter().map(|(_, name, _)| *name).collect();
        return Err(format!("no mutant is called {name}; there are {}", names.join(", ")));
    };
    activate(Some(*which));
    Ok(())
}

/// Takes it out again.
pub fn take_out() {
    activate(None);
}
