//! A transaction: everything between its first and last message happens at once or not at all
//! (`nfnetlink_rcv_batch`, net/netfilter/nfnetlink.c).

use super::element;
use super::expression::Rule;
use super::led::Treated;
use super::schema::{ChainSpec, SETS, SetSpec, TREATMENTS};
use crate::netlink::{Attributes, Messages, NFPROTO_IPV4, NFPROTO_UNSPEC, NFTABLES, Refusal, flag};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`; they carry the number of the subsystem.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const SUBSYSTEM: u16 = NFTABLES >> 8;
/// `NFT_MSG_*`
const NEW_TABLE: u16 = NFTABLES;
const DELETE_TABLE: u16 = NFTABLES | 2;
const NEW_CHAIN: u16 = NFTABLES | 3;
const DELETE_CHAIN: u16 = NFTABLES | 5;
const NEW_RULE: u16 = NFTABLES | 6;
const NEW_SET: u16 = NFTABLES | 9;
const NEW_ELEMENT: u16 = NFTABLES | 12;
const DELETE_ELEMENT: u16 = NFTABLES | 14;

/// A list of elements is one attribute, whose length has 16 bits: an element takes at most 104.
const ELEMENTS_A_MESSAGE: usize = 600;

pub struct Batch<'a> {
    messages: &'a mut Messages,
    table: &'a str,
}

impl<'a> Batch<'a> {
    /// `messages` is only to be used again.
    pub fn begin(messages: &'a mut Messages, table: &'a str) -> Self {
        messages.clear();
        messages.push(BEGIN, flag::REQUEST, NFPROTO_UNSPEC, SUBSYSTEM, |_| {});
        Batch { messages, table }
    }

    pub fn end(self) {
        self.messages.push(END, flag::REQUEST, NFPROTO_UNSPEC, SUBSYSTEM, |_| {});
    }

    fn push(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut crate::netlink::Writer<'_>)) {
        let table = self.table;
        self.messages.push(kind, flag::REQUEST | flags, NFPROTO_IPV4, 0, |message| {
            message.str(1, table);
            write(message);
        });
    }

    pub fn new_table(&mut self) {
        self.push(NEW_TABLE, flag::CREATE, |_| {});
    }
    pub fn delete_table(&mut self) {
        self.push(DELETE_TABLE, 0, |_| {});
    }

    pub fn new_set(&mut self, number: usize, set: &SetSpec) {
        self.push(NEW_SET, flag::CREATE, |message| {
            message.str(2, set.name);
            message.be32(3, set.flags);
            message.be32(4, set.key);
            message.be32(5, set.key_length);
            if let Some((kind, length)) = set.value {
                message.be32(6, kind);
                message.be32(7, length);
            }
            message.be32(10, number as u32 + 1);
            message.nest(9, |describe| {
                if set.size > 0 {
                    describe.be32(1, set.size);
                }
                if set.is_of_ranges() {
                    describe.nest(2, |fields| {
                        for length in [4, 1, 2, 4] {
                            fields.nest(1, |field| field.be32(1, length));
                        }
                    });
                }
            });
        });
    }

    pub fn new_chain(&mut self, chain: &ChainSpec) {
        self.push(NEW_CHAIN, flag::CREATE, |message| {
            message.str(3, &chain.name);
            if let Some(hook) = chain.hook {
                message.nest(4, |attributes| {
                    attributes.be32(1, hook.number);
                    attributes.be32(2, hook.priority as u32);
                });
                message.str(7, hook.kind);
            }
        });
    }
    /// The rules of a chain that has none.
    pub fn new_rules(&mut self, chain: &ChainSpec) {
        for rule in &chain.rules {
            self.new_rule(&chain.name, rule);
        }
    }
    fn new_rule(&mut self, chain: &str, rule: &Rule) {
        self.push(NEW_RULE, flag::CREATE | flag::APPEND, |message| {
            message.str(2, chain);
            message.nested_bytes(4, rule.bytes());
            message.bytes(7, &rule.mark());
        });
    }
    /// With its rules. Nothing may lead to it any more.
    pub fn delete_chain(&mut self, name: &str) {
        self.push(DELETE_CHAIN, 0, |message| message.str(3, name));
    }

    pub fn put(&mut self, set: usize, elements: &[(FlatKey, FlatValue)]) {
        for some in elements.chunks(ELEMENTS_A_MESSAGE) {
            self.push(NEW_ELEMENT, flag::CREATE, |message| {
                message.str(2, SETS[set].name);
                message.nest(3, |list| {
                    for (key, value) in some {
                        list.nest(1, |one| element::write(one, key, Some(value)));
                    }
                });
            });
        }
    }
    pub fn delete(&mut self, set: usize, keys: &[FlatKey]) {
        for some in keys.chunks(ELEMENTS_A_MESSAGE) {
            self.push(DELETE_ELEMENT, 0, |message| {
                message.str(2, SETS[set].name);
                message.nest(3, |list| {
                    for key in some {
                        list.nest(1, |one| element::write(one, key, None));
                    }
                });
            });
        }
    }
    /// An element by its key as the kernel shows it.
    pub fn delete_raw(&mut self, set: usize, key: &[u8]) {
        self.push(DELETE_ELEMENT, 0, |message| {
            message.str(2, SETS[set].name);
            message.nest(3, |list| {
                list.nest(1, |one| one.nest(1, |data| data.bytes(1, key)));
            });
        });
    }
    pub fn lead(&mut self, treated: &Treated, to: bool) {
        let kind = if to { NEW_ELEMENT } else { DELETE_ELEMENT };
        self.push(kind, if to { flag::CREATE } else { 0 }, |message| {
            message.str(2, SETS[TREATMENTS].name);
            message.nest(3, |list| {
                list.nest(1, |one| element::write_treatment(one, treated, to));
            });
        });
    }
}

impl SetSpec {
    pub fn is_of_ranges(&self) -> bool {
        self.flags & super::schema::INTERVAL != 0
    }
}

/// What the refused message of a batch was about.
pub fn refused(messages: &Messages, refusal: &Refusal) -> String {
    let what = messages.find(refusal.sequence).map(|(kind, body)| {
        let all = Attributes::of(body);
        let (second, third) = (all.str(2).unwrap_or_default(), all.str(3).unwrap_or_default());
        match kind {
            NEW_TABLE => "making the table".to_owned(),
            DELETE_TABLE => "deleting the table".to_owned(),
            NEW_CHAIN => format!("making chain {third}"),
            DELETE_CHAIN => format!("deleting chain {third}"),
            NEW_RULE => format!("adding a rule to chain {second}"),
            NEW_SET => format!("making set {second}"),
            NEW_ELEMENT => format!("adding elements to {second}"),
            DELETE_ELEMENT => format!("deleting elements of {second}"),
            _ => "the transaction".to_owned(),
        }
    });
    format!("{}: {refusal}", what.as_deref().unwrap_or("the transaction"))
}
