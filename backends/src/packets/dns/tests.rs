use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn read(bytes: &[u8]) -> Message {
    match decode(bytes) {
        Incoming::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn written(message: &Message) -> Vec<u8> {
    encode(message).expect("a message that can be sent")
}

/// Header, then whatever follows.
fn wire(flags: u16, counts: [u16; 4], sections: &[u8]) -> Vec<u8> {
    let words = [[0x1234, flags].as_slice(), &counts].concat();
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.extend_from_slice(sections);
    bytes
}

/// `example.com`, at offset 12 in a question.
const EXAMPLE: &[u8] = b"\x07example\x03com\x00";

fn question(name: &[u8], qtype: u16) -> Vec<u8> {
    [name, &qtype.to_be_bytes(), &[0, 1]].concat()
}

/// A record whose owner is `example.com`, by a pointer.
fn resource(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [&[0xc0, 12], &rtype.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes(), &length, data].concat()
}

#[test]
fn a_query_is_as_rfc_1035_has_it() {
    let mut query = Message::query(0x1234, "Example.com".into(), Type::Aaaa);
    query.udp_size = PLAIN_SIZE;
    let expected = wire(0x0100, [1, 0, 0, 0], &question(b"\x07Example\x03com\x00", 28));
    assert_eq!(written(&query), expected, "its case is kept: some look at it (0x20)");
    assert_eq!(read(&expected), query);
    query.udp_size = 1232;
    let opt = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
    let expected =
        wire(0x0100, [1, 0, 0, 1], &[&question(b"\x07Example\x03com\x00", 28)[..], &opt].concat());
    assert_eq!(written(&query), expected);
    assert_eq!(read(&expected), query);
}

#[test]
fn an_answer_has_its_flags_and_pointers_for_names() {
    let query = Message::query(0x1234, "example.com".into(), Type::A);
    let mut reply = query.reply(Rcode::NoError);
    reply.udp_size = PLAIN_SIZE;
    reply.authoritative = true;
    reply.answers = vec![
        Record { name: "example.com".into(), ttl: 5, data: Data::A([10, 0, 0, 1].into()) },
        Record { name: "example.com".into(), ttl: 5, data: Data::A([10, 0, 0, 2].into()) },
    ];
    let sections =
        [question(EXAMPLE, 1), resource(1, 5, &[10, 0, 0, 1]), resource(1, 5, &[10, 0, 0, 2])];
    let expected = wire(0x8580, [1, 2, 0, 0], &sections.concat());
    assert_eq!(written(&reply), expected);
    assert_eq!(read(&expected), reply);
    assert_eq!(expected.len(), reply.wire_len());
}

#[test]
fn a_negative_answer_says_how_long_it_holds() {
    let query = Message::query(0x1234, "nope.example.com".into(), Type::A);
    let mut reply = query.reply(Rcode::NxDomain);
    reply.additional = vec![Record { name: "example.com".into(), ttl: 30, data: Data::Soa }];
    let bytes = written(&reply);
    assert_eq!(bytes[6..12], [0, 0, 0, 1, 0, 1], "in the authority section, beside OPT");
    assert_eq!(read(&bytes), reply);
    assert_eq!(bytes.len(), reply.wire_len());
    // RFC 2308, section 5: the lesser of the TTL and the minimum.
    let numbers = [1_u32, 2, 3, 4, 60].map(u32::to_be_bytes).concat();
    let soa = [&[0xc0, 12, 0xc0, 12], &numbers[..]].concat();
    let sections = [question(EXAMPLE, 1), resource(6, 3600, &soa)].concat();
    let found = read(&wire(0x8183, [1, 0, 1, 0], &sections));
    let expected = Record { name: "example.com".into(), ttl: 60, data: Data::Soa };
    assert_eq!((found.rcode, found.additional), (Rcode::NxDomain, vec![expected]));
}

#[test]
fn what_is_not_known_is_handed_on_as_it_is() {
    // MX: a pointer in it leads into this message only.
    let mx = [&[0, 10], &b"\x04mail\xc0\x0c"[..]].concat();
    let texts = b"\x02v1\x03abc";
    let https = [0, 1, 0, 0, 1, 0, 3, 2, b'h', b'2'];
    let sections = [
        question(EXAMPLE, 255),
        resource(15, 60, &mx),
        resource(16, 60, texts),
        resource(65, 60, &https),
    ];
    let message = read(&wire(0x8180, [1, 3, 0, 0], &sections.concat()));
    let opaque = |at: usize| match &message.answers[at].data {
        Data::Opaque { rtype, data } => (*rtype, data.to_vec()),
        other => panic!("{other:?}"),
    };
    assert_eq!(opaque(0), (15, [&[0, 10], &b"\x04mail\x07example\x03com\x00"[..]].concat()));
    assert_eq!(opaque(1), (16, texts.to_vec()), "two texts are not one");
    assert_eq!(opaque(2), (65, https.to_vec()));
    assert_eq!(read(&written(&message)), message);
}

#[test]
fn a_long_text_is_cut_and_put_together() {
    let long: String = ('a'..='z').cycle().take(600).collect();
    for text in ["", "short", &long[..255], &long[..256], &long] {
        let mut message = Message::query(1, "example.com".into(), Type::Txt);
        message.response = true;
        let data = Data::Txt(text.into());
        message.answers = vec![Record { name: "example.com".into(), ttl: 1, data }];
        let bytes = written(&message);
        assert_eq!(read(&bytes), message);
        assert_eq!(bytes.len(), message.wire_len(), "{} bytes of text", text.len());
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let label = "a".repeat(64);
    let long = format!("{}com", "abcdefgh.".repeat(40));
    for name in [label.as_str(), &long, "a..b"] {
        let message = Message::query(1, name.into(), Type::A);
        let why = encode(&message).expect_err("no name").to_string();
        assert!(why.contains("no domain name"), "{why}");
    }
    let root = Message::query(1, "".into(), Type::Ns);
    assert_eq!(read(&written(&root)), root);
    // A dot in a label, and what is no text at all.
    let strange = wire(0x0100, [1, 0, 0, 0], &question(b"\x03a.b\x02\xff \x00", 1));
    let message = read(&strange);
    assert_eq!(message.name, "a\\.b.\\255\\ ");
    assert_eq!(written(&Message { udp_size: PLAIN_SIZE, ..message }), strange);
}

fn a_name() -> impl Strategy<Value = SmolStr> {
    prop::collection::vec("[a-z0-9_][a-z0-9-]{0,14}", 0..6)
        .prop_map(|labels| labels.join(".").into())
}

fn a_record() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        4 => any::<Ipv4Addr>().prop_map(Data::A),
        1 => any::<Ipv6Addr>().prop_map(Data::Aaaa),
        1 => a_name().prop_map(Data::Ptr),
        1 => a_name().prop_map(Data::Cname),
        2 => (any::<u16>(), any::<u16>(), any::<u16>(), a_name()).prop_map(
            |(priority, weight, port, target)| Data::Srv { priority, weight, port, target }
        ),
        1 => "[ -~]{0,300}".prop_map(|text| Data::Txt(text.into())),
        1 => prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|data| Data::Opaque { rtype: 65_280, data: data.into() }),
    ];
    (a_name(), 0..0x8000_0000_u32, data).prop_map(|(name, ttl, data)| Record { name, ttl, data })
}

fn a_message() -> impl Strategy<Value = Message> {
    let rcodes = [
        Rcode::NoError,
        Rcode::FormErr,
        Rcode::ServFail,
        Rcode::NxDomain,
        Rcode::NotImp,
        Rcode::Refused,
    ];
    let head = (any::<u16>(), any::<[bool; 4]>(), prop::sample::select(rcodes.to_vec()), a_name());
    let types = any::<u16>().prop_filter("OPT is no question", |number| *number != 41);
    let lists = (
        prop::collection::vec(a_record(), 0..12),
        prop::collection::vec(a_record(), 0..4),
        prop::option::of(513..=4096_u16),
    );
    (head, types, lists).prop_map(|((id, flags, rcode, name), qtype, lists)| {
        let [response, authoritative, truncated, recursion_desired] = flags;
        let (answers, additional, size) = lists;
        Message {
            id,
            response,
            authoritative,
            truncated,
            recursion_desired,
            rcode,
            name,
            qtype: Type::from_number(qtype),
            answers,
            additional,
            udp_size: size.unwrap_or(PLAIN_SIZE),
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(message in a_message()) {
        let bytes = written(&message);
        prop_assert_eq!(read(&bytes), message.clone());
        // What an actor cuts to size is no longer than it thinks.
        prop_assert!(bytes.len() <= message.wire_len(), "{} > {}", bytes.len(), message.wire_len());
    }

    #[test]
    fn nothing_that_comes_in_does_harm(
        message in a_message(),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        decode(&noise);
        let mut bytes = written(&message);
        for (at, byte) in spoilt {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Incoming::Message(found) = decode(&bytes) {
            // And it can be handed on.
            let _ = encode(&found);
        }
        decode(&bytes[..end.index(bytes.len())]);
    }
}
