//! What an address says by itself (RFC 4291; net/ipv6/addrconf_core.c, addrlabel.c).

use std::net::Ipv6Addr;

/// How far an address is known, from near to far (RFC 4291, section 2.7).
pub const LINK_LOCAL: i8 = 2;
const SITE_LOCAL: i8 = 5;
const GLOBAL: i8 = 14;
/// Of nobody.
const NONE: i8 = -1;

/// `ipv6_addr_src_scope`: of a group its own scope, of the loopback that of a link.
pub fn scope(ip: Ipv6Addr) -> i8 {
    if ip.is_multicast() {
        return (ip.octets()[1] & 0xf) as i8;
    }
    if ip.is_unspecified() {
        return NONE;
    }
    if ip.is_loopback() || ip.is_unicast_link_local() {
        return LINK_LOCAL;
    }
    if prefix_equal(ip, Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10) {
        return SITE_LOCAL;
    }
    GLOBAL
}

/// `rt6_need_strict`: it means something on one link only.
pub fn is_of_one_link(ip: Ipv6Addr) -> bool {
    ip.is_multicast() || ip.is_unicast_link_local() || ip.is_loopback()
}

/// The default policy table of RFC 6724, section 2.1, as `ip addrlabel` shows it: a longer prefix
/// stands before a shorter one.
const LABELS: [(Ipv6Addr, u8, u8); 10] = [
    (Ipv6Addr::LOCALHOST, 128, 0),
    (Ipv6Addr::UNSPECIFIED, 96, 3),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 4),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 6),
    (Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28, 7),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 12),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 2),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 11),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 5),
    (Ipv6Addr::UNSPECIFIED, 0, 1),
];

/// `ipv6_addr_label`
pub fn label(ip: Ipv6Addr) -> u8 {
    let found = LABELS.iter().find(|(prefix, length, _)| prefix_equal(ip, *prefix, *length));
    found.map_or(1, |(.., label)| *label)
}

/// `ipv6_addr_orchid`: a name in the form of an address (RFC 4843).
pub fn is_orchid(ip: Ipv6Addr) -> bool {
    prefix_equal(ip, Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0), 28)
}

/// How many bits two addresses begin with alike (`ipv6_addr_diff`).
pub fn common_prefix(a: Ipv6Addr, b: Ipv6Addr) -> u8 {
    (a.to_bits() ^ b.to_bits()).leading_zeros() as u8
}

pub fn prefix_equal(a: Ipv6Addr, b: Ipv6Addr, length: u8) -> bool {
    common_prefix(a, b) >= length
}

/// The bits that a prefix of this length leaves to hosts.
pub fn host_bits(length: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

/// The network of an address (`ipv6_addr_prefix`).
pub fn network(ip: Ipv6Addr, length: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(ip.to_bits() & !host_bits(length))
}

/// Whom a question for an address is sent to (RFC 4291, section 2.7.1).
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_says_how_far_it_is_known() {
        let all = ["::", "::1", "fe80::9", "fec0::1", "fd00::1", "2001:db8::1", "ff02::1"];
        assert_eq!(all.map(|text| scope(ip(text))), [-1, 2, 2, 5, 14, 14, 2]);
    }

    #[test]
    fn a_label_is_that_of_the_longest_prefix() {
        let all = ["::1", "::5", "::ffff:1.2.3.4", "2001:0:9::1", "2001:db8::1", "fd00::1"];
        assert_eq!(all.map(|text| label(ip(text))), [0, 3, 4, 6, 1, 5]);
    }

    #[test]
    fn who_is_asked_follows_from_the_last_three_octets() {
        assert_eq!(solicited_node(ip("fd00:1::1234:5678")), ip("ff02::1:ff34:5678"));
        assert_eq!(network(ip("fd00:1::5"), 0), Ipv6Addr::UNSPECIFIED);
        assert_eq!(network(ip("fd00:1::ff"), 121), ip("fd00:1::80"));
        assert_eq!(common_prefix(ip("::1"), ip("::1")), 128);
    }
}
