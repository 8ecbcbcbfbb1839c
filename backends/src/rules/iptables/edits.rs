//! A change, as `iptables-restore --noflush` reads it.

use super::saved::TABLES;
use kubesim_actors::ports::rules::text::{rule_text, table_name, write_rule};
use kubesim_actors::ports::rules::{Chain, ChainKey, Rule, Table};
use std::fmt::Write;

/// What has to change, by table.
#[derive(Debug, Default)]
pub struct Edits<'a> {
    tables: [TableEdits<'a>; 4],
}

#[derive(Debug, Default)]
struct TableEdits<'a> {
    /// Chains that become these.
    chains: Vec<(&'a str, &'a Chain)>,
    gone: Vec<&'a str>,
    built_in: Vec<BuiltInEdits<'a>>,
}

/// A built-in chain in which the owner's rules do not stand as they should.
#[derive(Debug)]
pub struct BuiltInEdits<'a> {
    pub chain: &'a str,
    /// The owner's rules as they stand, each as often as it does: they go first.
    pub gone: Vec<&'a str>,
    /// From the first rule of the chain on, with the counters they are to have.
    pub first: Vec<(&'a str, &'a Rule)>,
    /// Behind all others.
    pub last: Vec<(&'a str, &'a Rule)>,
}

impl<'a> Edits<'a> {
    pub fn put(&mut self, key: &'a ChainKey, chain: &'a Chain) {
        self.tables[key.table as usize].chains.push((&key.name, chain));
    }
    pub fn remove(&mut self, table: Table, name: &'a str) {
        self.tables[table as usize].gone.push(name);
    }
    pub fn built_in(&mut self, table: Table, edits: BuiltInEdits<'a>) {
        self.tables[table as usize].built_in.push(edits);
    }
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(TableEdits::is_empty)
    }

    /// The input: a block for each table that changes. A declared chain is made, or emptied if it
    /// is there, before any rule is read; chains go last, when nothing leads to them any more.
    pub fn input(&self) -> String {
        let mut text = String::new();
        for table in TABLES {
            let edits = &self.tables[table as usize];
            if edits.is_empty() {
                continue;
            }
            let _ = writeln!(text, "*{}", table_name(table));
            edits.write(&mut text);
            text.push_str("COMMIT\n");
        }
        text
    }
}

impl TableEdits<'_> {
    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.gone.is_empty() && self.built_in.is_empty()
    }

    fn write(&self, text: &mut String) {
        let changed = self.chains.iter().map(|(name, _)| name);
        for name in changed.chain(&self.gone) {
            let _ = writeln!(text, ":{name} - [0:0]");
        }
        for BuiltInEdits { chain, gone, first, last } in &self.built_in {
            for rule in gone {
                let _ = writeln!(text, "-D {chain}{rule}");
            }
            for (number, (counters, rule)) in (1..).zip(first) {
                let _ = write!(text, "{counters} -I {chain} {number}");
                rule_text(text, rule);
                text.push('\n');
            }
            for (counters, rule) in last {
                let _ = write!(text, "{counters} ");
                write_rule(text, chain, rule);
            }
        }
        for (name, chain) in &self.chains {
            chain.rules.iter().for_each(|rule| write_rule(text, name, rule));
        }
        for name in &self.gone {
            let _ = writeln!(text, "-X {name}");
        }
    }
}
