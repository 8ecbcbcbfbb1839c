//! Connections: states, timeouts, and what ends them.

use super::*;
use std::time::Duration;

fn tracking() -> Node {
    Node::with(&["-A FORWARD -m conntrack --ctstate INVALID -j DROP"])
}

#[test]
fn nothing_is_tracked_until_a_rule_needs_it() {
    let mut node = Node::with(&["-A FORWARD -s 10.9.0.0/16 -j DROP"]);
    assert!(!node.nf.is_idle());
    node.forward(udp("10.1.0.1", 1, "10.2.0.1", 2)).expect("passes");
    assert_eq!(node.nf.conntrack().count(), 0);
    node.run(&["-t nat -A POSTROUTING -j MASQUERADE"]);
    node.forward(udp("10.1.0.1", 1, "10.2.0.1", 2)).expect("passes");
    assert_eq!(node.nf.conntrack().count(), 1);
}

#[test]
fn an_unused_netfilter_is_a_pointer() {
    assert!(size_of::<Netfilter>() <= 8);
    let mut netfilter = Netfilter::default();
    assert!(netfilter.is_idle());
    netfilter.command("-A INPUT -j DROP").expect("a rule");
    assert!(!netfilter.is_idle());
    netfilter.command("-F").expect("a flush");
    assert!(netfilter.is_idle());
}

#[test]
fn udp_is_new_until_answered_and_a_stream_after_two_seconds() {
    let mut node = tracking();
    let there = udp("10.1.0.1", 1, "10.2.0.1", 2);
    let state = |node: &mut Node, packet: Packet| {
        let ct = node.forward(packet).expect("passes").ct;
        let entry = node.nf.entry(ct).expect("tracked").clone();
        (matches!(ct, Ct::Entry { new: true, .. }), entry.assured, entry.expires().since(node.now))
    };
    let secs = Duration::from_secs;
    assert_eq!(state(&mut node, there.clone()), (true, false, secs(30)));
    assert_eq!(state(&mut node, there.clone()), (true, false, secs(30)));
    assert_eq!(state(&mut node, answer(&there)), (false, false, secs(30)));
    node.now = Time::from_secs(3);
    assert_eq!(state(&mut node, there.clone()), (false, true, secs(120)));
    node.now = Time::from_secs(123);
    assert_eq!(state(&mut node, there), (true, false, secs(30)));
    assert_eq!(node.nf.conntrack().count(), 1);
}

#[test]
fn tcp_lives_five_days_when_open_and_two_minutes_when_closed() {
    let mut node = tracking();
    let (a, b) = (("10.1.0.1", 1), ("10.2.0.1", 2));
    let run = |node: &mut Node, there: bool, flags: &str| {
        let (from, to) = if there { (a, b) } else { (b, a) };
        node.forward(tcp(from.0, from.1, to.0, to.1, flags)).expect("passes");
        let entry = node.nf.conntrack().next().expect("one");
        (entry.tcp_state().expect("tcp"), entry.expires().since(node.now).as_secs(), entry.assured)
    };
    assert_eq!(run(&mut node, true, "S"), (TcpState::SynSent, 120, false));
    assert_eq!(run(&mut node, false, "SA"), (TcpState::SynRecv, 60, false));
    assert_eq!(run(&mut node, true, "A"), (TcpState::Established, 432_000, true));
    assert_eq!(run(&mut node, true, "FA"), (TcpState::FinWait, 120, true));
    assert_eq!(run(&mut node, false, "FA"), (TcpState::LastAck, 30, true));
    assert_eq!(run(&mut node, true, "A"), (TcpState::TimeWait, 120, true));
    // The same ports again at once: a new connection.
    assert_eq!(run(&mut node, true, "S"), (TcpState::SynSent, 120, false));
    // Nobody is there: that was none.
    node.forward(tcp(b.0, b.1, a.0, a.1, "RA")).expect("passes");
    assert_eq!(node.nf.conntrack().count(), 0);
}

#[test]
fn a_segment_that_fits_nothing_is_invalid() {
    let mut node = tracking();
    assert_eq!(
        node.forward(tcp("10.1.0.1", 1, "10.2.0.1", 2, "SA")).expect_err("x"),
        Verdict::Drop
    );
    let reply = packet("10.1.0.1", "10.2.0.1", L4::Icmp(Icmp::EchoReply { id: 1, seq: 1 }));
    assert_eq!(node.forward(reply).expect_err("x"), Verdict::Drop);
    // Picked up in its middle, and not answered: a short life.
    node.forward(tcp("10.1.0.1", 1, "10.2.0.1", 2, "A")).expect("passes");
    let entry = node.nf.conntrack().next().expect("one");
    assert_eq!(entry.expires().as_millis(), 300_000);
}

#[test]
fn notrack_is_untracked_and_untranslated() {
    let mut node = Node::with(&[
        "-t raw -A PREROUTING -p udp --dport 8472 -j CT --notrack",
        "-t nat -A POSTROUTING -j MASQUERADE",
        "-A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT",
        "-P FORWARD DROP",
    ]);
    let out = node.forward(udp("10.1.0.1", 1, "10.2.0.1", 8472)).expect("passes");
    assert_eq!((out.src, out.ct), (ip("10.1.0.1"), Ct::Untracked));
    assert!(node.forward(udp("10.1.0.1", 1, "10.2.0.1", 8473)).is_err());
}

#[test]
fn the_connections_of_a_lost_address_go_and_others_stay() {
    let mut node = Node::with(&["-t nat -A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE"]);
    node.forward(udp("10.1.0.9", 1, "8.8.8.8", 53)).expect("passes");
    node.forward(udp("10.2.0.9", 1, "8.8.8.8", 53)).expect("passes");
    assert_eq!(node.nf.address_gone(ip("192.168.0.2"), node.now), 0);
    assert_eq!(node.nf.address_gone(ip("192.168.0.1"), node.now), 1);
    assert_eq!(node.nf.conntrack().count(), 1);
}

#[test]
fn a_masqueraded_connection_that_leaves_by_another_link_is_forgotten() {
    let mut node = Node::with(&["-t nat -A POSTROUTING -j MASQUERADE"]);
    let there = udp("10.1.0.9", 1, "8.8.8.8", 53);
    node.forward(there.clone()).expect("passes");
    node.output = "wlan0";
    node.masquerade_to = Some(ip("172.20.0.7"));
    assert_eq!(node.forward(there.clone()).expect_err("lost"), Verdict::Drop);
    assert_eq!(node.forward(there).expect("again").src, ip("172.20.0.7"));
}

#[test]
fn masquerade_without_an_address_drops() {
    let mut node = Node::with(&["-t nat -A POSTROUTING -j MASQUERADE"]);
    node.masquerade_to = None;
    assert!(node.forward(udp("10.1.0.9", 1, "8.8.8.8", 53)).is_err());
}

#[test]
fn two_clients_with_one_source_port_get_two() {
    let mut node = Node::with(&["-t nat -A POSTROUTING -j MASQUERADE"]);
    let one = node.forward(udp("10.1.0.8", 4000, "8.8.8.8", 53)).expect("passes");
    let two = node.forward(udp("10.1.0.9", 4000, "8.8.8.8", 53)).expect("passes");
    let other = node.forward(udp("10.1.0.9", 4001, "8.8.4.4", 53)).expect("passes");
    assert_eq!((one.ports().0, other.ports().0), (4000, 4001));
    assert!(two.ports().0 >= 1024 && two.ports().0 != 4000);
    assert_eq!(shown(&node.forward(answer(&two)).expect("back")), "8.8.8.8:53 > 10.1.0.9:4000");
}

#[test]
fn a_full_table_drops_new_connections_but_first_those_not_assured() {
    let mut node = tracking();
    node.nf.set_conntrack_max(2);
    for port in 1..=2 {
        let there = udp("10.1.0.9", port, "8.8.8.8", 53);
        node.forward(there.clone()).expect("passes");
        node.forward(answer(&there)).expect("passes");
    }
    node.now = Time::from_secs(3);
    node.forward(udp("10.1.0.9", 1, "8.8.8.8", 53)).expect("assured now");
    node.forward(udp("10.1.0.9", 3, "8.8.8.8", 53)).expect("in place of 2");
    let there = udp("10.1.0.9", 3, "8.8.8.8", 53);
    node.forward(answer(&there)).expect("passes");
    node.now = Time::from_secs(6);
    node.forward(there).expect("assured now");
    assert!(node.forward(udp("10.1.0.9", 4, "8.8.8.8", 53)).is_err());
    assert_eq!(node.nf.conntrack_losses(), (0, 1));
}

#[test]
fn of_two_packets_in_a_race_udp_joins_and_a_taken_mapping_is_lost() {
    let mut node = tracking();
    let (mut a, mut b) = (udp("10.1.0.1", 1, "10.2.0.1", 2), udp("10.1.0.1", 1, "10.2.0.1", 2));
    node.at(Hook::Prerouting, &mut a);
    node.at(Hook::Prerouting, &mut b);
    assert_ne!(a.ct, b.ct);
    assert_eq!(node.at(Hook::Postrouting, &mut a), Verdict::Accept);
    assert_eq!(node.at(Hook::Postrouting, &mut b), Verdict::Accept);
    assert_eq!((a.ct, node.nf.conntrack().count()), (b.ct, 1));

    // TCP never shares.
    let (mut a, mut b) = (syn(), syn());
    node.at(Hook::Prerouting, &mut a);
    node.at(Hook::Prerouting, &mut b);
    assert_eq!(node.at(Hook::Postrouting, &mut a), Verdict::Accept);
    assert_eq!(node.at(Hook::Postrouting, &mut b), Verdict::Drop);
    assert_eq!(node.nf.conntrack_losses(), (1, 0));
}

fn syn() -> Packet {
    tcp("10.1.0.1", 1, "10.2.0.1", 2, "S")
}

/// A and AAAA from one socket, balanced to two servers: what kernels before 5.7 lost is answered,
/// by both (commit 6a757c07e51f, "netfilter: conntrack: allow insertion of clashing entries").
#[test]
fn of_two_packets_in_a_race_each_may_have_a_mapping_of_its_own() {
    let mut node = Node::with(&[
        "-t nat -A PREROUTING -m mark --mark 1 -j DNAT --to-destination 10.2.0.1",
        "-t nat -A PREROUTING -m mark --mark 2 -j DNAT --to-destination 10.2.0.2",
    ]);
    let question = udp("10.1.0.1", 1, "10.96.0.10", 53);
    let (mut a, mut b) = (question.clone(), question);
    (a.mark, b.mark) = (1, 2);
    node.at(Hook::Prerouting, &mut a);
    node.at(Hook::Prerouting, &mut b);
    assert_eq!(node.at(Hook::Postrouting, &mut a), Verdict::Accept);
    assert_eq!(node.at(Hook::Postrouting, &mut b), Verdict::Accept);
    assert_eq!((node.nf.conntrack_losses(), node.nf.conntrack().count()), ((0, 0), 1));
    for sent in [&a, &b] {
        let back = node.forward(answer(sent)).expect("passes");
        assert_eq!(shown(&back), "10.96.0.10:53 > 10.1.0.1:1");
    }
    // That of the second ends soon, whoever answers it.
    node.now += Duration::from_millis(1_500);
    let late = node.forward(answer(&b)).expect("passes");
    assert_eq!(shown(&late), "10.2.0.2:53 > 10.1.0.1:1");
}

#[test]
fn garbage_does_not_pile_up() {
    let mut node = tracking();
    for round in 0..20u16 {
        node.now = Time::from_secs(u64::from(round) * 100);
        for port in 0..500 {
            node.forward(udp("10.1.0.1", port, "10.2.0.1", round)).expect("passes");
        }
    }
    assert!(node.nf.conntrack().count() <= 1000);
}

#[test]
fn a_looped_back_packet_is_tracked_once() {
    let mut node = Node::with(&[
        "-t nat -A OUTPUT -d 10.96.0.1/32 -p tcp --dport 443 -j DNAT --to-destination 127.0.0.1:6443",
    ]);
    let out = node.send(tcp("127.0.0.1", 5, "10.96.0.1", 443, "S")).expect("passes");
    let got = node.receive(out).expect("passes");
    assert_eq!(shown(&got), "127.0.0.1:5 > 127.0.0.1:6443");
    assert_eq!(node.nf.conntrack().count(), 1);
    let back = node.send(answer(&got)).expect("passes");
    let back = node.receive(back).expect("passes");
    assert_eq!(shown(&back), "10.96.0.1:443 > 127.0.0.1:5");
}
