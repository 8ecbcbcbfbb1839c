//! What stands in the kernel.

use super::element::Shown;
use super::expression::Rule;
use super::schema::{ChainSpec, Hook, SETS, SetSpec, VERDICT};
use crate::netlink::{
    Attributes, Messages, NFPROTO_IPV4, NFPROTO_UNSPEC, NFTABLES, Netlink, Refusal, be32, flag,
};
use std::collections::BTreeMap;

/// `NFT_MSG_GET*`
const GET_TABLE: u16 = NFTABLES | 1;
const GET_CHAIN: u16 = NFTABLES | 4;
const GET_RULE: u16 = NFTABLES | 7;
const GET_SET: u16 = NFTABLES | 10;
const GET_ELEMENT: u16 = NFTABLES | 13;
const GET_GENERATION: u16 = NFTABLES | 16;

/// `NF_ACCEPT`
const ACCEPT: u32 = 1;

/// A table as the kernel lists it.
pub struct Table {
    /// `NFPROTO_*`
    pub family: u8,
    pub name: String,
    /// `NFT_TABLE_F_*`; a dormant one (1) is there and does nothing.
    pub flags: u32,
}

/// The chains and sets of one table.
#[derive(Default)]
pub struct Found {
    flags: u32,
    pub chains: BTreeMap<String, FoundChain>,
    sets: BTreeMap<String, FoundSet>,
}

#[derive(Default)]
pub struct FoundChain {
    /// Of a base chain: number, priority and policy.
    hook: Option<(u32, i32, u32)>,
    /// What each rule was marked with when it was written, in order.
    rules: Vec<Vec<u8>>,
}

#[derive(PartialEq, Eq)]
struct FoundSet {
    flags: u32,
    key_length: u32,
    /// 0 for a verdict, as in [`SetSpec`]: how long the kernel keeps it depends on the machine.
    value_length: u32,
}

impl Found {
    /// A table that is not there has neither.
    pub fn read(netlink: &mut Netlink, table: &str) -> Result<Self, Refusal> {
        let tables = tables(netlink, NFPROTO_IPV4)?;
        let flags = tables.iter().find(|found| found.name == table).map_or(0, |found| found.flags);
        let mut chains = dump(netlink, GET_CHAIN, table, |all| {
            let hook = all.get(4).map(Attributes);
            let number = |at| hook?.get(at).and_then(be32);
            let policy = all.get(5).and_then(be32).unwrap_or(ACCEPT);
            let hook = number(1).zip(number(2));
            let hook = hook.map(|(number, priority)| (number, priority as i32, policy));
            Some((all.str(3)?.to_owned(), FoundChain { hook, rules: Vec::new() }))
        })?
        .into_iter()
        .collect::<BTreeMap<_, _>>();
        let rules = dump(netlink, GET_RULE, table, |all| {
            Some((all.str(2)?.to_owned(), all.get(7).unwrap_or_default().to_vec()))
        })?;
        for (chain, mark) in rules {
            chains.entry(chain).or_default().rules.push(mark);
        }
        let sets = dump(netlink, GET_SET, table, |all| {
            let number = |at| all.get(at).and_then(be32).unwrap_or_default();
            let value_length = if number(6) == VERDICT { 0 } else { number(7) };
            let set = FoundSet { flags: number(3), key_length: number(5), value_length };
            Some((all.str(2)?.to_owned(), set))
        })?;
        Ok(Found { flags, chains, sets: sets.into_iter().collect() })
    }

    pub fn is_empty(&self) -> bool {
        self.flags == 0 && self.chains.is_empty() && self.sets.is_empty()
    }

    /// The first thing that is not as it should be of the table's flags, sets and base chains, in
    /// words.
    pub fn flaw(&self, base: &[ChainSpec]) -> Option<String> {
        if self.flags != 0 {
            return Some("the table has flags: not as applied".to_owned());
        }
        if self.sets.len() > SETS.len() {
            return Some("there are sets of somebody else".to_owned());
        }
        let set = SETS.iter().find(|set| self.sets.get(set.name) != Some(&FoundSet::of(set)));
        let chain = base.iter().find(|chain| !self.has(chain));
        let set = set.map(|set| format!("set {}: not as applied", set.name));
        set.or_else(|| chain.map(|chain| format!("chain {}: not as applied", chain.name)))
    }

    /// Whether a chain stands exactly so.
    pub fn has(&self, chain: &ChainSpec) -> bool {
        self.chains.get(chain.name.as_str()).is_some_and(|found| {
            let hook = chain.hook.map(|Hook { number, priority, .. }| (number, priority, ACCEPT));
            let rules = found.rules.iter().cloned();
            found.hook == hook && rules.eq(chain.rules.iter().map(Rule::mark))
        })
    }
}

impl FoundSet {
    fn of(set: &SetSpec) -> Self {
        let value_length = set.value.map_or(0, |(_, length)| length);
        FoundSet { flags: set.flags, key_length: set.key_length, value_length }
    }
}

/// The tables of a family, or all.
pub fn tables(netlink: &mut Netlink, family: u8) -> Result<Vec<Table>, Refusal> {
    let mut messages = Messages::default();
    messages.push(GET_TABLE, flag::REQUEST | flag::DUMP, family, 0, |_| {});
    netlink.dump(&messages, |found: &mut Vec<Table>, message| {
        let all = Attributes::of(message.body);
        if let (Some(family), Some(name)) = (message.body.first(), all.str(1)) {
            let flags = all.get(2).and_then(be32).unwrap_or_default();
            found.push(Table { family: *family, name: name.to_owned(), flags });
        }
    })
}

/// Every element of a set.
pub fn elements<T>(
    netlink: &mut Netlink,
    table: &str,
    set: usize,
    mut each: impl FnMut(&mut Vec<T>, Shown<'_>),
) -> Result<Vec<T>, Refusal> {
    let mut messages = Messages::default();
    let flags = flag::REQUEST | flag::DUMP;
    messages.push(GET_ELEMENT, flags, NFPROTO_IPV4, 0, |message| {
        message.str(1, table);
        message.str(2, SETS[set].name);
    });
    netlink.dump(&messages, |found: &mut Vec<T>, message| {
        let list = Attributes::of(message.body).inside(3);
        for (_, element) in list {
            if let Some(shown) = Shown::of(Attributes(element)) {
                each(found, shown);
            }
        }
    })
}

/// How many transactions this namespace has seen.
pub fn generation(netlink: &mut Netlink, messages: &mut Messages) -> Result<u32, Refusal> {
    messages.clear();
    messages.push(GET_GENERATION, flag::REQUEST, NFPROTO_UNSPEC, 0, |_| {});
    let mut found = 0;
    netlink.request(messages, |message| {
        found = Attributes::of(message.body).get(1).and_then(be32).unwrap_or_default();
    })?;
    Ok(found)
}

fn dump<T>(
    netlink: &mut Netlink,
    kind: u16,
    table: &str,
    read: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    let mut messages = Messages::default();
    messages.push(kind, flag::REQUEST | flag::DUMP, NFPROTO_IPV4, 0, |message| {
        message.str(1, table);
    });
    let found = netlink.dump(&messages, |found: &mut Vec<T>, message| {
        let all = Attributes::of(message.body);
        // Not every kernel filters every kind.
        if all.str(1) == Some(table) {
            found.extend(read(all));
        }
    });
    match found {
        // No such table.
        Err(refused) if refused.is_absent() => Ok(Vec::new()),
        other => other,
    }
}
