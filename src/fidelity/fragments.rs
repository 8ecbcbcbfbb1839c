//! Datagrams that left in fragments are put together again: the model carries each as one packet
//! (`forward` in sim/src/kernel/forward.rs).

use etherparse::defrag::IpDefragPool;
use etherparse::{IpFragOffset, NetSlice, SlicedPacket};
use std::borrow::Cow;

/// Of an Ethernet header.
const ETHERNET: usize = 14;

/// Those of which a part is still to come, by leg.
#[derive(Default)]
pub struct Fragments(IpDefragPool<(), usize>);

impl Fragments {
    /// A frame as it is; of a fragment the frame of the whole, when this was all that it lacked.
    pub fn whole<'a>(
        &mut self,
        leg: usize,
        bytes: &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>, String> {
        let as_it_is = Ok(Some(Cow::Borrowed(bytes)));
        let Ok(sliced) = SlicedPacket::from_ethernet(bytes) else { return as_it_is };
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return as_it_is };
        let mut header = ip.header().to_header();
        if !header.is_fragmenting_payload() {
            return as_it_is;
        }
        let bad = |error: &dyn std::fmt::Display| format!("a fragment: {error}");
        let done = self.0.process_sliced_packet(&sliced, (), leg).map_err(|error| bad(&error))?;
        let Some(done) = done else { return Ok(None) };
        (header.more_fragments, header.fragment_offset) = (false, IpFragOffset::ZERO);
        header.set_payload_len(done.payload.len()).map_err(|error| bad(&error))?;
        let mut whole = bytes[..ETHERNET].to_vec();
        whole.extend(header.to_bytes());
        whole.extend(&done.payload);
        Ok(Some(Cow::Owned(whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    /// The part of a datagram from so many bytes of its payload on.
    fn part(whole: &[u8], from: usize, to: usize, more: bool) -> Vec<u8> {
        let mut bytes = whole[..ETHERNET + 20].to_vec();
        let total = (20 + to - from) as u16;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        let field = (from / 8) as u16 | u16::from(more) << 13;
        bytes[20..22].copy_from_slice(&field.to_be_bytes());
        bytes.extend(&whole[ETHERNET + 20 + from..ETHERNET + 20 + to]);
        bytes
    }

    #[test]
    fn a_datagram_is_whole_when_its_last_part_came() {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10; 4], [11; 4], 64);
        let mut datagram = Vec::new();
        let payload: Vec<u8> = (0..100).collect();
        builder.udp(1, 2).write(&mut datagram, &payload).expect("bytes");
        let mut fragments = Fragments::default();
        let unchanged = fragments.whole(0, &datagram).expect("no fragment");
        assert_eq!(unchanged.as_deref(), Some(&datagram[..]));
        let (first, last) = (part(&datagram, 0, 64, true), part(&datagram, 64, 108, false));
        assert_eq!(fragments.whole(0, &first), Ok(None));
        // By another leg it is another one.
        assert_eq!(fragments.whole(1, &last), Ok(None));
        let whole = fragments.whole(0, &last).expect("a fragment").expect("the last one");
        assert_eq!(whole[ETHERNET + 20..], datagram[ETHERNET + 20..]);
        assert_eq!(whole[16..22], [0, 128, 0, 0, 0, 0]);
    }
}
