//! Answers from upstream, for as long as they hold (RFC 1035; RFC 2308 for negative ones).

use super::message::{Data, Message, Rcode, Type};
use kubesim_runtime::Time;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

pub type Question = (SmolStr, Type);

/// Seconds; `cache 30` of CoreDNS' default Corefile.
const MAX_TTL: u32 = 30;
/// Answers kept, CoreDNS' capacity; the one that expires first makes room.
const CAPACITY: usize = 9984;

#[derive(Clone, Debug, Default)]
pub struct Cache {
    entries: BTreeMap<Question, Entry>,
    by_expiry: BTreeSet<(Time, Question)>,
}

#[derive(Clone, Debug)]
struct Entry {
    reply: Arc<Message>,
    from: SocketAddrV4,
    stored: Time,
    expires: Time,
}

impl Cache {
    /// Keeps a reply if it says how long it holds.
    pub fn put(&mut self, question: Question, reply: &Arc<Message>, from: SocketAddrV4, now: Time) {
        self.remove(&question);
        let Some(ttl) = lifetime(reply).filter(|ttl| *ttl > 0) else { return };
        if self.entries.len() >= CAPACITY
            && let Some((_, first)) = self.by_expiry.first().cloned()
        {
            self.remove(&first);
        }
        let expires = now + Duration::from_secs(u64::from(ttl.min(MAX_TTL)));
        self.by_expiry.insert((expires, question.clone()));
        let entry = Entry { reply: Arc::clone(reply), from, stored: now, expires };
        self.entries.insert(question, entry);
    }

    /// The reply with what is left of its lifetimes; never one that has expired.
    pub fn get(&mut self, question: &Question, now: Time) -> Option<Message> {
        let entry = self.entries.get(question)?;
        if entry.expires <= now {
            self.remove(question);
            return None;
        }
        let age = now.since(entry.stored).as_secs() as u32;
        let mut reply = (*entry.reply).clone();
        for record in reply.answers.iter_mut().chain(&mut reply.additional) {
            record.ttl = record.ttl.min(MAX_TTL).saturating_sub(age);
        }
        Some(reply)
    }

    /// Drops what came from servers that are asked no more.
    pub fn keep_from(&mut self, servers: &[SocketAddrV4]) {
        let gone = self.entries.iter().filter(|(_, entry)| !servers.contains(&entry.from));
        let gone: Vec<_> = gone.map(|(question, _)| question.clone()).collect();
        gone.iter().for_each(|question| self.remove(question));
    }

    fn remove(&mut self, question: &Question) {
        if let Some(entry) = self.entries.remove(question) {
            self.by_expiry.remove(&(entry.expires, question.clone()));
        }
    }
}

/// Seconds; `None` if the reply must not be kept: errors, truncated ones, and negative ones
/// without a SOA (RFC 2308, section 5).
fn lifetime(reply: &Message) -> Option<u32> {
    let kept = matches!(reply.rcode, Rcode::NoError | Rcode::NxDomain) && !reply.truncated;
    let all = || reply.answers.iter().chain(&reply.additional);
    match kept {
        false => None,
        true if reply.rcode == Rcode::NoError && !reply.answers.is_empty() => {
            reply.answers.iter().map(|record| record.ttl).min()
        }
        true => all().find(|record| record.data == Data::Soa).map(|soa| soa.ttl),
    }
}
