//! The packets port: its driver on UDP sockets does what its model in the simulator does. Each
//! body here runs twice, on the model and on this machine's kernel in a network namespace.

#![cfg(target_os = "linux")]

#[path = "../common/namespace.rs"]
mod namespace;

/// Two tests of each body.
macro_rules! alike {
    ($($body:ident)*) => {
        mod on_the_model {
            $(#[test] fn $body() { super::$body(&mut crate::model::Model::new()); })*
        }
        mod on_linux {
            $(#[test] fn $body() {
                let body = || super::$body(&mut crate::linux::Linux::new());
                crate::namespace::in_namespace(body);
            })*
        }
    };
}

mod connections;
mod linux;
mod model;
mod world;

use self::linux::Linux;
use self::namespace::in_namespace;
use self::world::{Asking, Client, Server, World, at, query};
use kubesim_actors::netd::peer::{Ask, Signed, Statement};
use kubesim_actors::ports::network::{Errno, Mac};
use kubesim_actors::ports::packets::{Body, Reply, Request};
use kubesim_backends::packets::Codec;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

alike! {
    who_asks_an_address_is_answered_from_it
    an_address_that_nobody_has_is_put_on_the_loopback
    without_a_word_the_route_chooses_the_source
    a_closed_port_is_unreachable_and_nothing_else
    what_cannot_leave_is_unreachable
    a_silent_neighbour_is_unreachable
    a_port_is_bound_once
    after_a_crash_the_port_is_there_again
    what_is_not_bound_sends_nothing
}

fn who_asks_an_address_is_answered_from_it(world: &mut impl World) {
    world.bind(Server, "0.0.0.0:53");
    world.bind(Client, "0.0.0.0:40000");
    // Who speaks to a secondary address of his own speaks from its primary.
    let primary = [
        ("192.168.0.5", "192.168.0.5"),
        ("192.168.0.6", "192.168.0.5"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.9", "127.0.0.1"),
    ];
    for (id, (asked, asker)) in (1..).zip(primary) {
        let to = format!("{asked}:53");
        world.send(Client, None, 40000, &to, id);
        let from = format!("{asker}:40000");
        assert_eq!(world.datagrams(Server), [(to.clone(), from.clone(), id)]);
        world.send(Server, Some(asked), 53, &from, id);
        assert_eq!(world.datagrams(Client), [(from, to, id)], "from where it was asked");
    }
    // Also if that is not what the route would choose.
    world.send(Client, Some("192.168.0.6"), 40000, "192.168.0.5:53", 9);
    let expected = ("192.168.0.5:53".to_owned(), "192.168.0.6:40000".to_owned(), 9);
    assert_eq!(world.datagrams(Server), [expected]);
}

fn an_address_that_nobody_has_is_put_on_the_loopback(world: &mut impl World) {
    world.bind(Server, "10.96.0.10:53");
    world.bind(Client, "0.0.0.0:40000");
    world.send(Client, None, 40000, "10.96.0.10:53", 1);
    let told = world.datagrams(Server);
    assert_eq!(told, [("10.96.0.10:53".to_owned(), "10.96.0.10:40000".to_owned(), 1)]);
    world.send(Client, Some("192.168.0.5"), 40000, "10.96.0.10:53", 2);
    let told = world.datagrams(Server);
    assert_eq!(told, [("10.96.0.10:53".to_owned(), "192.168.0.5:40000".to_owned(), 2)]);
    world.send(Server, Some("10.96.0.10"), 53, "192.168.0.5:40000", 2);
    let told = world.datagrams(Client);
    assert_eq!(told, [("192.168.0.5:40000".to_owned(), "10.96.0.10:53".to_owned(), 2)]);
    // Bound to one address it hears of no other.
    world.send(Client, None, 40000, "192.168.0.5:53", 3);
    world.is_unreachable(Client, "192.168.0.5:53");
    assert_eq!(world.datagrams(Server), []);
}

fn without_a_word_the_route_chooses_the_source(world: &mut impl World) {
    world.bind(Server, "0.0.0.0:53");
    world.bind(Client, "192.168.0.6:40000");
    world.send(Client, None, 40000, "192.168.0.5:53", 1);
    let told = world.datagrams(Server);
    assert_eq!(told, [("192.168.0.5:53".to_owned(), "192.168.0.6:40000".to_owned(), 1)]);
    world.send(Server, None, 53, "192.168.0.6:40000", 2);
    let told = world.datagrams(Client);
    assert_eq!(told, [("192.168.0.6:40000".to_owned(), "192.168.0.5:53".to_owned(), 2)]);
}

fn a_closed_port_is_unreachable_and_nothing_else(world: &mut impl World) {
    world.bind(Server, "0.0.0.0:53");
    world.bind(Client, "0.0.0.0:40000");
    world.send(Client, None, 40000, "192.168.0.5:9", 1);
    world.is_unreachable(Client, "192.168.0.5:9");
    // Errors wait in a socket for the next that uses it: he must not take them for his.
    world.send(Client, None, 40000, "192.168.0.5:9", 2);
    world.send(Client, None, 40000, "192.168.0.5:53", 3);
    world.send(Client, None, 40000, "192.168.0.6:9", 4);
    world.send(Client, None, 40000, "192.168.0.5:53", 5);
    let ids: Vec<u16> = world.datagrams(Server).iter().map(|(_, _, id)| *id).collect();
    assert_eq!(ids, [3, 5]);
    let unreachable = |to: &str| Reply::Unreachable { to: at(to) };
    let expected = [unreachable("192.168.0.5:9"), unreachable("192.168.0.6:9")];
    assert_eq!(world.news(Client), expected);
    assert_eq!(world.news(Client), []);
}

fn what_cannot_leave_is_unreachable(world: &mut impl World) {
    world.bind(Client, "0.0.0.0:40000");
    world.send(Client, None, 40000, "8.8.8.8:53", 1);
    world.is_unreachable(Client, "8.8.8.8:53");
    world.send(Client, Some("8.8.4.4"), 40000, "192.168.0.5:53", 2);
    world.is_unreachable(Client, "192.168.0.5:53");
}

/// It is asked three times, a second apart (`mcast_solicit`, `retrans_time`).
fn a_silent_neighbour_is_unreachable(world: &mut impl World) {
    world.bind(Client, "0.0.0.0:40000");
    world.send(Client, None, 40000, "192.168.0.77:53", 1);
    world.pass(Duration::from_millis(2_500));
    assert_eq!(world.news(Client), []);
    world.pass(Duration::from_millis(1_500));
    world.is_unreachable(Client, "192.168.0.77:53");
}

fn a_port_is_bound_once(world: &mut impl World) {
    world.bind(Server, "192.168.0.5:53");
    world.bind_fails(Client, "192.168.0.5:53", Errno::Eaddrinuse);
    world.bind_fails(Client, "0.0.0.0:53", Errno::Eaddrinuse);
    world.bind(Client, "192.168.0.6:53");
    world.bind(Server, "0.0.0.0:54");
    world.bind_fails(Client, "192.168.0.5:54", Errno::Eaddrinuse);
    assert_eq!(world.news(Client), []);
    assert_eq!(world.news(Server), []);
    world.send(Client, None, 53, "192.168.0.5:53", 1);
    let told = world.datagrams(Server);
    assert_eq!(told, [("192.168.0.5:53".to_owned(), "192.168.0.6:53".to_owned(), 1)]);
}

fn after_a_crash_the_port_is_there_again(world: &mut impl World) {
    world.bind(Server, "0.0.0.0:53");
    world.bind(Client, "0.0.0.0:40000");
    world.send(Client, None, 40000, "192.168.0.5:53", 1);
    assert_eq!(world.datagrams(Server).len(), 1);
    for round in 0..3 {
        world.crash(Server);
        world.bind(Server, "0.0.0.0:53");
        world.send(Client, None, 40000, "192.168.0.5:53", 2 + round);
        let told = world.datagrams(Server);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].2, 2 + round);
        world.send(Server, Some("192.168.0.5"), 53, "192.168.0.5:40000", 9);
        assert_eq!(world.datagrams(Client).len(), 1);
    }
}

fn what_is_not_bound_sends_nothing(world: &mut impl World) {
    world.bind(Server, "0.0.0.0:53");
    world.bind(Client, "0.0.0.0:40000");
    world.send(Client, None, 40001, "192.168.0.5:53", 1);
    assert_eq!(world.news(Server), []);
    assert_eq!(world.news(Client), []);
}

// What only a real socket can show.

/// A program that speaks bytes.
fn stranger() -> UdpSocket {
    let socket = UdpSocket::bind("192.168.0.6:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    socket
}

fn heard(socket: &UdpSocket) -> (Vec<u8>, String) {
    let mut bytes = [0; 2048];
    let (len, from) = socket.recv_from(&mut bytes).expect("an answer");
    (bytes[..len].to_vec(), from.to_string())
}

#[test]
fn who_asks_what_nobody_understands_is_told_so() {
    in_namespace(|| {
        let mut world = Linux::new();
        world.bind(Server, "0.0.0.0:53");
        let stranger = stranger();
        let good = kubesim_backends::packets::dns::encode(&query(7)).expect("a message");
        let class = good.len() - 11 - 2;
        let spoilt = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        // Opcode STATUS, class CHAOS, two questions announced, a name that never ends.
        let cases = [
            (spoilt(2, 0x10), 4),
            (spoilt(class + 1, 3), 5),
            (spoilt(5, 2), 1),
            (spoilt(12, 0xff), 1),
        ];
        for (bytes, rcode) in cases {
            stranger.send_to(&bytes, "192.168.0.5:53").expect("sent");
            assert_eq!(world.news(Server), []);
            let (answer, from) = heard(&stranger);
            assert_eq!(from, "192.168.0.5:53");
            assert_eq!((&answer[..2], answer[2] >> 7, answer[3] & 15), (&good[..2], 1, rcode));
        }
        // A response that is broken is nobody's.
        stranger.send_to(&spoilt(2, 0x90), "192.168.0.5:53").expect("sent");
        stranger.send_to(&[1, 2, 3], "192.168.0.5:53").expect("sent");
        stranger.send_to(&good, "192.168.0.5:53").expect("sent");
        let told = world.datagrams(Server);
        assert_eq!(told.len(), 1, "{told:?}");
    });
}

#[test]
fn peers_hear_each_other_and_no_noise() {
    in_namespace(|| {
        let mut world = Linux::speaking(Codec::Peer);
        world.bind(Server, "0.0.0.0:7946");
        world.bind(Client, "192.168.0.6:40000");
        let statement = Statement {
            node: "laptop".into(),
            locator: [192, 168, 0, 6].into(),
            prefix_length: 24,
            generation: 3,
            vtep_mac: Mac([2; 6]),
            ask: Ask::Servers,
            heard: 0,
        };
        let signed = Arc::new(Signed { statement, signature: [[1; 32], [2; 32]] });
        stranger().send_to(b"{\"node\":1}", "192.168.0.5:7946").expect("sent");
        let (to, body) = (at("192.168.0.5:7946"), Body::Peer(signed));
        let send = Request::Send { from: None, from_port: 40000, to, body: body.clone() };
        world.ask(Client, send);
        let expected = Reply::Datagram { local: to, from: at("192.168.0.6:40000"), body };
        assert_eq!(world.news(Server), [expected]);
    });
}

#[test]
fn a_burst_arrives_in_order() {
    in_namespace(|| {
        let mut world = Linux::new();
        world.bind(Server, "0.0.0.0:53");
        world.bind(Client, "0.0.0.0:40000");
        for id in 0..200 {
            world.send(Client, None, 40000, "192.168.0.5:53", id);
        }
        let ids: Vec<u16> = world.datagrams(Server).iter().map(|(_, _, id)| *id).collect();
        assert_eq!(ids, (0..200).collect::<Vec<_>>());
    });
}
