//! DNS messages on the wire (RFC 1035), by the `domain` crate.
//!
//! What the typed message has no place for is left out: authority sections but for the SOA of a
//! negative answer (RFC 2308), EDNS options, the DO, AD and CD bits.

#[cfg(test)]
mod tests;

use domain::base::iana::{Class, Opcode, Rcode as WireRcode, Rtype};
use domain::base::message_builder::{AnswerBuilder, HashCompressor, PushError};
use domain::base::name::ParsedName;
use domain::base::rdata::{ComposeRecordData, RecordData, UnknownRecordData};
use domain::base::wire::ParseError;
use domain::base::{
    Message as Wire, MessageBuilder, Name, Question, Record as WireRecord, RecordSectionBuilder,
    Serial, Ttl,
};
use domain::dep::octseq::array::Array;
use domain::rdata::{A, Aaaa, AllRecordData, Cname, Ptr, Soa, Srv, Txt};
use kubesim_actors::dns::message::{Data, Message, PLAIN_SIZE, Rcode, Record, Type};
use smol_str::{SmolStr, StrExt, format_smolstr};
use std::fmt;
use std::sync::Arc;

/// A name takes at most 255 bytes (RFC 1035, section 2.3.4).
type Domain = Name<Array<255>>;
type Parsed<'a> = ParsedName<&'a [u8]>;
type Target = HashCompressor<Vec<u8>>;

/// What a SOA of ours says beside how long it holds: a serial, and seconds to refresh, retry and
/// expire, which only secondary servers read. CoreDNS' values.
const SOA: (u32, u32, u32, u32) = (1, 7200, 1800, 86400);

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Message(Message),
    /// A query that nobody here can read: this is the answer to it.
    Answer(Vec<u8>),
    /// Nothing to answer: a response, or no DNS at all.
    Nothing,
}

/// Why a message cannot be sent.
#[derive(Debug)]
pub struct Unsendable(String);

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub fn decode(bytes: &[u8]) -> Incoming {
    let Ok(wire) = Wire::from_octets(bytes) else { return Incoming::Nothing };
    let header = wire.header();
    match header.opcode() {
        Opcode::QUERY => {}
        _ if header.qr() => return Incoming::Nothing,
        _ => return refusal(&wire, WireRcode::NOTIMP),
    }
    match message(&wire) {
        Ok(Some(message)) => Incoming::Message(message),
        _ if header.qr() => Incoming::Nothing,
        // Another class than IN (RFC 1035, section 4.1.1: "for policy reasons").
        Ok(None) => refusal(&wire, WireRcode::REFUSED),
        Err(_) => refusal(&wire, WireRcode::FORMERR),
    }
}

fn refusal(query: &Wire<&[u8]>, rcode: WireRcode) -> Incoming {
    let builder = MessageBuilder::from_target(Vec::new());
    let answer = builder.map(|builder| builder.start_error(query, rcode).finish());
    answer.map_or(Incoming::Nothing, Incoming::Answer)
}

/// `None` for a class other than IN.
fn message(wire: &Wire<&[u8]>) -> Result<Option<Message>, ParseError> {
    let header = wire.header();
    let question = wire.sole_question()?;
    if question.qclass() != Class::IN {
        return Ok(None);
    }
    let mut message = Message {
        id: header.id(),
        response: header.qr(),
        authoritative: header.aa(),
        truncated: header.tc(),
        recursion_desired: header.rd(),
        rcode: rcode(header.rcode()),
        name: text(question.qname()),
        qtype: Type::from_number(question.qtype().to_int()),
        answers: Vec::new(),
        additional: Vec::new(),
        udp_size: PLAIN_SIZE,
    };
    for found in wire.answer()?.limit_to_in::<AllRecordData<_, _>>() {
        message.answers.push(record(&found?)?);
    }
    for found in wire.authority()?.limit_to_in::<AllRecordData<_, _>>() {
        let found = found?;
        if let AllRecordData::Soa(soa) = found.data() {
            let ttl = found.ttl().min(soa.minimum()).as_secs();
            let name = lower(text(found.owner()));
            message.additional.push(Record { name, ttl, data: Data::Soa });
        }
    }
    for found in wire.additional()? {
        let found = found?;
        if found.rtype() == Rtype::OPT {
            // In an OPT record the class is the size (RFC 6891, section 6.1.2).
            message.udp_size = found.class().to_int().max(PLAIN_SIZE);
        } else if let Some(found) = found.into_record::<AllRecordData<_, _>>()?
            && found.class() == Class::IN
        {
            message.additional.push(record(&found)?);
        }
    }
    Ok(Some(message))
}

fn rcode(wire: WireRcode) -> Rcode {
    match wire {
        WireRcode::NOERROR => Rcode::NoError,
        WireRcode::FORMERR => Rcode::FormErr,
        WireRcode::NXDOMAIN => Rcode::NxDomain,
        WireRcode::NOTIMP => Rcode::NotImp,
        WireRcode::REFUSED => Rcode::Refused,
        _ => Rcode::ServFail,
    }
}

/// As it is written, without the final dot; strange bytes with a backslash (RFC 1035, section 5.1).
fn text(name: impl fmt::Display) -> SmolStr {
    let name = format_smolstr!("{name}");
    name.strip_suffix('.').map(SmolStr::from).unwrap_or(name)
}

fn lower(name: SmolStr) -> SmolStr {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase_smolstr(),
        false => name,
    }
}

fn record<'a>(
    found: &WireRecord<Parsed<'a>, AllRecordData<&'a [u8], Parsed<'a>>>,
) -> Result<Record, ParseError> {
    let name = lower(text(found.owner()));
    Ok(Record { name, ttl: found.ttl().as_secs(), data: data(found.data())? })
}

fn data(found: &AllRecordData<&[u8], Parsed<'_>>) -> Result<Data, ParseError> {
    Ok(match found {
        AllRecordData::A(a) => Data::A(a.addr()),
        AllRecordData::Aaaa(aaaa) => Data::Aaaa(aaaa.addr()),
        AllRecordData::Ptr(ptr) => Data::Ptr(lower(text(ptr.ptrdname()))),
        AllRecordData::Cname(cname) => Data::Cname(lower(text(cname.cname()))),
        AllRecordData::Srv(srv) => Data::Srv {
            priority: srv.priority(),
            weight: srv.weight(),
            port: srv.port(),
            target: lower(text(srv.target())),
        },
        AllRecordData::Txt(txt) => match plain_text(txt) {
            Some(text) => Data::Txt(text),
            None => opaque(found)?,
        },
        _ => opaque(found)?,
    })
}

/// A text whose parts are all full but the last: it can be put together and cut again.
fn plain_text(txt: &Txt<&[u8]>) -> Option<SmolStr> {
    let parts: Vec<&[u8]> = txt.iter().collect();
    let (_, first) = parts.split_last()?;
    if first.iter().any(|part| part.len() != 255) {
        return None;
    }
    String::from_utf8(parts.concat()).ok().map(SmolStr::from)
}

/// Names in it are written out: pointers mean nothing in another message (RFC 3597, section 4).
fn opaque(found: &AllRecordData<&[u8], Parsed<'_>>) -> Result<Data, ParseError> {
    let mut bytes = Vec::new();
    // Appending to a Vec never fails.
    found.compose_rdata(&mut bytes).map_err(|_| ParseError::ShortInput)?;
    Ok(Data::Opaque { rtype: found.rtype().to_int(), data: bytes.into() })
}

/// Names compressed, but in SRV records (RFC 2782).
pub fn encode(message: &Message) -> Result<Vec<u8>, Unsendable> {
    let target = HashCompressor::new(Vec::with_capacity(512));
    let Ok(mut builder) = MessageBuilder::from_target(target);
    builder.set_push_limit(usize::from(u16::MAX));
    let header = builder.header_mut();
    header.set_id(message.id);
    header.set_qr(message.response);
    header.set_aa(message.authoritative);
    header.set_tc(message.truncated);
    header.set_rd(message.recursion_desired);
    // Whoever asks us is served, by others where we know nothing.
    header.set_ra(message.response);
    header.set_rcode(wire_rcode(message.rcode));
    let mut question = builder.question();
    let qtype = Rtype::from_int(message.qtype.number());
    question.push(Question::new(name(&message.name)?, qtype, Class::IN)).map_err(too_long)?;
    let mut answer: AnswerBuilder<Target> = question.answer();
    for record in &message.answers {
        push(&mut answer, record)?;
    }
    let mut authority = answer.authority();
    let is_soa = |record: &&Record| record.data == Data::Soa;
    for record in message.additional.iter().filter(is_soa) {
        push(&mut authority, record)?;
    }
    let mut additional = authority.additional();
    for record in message.additional.iter().filter(|record| !is_soa(record)) {
        push(&mut additional, record)?;
    }
    if message.udp_size > PLAIN_SIZE {
        let size = message.udp_size;
        let put = additional.opt(|opt| {
            opt.set_udp_payload_size(size);
            Ok(())
        });
        put.map_err(too_long)?;
    }
    Ok(additional.finish().into_target())
}

fn wire_rcode(rcode: Rcode) -> WireRcode {
    match rcode {
        Rcode::NoError => WireRcode::NOERROR,
        Rcode::FormErr => WireRcode::FORMERR,
        Rcode::ServFail => WireRcode::SERVFAIL,
        Rcode::NxDomain => WireRcode::NXDOMAIN,
        Rcode::NotImp => WireRcode::NOTIMP,
        Rcode::Refused => WireRcode::REFUSED,
    }
}

fn name(text: &str) -> Result<Domain, Unsendable> {
    let root = if text.is_empty() { "." } else { text };
    root.parse().map_err(|why| Unsendable(format!("{text:?} is no domain name: {why}")))
}

fn too_long(_: PushError) -> Unsendable {
    Unsendable("the message is longer than 65,535 bytes".to_owned())
}

fn push<B: RecordSectionBuilder<Target>>(
    section: &mut B,
    record: &Record,
) -> Result<(), Unsendable> {
    let (owner, ttl) = (name(&record.name)?, Ttl::from_secs(record.ttl));
    match &record.data {
        Data::A(ip) => put(section, &owner, ttl, A::new(*ip)),
        Data::Aaaa(ip) => put(section, &owner, ttl, Aaaa::new(*ip)),
        Data::Ptr(target) => put(section, &owner, ttl, Ptr::new(name(target)?)),
        Data::Cname(target) => put(section, &owner, ttl, Cname::new(name(target)?)),
        Data::Srv { priority, weight, port, target } => {
            let srv = Srv::new(*priority, *weight, *port, name(target)?);
            put(section, &owner, ttl, srv)
        }
        Data::Txt(text) => {
            let txt = Txt::<Vec<u8>>::build_from_slice(text.as_bytes());
            put(section, &owner, ttl, txt.map_err(|why| Unsendable(format!("{why}")))?)
        }
        Data::Soa => put(section, &owner, ttl, soa(&record.name, ttl)?),
        Data::Opaque { rtype, data } => {
            let data = UnknownRecordData::from_octets(Rtype::from_int(*rtype), Arc::clone(data));
            put(section, &owner, ttl, data.map_err(|why| Unsendable(format!("{why}")))?)
        }
    }
}

fn put<B, D>(section: &mut B, owner: &Domain, ttl: Ttl, data: D) -> Result<(), Unsendable>
where
    B: RecordSectionBuilder<Target>,
    D: ComposeRecordData,
{
    section.push((owner, Class::IN, ttl, data)).map_err(too_long)
}

/// As CoreDNS' kubernetes plugin has it for its zone.
fn soa(zone: &str, ttl: Ttl) -> Result<Soa<Domain>, Unsendable> {
    let below = |label: &str| match zone {
        "" => name(label),
        zone => name(&format!("{label}.{zone}")),
    };
    let (serial, refresh, retry, expire) = SOA;
    let [refresh, retry, expire] = [refresh, retry, expire].map(Ttl::from_secs);
    let (primary, mailbox) = (below("ns.dns")?, below("hostmaster")?);
    Ok(Soa::new(primary, mailbox, Serial(serial), refresh, retry, expire, ttl))
}
