//! Upstream servers that change, fail, lie in wait and lead in circles.

use super::*;

fn from_file(content: &str) -> Rig {
    let mut rig = Rig::new(Upstreams::File(RESOLV.into())).synced();
    rig.file(Some(content));
    rig.sent.clear();
    rig
}

fn soa(ttl: u32) -> Record {
    Record { name: "example.com".into(), ttl, data: Data::Soa }
}

#[test]
fn an_answer_finds_its_asker_and_is_kept_while_it_holds() {
    let mut rig = from_file("nameserver 192.168.1.1");
    assert!(rig.ask(client(1), "Example.com", Type::A).is_empty());
    assert!(rig.ask(client(2), "example.com", Type::A).is_empty());
    let queries: Vec<_> = rig.server_mail();
    let [(to, query)] = &queries[..] else { panic!("one question: {queries:?}") };
    assert_ne!(query.id, 77, "ids are our own");
    let forged = address(query, 66, 60);
    assert!(rig.reply(server(9), forged).is_empty(), "from another server");
    let mut other = address(query, 66, 60);
    other.name = "example.org".into();
    assert!(rig.reply(*to, other).is_empty(), "to another question");
    let replies = rig.reply(*to, address(query, 1, 10));
    assert_eq!(replies.len(), 2);
    assert!(replies.iter().all(|r| r.id == 77 && r.answers.len() == 1));
    assert_eq!(replies[0].name, "Example.com");
    rig.pass(Duration::from_secs(9));
    let kept = rig.ask(client(3), "example.com", Type::A);
    assert_eq!(kept[0].answers[0].ttl, 1);
    rig.pass(Duration::from_secs(1));
    assert!(rig.ask(client(3), "example.com", Type::A).is_empty(), "never longer than its TTL");
    assert_eq!(rig.server_mail().len(), 1);
}

#[test]
fn lifetimes_are_capped_and_negative_answers_have_one() {
    let mut rig = from_file("nameserver 192.168.1.1");
    for (ttl, records, negative) in [(3600, true, false), (3600, false, true)] {
        let name = if negative { "no.example.com" } else { "example.com" };
        rig.ask(client(1), name, Type::A);
        let (to, query) = rig.server_mail().pop().unwrap();
        let mut reply = address(&query, 1, ttl);
        if !records {
            reply.answers.clear();
            reply.rcode = Rcode::NxDomain;
            reply.additional.push(soa(ttl));
        }
        rig.reply(to, reply);
        rig.pass(Duration::from_secs(29));
        assert_eq!(rig.ask(client(1), name, Type::A).len(), 1);
        rig.pass(Duration::from_secs(1));
        assert!(rig.ask(client(1), name, Type::A).is_empty());
        rig.pass(Duration::from_secs(6));
        rig.sent.clear();
    }
    rig.ask(client(1), "void.example.com", Type::A);
    let (to, query) = rig.server_mail().pop().unwrap();
    rig.reply(to, query.reply(Rcode::NxDomain));
    assert!(rig.ask(client(1), "void.example.com", Type::A).is_empty(), "no SOA, no memory");
}

#[test]
fn a_changed_file_counts_at_once() {
    let mut rig = from_file("nameserver 192.168.1.1");
    rig.ask(client(1), "kept.example.com", Type::A);
    let (to, query) = rig.server_mail().pop().unwrap();
    rig.reply(to, address(&query, 1, 30));
    rig.ask(client(1), "example.com", Type::A);
    rig.server_mail();
    rig.file(Some("nameserver 10.20.0.1\n"));
    let new = SocketAddrV4::new(Ipv4Addr::new(10, 20, 0, 1), 53);
    let sent = rig.server_mail();
    assert_eq!(sent.len(), 1, "what was under way is asked anew");
    assert_eq!((sent[0].0, sent[0].1.name.as_str()), (new, "example.com"));
    assert!(rig.reply(server(1), address(&sent[0].1, 66, 60)).is_empty(), "the old one is out");
    assert_eq!(rig.reply(new, address(&sent[0].1, 2, 60)).len(), 1);
    rig.ask(client(1), "kept.example.com", Type::A);
    assert_eq!(rig.server_mail()[0].0, new, "what the old one said is forgotten");
}

#[test]
fn an_empty_or_missing_file_changes_nothing() {
    let mut rig = from_file("nameserver 192.168.1.1");
    let contents = [Some(""), Some("# being written"), None, Some("nameserver 10.3.0.10")];
    for (i, content) in contents.into_iter().enumerate() {
        rig.notes.clear();
        rig.file(content);
        assert!(
            rig.notes.iter().any(|note| note.contains("192.168.1.1:53 stays")),
            "{:?}",
            rig.notes
        );
        rig.ask(client(1), &format!("{i}.example.com"), Type::A);
        assert!(rig.server_mail().iter().any(|(to, _)| *to == server(1)));
    }
}

#[test]
fn a_query_waits_for_the_first_file_but_not_for_one_that_is_missing() {
    let mut rig = Rig::new(Upstreams::File(RESOLV.into())).synced();
    assert!(rig.ask(client(1), "example.com", Type::A).is_empty());
    rig.file(Some("nameserver 192.168.1.1"));
    assert_eq!(rig.server_mail().len(), 1);
    let mut rig = Rig::new(Upstreams::File(RESOLV.into())).synced();
    rig.ask(client(1), "example.com", Type::A);
    rig.file(None);
    assert_eq!(rig.client_mail()[0].rcode, Rcode::ServFail);
    assert_eq!(rig.ask(client(1), "example.com", Type::A)[0].rcode, Rcode::ServFail);
}

#[test]
fn the_next_server_is_asked_when_one_is_silent() {
    let mut rig = from_file("nameserver 192.168.1.1\nnameserver 192.168.1.2");
    let ask = |rig: &mut Rig, name: &str| {
        rig.ask(client(1), name, Type::A);
        let first = rig.server_mail()[0].0;
        rig.pass(Duration::from_secs(2));
        let second = rig.server_mail();
        (first, second.first().map(|(to, query)| (*to, Arc::clone(query))))
    };
    for name in ["a.example.com", "b.example.com"] {
        let (first, second) = ask(&mut rig, name);
        let (to, query) = second.unwrap();
        assert_eq!((first, to), (server(1), server(2)));
        assert_eq!(rig.reply(to, address(&query, 1, 0)).len(), 1);
    }
    assert!(rig.notes.iter().any(|note| note.contains("192.168.1.1:53 is down")));
    rig.ask(client(1), "c.example.com", Type::A);
    assert_eq!(rig.server_mail()[0].0, server(2), "no time is lost at one that is down");
    rig.pass(Duration::from_millis(500));
    let (to, probe) = rig.probes().pop().unwrap();
    assert_eq!(to, server(1));
    rig.reply(to, probe.reply(Rcode::NxDomain));
    assert!(rig.notes.iter().any(|note| note.contains("answers again")));
    rig.ask(client(1), "d.example.com", Type::A);
    assert_eq!(rig.server_mail()[0].0, server(1));
}

#[test]
fn when_all_fail_the_asker_is_told() {
    let mut rig = from_file("nameserver 192.168.1.1");
    rig.ask(client(1), "example.com", Type::A);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.client_mail()[0].rcode, Rcode::ServFail);
    rig.ask(client(1), "example.com", Type::A);
    rig.handle(Event::Packets(packets::Reply::Unreachable { to: server(1) }));
    rig.handle(Event::Packets(packets::Reply::Unreachable { to: server(1) }));
    assert_eq!(rig.client_mail()[0].rcode, Rcode::ServFail, "refused: no need to wait");
    assert!(rig.dns.forwarder.servers.any_ill());
}

/// systemd-resolved, say, whose own upstream is the cluster's DNS.
#[test]
fn a_server_that_leads_back_to_us_is_left_out() {
    let mut rig = from_file("nameserver 127.0.0.53\nnameserver 192.168.1.1");
    let stub = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 53), 53);
    rig.pass(Duration::from_secs(60));
    rig.sent.clear();
    rig.ask(client(1), "example.com", Type::A);
    let sent = rig.sent.remove(0);
    assert_eq!(sent.1, stub);
    // The loop appears: the stub asks us the very question.
    let listen = SocketAddrV4::new(LISTEN, PORT);
    let again = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 50), 33_333);
    rig.datagram(listen, again, Message::query(5, "example.com".into(), Type::A));
    let (to, probe) = rig.probes().pop().unwrap();
    assert_eq!(to, stub);
    rig.datagram(listen, again, Message::query(6, probe.name.clone(), Type::Txt));
    assert!(rig.notes.iter().any(|note| note.contains("sends our own queries back")));
    let resent: Vec<_> =
        rig.sent.iter().filter(|(port, to, _)| *port != PORT && *to == server(1)).collect();
    assert_eq!(resent.len(), 1, "the question goes to the other server");
    rig.sent.clear();
    // Its own answer to the probe, come back, does not clear it.
    rig.reply(stub, probe.reply(Rcode::Refused));
    rig.ask(client(2), "b.example.com", Type::A);
    assert_eq!(rig.server_mail()[0].0, server(1));
    let answered = rig.ask(client(2), "dns-version.cluster.local", Type::Txt);
    assert_eq!(answered[0].rcode, Rcode::NoError, "cluster names are answered all the while");
    rig.pass(Duration::from_secs(11));
    let probes = rig.probes();
    let (to, probe) = probes.iter().find(|(to, _)| *to == stub).unwrap();
    rig.reply(*to, probe.reply(Rcode::NxDomain));
    assert!(rig.notes.iter().any(|note| note.contains("127.0.0.53:53 answers again")));
}

#[test]
fn a_restart_asks_the_world_again_under_other_ids() {
    let first = Rig::incarnation(Upstreams::File(RESOLV.into()), 0);
    let mut second = Rig::incarnation(Upstreams::File(RESOLV.into()), 1);
    for rig in [&first, &second] {
        let binds = rig
            .asked
            .iter()
            .filter(|effect| matches!(effect, Effect::Packets(packets::Request::Bind { .. })));
        let watches = rig.asked.iter().filter(|effect| {
            matches!(effect, Effect::Api(_) | Effect::Files(files::Request::Watch { .. }))
        });
        assert_eq!((binds.count(), watches.count()), (2, 3));
    }
    assert_ne!(first.dns.forwarder.port(), second.dns.forwarder.port());
    second.file(Some("nameserver 192.168.1.1"));
    second.ask(client(1), "example.com", Type::A);
    assert_eq!(second.server_mail().len(), 1);
    second.handle(Event::Packets(packets::Reply::BindFailed {
        port: PORT,
        why: crate::ports::network::Errno::Eaddrnotavail,
    }));
    second.asked.clear();
    second.pass(Duration::from_millis(500));
    assert!(matches!(
        second.asked[..],
        [Effect::Packets(packets::Request::Bind { address: LISTEN, port: PORT })]
    ));
}
