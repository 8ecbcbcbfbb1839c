//! The two families of IP as types. What Linux has once for both, as the neighbour core, conntrack
//! and xtables, is written once here for any `F: Family`; what it has twice stands twice.

use super::packet::{Discovery, Icmp6Error, IcmpError};
use kubesim_actors::ports::rules::Address;
use kubesim_runtime::Hasher;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

/// IPv4 (RFC 791) or IPv6 (RFC 8200), and no other.
pub trait Family: sealed::Sealed + Copy + Debug + Eq + 'static {
    type Addr: Address;
    /// What its ICMP complains of.
    type Error: Copy + Debug + Display + Eq + Hash + Serialize + DeserializeOwned;
    /// How a host is asked for its MAC address in ICMP. Of IPv4 there is no such message: that is
    /// ARP's.
    type Discovery: Clone + Debug + Eq + Serialize + DeserializeOwned;

    /// The same as a version.
    const VERSION: u8;
    /// Bits of an address.
    const BITS: u8;
    /// Bytes of a header without options.
    const HEADER: u32;
    /// The number of its ICMP among the protocols.
    const ICMP: u8;
    const UNSPECIFIED: Self::Addr;

    fn to_bits(address: Self::Addr) -> u128;
    /// The lower [`Family::BITS`] count.
    fn from_bits(bits: u128) -> Self::Addr;
    fn is_multicast(address: Self::Addr) -> bool;
    fn is_loopback(address: Self::Addr) -> bool;

    /// What two addresses add to a digest.
    fn digest_pair(a: Self::Addr, b: Self::Addr, hasher: &mut Hasher);
    /// What a small number and an address add to a digest.
    fn digest_one(number: u32, address: Self::Addr, hasher: &mut Hasher);
    fn digest_discovery(message: &Self::Discovery, hasher: &mut Hasher);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum V4 {}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum V6 {}

/// What ICMP never says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nothing {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::V4 {}
    impl Sealed for super::V6 {}
}

impl Family for V4 {
    type Addr = Ipv4Addr;
    type Error = IcmpError;
    type Discovery = Nothing;

    const VERSION: u8 = 4;
    const BITS: u8 = 32;
    const HEADER: u32 = 20;
    const ICMP: u8 = 1;
    const UNSPECIFIED: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn to_bits(address: Ipv4Addr) -> u128 {
        address.to_bits().into()
    }
    fn from_bits(bits: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(bits as u32)
    }
    fn is_multicast(address: Ipv4Addr) -> bool {
        address.is_multicast()
    }
    fn is_loopback(address: Ipv4Addr) -> bool {
        address.is_loopback()
    }
    fn digest_pair(a: Ipv4Addr, b: Ipv4Addr, hasher: &mut Hasher) {
        Self::digest_one(a.to_bits(), b, hasher);
    }
    fn digest_one(number: u32, address: Ipv4Addr, hasher: &mut Hasher) {
        hasher.u64(u64::from(number) << 32 | u64::from(address.to_bits()));
    }
    fn digest_discovery(message: &Nothing, _: &mut Hasher) {
        match *message {}
    }
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    type Error = Icmp6Error;
    type Discovery = Discovery;

    const VERSION: u8 = 6;
    const BITS: u8 = 128;
    const HEADER: u32 = 40;
    const ICMP: u8 = 58;
    const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

    fn to_bits(address: Ipv6Addr) -> u128 {
        address.to_bits()
    }
    fn from_bits(bits: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(bits)
    }
    fn is_multicast(address: Ipv6Addr) -> bool {
        address.is_multicast()
    }
    fn is_loopback(address: Ipv6Addr) -> bool {
        address.is_loopback()
    }
    fn digest_pair(a: Ipv6Addr, b: Ipv6Addr, hasher: &mut Hasher) {
        for bits in [a.to_bits(), b.to_bits()] {
            hasher.u64((bits >> 64) as u64);
            hasher.u64(bits as u64);
        }
    }
    fn digest_one(number: u32, address: Ipv6Addr, hasher: &mut Hasher) {
        Self::digest_pair(Ipv6Addr::from_bits(number.into()), address, hasher);
    }
    fn digest_discovery(message: &Discovery, hasher: &mut Hasher) {
        Self::digest_one(message.kind().into(), message.target(), hasher);
        let mac = message.link_address().map_or(0, |mac| mac.bits() + 1);
        hasher.u64(mac << 8 | u64::from(message.flags()));
    }
}
