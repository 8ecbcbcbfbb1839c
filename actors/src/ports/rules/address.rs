//! The addresses of rules: of IPv4 in iptables', of IPv6 in ip6tables'.

use super::{RejectWith, RejectWith6};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::BitAnd;
use std::str::FromStr;

/// An IP address, and what else differs between iptables and ip6tables. Words are those of
/// iptables 1.8 (extensions/libipt_REJECT.c, libip6t_REJECT.c, libxt_NAT.c, libxt_recent.c).
pub trait Address:
    Copy
    + Debug
    + Display
    + Eq
    + Ord
    + Hash
    + FromStr
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    type Net: Copy + Debug + Default + Eq + Hash + Send + Sync + 'static;
    type RejectWith: Copy + Debug + Eq + Hash + Send + Sync + 'static;
    /// An address as a number: what a packet is compared by.
    type Bits: Copy + Debug + Eq + Ord + Hash + BitAnd<Output = Self::Bits> + Send + Sync + 'static;

    /// Who reads and writes the rules.
    const PROGRAM: &'static str;
    /// What `-p` calls its ICMP, and `-m`.
    const ICMP: &'static str;
    const ICMP_MODULE: &'static str;
    /// Each by its name; first what REJECT says where nothing is asked for.
    const REJECTS: &'static [(Self::RejectWith, &'static str)];
    const TCP_RESET: Self::RejectWith;
    /// There are addresses of everybody on a link.
    const BROADCASTS: bool;
    /// A mask of all bits, which is `-m recent`'s unless it says another.
    const WHOLE: Self;

    fn bits(self) -> Self::Bits;
    fn of(bits: Self::Bits) -> Self;
    /// Few bits of an address in which most differ.
    fn folded(bits: Self::Bits) -> u32;
    /// A network's first address and its mask.
    fn network(net: Self::Net) -> (Self, Self);
    /// One address is a network as well.
    fn read_net(word: &str) -> Option<Self::Net>;
    fn write_net(net: Self::Net) -> String;
    /// As NAT's targets have both.
    fn with_port(self, port: u16) -> String;
    /// The address and the port of such a word.
    fn split_port(word: &str) -> (&str, Option<&str>);
}

impl Address for Ipv4Addr {
    type Net = Ipv4Net;
    type RejectWith = RejectWith;
    type Bits = u32;

    const PROGRAM: &'static str = "iptables";
    const ICMP: &'static str = "icmp";
    const ICMP_MODULE: &'static str = "icmp";
    const REJECTS: &'static [(RejectWith, &'static str)] = &[
        (RejectWith::PortUnreachable, "icmp-port-unreachable"),
        (RejectWith::HostUnreachable, "icmp-host-unreachable"),
        (RejectWith::AdminProhibited, "icmp-admin-prohibited"),
        (RejectWith::TcpReset, "tcp-reset"),
    ];
    const TCP_RESET: RejectWith = RejectWith::TcpReset;
    const BROADCASTS: bool = true;
    const WHOLE: Ipv4Addr = Ipv4Addr::BROADCAST;

    fn bits(self) -> u32 {
        self.to_bits()
    }
    fn of(bits: u32) -> Self {
        Ipv4Addr::from_bits(bits)
    }
    fn folded(bits: u32) -> u32 {
        bits
    }
    fn network(net: Ipv4Net) -> (Self, Self) {
        (net.network(), net.netmask())
    }
    fn read_net(word: &str) -> Option<Ipv4Net> {
        let one = word.parse::<Ipv4Addr>().map(Ipv4Net::from);
        one.ok().or_else(|| Some(word.parse::<Ipv4Net>().ok()?.trunc()))
    }
    fn write_net(net: Ipv4Net) -> String {
        net.trunc().to_string()
    }
    fn with_port(self, port: u16) -> String {
        format!("{self}:{port}")
    }
    fn split_port(word: &str) -> (&str, Option<&str>) {
        word.split_once(':').map_or((word, None), |(ip, port)| (ip, Some(port)))
    }
}

impl Address for Ipv6Addr {
    type Net = Ipv6Net;
    type RejectWith = RejectWith6;
    type Bits = u128;

    const PROGRAM: &'static str = "ip6tables";
    const ICMP: &'static str = "ipv6-icmp";
    const ICMP_MODULE: &'static str = "icmp6";
    const REJECTS: &'static [(RejectWith6, &'static str)] = &[
        (RejectWith6::PortUnreachable, "icmp6-port-unreachable"),
        (RejectWith6::NoRoute, "icmp6-no-route"),
        (RejectWith6::AdminProhibited, "icmp6-adm-prohibited"),
        (RejectWith6::AddressUnreachable, "icmp6-addr-unreachable"),
        (RejectWith6::TcpReset, "tcp-reset"),
    ];
    const TCP_RESET: RejectWith6 = RejectWith6::TcpReset;
    const BROADCASTS: bool = false;
    const WHOLE: Ipv6Addr = Ipv6Addr::from_bits(u128::MAX);

    fn bits(self) -> u128 {
        self.to_bits()
    }
    fn of(bits: u128) -> Self {
        Ipv6Addr::from_bits(bits)
    }
    fn folded(bits: u128) -> u32 {
        let halves = (bits >> 64) as u64 ^ bits as u64;
        (halves >> 32) as u32 ^ halves as u32
    }
    fn network(net: Ipv6Net) -> (Self, Self) {
        (net.network(), net.netmask())
    }
    fn read_net(word: &str) -> Option<Ipv6Net> {
        let one = word.parse::<Ipv6Addr>().map(Ipv6Net::from);
        one.ok().or_else(|| Some(word.parse::<Ipv6Net>().ok()?.trunc()))
    }
    fn write_net(net: Ipv6Net) -> String {
        net.trunc().to_string()
    }
    fn with_port(self, port: u16) -> String {
        format!("[{self}]:{port}")
    }
    fn split_port(word: &str) -> (&str, Option<&str>) {
        let inside = word.strip_prefix('[').and_then(|word| word.split_once(']'));
        match inside {
            Some((ip, port)) => (ip, port.strip_prefix(':')),
            None => (word, None),
        }
    }
}
