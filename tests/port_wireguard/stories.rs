//! What holds of WireGuard devices.

use crate::pair::{DEV, Machine, PORT, arrives, both_ways, ip, net, two};
use kubesim_actors::ports::network::{
    Errno, LinkKind, PublicKey, Request, Wireguard, WireguardPeer,
};
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// All of a network, as machines share it: nobody is a peer of himself.
fn join(one: &Machine, two: &Machine) {
    let peers = [one, two].map(|machine| machine.peer_at(&machine.locator().to_string()));
    one.join(two, &peers);
    two.join(one, &peers);
    assert_eq!(one.device().peers.keys().collect::<Vec<_>>(), [&two.key()]);
}

fn echoed(here: &mut TcpStream, there: &mut TcpStream, word: &[u8]) {
    let mut bytes = vec![0; word.len()];
    here.write_all(word).expect("a connection");
    there.read_exact(&mut bytes).expect("the word");
    assert_eq!(bytes, word);
    there.write_all(&bytes).expect("a connection");
    here.read_exact(&mut bytes).expect("the echo");
    assert_eq!(bytes, word);
}

pub fn a_peer_moves_and_no_connection_breaks() {
    let (one, two) = two();
    join(&one, &two);
    let (a, b) = (one.socket(), two.socket());
    both_ways(&a, &b);

    two.enter();
    let listener = TcpListener::bind((two.subnet().network(), 80)).expect("an address");
    one.enter();
    let mut client = TcpStream::connect((two.subnet().network(), 80)).expect("a connection");
    let (mut server, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip(), one.subnet().network(), "the inner address");
    for end in [&client, &server] {
        end.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    }
    echoed(&mut client, &mut server, b"before");
    let before = one.device().peers[&two.key()].clone();
    assert!(!before.handshake.is_zero() && before.received > 0, "{before:?}");

    // It does not speak there, so nobody can follow.
    two.move_to("192.168.0.2", "192.168.7.9");
    assert!(!arrives(&a, &b, Duration::from_secs(2)), "nobody is at the old address");
    one.set_peers(&[two.peer_at("192.168.7.9")]).expect("an endpoint");
    let after = one.device().peers[&two.key()].clone();
    assert_eq!(after.endpoint, Some(SocketAddrV4::new([192, 168, 7, 9].into(), PORT)));
    assert_eq!(after.handshake, before.handshake, "the session is the same");
    assert!(after.received >= before.received, "the peer is the same");
    echoed(&mut client, &mut server, b"after");
    both_ways(&a, &b);
}

pub fn a_peer_that_speaks_is_followed_and_not_sent_back() {
    let (mut one, two) = two();
    join(&one, &two);
    let (a, b) = (one.socket(), two.socket());
    both_ways(&a, &b);
    two.move_to("192.168.0.2", "192.168.7.9");
    assert!(arrives(&b, &a, Duration::from_secs(20)), "it speaks, from its new address");
    let new = Some(SocketAddrV4::new([192, 168, 7, 9].into(), PORT));
    assert_eq!(one.endpoint_of(&two), new, "the kernel follows");

    // The word of the move has not arrived: the old address is wanted again and again.
    let old = [two.peer_at("192.168.0.2")];
    one.set_peers(&old).expect("nothing to do");
    assert_eq!(one.endpoint_of(&two), new);
    one.restart();
    one.set_peers(&old).expect("nothing to do");
    assert_eq!(one.endpoint_of(&two), new, "nor by one who starts anew");
    both_ways(&a, &b);
    // Where another one is wanted than before, it is believed.
    one.set_peers(&[two.peer_at("192.168.9.9")]).expect("an endpoint");
    let told = SocketAddrV4::new([192, 168, 9, 9].into(), PORT);
    assert_eq!(one.endpoint_of(&two), Some(told));
    one.set_peers(&[two.peer_at("192.168.7.9")]).expect("an endpoint");
    assert_eq!(one.endpoint_of(&two), new);
    both_ways(&a, &b);
}

fn stranger(number: u8) -> WireguardPeer {
    let endpoint = SocketAddrV4::new([192, 168, 1, number].into(), PORT);
    let allowed = net(&format!("10.244.{number}.0/24"));
    WireguardPeer { public_key: PublicKey([number; 32]), endpoint, allowed }
}

pub fn peers_become_exactly_these() {
    let (one, two) = two();
    join(&one, &two);
    let (a, b) = (one.socket(), two.socket());
    both_ways(&a, &b);
    let mine = two.peer_at("192.168.0.2");
    let before = one.device().peers[&two.key()].clone();

    // Somebody else adds one of its own, and takes our peer's network for it.
    let other = one.another();
    let thief = WireguardPeer { allowed: two.subnet(), ..stranger(9) };
    other.set_peers(&[mine, stranger(8), thief]).expect("peers");
    let device = one.device();
    assert_eq!((device.peers.len(), device.peers[&two.key()].allowed.len()), (3, 0));

    one.set_peers(&[mine]).expect("peers");
    let device = one.device();
    assert_eq!(device.peers.keys().collect::<Vec<_>>(), [&two.key()], "strangers go");
    let after = &device.peers[&two.key()];
    assert_eq!(after.allowed.iter().collect::<Vec<_>>(), [&two.subnet()]);
    assert_eq!(after.handshake, before.handshake, "our peer was mended, not made anew");
    both_ways(&a, &b);

    // Two peers that swap their networks.
    let swapped = [
        WireguardPeer { allowed: stranger(8).allowed, ..stranger(9) },
        WireguardPeer { allowed: stranger(9).allowed, ..stranger(8) },
    ];
    for set in [[stranger(8), stranger(9)], swapped] {
        one.set_peers(&set).expect("peers");
        let found = one.device().peers;
        assert_eq!(found.len(), 2);
        for peer in set {
            let found = &found[&peer.public_key];
            assert_eq!(found.allowed.iter().collect::<Vec<_>>(), [&peer.allowed]);
            assert_eq!(found.endpoint, Some(peer.endpoint));
        }
    }
    one.set_peers(&[]).expect("none");
    assert!(one.device().peers.is_empty());
}

pub fn a_device_is_made_and_corrected() {
    let (one, two) = two();
    assert_eq!(one.set_peers(&[]), Err(Errno::Enodev));
    join(&one, &two);
    assert_eq!(one.device().public_key, Some(one.key()), "the lease's key is the device's");
    let state = one.state();
    let made = state.links.iter().find(|link| link.name == DEV).expect("a device");
    assert_eq!((made.kind, made.mtu, made.up), (LinkKind::Wireguard, 1420, true));
    assert_eq!((made.carrier, &made.addresses[..]), (true, &[net("10.244.1.0/32")][..]));
    assert!(ip("route show dev flannel-wg").contains("10.244.2.0/24 proto 98 scope link"));
    let (a, b) = (one.socket(), two.socket());
    both_ways(&a, &b);

    let before = one.device();
    one.ensure(&one.spec()).expect("the same again");
    assert_eq!(one.device(), before);
    // In place: the session outlives it, and the peer follows to the other port.
    let other = Wireguard { port: 51_900, mtu: 1380, ..one.spec() };
    one.ensure(&other).expect("corrected");
    let index = made.index;
    assert_eq!((one.index(), one.device().port, one.device().peers.len()), (index, 51_900, 1));
    assert!(arrives(&a, &b, Duration::from_secs(20)));
    assert_eq!(two.endpoint_of(&one).map(|at| at.port()), Some(51_900));
    both_ways(&a, &b);

    // Another key: nobody knows that one.
    one.ensure(&Wireguard { private_key: two.spec().private_key, ..other.clone() }).expect("a key");
    assert_eq!(one.device().public_key, Some(two.key()));
    one.ensure(&other).expect("its own key");
    assert_eq!(one.device().public_key, Some(one.key()));

    let bridge =
        Request::EnsureBridge { name: "cni0".into(), address: net("10.9.0.1/24"), mtu: 1500 };
    one.done(bridge).expect("a bridge");
    let named = |name: &str| Request::EnsureWireguard { name: name.into(), spec: other.clone() };
    assert_eq!(one.done(named("cni0")), Err(Errno::Eexist));
    assert_eq!(one.done(named("wg1")), Err(Errno::Eaddrinuse), "its port is taken");
    let peers = Request::SetWireguardPeers { dev: "cni0".into(), peers: [].into() };
    assert_eq!(one.done(peers), Err(Errno::Eopnotsupp));
}

pub fn many_peers_are_set_and_read_in_parts() {
    let (one, _) = two();
    one.ensure(&one.spec()).expect("a device");
    let many: Vec<WireguardPeer> = (0..2000_u32)
        .map(|number| {
            let mut key = [1; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            let allowed = std::net::Ipv4Addr::from(0x0a64_0000 + (number << 8));
            WireguardPeer {
                public_key: PublicKey(key),
                endpoint: SocketAddrV4::new((0xc0a8_0100 + number).into(), PORT),
                allowed: ipnet::Ipv4Net::new(allowed, 24).expect("a prefix length"),
            }
        })
        .collect();
    for what in ["2000 peers are written", "2000 peers are left"] {
        let begun = Instant::now();
        one.set_peers(&many).expect("peers");
        println!("{what} in {:?}", begun.elapsed());
        let found = one.device().peers;
        assert_eq!(found.len(), many.len());
        for peer in &many {
            let found = &found[&peer.public_key];
            assert_eq!(found.endpoint, Some(peer.endpoint));
            assert_eq!(found.allowed.iter().collect::<Vec<_>>(), [&peer.allowed]);
        }
    }
    one.set_peers(&many[..1]).expect("one");
    assert_eq!(one.device().peers.len(), 1);
}
