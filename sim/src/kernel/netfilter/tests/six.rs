//! IPv6: what netfilter does otherwise there.

use super::rng;
use crate::body::Body;
use crate::kernel::family::V6;
use crate::kernel::netfilter::{Hook, HookContext, Netfilter6, Verdict};
use crate::kernel::packet::{Advertised, Ct, Discovery, Icmp, Icmp6Error, L4, Packet, Quoted};
use kubesim_actors::ports::rules::{AddrType, Protocol, Table};
use kubesim_runtime::Time;
use std::net::Ipv6Addr;

const CLIENT: &str = "fd00::10";
const FRONT: &str = "fd00:96::1";
const POD: &str = "fd01::10";

fn ip(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn packet(src: &str, dst: &str, l4: L4<V6>) -> Packet<V6> {
    Packet {
        src: ip(src),
        dst: ip(dst),
        ttl: 64,
        dont_fragment: true,
        len: 60,
        segment: 60,
        l4,
        body: Body::Empty,
        mark: 0,
        ct: Ct::None,
    }
}

fn udp(src: &str, dst: &str, sport: u16, dport: u16) -> Packet<V6> {
    packet(src, dst, L4::Udp { sport, dport })
}

/// A router between clients and pods.
fn through(rules: &mut Netfilter6, hooks: &[Hook], packet: &mut Packet<V6>) -> Verdict<V6> {
    let context = HookContext {
        now: Time::ZERO,
        input: Some("eth0"),
        output: Some("cni0"),
        physdev_in: false,
        sent_on: false,
        has_type: &|_, is| is == AddrType::Unicast,
        masquerade_to: &|_| Some(ip("fd01::1")),
    };
    let mut rng = rng(1);
    for hook in hooks {
        let verdict = rules.hook(*hook, packet, &context, &mut rng);
        if verdict != Verdict::Accept {
            return verdict;
        }
    }
    Verdict::Accept
}

const FORWARDED: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

fn with(commands: &[&str]) -> Netfilter6 {
    let mut rules = Netfilter6::default();
    commands.iter().for_each(|command| rules.command(command).expect(command));
    rules
}

#[test]
fn rules_come_back_as_ip6tables_saves_them() {
    let lines = [
        "-A FORWARD -s fd00::/64 -d fd01::10/128 -p tcp -m tcp --dport 80 -j ACCEPT",
        "-A FORWARD -p ipv6-icmp -j REJECT --reject-with icmp6-adm-prohibited",
        "-A FORWARD -m addrtype --dst-type LOCAL -j REJECT --reject-with icmp6-port-unreachable",
        "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        "-A FORWARD -m recent --set --name seen --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
         --rsource",
    ];
    let mut rules = with(&lines);
    let nat = "-A PREROUTING -p udp -j DNAT --to-destination [fd01::10]:80";
    rules.command(&format!("-t nat {nat}")).expect("a rule");
    let saved = rules.save(None);
    for line in lines.iter().chain([&nat]) {
        assert!(saved.contains(&format!("{line}\n")), "{line}:\n{saved}");
    }
    let mut again = Netfilter6::default();
    assert_eq!(again.restore(&saved), Vec::<String>::new());
    assert_eq!(again.save(None), saved);
}

#[test]
fn what_ip6tables_refuses_is_refused() {
    let refused = [
        ("-A INPUT -m addrtype --dst-type BROADCAST -j DROP", "ip6tables: Invalid argument"),
        ("-t nat -A PREROUTING -j MASQUERADE", "ip6tables: Invalid argument"),
        ("-A INPUT -j REJECT --reject-with icmp-port-unreachable", "the simulator's model"),
        ("-A INPUT -s 10.0.0.0/8 -j DROP", "the simulator's model of ip6tables"),
    ];
    for (command, words) in refused {
        let said = Netfilter6::default().command(command).expect_err(command);
        assert!(said.starts_with(words), "{command}: {said}");
    }
}

/// nf_conntrack_icmpv6_error: who has an address is nobody's connection.
#[test]
fn neighbour_discovery_is_not_tracked() {
    let mut rules = with(&[
        "-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT",
        "-A INPUT -m conntrack --ctstate INVALID -j DROP",
    ]);
    let flags = Advertised { solicited: true, ..Advertised::default() };
    let told = Discovery::Advertisement { target: ip(CLIENT), flags, link: None };
    let mut told = packet(CLIENT, "fd00::1", L4::Icmp(Icmp::Discovery(told)));
    let verdict = through(&mut rules, &[Hook::Prerouting, Hook::Input], &mut told);
    assert_eq!((verdict, told.ct), (Verdict::Accept, Ct::Untracked));
    assert_eq!(rules.counter(Table::Filter, "INPUT", 0), Some(1));
    assert_eq!(rules.conntrack().count(), 0);
}

#[test]
fn an_echo_is_a_connection_of_icmpv6s_types() {
    let mut rules = with(&["-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"]);
    let asked = L4::Icmp(Icmp::EchoRequest { id: 7, seq: 1 });
    through(&mut rules, &FORWARDED, &mut packet(CLIENT, POD, asked));
    let answered = L4::Icmp(Icmp::EchoReply { id: 7, seq: 1 });
    through(&mut rules, &FORWARDED, &mut packet(POD, CLIENT, answered));
    assert_eq!(rules.counter(Table::Filter, "FORWARD", 0), Some(1));
    let listed = rules.conntrack_list(Time::ZERO);
    let line = "icmpv6   58 30 src=fd00::10 dst=fd01::10 type=128 code=0 id=7 src=fd01::10 \
                dst=fd00::10 type=129 code=0 id=7 mark=0 use=1\n";
    assert_eq!(listed, line);
}

/// As an error about a Service's endpoint comes back: from whom, and about what, the client asked.
#[test]
fn an_error_about_a_rewritten_connection_is_rewritten() {
    let mut rules = with(&[
        "-t nat -A PREROUTING -d fd00:96::1 -p udp -j DNAT --to-destination [fd01::10]:5353",
        "-t nat -A POSTROUTING -j MASQUERADE",
    ]);
    let mut asked = udp(CLIENT, FRONT, 1024, 53);
    assert_eq!(through(&mut rules, &FORWARDED, &mut asked), Verdict::Accept);
    assert_eq!((asked.src, asked.dst), (ip("fd01::1"), ip(POD)));
    assert_eq!(asked.l4, L4::Udp { sport: 1024, dport: 5353 });
    let (protocol, seq) = (Protocol::Udp, 0);
    let about = Quoted { src: asked.src, dst: asked.dst, protocol, sport: 1024, dport: 5353, seq };
    let error = Icmp::Error { kind: Icmp6Error::PortUnreachable, about };
    let mut error = packet(POD, "fd01::1", L4::Icmp(error));
    assert_eq!(through(&mut rules, &FORWARDED, &mut error), Verdict::Accept);
    assert_eq!((error.src, error.dst), (ip(FRONT), ip(CLIENT)));
    let L4::Icmp(Icmp::Error { about, .. }) = error.l4 else { panic!("{error:?}") };
    let expected =
        Quoted { src: ip(CLIENT), dst: ip(FRONT), protocol, sport: 1024, dport: 53, seq };
    assert_eq!(about, expected);
}
