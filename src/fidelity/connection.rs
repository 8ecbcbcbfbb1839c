//! Connections in words, the same for both kernels.

use super::words::Ports;
use kubesim_sim::kernel::family::{Family, V4};

/// Seconds as they were to begin with: time passes while cases are played, and all timeouts are
/// multiples of ten seconds.
pub fn whole(timeout: u32) -> u32 {
    timeout.next_multiple_of(10)
}

/// A connection, as either kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<F: Family = V4> {
    pub original: Tuple<F>,
    pub reply: Tuple<F>,
    /// `IPS_SEEN_REPLY`, `IPS_ASSURED`, `IPS_SRC_NAT`, `IPS_DST_NAT`.
    pub seen_reply: bool,
    pub assured: bool,
    pub src_nat: bool,
    pub dst_nat: bool,
    /// `""` but for TCP.
    pub state: &'static str,
    /// Seconds until it ends.
    pub timeout: u32,
}

/// Source, destination and their ports; of ICMP the id, and type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<F: Family = V4> {
    pub protocol: u8,
    pub src: F::Addr,
    pub dst: F::Addr,
    pub sport: u16,
    pub dport: u16,
}

/// In the order of what was written, each with its turn among those that wrote the same but for
/// a port that was chosen.
pub fn lines<F: Family>(mut entries: Vec<Entry<F>>, ports: &mut Ports) -> Vec<String> {
    let sorted = |tuple: &Tuple<F>| {
        let Tuple { protocol, src, dst, sport, dport } = *tuple;
        (protocol, src, dst, dport, sport)
    };
    entries.sort_by_key(|entry| sorted(&entry.original));
    entries.iter().map(|entry| entry.words(ports)).collect()
}

impl<F: Family> Entry<F> {
    fn words(&self, ports: &mut Ports) -> String {
        let protocol = match self.original.protocol {
            number if number == F::ICMP => "icmp",
            6 => "tcp",
            17 => "udp",
            _ => "something else",
        };
        let mut text = format!("conntrack: {protocol} {} {} ", self.timeout, self.state);
        text += &self.original.words(ports);
        if !self.seen_reply {
            text += " [UNREPLIED]";
        }
        text += &format!(" | {}", self.reply.words(ports));
        let flags = [
            (self.assured, " [ASSURED]"),
            (self.src_nat, " source rewritten"),
            (self.dst_nat, " destination rewritten"),
        ];
        text.extend(flags.iter().filter(|(set, _)| *set).map(|(_, words)| *words));
        text
    }
}

impl<F: Family> Tuple<F> {
    fn words(&self, ports: &mut Ports) -> String {
        let Tuple { src, dst, sport, dport, .. } = self;
        if self.protocol == F::ICMP {
            return format!("{src} > {dst} id {} type {}", ports.id(*sport), dport >> 8);
        }
        format!("{src}:{} > {dst}:{}", ports.name(*sport), ports.name(*dport))
    }
}
