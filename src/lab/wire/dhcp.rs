//! DHCP in bytes (RFC 2131, options of RFC 2132), as much of it as leases need.

use kubesim_actors::ports::network::Mac;
use kubesim_sim::body::{Dhcp, DhcpKind};
use std::net::Ipv4Addr;
use std::time::Duration;

pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
/// Answer by broadcast: the client has no address yet.
const BROADCAST: u16 = 0x8000;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Up to and without the cookie.
const FIXED: usize = 236;
/// A BOOTP relay drops less (RFC 1542, 2.1).
const LEAST: usize = 300;

const MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const ADDRESS: u8 = 50;
const LEASE: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const PAD: u8 = 0;
const END: u8 = 255;

pub fn is_port(port: u16) -> bool {
    port == SERVER_PORT || port == CLIENT_PORT
}

pub fn encode(message: &Dhcp) -> Vec<u8> {
    let asks = matches!(message.kind, DhcpKind::Discover | DhcpKind::Request | DhcpKind::Release);
    let mut bytes = vec![0; FIXED];
    bytes[0] = if asks { REQUEST } else { REPLY };
    bytes[1] = ETHERNET;
    bytes[2] = 6;
    bytes[4..8].copy_from_slice(&message.transaction.to_be_bytes());
    bytes[10..12].copy_from_slice(&BROADCAST.to_be_bytes());
    if !asks {
        bytes[16..20].copy_from_slice(&message.address.octets());
    }
    bytes[28..34].copy_from_slice(&message.client.0);
    bytes.extend_from_slice(&COOKIE);
    put(&mut bytes, KIND, &[number(message.kind)]);
    if !message.server.is_unspecified() {
        put(&mut bytes, SERVER, &message.server.octets());
    }
    if asks && !message.address.is_unspecified() {
        put(&mut bytes, ADDRESS, &message.address.octets());
    }
    if !asks && message.kind != DhcpKind::Nak {
        let mask =
            u32::MAX.checked_shl(32u32.saturating_sub(message.prefix_length.into())).unwrap_or(0);
        put(&mut bytes, MASK, &mask.to_be_bytes());
        if let Some(router) = message.router {
            put(&mut bytes, ROUTER, &router.octets());
        }
        let servers: Vec<u8> = message.dns.iter().take(60).flat_map(Ipv4Addr::octets).collect();
        if !servers.is_empty() {
            put(&mut bytes, DNS, &servers);
        }
        let lease = u32::try_from(message.lease.as_secs()).unwrap_or(u32::MAX);
        put(&mut bytes, LEASE, &lease.to_be_bytes());
    }
    bytes.push(END);
    bytes.resize(bytes.len().max(LEAST), PAD);
    bytes
}

fn put(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    bytes.extend_from_slice(&[code, value.len() as u8]);
    bytes.extend_from_slice(value);
}

fn number(kind: DhcpKind) -> u8 {
    match kind {
        DhcpKind::Discover => 1,
        DhcpKind::Offer => 2,
        DhcpKind::Request => 3,
        DhcpKind::Ack => 5,
        DhcpKind::Nak => 6,
        DhcpKind::Release => 7,
    }
}

/// `None` for what is no DHCP message, or of a kind that nobody here speaks.
pub fn decode(bytes: &[u8]) -> Option<Dhcp> {
    let fixed = bytes.get(..FIXED)?;
    if bytes.get(FIXED..FIXED + 4)? != COOKIE || fixed[1] != ETHERNET || fixed[2] != 6 {
        return None;
    }
    let mut found = Dhcp {
        kind: DhcpKind::Discover,
        transaction: u32::from_be_bytes(fixed[4..8].try_into().ok()?),
        client: Mac(fixed[28..34].try_into().ok()?),
        address: ip(&fixed[16..20])?,
        prefix_length: 0,
        router: None,
        dns: Vec::new(),
        lease: Duration::ZERO,
        server: Ipv4Addr::UNSPECIFIED,
    };
    let mut kind = None;
    for (code, value) in options(&bytes[FIXED + 4..]) {
        match code {
            KIND => kind = kind_of(*value.first()?),
            MASK => found.prefix_length = u32::from(ip(value)?).leading_ones() as u8,
            ROUTER => found.router = ip(value.get(..4)?),
            DNS => found.dns = value.chunks_exact(4).filter_map(ip).collect(),
            ADDRESS => found.address = ip(value)?,
            LEASE => {
                let seconds = u32::from_be_bytes(value.try_into().ok()?);
                found.lease = Duration::from_secs(seconds.into());
            }
            SERVER => found.server = ip(value)?,
            _ => {}
        }
    }
    found.kind = kind?;
    // A client that renews names its address in `ciaddr` and in no option.
    if found.kind == DhcpKind::Request && found.address.is_unspecified() {
        found.address = ip(&fixed[12..16])?;
    }
    Some(found)
}

fn ip(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn kind_of(number: u8) -> Option<DhcpKind> {
    Some(match number {
        1 => DhcpKind::Discover,
        2 => DhcpKind::Offer,
        3 => DhcpKind::Request,
        5 => DhcpKind::Ack,
        6 => DhcpKind::Nak,
        7 => DhcpKind::Release,
        _ => return None,
    })
}

/// Codes and values up to the end, or to where the bytes end too early.
fn options(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            match *rest {
                [PAD, ..] => rest = &rest[1..],
                [END, ..] | [] | [_] => return None,
                [code, length, ..] => {
                    let value = rest.get(2..2 + usize::from(length))?;
                    rest = &rest[2 + usize::from(length)..];
                    return Some((code, value));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Dhcp {
        Dhcp {
            kind: DhcpKind::Offer,
            transaction: 0x0102_0304,
            client: Mac([2, 0, 0, 0, 0, 9]),
            address: Ipv4Addr::new(10, 20, 0, 50),
            prefix_length: 24,
            router: Some(Ipv4Addr::new(10, 20, 0, 1)),
            dns: vec![Ipv4Addr::new(10, 20, 0, 1), Ipv4Addr::new(9, 9, 9, 9)],
            lease: Duration::from_secs(1800),
            server: Ipv4Addr::new(10, 20, 0, 1),
        }
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        let bytes = encode(&offer());
        assert!(bytes.len() >= LEAST);
        assert_eq!(decode(&bytes), Some(offer()));
        let request = Dhcp {
            kind: DhcpKind::Request,
            prefix_length: 0,
            router: None,
            dns: Vec::new(),
            lease: Duration::ZERO,
            ..offer()
        };
        assert_eq!(decode(&encode(&request)), Some(request));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let bytes = encode(&offer());
        for length in 0..FIXED + 4 + 2 {
            assert_eq!(decode(&bytes[..length]), None, "{length} bytes");
        }
        for length in 0..bytes.len() {
            let _ = decode(&bytes[..length]);
        }
    }
}
