//! DNS over TCP: who connects, who is answered, and when nobody is.

use crate::linux::Linux;
use crate::namespace::in_namespace;
use crate::world::{Asking, Client, Server, Who, World, at, query};
use kubesim_actors::dns::message::{Data, Message, Rcode, Record};
use kubesim_actors::ports::network::Errno;
use kubesim_actors::ports::packets::{Connection, MAX_CONNECTIONS, Reply, Request};
use kubesim_backends::packets::dns;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const SERVER: &str = "192.168.0.5:53";

trait Connecting: World {
    fn listen(&mut self, who: Who, at: &str) {
        let at = crate::world::at(at);
        self.ask(who, Request::Listen { address: *at.ip(), port: at.port() });
    }

    fn connect(&mut self, who: Who, to: &str, id: u16) {
        self.ask(who, Request::Ask { to: at(to), message: Arc::new(query(id)) });
    }

    fn respond(&mut self, connection: Connection, message: Message) {
        self.ask(Server, Request::Respond { connection, message: Arc::new(message) });
    }

    /// The connections and ids of the queries that came.
    fn queries(&mut self) -> Vec<(Connection, u16)> {
        let told = self.news(Server);
        let query = |reply: &Reply| match reply {
            Reply::Query { connection, message } => {
                assert_eq!(**message, query(message.id));
                (*connection, message.id)
            }
            other => panic!("{other:?} among {told:?}"),
        };
        told.iter().map(query).collect()
    }

    fn is_unanswered(&mut self, by: &str, id: u16) {
        assert_eq!(self.news(Client), [Reply::Unanswered { by: at(by), id }]);
    }
}

impl<W: World> Connecting for W {}

/// Longer than any datagram: 4,000 addresses.
fn large(id: u16) -> Message {
    let query = query(id);
    let mut reply = query.reply(Rcode::NoError);
    let record = |n: u32| Record { name: query.name.clone(), ttl: 5, data: Data::A(n.into()) };
    reply.answers = (0..4_000).map(record).collect();
    assert!(reply.wire_len() > 60_000 && reply.wire_len() < 65_536);
    reply
}

alike! {
    a_large_answer_comes_whole
    answers_come_in_any_order
    where_nobody_listens_nobody_answers
    a_silent_neighbour_gives_no_connection
    who_is_not_answered_is_let_go_when_the_connection_idles
    one_connection_too_many_is_closed
    a_port_is_listened_on_once
    datagrams_and_connections_share_a_port
    after_a_crash_it_listens_again
    who_has_gone_takes_no_answer
}

fn a_large_answer_comes_whole(world: &mut impl World) {
    world.listen(Server, SERVER);
    world.connect(Client, SERVER, 7);
    let queries = world.queries();
    let [(connection, 7)] = queries[..] else { panic!("{queries:?}") };
    assert_eq!(world.news(Client), []);
    world.respond(connection, large(7));
    let expected = Reply::Answer { from: at(SERVER), message: Arc::new(large(7)) };
    assert_eq!(world.news(Client), [expected]);
    // It has closed with the answer, and asks anew over another.
    world.connect(Client, SERVER, 8);
    let queries = world.queries();
    assert!(matches!(queries[..], [(other, 8)] if other != connection), "{queries:?}");
}

fn answers_come_in_any_order(world: &mut impl World) {
    world.listen(Server, "0.0.0.0:53");
    for id in 1..=3 {
        world.connect(Client, SERVER, id);
    }
    let mut queries = world.queries();
    queries.sort_by_key(|(_, id)| *id);
    let ids: Vec<u16> = queries.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [1, 2, 3]);
    for (connection, id) in queries.into_iter().rev() {
        world.respond(connection, query(id).reply(Rcode::NxDomain));
        let message = Arc::new(query(id).reply(Rcode::NxDomain));
        assert_eq!(world.news(Client), [Reply::Answer { from: at(SERVER), message }]);
    }
}

fn where_nobody_listens_nobody_answers(world: &mut impl World) {
    world.connect(Client, "192.168.0.5:9", 1);
    world.is_unanswered("192.168.0.5:9", 1);
    world.connect(Client, "8.8.8.8:53", 2);
    world.is_unanswered("8.8.8.8:53", 2);
    // UDP is another matter.
    world.bind(Server, "0.0.0.0:54");
    world.connect(Client, "192.168.0.5:54", 3);
    world.is_unanswered("192.168.0.5:54", 3);
    assert_eq!(world.news(Server), []);
}

/// It is asked for its MAC three times, a second apart.
fn a_silent_neighbour_gives_no_connection(world: &mut impl World) {
    world.connect(Client, "192.168.0.77:53", 1);
    world.pass(Duration::from_millis(2_500));
    assert_eq!(world.news(Client), []);
    world.pass(Duration::from_millis(2_000));
    world.is_unanswered("192.168.0.77:53", 1);
}

fn who_is_not_answered_is_let_go_when_the_connection_idles(world: &mut impl World) {
    world.listen(Server, SERVER);
    world.connect(Client, SERVER, 1);
    let queries = world.queries();
    let [(connection, 1)] = queries[..] else { panic!("{queries:?}") };
    world.pass(Duration::from_secs(7));
    assert_eq!(world.news(Client), []);
    world.pass(Duration::from_millis(1_500));
    world.is_unanswered(SERVER, 1);
    // Too late.
    world.respond(connection, query(1).reply(Rcode::NoError));
    assert_eq!(world.news(Client), []);
}

fn one_connection_too_many_is_closed(world: &mut impl World) {
    world.listen(Server, SERVER);
    for id in 0..MAX_CONNECTIONS as u16 {
        world.connect(Client, SERVER, id);
    }
    let mut queries = world.queries();
    // So many may take longer than one.
    let mut attempts = 0..100;
    while queries.len() < MAX_CONNECTIONS && attempts.next().is_some() {
        queries.extend(world.queries());
    }
    assert_eq!(queries.len(), MAX_CONNECTIONS);
    world.connect(Client, SERVER, 999);
    world.is_unanswered(SERVER, 999);
    // Where one has gone there is place again.
    let (connection, id) = queries[0];
    world.respond(connection, query(id).reply(Rcode::NoError));
    assert_eq!(world.news(Client).len(), 1);
    world.connect(Client, SERVER, 1_000);
    assert_eq!(world.queries().len(), 1);
}

fn a_port_is_listened_on_once(world: &mut impl World) {
    let taken = |port| [Reply::ListenFailed { port, why: Errno::Eaddrinuse }];
    world.listen(Server, SERVER);
    world.listen(Client, SERVER);
    assert_eq!(world.news(Client), taken(53));
    world.listen(Client, "0.0.0.0:53");
    assert_eq!(world.news(Client), taken(53));
    world.listen(Client, "192.168.0.6:53");
    assert_eq!(world.news(Client), []);
    // An address that nobody has is put on the loopback.
    world.listen(Server, "10.96.0.10:54");
    world.connect(Client, "10.96.0.10:54", 4);
    assert_eq!(world.queries().len(), 1);
}

fn datagrams_and_connections_share_a_port(world: &mut impl World) {
    world.bind(Server, SERVER);
    world.listen(Server, SERVER);
    world.bind(Client, "0.0.0.0:40000");
    world.send(Client, None, 40000, SERVER, 1);
    assert_eq!(world.datagrams(Server).len(), 1);
    world.connect(Client, SERVER, 2);
    assert_eq!(world.queries().len(), 1);
}

fn after_a_crash_it_listens_again(world: &mut impl World) {
    world.listen(Server, SERVER);
    world.connect(Client, SERVER, 1);
    assert_eq!(world.queries().len(), 1);
    world.crash(Server);
    world.listen(Server, SERVER);
    // Of what the dead one was asked nobody knows.
    world.is_unanswered(SERVER, 1);
    world.connect(Client, SERVER, 2);
    let queries = world.queries();
    let [(connection, 2)] = queries[..] else { panic!("{queries:?}") };
    world.respond(connection, query(2).reply(Rcode::NoError));
    assert!(matches!(world.news(Client)[..], [Reply::Answer { .. }]));
}

fn who_has_gone_takes_no_answer(world: &mut impl World) {
    world.listen(Server, SERVER);
    world.respond(Connection(77), query(1).reply(Rcode::NoError));
    assert_eq!(world.news(Server), []);
    assert_eq!(world.news(Client), []);
}

// What only a program that speaks bytes can show.

fn stranger() -> TcpStream {
    let stream = TcpStream::connect(SERVER).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    stream
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn asked(id: u16) -> Vec<u8> {
    framed(&dns::encode(&query(id)).expect("a message"))
}

/// Id and response code of what is answered.
fn heard(stream: &mut TcpStream) -> (u16, u8) {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).expect("the whole of it");
    (u16::from_be_bytes([bytes[0], bytes[1]]), bytes[3] & 15)
}

fn is_closed(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 16]).expect("the end"), 0);
}

#[test]
fn queries_come_in_pieces_and_together_and_are_answered_in_any_order() {
    in_namespace(|| {
        let mut world = Linux::new();
        world.listen(Server, SERVER);
        assert_eq!(world.news(Server), []);
        let mut stream = stranger();
        let all = [asked(1), asked(2), asked(3)].concat();
        for piece in all.chunks(all.len() / 4) {
            stream.write_all(piece).expect("sent");
            world.pass(Duration::from_millis(5));
        }
        let queries = world.queries();
        let ids: Vec<u16> = queries.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert!(queries.iter().all(|(connection, _)| *connection == queries[0].0));
        // It will ask no more, and wants its answers all the same.
        stream.shutdown(Shutdown::Write).expect("half of it");
        for (connection, id) in queries.into_iter().rev() {
            world.respond(connection, query(id).reply(Rcode::NoError));
            assert_eq!(world.news(Server), []);
            assert_eq!(heard(&mut stream), (id, 0));
        }
        is_closed(&mut stream);
    });
}

#[test]
fn who_asks_what_nobody_understands_is_told_so_and_may_go_on() {
    in_namespace(|| {
        let mut world = Linux::new();
        world.listen(Server, SERVER);
        assert_eq!(world.news(Server), []);
        let mut stream = stranger();
        let mut status = asked(7);
        // Opcode STATUS.
        status[2 + 2] = 0x10;
        stream.write_all(&status).expect("sent");
        stream.write_all(&asked(8)).expect("sent");
        let queries = world.queries();
        let [(_, 8)] = queries[..] else { panic!("{queries:?}") };
        assert_eq!(heard(&mut stream), (7, 4));
        // Who answers instead of asking is not listened to.
        let reply = dns::encode(&query(9).reply(Rcode::NoError)).expect("a message");
        stream.write_all(&framed(&reply)).expect("sent");
        assert_eq!(world.news(Server), []);
        is_closed(&mut stream);
    });
}
