//! Questions over TCP: whole answers, and the same way on to upstream servers.

use super::*;
use crate::ports::packets::{Connection, Reply, Request};

const ONE: Connection = Connection(1);
const TWO: Connection = Connection(2);

impl Rig {
    /// A query that comes over a connection; what is answered over connections at once.
    fn ask_over(
        &mut self,
        connection: Connection,
        id: u16,
        name: &str,
    ) -> Vec<(Connection, Arc<Message>)> {
        let message = Arc::new(Message::query(id, name.into(), Type::A));
        self.told(Reply::Query { connection, message })
    }

    fn told(&mut self, reply: Reply) -> Vec<(Connection, Arc<Message>)> {
        self.handle(Event::Packets(reply));
        self.connection_mail()
    }

    fn connection_mail(&mut self) -> Vec<(Connection, Arc<Message>)> {
        self.take_packets(|request| match request {
            Request::Respond { connection, message } => Some((*connection, Arc::clone(message))),
            _ => None,
        })
    }

    /// Queries that go to upstream servers over TCP.
    fn tcp_mail(&mut self) -> Vec<(SocketAddrV4, Arc<Message>)> {
        self.take_packets(|request| match request {
            Request::Ask { to, message } => Some((*to, Arc::clone(message))),
            _ => None,
        })
    }

    fn take_packets<T>(&mut self, which: impl Fn(&Request) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.asked.retain(|effect| {
            let Effect::Packets(request) = effect else { return true };
            let found = which(request);
            let stays = found.is_none();
            taken.extend(found);
            stays
        });
        taken
    }

    fn with_upstreams() -> Self {
        let mut rig = Rig::new(Upstreams::File(RESOLV.into())).synced();
        rig.file(Some("nameserver 192.168.1.1\nnameserver 192.168.1.2"));
        rig.sent.clear();
        rig
    }
}

/// 200 addresses, which take 3 KB.
fn large(query: &Message) -> Message {
    let mut reply = query.reply(Rcode::NoError);
    for last in 1..=200 {
        let data = Data::A(Ipv4Addr::new(203, 0, 113, last));
        reply.answers.push(Record { name: query.name.clone(), ttl: 30, data });
    }
    reply
}

#[test]
fn what_no_datagram_holds_comes_whole_over_a_connection() {
    let (mut services, mut slices) = (View::empty(1), View::empty(2));
    put(&mut services, service("default", "crowd", json!({"clusterIP": "None"})));
    let endpoints: Vec<Value> = (1..=200)
        .map(|last| json!({"addresses": [format!("10.2.1.{last}")], "conditions": {"ready": true}}))
        .collect();
    put(&mut slices, slice("crowd", "crowd-1", json!([]), json!(endpoints)));
    let mut rig = Rig::new(Upstreams::Explicit(vec![server(1)]));
    rig.show(&services, &slices);
    let name = "crowd.default.svc.cluster.local";
    let cut = rig.ask(client(1), name, Type::A).remove(0);
    assert!(cut.truncated && cut.answers.len() < 200, "{} answers", cut.answers.len());
    assert!(cut.wire_len() <= 1232);
    let (connection, whole) = rig.ask_over(ONE, 5, name).remove(0);
    assert_eq!((connection, whole.id, whole.truncated), (ONE, 5, false));
    assert_eq!(whole.answers.len(), 200);
}

#[test]
fn who_asks_by_datagram_is_told_of_the_rest_and_asks_again() {
    let mut rig = Rig::with_upstreams();
    rig.ask(client(1), "big.example.com", Type::A);
    let (to, query) = rig.server_mail().remove(0);
    let mut cut = large(&query);
    cut.fit(1232);
    let reply = rig.reply(to, cut).remove(0);
    assert!(reply.truncated, "nobody asked for the rest yet");
    assert!(rig.tcp_mail().is_empty());
    assert!(rig.ask_over(ONE, 9, "Big.example.com").is_empty(), "a cut answer is not kept");
    let (to, query) = rig.tcp_mail().remove(0);
    assert_eq!((to, &*query.name), (server(1), "big.example.com"));
    assert!(rig.server_mail().is_empty(), "TCP all the way");
    let message = Arc::new(large(&query));
    let (connection, whole) = rig.told(Reply::Answer { from: to, message }).remove(0);
    assert_eq!((connection, whole.id, &*whole.name), (ONE, 9, "Big.example.com"));
    assert_eq!((whole.answers.len(), whole.truncated), (200, false));
    // It is kept for all: whole over a connection, cut by datagram.
    assert_eq!(rig.ask_over(TWO, 1, "big.example.com")[0].1.answers.len(), 200);
    assert!(rig.ask(client(2), "big.example.com", Type::A)[0].truncated);
    assert!(rig.tcp_mail().is_empty() && rig.server_mail().is_empty());
}

/// One question by two ways is two: a forger, who can send datagrams, must not answer the other.
#[test]
fn a_datagram_is_no_answer_to_what_was_asked_over_tcp() {
    let mut rig = Rig::with_upstreams();
    rig.ask_over(ONE, 1, "example.com");
    rig.ask(client(1), "example.com", Type::A);
    let (to, over_tcp) = rig.tcp_mail().remove(0);
    let (_, by_datagram) = rig.server_mail().remove(0);
    assert_ne!(over_tcp.id, by_datagram.id);
    assert!(rig.reply(to, address(&over_tcp, 66, 60)).is_empty());
    assert!(rig.connection_mail().is_empty());
    assert_eq!(rig.reply(to, address(&by_datagram, 1, 0)).len(), 1);
    assert!(rig.connection_mail().is_empty(), "each gets its own");
    // Nor does "nobody listens", by UDP, say anything of TCP.
    rig.handle(Event::Packets(Reply::Unreachable { to }));
    assert!(rig.tcp_mail().is_empty());
    let message = Arc::new(address(&over_tcp, 2, 60));
    assert_eq!(rig.told(Reply::Answer { from: to, message }).len(), 1);
}

#[test]
fn a_server_without_tcp_is_passed_over_and_stays_in_favour() {
    let mut rig = Rig::with_upstreams();
    rig.pass(Duration::from_secs(1));
    rig.sent.clear();
    rig.ask_over(ONE, 1, "example.com");
    for expected in [1, 2, 1, 2] {
        let (to, query) = rig.tcp_mail().remove(0);
        assert_eq!(to, server(expected));
        assert!(rig.told(Reply::Unanswered { by: server(9), id: query.id }).is_empty());
        assert!(rig.tcp_mail().is_empty(), "nobody asked that one");
        rig.handle(Event::Packets(Reply::Unanswered { by: to, id: query.id }));
    }
    assert_eq!(rig.connection_mail()[0].1.rcode, Rcode::ServFail);
    let probed: Vec<_> = rig.probes().into_iter().map(|(to, _)| to).collect();
    assert_eq!(probed, [server(1), server(2)], "whether they live");
    rig.ask(client(1), "example.com", Type::A);
    assert_eq!(rig.server_mail()[0].0, server(1));
}

#[test]
fn a_silent_server_is_given_the_same_time_over_tcp() {
    let mut rig = Rig::with_upstreams();
    rig.ask_over(ONE, 1, "example.com");
    assert_eq!(rig.tcp_mail()[0].0, server(1));
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.tcp_mail()[0].0, server(2));
    rig.pass(Duration::from_secs(3));
    let (_, reply) = rig.connection_mail().remove(0);
    assert_eq!(reply.rcode, Rcode::ServFail);
}

#[test]
fn a_port_that_is_not_free_is_asked_for_again_by_itself() {
    let mut rig = Rig::with_upstreams();
    rig.pass(Duration::from_secs(1));
    rig.asked.clear();
    rig.handle(Event::Packets(Reply::ListenFailed { port: PORT, why: Errno::Eaddrinuse }));
    assert!(rig.notes.iter().any(|note| note.contains("10.3.0.10:53/TCP")), "{:?}", rig.notes);
    rig.pass(Duration::from_millis(500));
    assert!(matches!(
        rig.asked[..],
        [Effect::Packets(Request::Listen { address: LISTEN, port: PORT })]
    ));
}
