//! NAT there and back, for any flows and any rules.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
struct Flow {
    client: u8,
    port: u16,
    /// 0..3 are services, 3..6 servers behind them.
    to: u8,
    kind: u8,
}

impl Flow {
    fn packet(&self) -> Packet {
        let client = format!("10.1.0.{}", self.client);
        let to = match self.to {
            0..3 => format!("10.96.0.{}", self.to),
            _ => format!("10.2.0.{}", self.to - 3),
        };
        match self.kind {
            0 => udp(&client, self.port, &to, 80),
            1 => tcp(&client, self.port, &to, 80, "S"),
            _ => ping(&client, &to, self.port),
        }
    }
}

fn flows() -> impl Strategy<Value = Vec<Flow>> {
    let port = prop_oneof![2 => 5000u16..5003, 1 => 700u16..702, 1 => 80u16..82];
    let flow = (0u8..4, port, 0u8..6, 0u8..3).prop_map(|(client, port, to, kind)| Flow {
        client,
        port,
        to,
        kind,
    });
    prop::collection::vec(flow, 1..60)
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    let dnat = |(service, server, port): (u8, u8, Option<u16>)| {
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let protocol = if port.is_empty() { "" } else { "-p tcp " };
        format!(
            "-t nat -A PREROUTING -d 10.96.0.{service}/32 {protocol}\
             -j DNAT --to-destination 10.2.0.{server}{port}"
        )
    };
    let dnat =
        (0u8..3, 0u8..3, prop::option::of(prop_oneof![Just(80u16), Just(8080)])).prop_map(dnat);
    let snat = (0u8..4, 0u8..3).prop_map(|(client, how)| {
        let how = ["SNAT --to-source 10.3.0.1", "MASQUERADE", "MASQUERADE --random-fully"]
            [usize::from(how)];
        format!("-t nat -A POSTROUTING -s 10.1.0.{client}/32 -j {how}")
    });
    (prop::collection::vec(dnat, 1..8), prop::collection::vec(snat, 0..5))
        .prop_map(|(dnat, snat)| dnat.into_iter().chain(snat).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn answers_come_back_as_they_were_asked_for(
        rules in rules(), flows in flows(), seed in any::<u64>(),
    ) {
        let mut node = Node::new();
        node.rng = rng(seed);
        for line in &rules {
            node.nf.command(line).expect("a rule");
        }
        let (mut sent, mut written) = (Vec::new(), BTreeSet::new());
        for flow in &flows {
            let packet = flow.packet();
            let there = node.forward(packet.clone());
            prop_assert!(there.is_ok(), "{flow:?}");
            if written.insert(Tuple::of(&packet)) {
                sent.push((packet, there.expect("just seen")));
            }
        }
        let seen: BTreeSet<_> = sent.iter().map(|(_, there)| Tuple::of(there)).collect();
        prop_assert_eq!(seen.len(), sent.len(), "two flows look alike to a server");
        let mut order: Vec<usize> = (0..sent.len()).collect();
        rng(seed).shuffle(&mut order);
        for (packet, there) in order.into_iter().map(|at| &sent[at]) {
            let back = node.forward(answer(there)).expect("answers pass");
            prop_assert_eq!(Tuple::of(&back), Tuple::of(&answer(packet)));
            // And on it goes in both directions, by the same mapping.
            let mut more = packet.clone();
            if let L4::Tcp(tcp) = &mut more.l4 {
                tcp.flags = TcpFlags { ack: true, ..TcpFlags::default() };
            }
            let again = node.forward(more).expect("passes");
            prop_assert_eq!(Tuple::of(&again), Tuple::of(there));
        }
        prop_assert_eq!(node.nf.conntrack().count(), sent.len());
        prop_assert_eq!(node.nf.conntrack_losses(), (0, 0));
    }
}
