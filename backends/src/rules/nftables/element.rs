//! Elements as bytes: each field of a key or value fills whole registers of four bytes.

use super::expression::{CHAIN, GOTO, VALUE, VERDICT, write_verdict};
use super::led::{Led, Treated};
use super::schema::{ENDPOINTS, HAIRPIN, MEMBERS, REFUSED, SERVICES, SETS, SOURCES, STICKY};
use crate::netlink::{Attributes, Writer};
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::Protocol;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue, Front, List};
use std::net::Ipv4Addr;

/// `NFTA_SET_ELEM_*`
const KEY: u16 = 1;
const DATA: u16 = 2;
const KEY_END: u16 = 10;

/// At most 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    bytes: [u8; 20],
    length: u8,
}

impl Bytes {
    fn new() -> Self {
        Bytes { bytes: [0; 20], length: 0 }
    }
    fn with(mut self, register: [u8; 4]) -> Self {
        let at = usize::from(self.length);
        self.bytes[at..at + 4].copy_from_slice(&register);
        self.length += 4;
        self
    }
    fn ip(self, ip: Ipv4Addr) -> Self {
        self.with(ip.octets())
    }
    fn port(self, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.with([high, low, 0, 0])
    }
    fn front(self, front: &Front) -> Self {
        self.ip(front.ip).with([number(front.protocol), 0, 0, 0]).port(front.port)
    }
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// `IPPROTO_*`
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    let all = [Protocol::Icmp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| self::number(*protocol) == number)
}

/// The set that a key is in, by its place in [`SETS`].
pub fn set_of(key: &FlatKey) -> usize {
    match key {
        FlatKey::Service(_) => SERVICES,
        FlatKey::Endpoint { list, .. } => ENDPOINTS + *list as usize,
        FlatKey::Member { list, .. } => MEMBERS + *list as usize,
        FlatKey::Sticky(_) => STICKY,
        FlatKey::Source { .. } => SOURCES,
        FlatKey::Refused(_) => REFUSED,
        FlatKey::Hairpin(_) => HAIRPIN,
    }
}

/// The key, and where it is a range its end.
fn key_bytes(key: &FlatKey) -> (Bytes, Option<Bytes>) {
    let new = Bytes::new();
    let one = match key {
        FlatKey::Service(front) | FlatKey::Sticky(front) | FlatKey::Refused(front) => {
            new.front(front)
        }
        // A number that the kernel makes itself is in its own byte order.
        FlatKey::Endpoint { front, number, .. } => {
            new.front(front).with(u32::from(*number).to_ne_bytes())
        }
        FlatKey::Member { front, ip, .. } => new.front(front).ip(*ip),
        FlatKey::Source { front, net } => {
            let end = new.front(front).ip(net.broadcast());
            return (new.front(front).ip(net.network()), Some(end));
        }
        FlatKey::Hairpin(ip) => new.ip(*ip).ip(*ip),
    };
    (one, None)
}

/// The value as bytes; none where it is a verdict.
fn value_bytes(key: &FlatKey, value: &FlatValue) -> Option<Bytes> {
    match value {
        FlatValue::Treatment(_) => match Led::by(key, value)? {
            Led::Treated(treated) => Some(Bytes::new().with(treated.code().to_ne_bytes())),
            Led::Remember(_) => None,
        },
        FlatValue::To(ip, port) => Some(Bytes::new().ip(*ip).port(*port)),
        FlatValue::Seconds(_) | FlatValue::Present => None,
    }
}

/// Writes the attributes of an element; without a value, of one to delete.
pub fn write(element: &mut Writer<'_>, key: &FlatKey, value: Option<&FlatValue>) {
    let (bytes, end) = key_bytes(key);
    element.nest(KEY, |data| data.bytes(VALUE, bytes.as_slice()));
    if let Some(end) = end {
        element.nest(KEY_END, |data| data.bytes(VALUE, end.as_slice()));
    }
    let Some(value) = value else { return };
    if let Some(bytes) = value_bytes(key, value) {
        element.nest(DATA, |data| data.bytes(VALUE, bytes.as_slice()));
    } else if let Some(led) = Led::by(key, value) {
        element.nest(DATA, |data| write_verdict(data, GOTO, &led.name()));
    }
}

/// Writes an element of the map of treatments.
pub fn write_treatment(element: &mut Writer<'_>, treated: &Treated, to: bool) {
    element.nest(KEY, |data| data.bytes(VALUE, &treated.code().to_ne_bytes()));
    if to {
        let name = Led::Treated(*treated).name();
        element.nest(DATA, |data| write_verdict(data, GOTO, &name));
    }
}

/// An element as the kernel shows it.
pub struct Shown<'a> {
    pub key: &'a [u8],
    end: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    /// The chain that its verdict leads to.
    pub chain: Option<&'a str>,
}

impl<'a> Shown<'a> {
    pub fn of(element: Attributes<'a>) -> Option<Self> {
        let data = element.inside(DATA);
        Some(Shown {
            key: element.inside(KEY).get(VALUE)?,
            end: element.inside(KEY_END).get(VALUE),
            value: data.get(VALUE),
            chain: data.inside(VERDICT).str(CHAIN),
        })
    }

    /// What the element says, if it is one that [`write`] writes.
    pub fn read(&self, set: usize) -> Option<(FlatKey, FlatValue)> {
        let (key, value) = self.parse(set)?;
        let (bytes, end) = key_bytes(&key);
        let same = bytes.as_slice() == self.key
            && end.as_ref().map(Bytes::as_slice) == self.end
            && value_bytes(&key, &value).as_ref().map(Bytes::as_slice) == self.value;
        (same && SETS[set].key_length as usize == self.key.len()).then_some((key, value))
    }

    fn parse(&self, set: usize) -> Option<(FlatKey, FlatValue)> {
        let mut key = Fields(self.key);
        let mut value = Fields(self.value.unwrap_or_default());
        let list = |first: usize| if set == first { List::Everywhere } else { List::Here };
        const ENDPOINTS_HERE: usize = ENDPOINTS + 1;
        const MEMBERS_HERE: usize = MEMBERS + 1;
        let front = match set {
            HAIRPIN => return Some((FlatKey::Hairpin(key.ip()?), FlatValue::Present)),
            _ => key.front()?,
        };
        Some(match set {
            SERVICES => {
                let treated = Treated::from_code(value.native()?);
                (FlatKey::Service(front), FlatValue::Treatment(treated.treatment))
            }
            REFUSED => (FlatKey::Refused(front), FlatValue::Present),
            STICKY => (FlatKey::Sticky(front), FlatValue::Seconds(Led::remember_of(self.chain?)?)),
            SOURCES => {
                let from = key.ip()?;
                let to = Ipv4Addr::from(<[u8; 4]>::try_from(self.end?.get(12..16)?).ok()?);
                let length = (from.to_bits() ^ to.to_bits()).leading_zeros() as u8;
                let net = Ipv4Net::new(from, length).ok()?;
                (FlatKey::Source { front, net }, FlatValue::Present)
            }
            ENDPOINTS | ENDPOINTS_HERE => {
                let number = u16::try_from(key.native()?).ok()?;
                let endpoint = FlatKey::Endpoint { front, list: list(ENDPOINTS), number };
                (endpoint, FlatValue::To(value.ip()?, value.port()?))
            }
            MEMBERS | MEMBERS_HERE => {
                let member = FlatKey::Member { front, list: list(MEMBERS), ip: key.ip()? };
                (member, FlatValue::To(value.ip()?, value.port()?))
            }
            _ => return None,
        })
    }
}

/// Reads register by register.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next(&mut self) -> Option<[u8; 4]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }
    fn ip(&mut self) -> Option<Ipv4Addr> {
        self.next().map(Ipv4Addr::from)
    }
    fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.next()?;
        Some(u16::from_be_bytes([high, low]))
    }
    fn native(&mut self) -> Option<u32> {
        self.next().map(u32::from_ne_bytes)
    }
    fn front(&mut self) -> Option<Front> {
        let ip = self.ip()?;
        let protocol = protocol(self.next()?[0])?;
        Some(Front { ip, protocol, port: self.port()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_actors::ports::rules::flat::{Policy, Treatment};

    #[test]
    fn what_is_written_is_read() {
        let front = |ip: &str| {
            let ip = ip.parse().expect("an address");
            Front { ip, protocol: Protocol::Udp, port: 53 }
        };
        let of = front("10.96.0.10");
        let (ip, port) = (Ipv4Addr::new(10, 1, 2, 3), 5353);
        let policy = Policy::OutsideLocal;
        let treatment = Treatment { policy, everywhere: 3, here: 1, sticky: true, guarded: true };
        let to = FlatValue::To(ip, port);
        let net = "203.0.113.0/24".parse().expect("a net");
        let all = [
            (FlatKey::Service(front("0.0.0.0")), FlatValue::Treatment(treatment)),
            (FlatKey::Endpoint { front: of, list: List::Here, number: 300 }, to),
            (FlatKey::Endpoint { front: of, list: List::Everywhere, number: 0 }, to),
            (FlatKey::Member { front: of, list: List::Everywhere, ip }, to),
            (FlatKey::Member { front: of, list: List::Here, ip }, to),
            (FlatKey::Sticky(of), FlatValue::Seconds(10_800)),
            (FlatKey::Source { front: of, net }, FlatValue::Present),
            (FlatKey::Refused(of), FlatValue::Present),
            (FlatKey::Hairpin(ip), FlatValue::Present),
        ];
        for (key, value) in all {
            let mut bytes = Vec::new();
            write(&mut Writer::on(&mut bytes), &key, Some(&value));
            let shown = Shown::of(Attributes(&bytes)).expect("an element");
            assert_eq!(shown.read(set_of(&key)), Some((key, value)));
            assert_eq!(shown.read(9), None);
        }
    }
}
