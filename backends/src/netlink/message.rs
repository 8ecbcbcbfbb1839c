//! Messages as bytes (`struct nlmsghdr`, `struct nfgenmsg`, `struct nlattr`): headers in the
//! machine's byte order, netfilter's numbers in the network's.

const HEADER: usize = 16;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;

/// Messages under construction, one after the other.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    sequence: u32,
    /// The sequence number before the first one's.
    before: u32,
    /// Where the last message begins.
    last: usize,
}

impl Messages {
    /// Ready for others. What one large batch took is not kept.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.before = self.sequence;
        self.bytes.shrink_to(256 << 10);
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The sequence number of the last message.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Whether one of them has this sequence number.
    pub fn have(&self, sequence: u32) -> bool {
        let place = sequence.wrapping_sub(self.before);
        place > 0 && place <= self.sequence.wrapping_sub(self.before)
    }

    /// Adds a message of a netfilter subsystem. `resource` is `nfgenmsg.res_id`.
    pub fn push(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        write: impl FnOnce(&mut Writer<'_>),
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        write(&mut Writer(&mut self.bytes));
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds a message of a generic netlink family (`struct genlmsghdr`: one byte of command, one of
    /// version, two that are reserved), whose header is as long as netfilter's.
    pub fn push_generic(
        &mut self,
        family: u16,
        flags: u16,
        command: u8,
        write: impl FnOnce(&mut Writer<'_>),
    ) {
        self.push(family, flags, command, 0, write);
        self.bytes[self.last + HEADER + 1] = 1;
    }

    /// The type and body of the message with a sequence number.
    pub fn find(&self, sequence: u32) -> Option<(u16, &[u8])> {
        let mut rest = &self.bytes[..];
        while let Some((header, body, tail)) = split_message(rest) {
            if header.sequence == sequence {
                return Some((header.kind, body));
            }
            rest = tail;
        }
        None
    }
}

/// Writes the attributes of one message.
pub struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Writes attributes that will be part of a message later.
    pub fn on(bytes: &'a mut Vec<u8>) -> Self {
        Writer(bytes)
    }
}

impl Writer<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }
    /// An attribute whose value is attributes, as received.
    pub fn nested_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NESTED, value);
    }
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }
    /// In the machine's byte order.
    pub fn ne16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }
    pub fn ne32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }
    /// With the zero byte that ends it.
    pub fn str(&mut self, kind: u16, value: &str) {
        let length = (value.len() + 5) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.pad();
    }
    /// Attributes within one. At most 64 KiB, as the length has 16 bits.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Writer<'_>)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        write(&mut Writer(self.0));
        let length = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The attributes in a message or in another attribute: kind without flags, and value. Ends at
/// the first that makes no sense.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// Those of a message, behind its `struct nfgenmsg` or `struct genlmsghdr`.
    pub fn of(body: &'a [u8]) -> Self {
        Attributes(body.get(4..).unwrap_or_default())
    }
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(found, value)| (found == kind).then_some(value))
    }
    /// The attributes within an attribute; none if it is not there.
    pub fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }
    /// Without the zero byte that ends it.
    pub fn str(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    }
}

pub fn be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}
pub fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}
pub fn be64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// In the machine's byte order.
pub fn ne16(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.try_into().ok()?))
}
pub fn ne32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}
pub fn ne64(value: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(value.try_into().ok()?))
}

/// A message as it is received: its type, flags, sequence number and body.
pub(super) struct Header {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
}

/// Splits the first message off.
pub(super) fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = number(0)? as usize;
    let header = Header { kind: short(4)?, flags: short(6)?, sequence: number(8)? };
    let body = bytes.get(HEADER..length)?;
    Some((header, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut messages = Messages::default();
        messages.push(0x0a03, 5, 2, 7, |message| {
            message.str(1, "nat");
            message.nest(2, |inner| {
                inner.be32(1, 0x4000);
                inner.u8(2, 9);
                inner.be16(3, 80);
            });
            message.be64(3, 1 << 40);
        });
        messages.push(1, 1, 0, 0, |_| {});
        let (header, body, rest) = split_message(messages.bytes()).expect("a message");
        assert_eq!((header.kind, header.flags, header.sequence), (0x0a03, 5, 1));
        assert_eq!(body[..4], [2, 0, 0, 7]);
        let all = Attributes::of(body);
        assert_eq!((all.str(1), all.get(3).and_then(be64)), (Some("nat"), Some(1 << 40)));
        let inner = all.inside(2);
        let numbers = (inner.get(1).and_then(be32), inner.get(3).and_then(be16));
        assert_eq!(numbers, (Some(0x4000), Some(80)));
        assert_eq!(inner.get(2), Some(&[9][..]));
        let (header, _, rest) = split_message(rest).expect("another");
        assert_eq!((header.flags, rest.len()), (1, 0));
    }

    #[test]
    fn rubbish_ends_the_reading() {
        assert!(split_message(&[1, 2, 3]).is_none());
        assert!(split_message(&[255; 20]).is_none());
        assert_eq!(Attributes(&[3, 0, 1, 0, 9, 9]).next(), None);
        assert_eq!(Attributes(&[200, 0, 1, 0, 9, 9]).next(), None);
    }
}
