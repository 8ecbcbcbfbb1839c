//! TCP: the handshake, loss, back-off, ICMP, ends.

use super::*;
use crate::body::Body;
use crate::kernel::packet::{Icmp, IcmpError};
use std::cell::Cell;
use std::rc::Rc;

fn listen(wire: &mut Wire, machine: usize) -> SocketId {
    wire.with(machine, |k, _, _| k.tcp_listen(NsId::HOST, ip("0.0.0.0"), 80, 1)).expect("free")
}
fn connect(wire: &mut Wire, to: &str) -> SocketId {
    let to = at(to);
    wire.with(0, |k, now, out| k.tcp_connect(now, NsId::HOST, to, 2, out)).expect("a route")
}
fn send(wire: &mut Wire, machine: usize, socket: SocketId, text: &str, len: u32) {
    let body = Body::Text(text.into());
    wire.with(machine, |k, now, out| k.tcp_send(now, socket, body, len, out)).expect("open");
}
/// Connects machine 0 to the server; returns both ends.
fn establish(wire: &mut Wire, server: usize, to: &str) -> (SocketId, SocketId) {
    listen(wire, server);
    let client = connect(wire, to);
    wire.run(Duration::from_millis(50));
    let accepted = wire.events.iter().find_map(|(_, _, socket, event)| match event {
        SocketEvent::Accepted { .. } => Some(*socket),
        _ => None,
    });
    wire.events.clear();
    (client, accepted.expect("a connection"))
}
fn texts(events: &[SocketEvent]) -> Vec<(String, u32)> {
    let received = events.iter().filter_map(|event| match event {
        SocketEvent::Received { body: Body::Text(text), len } => Some((text.to_string(), *len)),
        _ => None,
    });
    received.collect()
}
/// Within 25 ms, since the round trip is part of every timeout.
fn assert_near(times: &[u64], want: &[u64]) {
    let near = times.iter().zip(want).all(|(time, want)| time.abs_diff(*want) <= 25);
    assert!(near && times.len() == want.len(), "{times:?} is not {want:?}");
}
/// A switch that loses everything while it is on.
fn outage(wire: &mut Wire) -> Rc<Cell<bool>> {
    let switch = Rc::new(Cell::new(false));
    let lose = Rc::clone(&switch);
    wire.lose = Box::new(move |_, _| lose.get());
    switch
}

#[test]
fn messages_arrive_whole_in_order_both_ways_and_both_sides_close() {
    let mut wire = pair();
    let (client, server) = establish(&mut wire, 1, "10.0.0.2:80");
    send(&mut wire, 0, client, "one", 100);
    send(&mut wire, 0, client, "two", 200_000);
    wire.run(Duration::from_millis(50));
    let want = [("one".to_string(), 100), ("two".to_string(), 200_000)];
    assert_eq!(texts(&wire.take_events()), want);
    send(&mut wire, 1, server, "three", 9);
    wire.with(0, |k, now, out| k.tcp_close(now, client, out));
    wire.run(Duration::from_millis(50));
    let events = wire.take_events();
    assert_eq!(texts(&events), [("three".to_string(), 9)]);
    assert!(events.iter().any(|event| matches!(event, SocketEvent::PeerClosed)));
    wire.with(1, |k, now, out| k.tcp_close(now, server, out));
    wire.run(Duration::from_millis(500));
    let closed = wire.events.iter().filter(|e| matches!(e.3, SocketEvent::Closed)).count();
    assert_eq!(closed, 2, "{:?}", wire.events);
    assert!(wire.kernels.iter().all(|k| k.core.sockets.iter().count() <= 1), "only the listener");
}

#[test]
fn a_closed_port_refuses_and_an_abort_resets() {
    let mut wire = pair();
    connect(&mut wire, "10.0.0.2:81");
    wire.run(Duration::from_millis(50));
    assert!(matches!(wire.take_events()[..], [SocketEvent::Failed(Errno::Econnrefused)]));
    let (client, server) = establish(&mut wire, 1, "10.0.0.2:80");
    wire.with(1, |k, now, out| k.tcp_abort(now, server, out));
    wire.run(Duration::from_millis(50));
    let (_, machine, socket, event) = wire.events.remove(0);
    assert_eq!((machine, socket), (0, client));
    assert!(matches!(event, SocketEvent::Failed(Errno::Econnreset)));
}

/// Seen on Linux 6.18: five SYNs a second apart, then doubling, 11 in all, ETIMEDOUT at 131 s.
#[test]
fn syns_are_repeated_as_linux_repeats_them() {
    let mut wire = pair();
    wire.ping(0, NsId::HOST, "10.0.0.2", 1).expect("a route");
    wire.run(Duration::from_millis(5));
    wire.lose =
        Box::new(|_, frame| matches!(&frame.payload, Payload::Ip(p) if matches!(p.l4, L4::Tcp(_))));
    wire.seen.clear();
    wire.events.clear();
    let start = wire.now;
    connect(&mut wire, "10.0.0.2:80");
    wire.run(Duration::from_secs(200));
    let syns: Vec<u64> = wire
        .seen
        .iter()
        .filter(|(_, _, p)| matches!(p.l4, L4::Tcp(_)))
        .map(|(t, ..)| t.since(start).as_secs())
        .collect();
    assert_eq!(syns, [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67]);
    let (when, _, _, event) = wire.events.remove(0);
    assert!(matches!(event, SocketEvent::Failed(Errno::Etimedout)));
    assert_eq!(when.since(start).as_secs(), 131);
}

#[test]
fn a_neighbour_that_does_not_answer_fails_the_connect_after_three_seconds() {
    let mut wire = pair();
    let start = wire.now;
    connect(&mut wire, "10.0.0.9:80");
    wire.run(Duration::from_secs(10));
    let (when, _, _, event) = wire.events.remove(0);
    assert!(matches!(event, SocketEvent::Failed(Errno::Ehostunreach)), "{event:?}");
    assert_eq!(when.since(start).as_secs(), 3);
}

#[test]
fn lost_data_is_repeated_at_0_2_0_6_1_4_3_0() {
    let mut wire = pair();
    let (client, _) = establish(&mut wire, 1, "10.0.0.2:80");
    let broken = outage(&mut wire);
    broken.set(true);
    let start = wire.now;
    send(&mut wire, 0, client, "lost", 100);
    // What is written meanwhile waits.
    wire.run(Duration::from_secs(1));
    send(&mut wire, 0, client, "later", 100);
    wire.run(Duration::from_secs(3));
    assert_near(&wire.data_times(0, start), &[0, 200, 600, 1400, 3000]);
    broken.set(false);
    wire.run(Duration::from_secs(4));
    let want = [("lost".to_string(), 100), ("later".to_string(), 100)];
    assert_eq!(texts(&wire.take_events()), want);
}

#[test]
fn a_connection_gives_up_after_fifteen_retries_worth_of_time() {
    let mut wire = pair();
    let (client, _) = establish(&mut wire, 1, "10.0.0.2:80");
    outage(&mut wire).set(true);
    let start = wire.now;
    send(&mut wire, 0, client, "lost", 100);
    wire.run(Duration::from_secs(1200));
    let failed = wire.events.iter().find(|e| matches!(e.3, SocketEvent::Failed(_)));
    let (when, _, _, event) = failed.expect("it gave up");
    // The neighbour stopped answering too: that is the error kept.
    assert!(matches!(event, SocketEvent::Failed(Errno::Ehostunreach)), "{event:?}");
    assert!((924..=1050).contains(&when.since(start).as_secs()), "{when}");
}

#[test]
fn a_single_loss_is_mended_by_three_duplicate_acks() {
    let mut wire = pair();
    let (client, _) = establish(&mut wire, 1, "10.0.0.2:80");
    let mut lost = false;
    wire.lose = Box::new(move |machine, frame| {
        let data = matches!(&frame.payload, Payload::Ip(p)
            if matches!(&p.l4, L4::Tcp(tcp) if tcp.payload() == 7));
        let now = machine == 0 && data && !lost;
        lost |= now;
        now
    });
    send(&mut wire, 0, client, "first", 7);
    for text in ["second", "third", "fourth"] {
        send(&mut wire, 0, client, text, 8);
    }
    wire.run(Duration::from_millis(20));
    let order: Vec<String> = texts(&wire.take_events()).into_iter().map(|(text, _)| text).collect();
    assert_eq!(order, ["first", "second", "third", "fourth"], "long before the timer");
}

/// tcp_ld_RTO_revert: an unreachable about the oldest segment takes back one step.
#[test]
fn an_unreachable_takes_one_step_of_the_back_off_back() {
    let mut wire = routed();
    let (client, _) = establish(&mut wire, 2, "10.1.0.1:80");
    let broken = outage(&mut wire);
    broken.set(true);
    let start = wire.now;
    send(&mut wire, 0, client, "lost", 100);
    wire.run(Duration::from_millis(3500));
    assert_near(&wire.data_times(0, start), &[0, 200, 600, 1400, 3000]);
    // The next would come 3.2 s after the fifth. The router lost its way meanwhile and says so.
    broken.set(false);
    let about = crate::kernel::packet::Quoted {
        src: ip("10.0.0.1"),
        dst: ip("10.1.0.1"),
        protocol: kubesim_actors::ports::rules::Protocol::Tcp,
        sport: wire.kernels[0].local_port(client).expect("open"),
        dport: 80,
        seq: wire.kernels[0].core.sockets.connection(client).expect("open").oldest(),
    };
    let l4 = L4::Icmp(Icmp::Error { kind: IcmpError::HostUnreachable, about });
    let error = Packet {
        src: ip("10.0.0.254"),
        dst: ip("10.0.0.1"),
        ttl: 64,
        dont_fragment: false,
        len: 56,
        segment: 56,
        l4,
        body: Body::Empty,
        mark: 0,
        ct: Default::default(),
    };
    let mac = wire.kernels[0].link(NsId::HOST, "eth0").expect("eth0").mac;
    let frame = Frame { src: Mac([9; 6]), dst: mac, payload: Payload::Ip(Box::new(error)) };
    wire.with(0, |k, now, out| k.receive(now, ETH0, frame, out));
    wire.run(Duration::from_millis(2000));
    // 1.6 s after the fifth, not 3.2.
    assert_near(&wire.data_times(0, start), &[0, 200, 600, 1400, 3000, 4600]);
    assert_eq!(texts(&wire.take_events()).len(), 1);
}

#[test]
fn a_smaller_link_on_the_way_lowers_the_path_mtu_at_once() {
    let mut wire = routed();
    let (client, _) = establish(&mut wire, 2, "10.1.0.1:80");
    wire.with(1, |k, now, out| k.set_mtu(now, NsId::HOST, 3, 1400, out)).expect("a link");
    let start = wire.now;
    send(&mut wire, 0, client, "large", 10_000);
    wire.run(Duration::from_millis(50));
    assert_eq!(texts(&wire.take_events()), [("large".to_string(), 10_000)]);
    let sizes: Vec<u32> = wire
        .seen
        .iter()
        .filter(|(at, machine, p)| *machine == 0 && *at >= start && p.len > 1000)
        .map(|(_, _, p)| p.segment)
        .collect();
    assert_eq!(sizes, [1500, 1400]);
}

#[test]
fn a_connection_whose_address_left_sends_nothing_until_it_is_back() {
    let mut wire = pair();
    let (client, _) = establish(&mut wire, 1, "10.0.0.2:80");
    wire.with(0, |k, now, out| {
        k.del_address(now, NsId::HOST, ETH0, net("10.0.0.1/24"), out).expect("there");
        k.add_address(now, NsId::HOST, ETH0, net("10.0.0.7/24"), out).expect("new");
    });
    let start = wire.now;
    send(&mut wire, 0, client, "roaming", 100);
    wire.run(Duration::from_secs(2));
    assert!(wire.data_times(0, start).is_empty());
    wire.with(0, |k, now, out| k.add_address(now, NsId::HOST, ETH0, net("10.0.0.1/24"), out))
        .expect("new");
    wire.run(Duration::from_secs(2));
    assert_eq!(texts(&wire.take_events()).len(), 1, "it survives the move and back");
}

#[test]
fn acks_are_delayed_for_one_segment_and_immediate_for_two() {
    let mut wire = pair();
    let (client, _) = establish(&mut wire, 1, "10.0.0.2:80");
    let acks = |wire: &Wire, from: Time| -> Vec<u64> {
        let server = wire.seen.iter().filter(|(t, m, _)| *m == 1 && *t >= from);
        server.map(|(t, ..)| t.since(from).as_millis() as u64).collect()
    };
    let start = wire.now;
    send(&mut wire, 0, client, "one", 100);
    wire.run(Duration::from_millis(100));
    assert_eq!(acks(&wire, start), [40]);
    let start = wire.now;
    send(&mut wire, 0, client, "two", 100);
    send(&mut wire, 0, client, "three", 100);
    wire.run(Duration::from_millis(100));
    assert_eq!(acks(&wire, start), [0]);
    assert_eq!(wire.kernels[0].next_deadline(), None);
}
