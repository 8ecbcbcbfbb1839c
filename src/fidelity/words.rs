//! Packets and connections in words, the same for both kernels. A port that somebody wrote is
//! called by its number. One that nobody wrote was chosen by a kernel at random: it is called by
//! the range that it was chosen from and its turn, since which one it is must not matter.

use kubesim_actors::ports::network::{Errno, Mac};
use kubesim_actors::ports::rules::{Protocol, Table};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::family::Family;
use kubesim_sim::kernel::packet::{Arp, Frame, Icmp, L4, Packet, Payload, Quoted, TcpFlags};

/// Every port, and id of an echo, that a case may write.
pub const WRITTEN: [u16; 16] =
    [1, 2, 100, 600, 1024, 1025, 1026, 1027, 53, 80, 81, 5000, 5001, 8080, 30_080, 4789];

/// The ports that were chosen in a case, in the order in which they were met.
#[derive(Clone, Debug, Default)]
pub struct Ports(Vec<u16>);

impl Ports {
    pub fn name(&mut self, port: u16) -> String {
        self.within(port, range(port))
    }

    /// Of an echo: one is as good as another.
    pub fn id(&mut self, id: u16) -> String {
        self.within(id, "id")
    }

    fn within(&mut self, number: u16, range: &str) -> String {
        if number == 0 || WRITTEN.contains(&number) {
            return number.to_string();
        }
        let turn = self.0.iter().position(|known| *known == number).unwrap_or_else(|| {
            self.0.push(number);
            self.0.len() - 1
        });
        format!("<{range} {turn}>")
    }

    pub fn packet<F: Family>(&mut self, packet: &Packet<F>) -> String {
        let Packet { src, dst, ttl, .. } = packet;
        let what = match &packet.l4 {
            // Chosen by a hash with a secret of the machine's.
            L4::Udp { dport, .. } if matches!(packet.body, Body::Vxlan { .. }) => {
                format!("udp > {dport} {}", self.inner(packet))
            }
            L4::Udp { sport, dport } => {
                format!("udp {} > {}", self.name(*sport), self.name(*dport))
            }
            L4::Tcp(tcp) => {
                let (sport, dport) = (self.name(tcp.sport), self.name(tcp.dport));
                let flags = flag_words(tcp.flags);
                format!("tcp {sport} > {dport} {flags} seq {} ack {}", tcp.seq, tcp.ack)
            }
            L4::Icmp(Icmp::EchoRequest { id, seq }) => {
                format!("echo request {} {seq}", self.id(*id))
            }
            L4::Icmp(Icmp::EchoReply { id, seq }) => format!("echo reply {} {seq}", self.id(*id)),
            L4::Icmp(Icmp::Error { kind, about }) => format!("{kind} about {}", self.quoted(about)),
            L4::Icmp(Icmp::Discovery(message)) => format!("{message:?}"),
        };
        format!("{src} > {dst} ttl {ttl} {what}{}", extent(packet))
    }

    fn inner<F: Family>(&mut self, packet: &Packet<F>) -> String {
        match &packet.body {
            Body::Vxlan { vni, frame } => format!("vni {vni} [{}]", self.frame(frame)),
            _ => String::new(),
        }
    }

    fn quoted<F: Family>(&mut self, about: &Quoted<F>) -> String {
        let Quoted { src, dst, protocol, sport, dport, seq } = *about;
        let ports = match protocol {
            Protocol::Tcp => format!("tcp {} > {} seq {seq}", self.name(sport), self.name(dport)),
            Protocol::Icmp => format!("echo {}", self.id(sport)),
            _ => format!("udp {} > {}", self.name(sport), self.name(dport)),
        };
        format!("{src} > {dst} {ports}")
    }

    pub fn frame(&mut self, frame: &Frame) -> String {
        let what = match &frame.payload {
            Payload::Arp(arp) => arp_words(arp),
            Payload::Ip(packet) => self.packet(packet),
            Payload::Ip6(packet) => self.packet(packet),
        };
        format!("{} > {} {what}", mac_words(frame.src), mac_words(frame.dst))
    }
}

/// How much it carries, and whether it may be cut up. Not of what an error quotes, which is up to
/// who sends it.
fn extent<F: Family>(packet: &Packet<F>) -> String {
    let bytes = match &packet.l4 {
        L4::Tcp(tcp) => tcp.payload(),
        L4::Icmp(Icmp::Error { .. } | Icmp::Discovery(_)) => 0,
        _ if matches!(packet.body, Body::Vxlan { .. }) => 0,
        L4::Udp { .. } | L4::Icmp(_) => packet.len.saturating_sub(F::HEADER + 8),
    };
    let bytes = if bytes > 0 { format!(" {bytes} bytes") } else { String::new() };
    let whole = F::VERSION == 4 && packet.dont_fragment;
    bytes + if whole { " DF" } else { "" }
}

/// Which ports another may be chosen instead of, and from (`nf_nat_l4proto_unique_tuple`,
/// net/netfilter/nf_nat_core.c).
fn range(port: u16) -> &'static str {
    match port {
        0..512 => "1 to 511",
        // Nobody is moved there.
        512..600 => "512 to 599",
        600..1024 => "600 to 1023",
        1024.. => "1024 and above",
    }
}

pub fn mac_words(mac: Mac) -> String {
    if mac == Mac::BROADCAST { "everybody".to_owned() } else { mac.to_string() }
}

fn arp_words(arp: &Arp) -> String {
    let Arp { request, sender_mac, sender_ip, target_mac, target_ip } = arp;
    match request {
        true => format!("who has {target_ip}? tell {sender_ip} at {sender_mac} ({target_mac})"),
        false => format!("{sender_ip} is at {sender_mac}, {target_ip} at {target_mac}"),
    }
}

fn flag_words(flags: TcpFlags) -> String {
    let all = [(flags.syn, "S"), (flags.ack, "A"), (flags.fin, "F"), (flags.rst, "R")];
    all.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect()
}

/// What is seen after a change: what came of it, and the table.
pub fn after(done: Result<(), Errno>, mut table: Vec<String>) -> Vec<String> {
    table.sort_unstable();
    table.insert(0, outcome(done));
    table
}

pub fn outcome(done: Result<(), Errno>) -> String {
    done.err().map_or("done".to_owned(), |errno| errno.to_string())
}

/// The built-in chains of a table, in the order in which they are listed.
pub fn built_in(table: Table) -> &'static [&'static str] {
    match table {
        Table::Raw => &["PREROUTING", "OUTPUT"],
        Table::Mangle => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        Table::Nat => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        Table::Filter => &["INPUT", "FORWARD", "OUTPUT"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_ports_are_called_by_the_range_they_are_chosen_from() {
        let mut ports = Ports::default();
        assert_eq!(ports.name(80), "80");
        assert_eq!(
            [1023, 601].map(|port| ports.name(port)),
            ["<600 to 1023 0>", "<600 to 1023 1>"]
        );
        assert_eq!([511, 599].map(|port| ports.name(port)), ["<1 to 511 2>", "<512 to 599 3>"]);
        assert_eq!(ports.name(1023), "<600 to 1023 0>");
        assert_eq!([7, 65_535].map(|id| ports.id(id)), ["<id 4>", "<id 5>"]);
        assert_eq!(ports.name(65_535), "<1024 and above 5>");
    }
}
