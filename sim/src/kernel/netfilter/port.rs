//! The choice of a tuple that nobody else has (`get_unique_tuple`, net/netfilter/nf_nat_core.c).

use super::nat::Manip;
use super::tuple::Tuple;
use crate::kernel::family::Family;
use kubesim_actors::ports::rules::Protocol;
use kubesim_runtime::Rng;

/// What a NAT target wants (`struct nf_nat_range2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range<F: Family> {
    pub ip: F::Addr,
    pub port: Option<u16>,
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: never keep the port, start anywhere.
    pub random_fully: bool,
}

/// How many ports are tried at first; then half as many from another start, down to 16.
const MAX_ATTEMPTS: u32 = 128;

/// The tuple after translation. `taken` says whether somebody else would get its replies. If no
/// free one is found, the last tried comes back, and its packet is lost when it is confirmed.
///
/// `kept`: the port that the same source has at the wanted address towards another peer; it keeps
/// it if it can (`find_appropriate_src`).
pub(super) fn unique<F: Family>(
    from: Tuple<F>,
    range: Range<F>,
    manip: Manip,
    kept: Option<u16>,
    taken: impl Fn(&Tuple<F>) -> bool,
    rng: &mut Rng,
) -> Tuple<F> {
    let mut tuple = from;
    match manip {
        Manip::Source => tuple.src = range.ip,
        Manip::Destination => tuple.dst = range.ip,
    }
    if let (Some(port), Manip::Destination) = (range.port, manip) {
        // A range of one port: taken or not. An echo has an id instead
        // (nf_nat_l4proto_unique_tuple).
        match tuple.protocol {
            Protocol::Icmp => tuple.sport = port,
            _ => tuple.dport = port,
        }
        return tuple;
    }
    if let (Some(port), Manip::Source, false) = (kept, manip, range.random_fully)
        && from.src != range.ip
    {
        let mapped = moved(tuple, port);
        if !taken(&mapped) {
            return mapped;
        }
    }
    if !range.random_fully && !taken(&tuple) {
        return tuple;
    }
    let first = match (manip, tuple.protocol) {
        // An echo has one id for both ends.
        (Manip::Destination, Protocol::Icmp) => 0,
        (Manip::Destination, _) => return tuple,
        (Manip::Source, _) => rng.below(65_536) as u32,
    };
    let (least, size) = source_range(&tuple);
    search(&mut tuple, least, size, first, taken, rng);
    tuple
}

fn moved<F: Family>(tuple: Tuple<F>, port: u16) -> Tuple<F> {
    // The id of an echo is the same in both directions.
    Tuple { sport: port, ..tuple }
}

/// Source ports stay in their class: those of the r-services (RFC 1282) below 512, other privileged
/// ones privileged (nf_nat_l4proto_unique_tuple).
fn source_range<F: Family>(tuple: &Tuple<F>) -> (u32, u32) {
    match (tuple.protocol, tuple.sport) {
        (Protocol::Icmp, _) => (0, 65_536),
        (_, 0..512) => (1, 512 - 1),
        (_, 512..1_024) => (600, 1_024 - 600),
        _ => (1_024, 65_536 - 1_024),
    }
}

fn search<F: Family>(
    tuple: &mut Tuple<F>,
    least: u32,
    size: u32,
    first: u32,
    taken: impl Fn(&Tuple<F>) -> bool,
    rng: &mut Rng,
) {
    let mut attempts = size.min(MAX_ATTEMPTS);
    let mut start = first;
    loop {
        for offset in start..start + attempts {
            tuple.sport = (least + offset % size) as u16;
            if !taken(tuple) {
                return;
            }
        }
        if attempts >= size || attempts < 16 {
            return;
        }
        attempts /= 2;
        start = rng.below(65_536) as u32;
    }
}
