//! What random rules and connections on the real kernel (`kubesim fidelity`, domains iptables-*,
//! nftables and conntrack) showed the model to get wrong, each as small as it gets.

use super::fidelity::{add, forwarding, play, router, settle};
use super::*;
use crate::body::Body;
use crate::kernel::netfilter::{Entry, TcpState};
use crate::kernel::packet::{Ct, Icmp, IcmpError, Tcp, TcpFlags};
use kubesim_actors::ports::rules::Table;

/// A router with an address on each leg.
struct Router {
    kernel: Kernel,
    legs: [u32; 3],
    now: Time,
}

impl Router {
    fn new(rules: &[&str]) -> Router {
        let (mut kernel, legs) = router();
        for (leg, address) in legs.into_iter().zip(["10.0.0.1/16", "10.1.0.1/16", "10.2.0.1/16"]) {
            add(&mut kernel, leg, address);
        }
        forwarding(&mut kernel, "0");
        let mut router = Router { kernel, legs, now: Time::ZERO };
        // So that connections are tracked.
        router.rule("-t raw -N KEEP");
        router.rule("-t raw -A KEEP -m conntrack --ctstate UNTRACKED");
        rules.iter().for_each(|rule| router.rule(rule));
        router
    }

    fn rule(&mut self, rule: &str) {
        let netfilter = self.kernel.netfilter_mut(NsId::HOST).expect("the host");
        netfilter.command(rule).expect(rule);
    }

    fn put(&mut self, leg: usize, packet: Packet) -> Vec<Packet> {
        let sent = play(&mut self.kernel, self.now, self.legs[leg], packet);
        sent.into_iter().map(|(_, packet)| packet).collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn entries(&self) -> Vec<Entry> {
        let all = self.kernel.netfilter(NsId::HOST).expect("the host").conntrack();
        all.filter(|entry| entry.expires() > self.now).cloned().collect()
    }

    /// The state of the only connection, and how many seconds it has left.
    fn state(&self) -> (Option<TcpState>, u64) {
        let all = self.entries();
        let [entry] = &all[..] else { panic!("{all:?}") };
        (entry.tcp_state(), entry.expires().since(self.now).as_secs())
    }

    fn count(&self, table: Table, chain: &str) -> u64 {
        let netfilter = self.kernel.netfilter(NsId::HOST).expect("the host");
        netfilter.counter(table, chain, 0).expect("a rule")
    }

    fn send(&mut self, from: u16, to: &str) -> (Result<(), Errno>, Vec<Output>) {
        let any = Ipv4Addr::UNSPECIFIED;
        let socket = self.kernel.udp_bind(NsId::HOST, any, from, 7).expect("a free port");
        let mut out = Vec::new();
        let sent = self.kernel.udp_send(self.now, socket, None, at(to), Body::Empty, 0, &mut out);
        (sent, out)
    }
}

const CLIENT: &str = "10.0.0.10";
const SERVER: &str = "10.1.0.10";

fn packet(src: &str, dst: &str, l4: L4) -> Packet {
    Packet {
        src: ip(src),
        dst: ip(dst),
        ttl: 64,
        dont_fragment: false,
        len: 40,
        segment: 40,
        l4,
        body: Body::Empty,
        mark: 0,
        ct: Ct::None,
    }
}

fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> Packet {
    packet(src, dst, L4::Udp { sport, dport })
}

fn echo(src: &str, dst: &str, id: u16) -> Packet {
    packet(src, dst, L4::Icmp(Icmp::EchoRequest { id, seq: 1 }))
}

fn flags(text: &str) -> TcpFlags {
    let has = |c| text.contains(c);
    TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') }
}

/// From the client's port 600 to the server's 80.
fn there(text: &str, seq: u32, ack: u32) -> Packet {
    let tcp = Tcp { sport: 600, dport: 80, seq, ack, flags: flags(text), len: 0 };
    packet(CLIENT, SERVER, L4::Tcp(tcp))
}

fn back(text: &str, seq: u32, ack: u32) -> Packet {
    let tcp = Tcp { sport: 80, dport: 600, seq, ack, flags: flags(text), len: 0 };
    packet(SERVER, CLIENT, L4::Tcp(tcp))
}

fn sport(packet: &Packet) -> u16 {
    packet.ports().0
}

/// iptables-legacy seed 1, case 5: nobody has answered, so that is no connection
/// (nf_conntrack_tcp_packet, nf_conntrack_proto_tcp.c).
#[test]
fn a_reset_that_is_the_only_answer_ends_the_entry() {
    let mut router = Router::new(&[]);
    assert_eq!(router.put(0, there("S", 1000, 0)).len(), 1);
    router.put(1, back("RA", 0, 1001));
    assert!(router.entries().is_empty());
    // The machine's own resets are seen as well.
    let to_self = Packet { dst: ip("10.0.0.1"), ..there("S", 1000, 0) };
    assert_eq!(router.put(0, to_self).len(), 1);
    assert!(router.entries().is_empty());
}

/// conntrack seed 1, case 11 (nf_conntrack_udp_packet, nf_conntrack_proto_udp.c).
#[test]
fn the_first_answer_makes_no_stream_however_late() {
    let mut router = Router::new(&[]);
    router.put(0, udp(CLIENT, 600, SERVER, 80));
    router.pass(3);
    router.put(1, udp(SERVER, 80, CLIENT, 600));
    assert_eq!(router.state(), (None, 30));
    router.put(1, udp(SERVER, 80, CLIENT, 600));
    assert_eq!(router.state(), (None, 120));
}

/// conntrack seed 1, case 4 (nf_nat_l4proto_unique_tuple, nf_nat_core.c).
#[test]
fn a_port_below_512_stays_below() {
    let mut router = Router::new(&["-t nat -A POSTROUTING -j MASQUERADE --random-fully"]);
    for port in 20..40 {
        let sent = router.put(0, udp(CLIENT, port, SERVER, 80));
        assert!((1..512).contains(&sport(&sent[0])), "{sent:?}");
        let sent = router.put(0, udp(CLIENT, port + 500, SERVER, 80));
        let range = if port + 500 < 512 { 1..512 } else { 600..1024 };
        assert!(range.contains(&sport(&sent[0])), "{sent:?}");
    }
}

/// iptables-legacy seed 1, case 38: 127.0.0.1 is nobody else's business
/// (nf_nat_masquerade_ipv4 asks for RT_SCOPE_UNIVERSE).
#[test]
fn what_leaves_by_the_loopback_is_masqueraded_with_another_links_address() {
    let mut router = Router::new(&["-t nat -A POSTROUTING -j MASQUERADE"]);
    router.send(5001, "10.2.0.1:5000").0.expect("a way");
    let all = router.entries();
    assert!(matches!(&all[..], [entry] if entry.reply.dst == ip("10.0.0.1")), "{all:?}");
}

/// iptables-legacy seed 1, case 48 (ip_local_out returns what the hooks say).
#[test]
fn who_sends_what_postrouting_drops_is_told() {
    let mut router = Router::new(&["-t mangle -A POSTROUTING -j DROP"]);
    assert_eq!(router.send(5000, "10.0.0.9:53").0, Err(Errno::Eperm));
}

/// iptables-legacy seed 1, cases 67 and 153 (ip_mc_output, net/ipv4/ip_output.c).
#[test]
fn what_one_says_to_everybody_one_hears_as_well() {
    let mut router = Router::new(&["-A INPUT -m addrtype --src-type LOCAL"]);
    let (sent, out) = router.send(5000, "10.1.255.255:5000");
    sent.expect("a way");
    let heard = |output: &Output| {
        matches!(output, Output::Socket { event: SocketEvent::Datagram { .. }, .. })
    };
    assert_eq!(out.iter().filter(|output| heard(output)).count(), 1);
    assert_eq!(settle(&mut router.kernel, router.now, out).len(), 1);
    assert_eq!(router.count(Table::Filter, "INPUT"), 1);
}

/// iptables-legacy seed 208616115, case 1814: `portok` of libxt_DNAT holds for ICMP.
#[test]
fn the_port_of_a_dnat_is_the_id_of_an_echo() {
    let rule = "-t nat -A PREROUTING -p icmp -j DNAT --to-destination 10.1.0.10:80";
    let mut router = Router::new(&[rule]);
    let sent = router.put(0, echo(CLIENT, "10.96.0.10", 1));
    assert_eq!(sent[0].l4, echo(CLIENT, SERVER, 80).l4);
}

/// iptables-legacy seed 1, case 513 (icmp_xmit_lock, net/ipv4/icmp.c).
#[test]
fn nobody_is_told_that_an_echo_reply_was_rejected() {
    let mut router = Router::new(&["-A OUTPUT -p icmp -j REJECT"]);
    assert!(router.put(0, echo(CLIENT, "10.0.0.1", 1)).is_empty());
    assert_eq!(router.count(Table::Filter, "OUTPUT"), 1);
}

/// iptables-legacy seed 1, cases 139 and 26: to a transport a packet comes without its connection
/// (nf_reset_ct), but what a rule rejects has it still (icmp_glue_bits).
#[test]
fn an_error_knows_its_connection_only_where_the_packet_did() {
    let related = "-t raw -A OUTPUT -m conntrack --ctstate RELATED";
    let mut router = Router::new(&[related]);
    assert_eq!(router.put(0, udp(CLIENT, 600, "10.0.0.1", 80)).len(), 1);
    assert_eq!(router.count(Table::Raw, "OUTPUT"), 0);
    let mut router = Router::new(&[related, "-A INPUT -p udp -j REJECT"]);
    assert_eq!(router.put(0, udp(CLIENT, 600, "10.0.0.1", 80)).len(), 1);
    assert_eq!(router.count(Table::Raw, "OUTPUT"), 1);
}

/// find_appropriate_src, net/netfilter/nf_nat_core.c.
#[test]
fn who_had_to_move_keeps_its_port_towards_others() {
    let mut router = Router::new(&["-t nat -A POSTROUTING -j SNAT --to-source 10.1.0.50"]);
    assert_eq!(sport(&router.put(0, udp(CLIENT, 600, SERVER, 80))[0]), 600);
    let moved = sport(&router.put(2, udp("10.2.0.10", 600, SERVER, 80))[0]);
    assert_ne!(moved, 600);
    assert_eq!(sport(&router.put(2, udp("10.2.0.10", 600, "10.1.0.11", 80))[0]), moved);
    // Its connections gone, it begins anew.
    router.pass(40);
    assert_eq!(sport(&router.put(2, udp("10.2.0.10", 600, "10.1.0.11", 80))[0]), 600);
}

/// conntrack seed 1, case 480 and seed 3, case 613 (nf_conntrack_tcp_packet).
#[test]
fn a_closing_connection_ends_with_any_reset_and_begins_anew_with_a_syn() {
    let mut router = Router::new(&[]);
    router.put(0, there("A", 1001, 5001));
    router.put(0, there("FA", 1001, 5001));
    router.put(1, back("A", 5001, 1002));
    // Before what was acknowledged.
    router.put(0, there("R", 1001, 0));
    assert_eq!(router.state(), (Some(TcpState::Close), 10));
    // What is ignored in between makes no difference: somebody has begun to close.
    router.put(1, back("SA", 5001, 1002));
    router.put(0, there("S", 3000, 0));
    assert_eq!(router.state(), (Some(TcpState::SynSent), 120));
}

/// conntrack seed 4, case 5417 and iptables-nft seed 3, case 4581.
#[test]
fn a_reset_with_a_wrong_number_may_be_nobodys() {
    let mut router = Router::new(&[]);
    router.put(0, there("S", 1000, 0));
    router.put(1, back("SA", 5000, 1001));
    router.put(0, there("A", 1001, 5001));
    assert_eq!(router.state(), (Some(TcpState::Established), 432_000));
    // Too low: invalid, no part of the connection.
    router.put(1, back("R", 5000, 0));
    assert_eq!(router.state(), (Some(TcpState::Established), 432_000));
    // Too high: the other end may challenge it.
    router.put(1, back("R", 5002, 0));
    assert_eq!(router.state(), (Some(TcpState::Established), 10));
    router.put(1, back("R", 5001, 0));
    assert_eq!(router.state(), (Some(TcpState::Close), 10));
}

/// Timeouts of nf_conntrack_tcp_packet: TCP_CONNTRACK_UNACK and TCP_CONNTRACK_RETRANS.
#[test]
fn what_is_unacknowledged_or_said_again_and_again_lasts_five_minutes() {
    let mut router = Router::new(&[]);
    router.put(0, there("S", 1000, 0));
    router.pass(10);
    // Whoever repeats it does not keep it alive.
    router.put(0, there("S", 1000, 0));
    assert_eq!(router.state(), (Some(TcpState::SynSent), 110));
    router.put(1, back("SA", 5000, 1001));
    router.put(0, there("A", 1001, 5001));
    let mut data = there("A", 1001, 5001);
    if let L4::Tcp(tcp) = &mut data.l4 {
        tcp.len = 100;
    }
    router.put(0, data);
    assert_eq!(router.state(), (Some(TcpState::Established), 300));
    router.put(1, back("A", 5001, 1101));
    assert_eq!(router.state(), (Some(TcpState::Established), 432_000));
    for left in [432_000, 432_000, 300] {
        router.put(1, back("A", 5001, 1101));
        assert_eq!(router.state(), (Some(TcpState::Established), left));
    }
}

/// The same file: `IPS_SEEN_REPLY` is set behind the first answer.
#[test]
fn the_first_answer_to_a_connection_that_was_picked_up_assures_nothing() {
    let mut router = Router::new(&[]);
    router.put(0, there("A", 1001, 5001));
    assert_eq!(router.state(), (Some(TcpState::Established), 300));
    router.put(1, back("A", 5001, 1001));
    assert_eq!((router.state().1, router.entries()[0].assured), (300, false));
    router.put(0, there("A", 1001, 5001));
    assert_eq!((router.state().1, router.entries()[0].assured), (432_000, true));
}

/// iptables-legacy seed 4, case 1413 (nf_nat_inet_fn).
#[test]
fn the_reset_of_a_rejected_segment_is_asked_for_its_source() {
    let rules = [
        "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        "-t nat -A POSTROUTING -p tcp -j ACCEPT",
    ];
    let mut router = Router::new(&rules);
    assert_eq!(router.put(0, there("S", 1000, 0)).len(), 1);
    assert_eq!(router.count(Table::Nat, "POSTROUTING"), 1);
}

/// iptables-legacy seed 4, case 1421 and iptables-nft seed 2, case 1881 (nf_send_reset asks about
/// both addresses, icmp_send about the destination only).
#[test]
fn an_error_goes_to_a_broadcast_address_and_a_reset_never_about_one() {
    let reject = "-A INPUT -p tcp -j REJECT --reject-with tcp-reset";
    let mut router = Router::new(&["-A INPUT -p udp -j REJECT", reject]);
    let sent = router.put(1, udp("10.1.255.255", 81, "10.1.0.1", 5001));
    let [Packet { dst, l4: L4::Icmp(Icmp::Error { kind, .. }), .. }] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((*dst, *kind), (ip("10.1.255.255"), IcmpError::PortUnreachable));
    let to_all = Packet { dst: ip("10.1.255.255"), ..there("S", 1000, 0) };
    assert!(router.put(2, Packet { src: ip("10.2.0.11"), ..to_all }).is_empty());
}

/// iptables-nft seed 3, case 1516 (nf_nat_l4proto_unique_tuple: an echo's id is found from 0 on).
#[test]
fn an_echo_whose_id_is_taken_behind_dnat_gets_the_first_free_one() {
    let mut router = Router::new(&["-t nat -A PREROUTING -j DNAT --to-destination 10.1.0.10"]);
    let id = |sent: &[Packet]| sent.first().map(sport);
    assert_eq!(id(&router.put(0, echo(CLIENT, "10.1.0.11", 7))), Some(7));
    assert_eq!(id(&router.put(0, echo(CLIENT, "10.1.0.12", 7))), Some(0));
    let moved = &router.entries()[1];
    assert_eq!((moved.src_nat, moved.dst_nat), (false, true));
}

/// iptables-legacy seed 4, cases 213 and 2097 (xt_ct_target).
#[test]
fn the_rule_behind_notrack_sees_that_it_is_untracked() {
    let rules = [
        "-t raw -A PREROUTING -m conntrack --ctstate UNTRACKED",
        "-t raw -I PREROUTING -j CT --notrack",
    ];
    let mut router = Router::new(&rules);
    router.put(0, udp(CLIENT, 600, SERVER, 80));
    let netfilter = router.kernel.netfilter(NsId::HOST).expect("the host");
    assert_eq!(netfilter.counter(Table::Raw, "PREROUTING", 1), Some(1));
}

/// iptables-legacy seed 21, case 34300 (nf_ct_set_closing, called by nf_send_reset).
#[test]
fn what_a_rule_resets_is_closed() {
    let mut router = Router::new(&[]);
    router.put(0, there("S", 1000, 0));
    router.put(1, back("SA", 5000, 1001));
    router.put(0, there("A", 1001, 5001));
    router.rule("-A FORWARD -p tcp -j REJECT --reject-with tcp-reset");
    assert_eq!(router.put(0, there("A", 1001, 5001)).len(), 1);
    assert_eq!(router.state(), (Some(TcpState::Close), 10));
}

/// iptables-legacy seed 21, case 49266 (nf_conntrack_attach).
#[test]
fn an_error_about_what_is_untracked_is_invalid() {
    let rules = [
        "-t raw -A OUTPUT -j CT --notrack",
        "-A OUTPUT -m conntrack --ctstate UNTRACKED",
        "-A OUTPUT -p udp -j REJECT",
    ];
    let mut router = Router::new(&rules);
    assert_eq!(router.send(5000, "10.2.0.10:5000").0, Err(Errno::Eperm));
    assert_eq!(router.count(Table::Raw, "OUTPUT"), 2);
    assert_eq!(router.count(Table::Filter, "OUTPUT"), 1);
}

/// What is said about an untracked segment is related to the connection that is tracked the other
/// way: here the SYN was, and its reset was not.
#[test]
fn an_error_about_what_is_untracked_is_of_the_connection_that_it_quotes() {
    let mut router = Router::new(&[
        "-t raw -A OUTPUT ! -o lo ! -p icmp -j CT --notrack",
        "-A OUTPUT -m conntrack --ctstate RELATED",
        "-A OUTPUT -p tcp -j REJECT --reject-with icmp-port-unreachable",
    ]);
    let L4::Tcp(syn) = there("S", 1000, 0).l4 else { panic!("a segment") };
    router.put(0, packet(CLIENT, "10.0.0.1", L4::Tcp(syn)));
    assert_eq!(router.count(Table::Filter, "OUTPUT"), 1);
}

/// So it goes where the connection's own packets go.
#[test]
fn an_error_about_what_is_untracked_is_translated_like_its_connection() {
    let mut router = Router::new(&[
        "-t raw -A OUTPUT -p tcp -j CT --notrack",
        "-t nat -A PREROUTING -j DNAT --to-destination 10.0.0.10",
        "-A OUTPUT -p tcp -j REJECT --reject-with icmp-admin-prohibited",
    ]);
    let segment = |text: &str, seq, ack| {
        let L4::Tcp(tcp) = there(text, seq, ack).l4 else { panic!("a segment") };
        packet(SERVER, "10.0.0.1", L4::Tcp(tcp))
    };
    router.put(1, segment("S", 1000, 0));
    let sent = router.put(1, segment("AF", 1001, 5001));
    let [error] = &sent[..] else { panic!("{sent:?}") };
    let L4::Icmp(Icmp::Error { about, .. }) = &error.l4 else { panic!("{error:?}") };
    assert_eq!((error.dst, about.src), (ip(CLIENT), ip(CLIENT)));
}

/// bridge-filter seed 1, cases 7 and 35 (br_handle_frame learns behind the hook; what
/// br_netfilter notes of a packet stays with it).
#[test]
fn a_bridge_learns_nothing_from_what_prerouting_drops() {
    let (mut kernel, legs) = router();
    let mut out = Vec::new();
    let (now, host) = (Time::ZERO, NsId::HOST);
    let bridge = kernel.add_bridge(host, "br0", Mac([2; 6]), 1500).expect("a new name");
    kernel.set_up(now, host, bridge, true, &mut out).expect("a link");
    for leg in legs {
        kernel.set_master(now, host, leg, Some(bridge), &mut out).expect("a port");
    }
    let key = "net.bridge.bridge-nf-call-iptables";
    kernel.set_sysctl(now, host, key, "1", &mut out).expect("a key");
    let netfilter = kernel.netfilter_mut(host).expect("the host");
    netfilter.command("-t raw -A PREROUTING -s 10.0.0.10 -j DROP").expect("a rule");
    for (number, (src, learned)) in (1..).zip([("10.0.0.10", 0), ("10.0.0.11", 1)]) {
        let payload = Payload::Ip(Box::new(udp(src, 1024, "10.0.0.12", 80)));
        let frame = Frame { src: Mac([number * 2; 6]), dst: Mac([8; 6]), payload };
        kernel.receive(now, legs[0], frame, &mut out);
        assert_eq!(kernel.fdb(host, bridge).len(), learned);
    }
}

/// iptables-legacy seed 4, case 1508 (ip_output hands the link it came in by to the hook).
#[test]
fn postrouting_knows_by_which_link_a_packet_came_in() {
    // iptables takes such a rule in no chain that is called so, only in one that it leads to.
    let rules = ["-t mangle -N IN", "-t mangle -A IN -i leg0", "-t mangle -A POSTROUTING -j IN"];
    let mut router = Router::new(&rules);
    router.put(0, udp(CLIENT, 600, SERVER, 80));
    router.put(2, udp("10.2.0.10", 600, SERVER, 80));
    router.send(5000, "10.1.0.10:80").0.expect("a way");
    assert_eq!(router.count(Table::Mangle, "IN"), 1);
}

/// iptables-legacy seed 4001, case 12620 (__nf_conntrack_hash_insert: of two equal tuples the
/// reply's is found).
#[test]
fn who_talks_to_himself_has_answered() {
    let mut router = Router::new(&[]);
    let (host, own) = (NsId::HOST, at("10.2.0.1:5000"));
    let socket = router.kernel.udp_bind(host, *own.ip(), own.port(), 7).expect("a free port");
    for answered in [false, true] {
        let (kernel, mut out) = (&mut router.kernel, Vec::new());
        kernel.udp_send(router.now, socket, None, own, Body::Empty, 0, &mut out).expect("a way");
        let all = router.entries();
        let [entry] = &all[..] else { panic!("{all:?}") };
        assert_eq!(entry.seen_reply, answered);
    }
    router.pass(31);
    assert_eq!(router.entries().len(), 0);
}

/// conntrack seed 4001, case 76445 (nf_conntrack_tcp_packet: a SYN that is let through clears
/// last_flags, what was noted of a simultaneous open with them).
#[test]
fn a_repeated_syn_ends_a_simultaneous_open() {
    let mut router = Router::new(&[]);
    router.put(0, there("S", 1000, 0));
    router.put(1, back("S", 5000, 0));
    router.put(1, back("SA", 5000, 1001));
    router.put(0, there("S", 1000, 0));
    router.put(1, back("SA", 5000, 1001));
    router.put(1, back("A", 5000, 1001));
    assert_eq!(router.state(), (Some(TcpState::SynRecv), 60));
}

/// iptables-nft seed 4002, case 68458 (netif_rx: the softirq runs before the process goes on).
#[test]
fn what_one_says_to_everybody_is_heard_before_it_leaves() {
    let rules = [
        "-A INPUT -d 10.1.0.0/16 -m recent --set --name seen",
        "-t mangle -A POSTROUTING -d 10.1.0.0/16 -m recent --rcheck --seconds 600 --reap --name seen",
    ];
    let mut router = Router::new(&rules);
    router.send(5000, "10.1.255.255:5000").0.expect("a way");
    assert_eq!(router.count(Table::Filter, "INPUT"), 1);
    assert_eq!(router.count(Table::Mangle, "POSTROUTING"), 1);
}
