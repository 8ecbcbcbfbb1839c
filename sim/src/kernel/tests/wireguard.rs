//! WireGuard between two machines on one cable.

use super::*;
use crate::body::Body;
use crate::kernel::WireguardMessage as Message;
use kubesim_actors::ports::network::{
    PrivateKey, Reply, Request, RouteSet, Wireguard, WireguardPeer,
};

const DEV: &str = "flannel-wg";
const SECOND: Duration = Duration::from_secs(1);

fn key(machine: usize) -> PrivateKey {
    PrivateKey([machine as u8 + 1; 32])
}

fn peer(machine: usize, endpoint: &str) -> WireguardPeer {
    let allowed = net(&format!("10.244.{machine}.0/24"));
    let endpoint = SocketAddrV4::new(ip(endpoint), 51_820);
    WireguardPeer { public_key: key(machine).public_key(), endpoint, allowed }
}

fn set_peers(wire: &mut Wire, machine: usize, peers: &[WireguardPeer]) {
    let request = Request::SetWireguardPeers { dev: DEV.into(), peers: peers.into() };
    let reply = wire.with(machine, |k, now, out| k.network(now, &request, out));
    assert!(matches!(reply, Reply::Done { result: Ok(()), .. }), "{reply:?}");
}

/// Two machines with pod networks 10.244.<i>.0/24, one set of peers, and a route to each other.
fn tunnel() -> Wire {
    let mut wire = pair();
    let all = [peer(0, "10.0.0.1"), peer(1, "10.0.0.2")];
    for machine in 0..2 {
        let address = net(&format!("10.244.{machine}.0/32"));
        let spec = Wireguard { private_key: key(machine), port: 51_820, mtu: 1420, address };
        let request = Request::EnsureWireguard { name: DEV.into(), spec };
        let reply = wire.with(machine, |k, now, out| k.network(now, &request, out));
        assert!(matches!(reply, Reply::Done { result: Ok(()), .. }), "{reply:?}");
        set_peers(&mut wire, machine, &all);
        let to = route(&format!("10.244.{}.0/24", 1 - machine), None, DEV);
        let routes = RouteSet { shared: [to].into(), except: None };
        let request = Request::SetRoutes { proto: Proto::NETD, routes };
        wire.with(machine, |k, now, out| k.network(now, &request, out));
    }
    wire.seen.clear();
    wire
}

/// What left the machines since the last time: who sent what, in bytes of IP.
fn words(wire: &mut Wire) -> Vec<(usize, &'static str, u32)> {
    let seen = std::mem::take(&mut wire.seen);
    let word = |packet: &Packet| match &packet.body {
        Body::Wireguard(message) => match **message {
            Message::Initiation { .. } => "initiation",
            Message::Response { .. } => "response",
            Message::Data { packet: None, .. } => "keepalive",
            Message::Data { .. } => "data",
        },
        _ => "plain",
    };
    seen.iter().map(|(_, machine, packet)| (*machine, word(packet), packet.len)).collect()
}

fn pings(wire: &mut Wire, machine: usize, within: Duration) -> bool {
    let to = format!("10.244.{}.0", 1 - machine);
    wire.ping(machine, NsId::HOST, &to, 56).expect("a route");
    wire.run(within);
    wire.take_events().iter().any(|event| matches!(event, SocketEvent::EchoReply { .. }))
}

fn endpoint(wire: &Wire, machine: usize) -> Option<Ipv4Addr> {
    let to = ip(&format!("10.244.{}.9", 1 - machine));
    wire.kernels[machine].wireguard_endpoint(NsId::HOST, DEV, to)
}

fn move_to(wire: &mut Wire, from: &str, to: &str) {
    wire.with(1, |k, now, out| {
        k.del_address(now, NsId::HOST, ETH0, net(from), out).expect("it has it");
        k.add_address(now, NsId::HOST, ETH0, net(to), out).expect("new");
    });
}

#[test]
fn the_first_packet_shakes_hands_and_waits() {
    let mut wire = tunnel();
    assert!(pings(&mut wire, 0, SECOND / 10));
    // 84 bytes of IP are padded to 96 in a message of 128.
    let expected = [
        (0, "initiation", 148 + 28),
        (1, "response", 92 + 28),
        (0, "data", 96 + 32 + 28),
        (1, "data", 96 + 32 + 28),
    ];
    assert_eq!(words(&mut wire), expected);
    assert!(pings(&mut wire, 1, SECOND / 10), "one session, both ways");
    assert!(words(&mut wire).iter().all(|(_, word, _)| *word == "data"));
    // Who has heard last and has nothing to say says so, once (10 s).
    wire.run(SECOND * 30);
    assert_eq!(words(&mut wire), [(1, "keepalive", 32 + 28)]);
}

#[test]
fn who_shook_hands_first_does_so_again_after_two_minutes_of_use() {
    let mut wire = tunnel();
    let mut handshakes = Vec::new();
    for second in 0..250 {
        assert!(pings(&mut wire, 0, SECOND), "at {second} s");
        let said = words(&mut wire);
        let first = said.iter().filter(|(_, word, _)| *word == "initiation");
        handshakes.extend(first.map(|(machine, ..)| (*machine, second)));
    }
    // Each a moment after a full second, and noticed by the next packet.
    assert_eq!(handshakes, [(0, 0), (0, 121), (0, 242)]);
}

#[test]
fn a_handshake_is_tried_every_five_seconds_for_a_minute_and_a_half() {
    let mut wire = tunnel();
    wire.lose = Box::new(|machine, frame| machine == 1 && matches!(frame.payload, Payload::Ip(_)));
    assert!(!pings(&mut wire, 0, SECOND * 200));
    let said = words(&mut wire);
    let tries = said.iter().filter(|(machine, word, _)| (*machine, *word) == (0, "initiation"));
    let tries = tries.count();
    assert!((19..=21).contains(&tries), "{tries} tries");
    wire.lose = Box::new(|_, _| false);
    assert!(pings(&mut wire, 0, SECOND));
}

#[test]
fn where_a_peer_speaks_from_there_it_is_answered() {
    let mut wire = tunnel();
    assert!(pings(&mut wire, 0, SECOND));
    move_to(&mut wire, "10.0.0.2/24", "10.0.0.77/24");
    assert!(!pings(&mut wire, 0, SECOND), "nobody is at the old address");
    assert!(pings(&mut wire, 1, SECOND));
    assert_eq!(endpoint(&wire, 0), Some(ip("10.0.0.77")), "it is followed");
    words(&mut wire);
    assert!(pings(&mut wire, 0, SECOND));
    assert!(words(&mut wire).iter().all(|(_, word, _)| *word == "data"), "in the same session");
    // An older word does not send it back, a newer one does.
    let all = |at: &str| [peer(0, "10.0.0.1"), peer(1, at)];
    set_peers(&mut wire, 0, &all("10.0.0.2"));
    assert_eq!(endpoint(&wire, 0), Some(ip("10.0.0.77")));
    set_peers(&mut wire, 0, &all("10.0.0.99"));
    assert_eq!(endpoint(&wire, 0), Some(ip("10.0.0.99")));
}

#[test]
fn a_move_that_is_told_needs_no_handshake() {
    let mut wire = tunnel();
    assert!(pings(&mut wire, 0, SECOND));
    move_to(&mut wire, "10.0.0.2/24", "10.0.0.77/24");
    set_peers(&mut wire, 0, &[peer(1, "10.0.0.77")]);
    words(&mut wire);
    assert!(pings(&mut wire, 0, SECOND));
    assert!(words(&mut wire).iter().all(|(_, word, _)| *word == "data"));
}

#[test]
fn strangers_are_not_heard_and_nobody_speaks_for_another() {
    let mut wire = tunnel();
    // Machine 1 is somebody else to machine 0 from now on.
    let stranger = WireguardPeer { public_key: key(7).public_key(), ..peer(1, "10.0.0.2") };
    set_peers(&mut wire, 0, &[stranger]);
    assert!(!pings(&mut wire, 1, SECOND * 7));
    assert!(words(&mut wire).iter().all(|(_, word, _)| *word == "initiation"), "no response");
    // Its key is known, but for another network: what comes from its own is dropped.
    let other = WireguardPeer { allowed: net("10.244.9.0/24"), ..peer(1, "10.0.0.2") };
    set_peers(&mut wire, 0, &[other]);
    assert!(!pings(&mut wire, 1, SECOND * 7));
    assert!(words(&mut wire).contains(&(0, "response", 92 + 28)));
    // And nothing goes there that is nobody's.
    wire.ping(0, NsId::HOST, "10.244.1.0", 56).expect("a route");
    let unreachable = |event: &SocketEvent| matches!(event, SocketEvent::Icmp { .. });
    wire.run(SECOND);
    assert!(wire.take_events().iter().any(unreachable));
}
