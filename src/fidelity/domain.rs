//! What cases are about, how each is drawn and what it begins with.

use super::dice::Dice;
use super::lan::Lan;
use super::six::Six;
use super::step::{Case, Rules, Setup};
use super::{conntrack, forwarding, iptables, lan, nftables, routes, six, spread};
use kubesim_sim::kernel::family::{V4, V6};
use serde::{Deserialize, Serialize};

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Domain {
    /// Addresses, links, routes and look-ups.
    Routes,
    /// Who forwards what, the TTL, ICMP answers.
    Forwarding,
    /// Rules of all tables, NAT and what it remembers, written by iptables-legacy.
    IptablesLegacy,
    /// The same, written by iptables-nft.
    IptablesNft,
    /// Services as nftables mode writes them.
    Nftables,
    /// The lives of connections.
    Conntrack,
    /// A bridge and what it learns.
    Bridge,
    /// The same through the rules of iptables.
    BridgeFilter,
    /// A tunnel and its tables.
    Vxlan,
    /// ARP, and what is believed of it.
    Neighbours,
    /// Addresses, links, routes and look-ups of IPv6.
    Routes6,
    /// Who forwards what of IPv6, the hop limit, the MTU, ICMPv6.
    Forwarding6,
    /// Neighbour discovery, and what is believed of it.
    Neighbours6,
    /// Rules of all tables and NAT, written by ip6tables-legacy.
    Ip6tablesLegacy,
    /// The same, written by ip6tables-nft.
    Ip6tablesNft,
    /// The lives of connections of IPv6.
    Conntrack6,
}

/// One in so many cases with random backends is played the other way round: what the model did,
/// Linux must do as well.
const REVERSED: u64 = 200;

/// Cases that share their rules.
const BLOCK: u64 = 32;

impl Domain {
    pub const ALL: [Domain; 16] = [
        Domain::Routes,
        Domain::Forwarding,
        Domain::IptablesLegacy,
        Domain::IptablesNft,
        Domain::Nftables,
        Domain::Conntrack,
        Domain::Bridge,
        Domain::BridgeFilter,
        Domain::Vxlan,
        Domain::Neighbours,
        Domain::Routes6,
        Domain::Forwarding6,
        Domain::Neighbours6,
        Domain::Ip6tablesLegacy,
        Domain::Ip6tablesNft,
        Domain::Conntrack6,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Domain::Routes => "routes",
            Domain::Forwarding => "forwarding",
            Domain::IptablesLegacy => "iptables-legacy",
            Domain::IptablesNft => "iptables-nft",
            Domain::Nftables => "nftables",
            Domain::Conntrack => "conntrack",
            Domain::Bridge => "bridge",
            Domain::BridgeFilter => "bridge-filter",
            Domain::Vxlan => "vxlan",
            Domain::Neighbours => "neighbours",
            Domain::Routes6 => "routes6",
            Domain::Forwarding6 => "forwarding6",
            Domain::Neighbours6 => "neighbours6",
            Domain::Ip6tablesLegacy => "ip6tables-legacy",
            Domain::Ip6tablesNft => "ip6tables-nft",
            Domain::Conntrack6 => "conntrack6",
        }
    }

    pub(super) fn case(self, seed: u64, index: u64) -> Case {
        let mut dice = Dice::new(seed, self.name(), index);
        match self {
            Domain::Routes => routes::case(&mut dice),
            Domain::Forwarding => forwarding::case(&mut dice),
            Domain::IptablesLegacy => {
                let rules = iptables::rules::<V4>(&mut dice);
                iptables::case::<V4>(&mut dice, rules)
            }
            Domain::IptablesNft => {
                let rules = iptables::rules::<V4>(&mut self.block(seed, index));
                iptables::case::<V4>(&mut dice, rules)
            }
            Domain::Nftables => {
                let services = nftables::services(&mut self.block(seed, index));
                nftables::case(&mut dice, services, index % BLOCK)
            }
            Domain::Conntrack => conntrack::case::<V4>(&mut dice),
            Domain::Bridge => lan::bridge::case(&mut dice),
            Domain::BridgeFilter => lan::bridge::filtered(&mut dice),
            Domain::Vxlan => lan::vxlan::case(&mut dice),
            Domain::Neighbours => lan::neighbours::case(&mut dice),
            Domain::Routes6 => six::routes::case(&mut dice),
            Domain::Forwarding6 => six::forwarding::case(&mut dice),
            Domain::Neighbours6 => six::neighbours::case(&mut dice),
            Domain::Ip6tablesLegacy => {
                let rules = iptables::rules::<V6>(&mut dice);
                iptables::case::<V6>(&mut dice, rules)
            }
            Domain::Ip6tablesNft => {
                let rules = iptables::rules::<V6>(&mut self.block(seed, index));
                iptables::case::<V6>(&mut dice, rules)
            }
            Domain::Conntrack6 => conntrack::case::<V6>(&mut dice),
        }
    }

    /// What the cases of a block have in common: rules that it takes long to write.
    fn block(self, seed: u64, index: u64) -> Dice {
        Dice::new(seed, &format!("{} rules", self.name()), index / BLOCK)
    }

    /// A case to be played the other way round, where this is one.
    pub(super) fn reversed(self, seed: u64, index: u64) -> Option<Case> {
        if !index.is_multiple_of(REVERSED) {
            return None;
        }
        let mut dice = Dice::new(seed, self.name(), index);
        match self {
            Domain::Nftables => {
                // Another block's, so that all come up.
                let services = nftables::services(&mut self.block(seed ^ index, index));
                Some(nftables::twice(&mut dice, services, index % BLOCK))
            }
            Domain::IptablesLegacy | Domain::IptablesNft => Some(spread::case::<V4>(&mut dice)),
            Domain::Ip6tablesLegacy | Domain::Ip6tablesNft => Some(spread::case::<V6>(&mut dice)),
            _ => None,
        }
    }

    pub(super) fn setup(self) -> Setup {
        match self {
            Domain::Routes | Domain::Forwarding => Setup::Bare,
            Domain::IptablesLegacy | Domain::Conntrack => Setup::Router(Rules::Legacy),
            Domain::IptablesNft => Setup::Router(Rules::Nft),
            Domain::Nftables => Setup::Router(Rules::Flat),
            Domain::Bridge => Setup::Lan(Lan::Bridge),
            Domain::BridgeFilter => Setup::Lan(Lan::Filtered),
            Domain::Vxlan => Setup::Lan(Lan::Vxlan),
            Domain::Neighbours => Setup::Lan(Lan::Neighbours),
            Domain::Routes6 | Domain::Forwarding6 => Setup::Six(Six::Router),
            Domain::Neighbours6 => Setup::Six(Six::Neighbours),
            Domain::Ip6tablesLegacy | Domain::Conntrack6 => {
                Setup::Six(Six::Filtered(Rules::Legacy))
            }
            Domain::Ip6tablesNft => Setup::Six(Six::Filtered(Rules::Nft)),
        }
    }
}
