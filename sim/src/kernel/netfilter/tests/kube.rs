//! The rules of kube-proxy, as notes from the field show them.

use super::*;
use kubesim_actors::ports::rules::RejectWith;

pub(crate) const BASE: [&str; 7] = [
    "nat first -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    "nat first -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
    "nat first -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" \
     -j KUBE-POSTROUTING",
    "filter first -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD",
    "filter first -A FORWARD -m conntrack --ctstate NEW -j KUBE-REJECT",
    "filter first -A OUTPUT -m conntrack --ctstate NEW -j KUBE-REJECT",
    "filter first -A INPUT -m conntrack --ctstate NEW -j KUBE-REJECT",
];

pub(crate) const CHAINS: [&str; 18] = [
    "filter -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
    "filter -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
    "filter -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "filter -A KUBE-REJECT -d 10.96.0.99/32 -p tcp -m comment --comment \"a/b has no endpoints\" \
     -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable",
    "nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    "nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
    "nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    "nat -A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m comment --comment \"default/web cluster IP\" \
     -m tcp --dport 80 -j KUBE-SVC-WEB",
    "nat -A KUBE-SERVICES -m comment --comment \"nodeports; must be last\" -m addrtype \
     --dst-type LOCAL -j KUBE-NODEPORTS",
    "nat -A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-WEB",
    "nat -A KUBE-EXT-WEB -j KUBE-MARK-MASQ",
    "nat -A KUBE-EXT-WEB -j KUBE-SVC-WEB",
    "nat -A KUBE-SVC-WEB ! -s 10.1.0.0/16 -d 10.96.0.7/32 -p tcp -m tcp --dport 80 \
     -j KUBE-MARK-MASQ",
    "nat -A KUBE-SVC-WEB -m statistic --mode random --probability 1.0 -j KUBE-SEP-ONE",
    "nat -A KUBE-SEP-ONE -s 10.1.0.5/32 -j KUBE-MARK-MASQ",
    "nat -A KUBE-SEP-ONE -p tcp -m recent --set --name KUBE-SEP-ONE --mask 255.255.255.255 \
     --rsource",
    "nat -A KUBE-SEP-ONE -p tcp -m tcp -j DNAT --to-destination 10.1.0.5:8080",
];

pub(crate) fn node() -> Node {
    let mut node = Node::new();
    let reply = node.apply("kube-proxy", &base(&BASE), &chains(&CHAINS, 3));
    let applied = Reply::Applied {
        owner: "kube-proxy".into(),
        version: 3,
        missing: Vec::new(),
        result: Ok(()),
    };
    assert_eq!(reply, applied);
    node
}

#[test]
fn a_cluster_ip_leads_to_an_endpoint_and_back() {
    let mut node = node();
    let there = node.forward(tcp("10.1.0.9", 5000, "10.96.0.7", 80, "S")).expect("passes");
    assert_eq!(shown(&there), "10.1.0.9:5000 > 10.1.0.5:8080");
    let back = node.forward(answer(&there)).expect("passes");
    assert_eq!(shown(&back), "10.96.0.7:80 > 10.1.0.9:5000");
    let listed = node.nf.conntrack_list(node.now);
    assert_eq!(
        listed,
        "tcp      6 60 SYN_RECV src=10.1.0.9 dst=10.96.0.7 sport=5000 dport=80 \
         src=10.1.0.5 dst=10.1.0.9 sport=8080 dport=5000 mark=0 use=1\n"
    );
}

#[test]
fn a_client_from_outside_the_pod_network_is_masqueraded() {
    let mut node = node();
    let there = node.forward(tcp("192.168.0.50", 5000, "10.96.0.7", 80, "S")).expect("passes");
    assert_eq!((there.src, there.dst), (ip("192.168.0.1"), ip("10.1.0.5")));
    assert_ne!(there.ports().0, 5000, "--random-fully never keeps the port");
    assert_eq!(there.mark & 0x4000, 0, "the mark is taken off again");
    let back = node.forward(answer(&there)).expect("passes");
    assert_eq!(shown(&back), "10.96.0.7:80 > 192.168.0.50:5000");
}

#[test]
fn a_pod_reaches_itself_through_its_service_by_masquerading() {
    let mut node = node();
    node.masquerade_to = Some(ip("10.1.0.1"));
    let there = node.forward(tcp("10.1.0.5", 5000, "10.96.0.7", 80, "S")).expect("passes");
    assert_eq!((there.src, there.dst), (ip("10.1.0.1"), ip("10.1.0.5")));
    let back = node.forward(answer(&there)).expect("passes");
    assert_eq!(shown(&back), "10.96.0.7:80 > 10.1.0.5:5000");
}

#[test]
fn a_node_port_leads_to_an_endpoint_with_the_nodes_address() {
    let mut node = node();
    let there = node.forward(tcp("172.16.9.9", 777, "192.168.0.1", 30080, "S")).expect("passes");
    assert_eq!((there.src, there.dst), (ip("192.168.0.1"), ip("10.1.0.5")));
    let back = node.forward(answer(&there)).expect("passes");
    assert_eq!(shown(&back), "192.168.0.1:30080 > 172.16.9.9:777");
    // Another port of the node is just the node.
    let own = node.receive(tcp("172.16.9.9", 777, "192.168.0.1", 22, "S")).expect("passes");
    assert_eq!(shown(&own), "172.16.9.9:777 > 192.168.0.1:22");
}

#[test]
fn the_node_itself_reaches_a_service() {
    let mut node = node();
    let there = node.send(tcp("192.168.0.1", 5000, "10.96.0.7", 80, "S")).expect("passes");
    assert_eq!(there.dst, ip("10.1.0.5"));
    let back = node.receive(answer(&there)).expect("passes");
    assert_eq!(shown(&back), "10.96.0.7:80 > 192.168.0.1:5000");
}

#[test]
fn a_service_without_endpoints_refuses() {
    let mut node = node();
    let refused = node.forward(tcp("10.1.0.9", 5000, "10.96.0.99", 80, "S")).expect_err("refused");
    assert_eq!(refused, Verdict::Reject(RejectWith::PortUnreachable));
    assert_eq!(node.nf.conntrack().count(), 0);
}

#[test]
fn a_cluster_ip_does_not_answer_ping() {
    let mut node = node();
    let out = node.forward(ping("10.1.0.9", "10.96.0.7", 9)).expect("goes on to nowhere");
    assert_eq!(out.dst, ip("10.96.0.7"));
}

#[test]
fn a_policy_of_drop_drops_what_nobody_accepts() {
    let mut node = node();
    node.run(&["-P FORWARD DROP"]);
    let pod = tcp("10.1.0.9", 5000, "10.2.0.9", 80, "S");
    assert_eq!(node.forward(pod.clone()).expect_err("dropped"), Verdict::Drop);
    assert_eq!(node.nf.conntrack().count(), 0, "what is dropped was never a connection");
    node.run(&["-A FORWARD -s 10.1.0.0/16 -j ACCEPT"]);
    assert!(node.forward(pod).is_ok());
    assert_eq!(node.nf.counter(Table::Filter, "FORWARD", 2), Some(1));
}

#[test]
fn an_error_about_a_translated_packet_is_translated_back_with_what_it_quotes() {
    use crate::kernel::packet::{IcmpError, Quoted};
    use kubesim_actors::ports::rules::Protocol;
    let mut node = node();
    let there = node.forward(tcp("192.168.0.50", 5000, "10.96.0.7", 80, "S")).expect("passes");
    let (sport, dport) = there.ports();
    let about =
        Quoted { src: there.src, dst: there.dst, protocol: Protocol::Tcp, sport, dport, seq: 0 };
    let error = Icmp::Error { kind: IcmpError::HostUnreachable, about };
    let mut error = packet("10.1.0.5", "192.168.0.1", L4::Icmp(error));
    assert_eq!(node.at(Hook::Prerouting, &mut error), Verdict::Accept);
    assert!(matches!(error.ct, Ct::Entry { related: true, reply: true, .. }));
    let back = node.through(&[Hook::Forward, Hook::Postrouting], error).expect("passes");
    assert_eq!((back.src, back.dst), (ip("10.96.0.7"), ip("192.168.0.50")));
    let L4::Icmp(Icmp::Error { about, .. }) = back.l4 else { panic!("an error stays one") };
    assert_eq!((about.src, about.sport), (ip("192.168.0.50"), 5000));
    assert_eq!((about.dst, about.dport), (ip("10.96.0.7"), 80));
}

#[test]
fn the_answer_to_a_refused_packet_is_translated_back() {
    let mut node = node();
    node.run(&["-I FORWARD -d 10.1.0.5/32 -p tcp -j REJECT --reject-with tcp-reset"]);
    let mut syn = tcp("10.1.0.9", 5000, "10.96.0.7", 80, "S");
    assert_eq!(node.at(Hook::Prerouting, &mut syn), Verdict::Accept);
    assert_eq!(node.at(Hook::Forward, &mut syn), Verdict::Reject(RejectWith::TcpReset));
    let mut reset = tcp("10.1.0.5", 8080, "10.1.0.9", 5000, "RA");
    reset.ct = Netfilter::attach(syn.ct);
    let reset = node.send(reset).expect("passes");
    assert_eq!(shown(&reset), "10.96.0.7:80 > 10.1.0.9:5000");
}

#[test]
fn session_affinity_keeps_to_the_endpoint_of_the_last_time() {
    let lines = [
        "nat -A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-WEB",
        "nat -A KUBE-SVC-WEB -m recent --rcheck --seconds 100 --reap --name ONE --rsource -j ONE",
        "nat -A KUBE-SVC-WEB -m recent --rcheck --seconds 100 --reap --name TWO --rsource -j TWO",
        "nat -A KUBE-SVC-WEB -m statistic --mode random --probability 0.5 -j ONE",
        "nat -A KUBE-SVC-WEB -j TWO",
        "nat -A ONE -p tcp -m recent --set --name ONE --rsource -j DNAT --to-destination 1.1.1.1:1",
        "nat -A TWO -p tcp -m recent --set --name TWO --rsource -j DNAT --to-destination 2.2.2.2:2",
    ];
    let mut node = Node::new();
    node.apply("kube-proxy", &base(&BASE[..1]), &chains(&lines, 1));
    let mut go = |client: &str, port| {
        node.forward(tcp(client, port, "10.96.0.7", 80, "S")).expect("passes").dst
    };
    let mut firsts = std::collections::BTreeSet::new();
    for client in 1..40 {
        let client = format!("10.1.1.{client}");
        let first = go(&client, 1000);
        firsts.insert(first);
        assert!((1001..1010).all(|port| go(&client, port) == first));
    }
    assert_eq!(firsts.len(), 2);
}
