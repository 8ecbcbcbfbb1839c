//! What `iptables-save -c` printed, taken apart.

use kubesim_actors::ports::rules::text::{rule_text, table_name};
use kubesim_actors::ports::rules::{Chain, Table, parse};
use std::collections::BTreeMap;

pub const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Filter, Table::Nat];

/// The tables by number; those of which nothing was printed are empty.
#[derive(Debug, Default)]
pub struct Saved<'a> {
    tables: [SavedTable<'a>; 4],
}

#[derive(Debug, Default)]
pub struct SavedTable<'a> {
    chains: BTreeMap<&'a str, SavedChain<'a>>,
}

#[derive(Debug, Default)]
pub struct SavedChain<'a> {
    /// `ACCEPT` or `DROP`; `-` unless the chain is built in.
    pub policy: &'a str,
    pub lines: Vec<Line<'a>>,
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// `[packets:bytes]`
    pub counters: &'a str,
    /// What follows `-A CHAIN`, with the space before it.
    pub rule: &'a str,
}

impl<'a> Saved<'a> {
    /// Lines that are not understood are comments, or of tables the port does not know.
    pub fn read(text: &'a str) -> Self {
        let mut saved = Saved::default();
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = TABLES.into_iter().find(|table| table_name(*table) == name);
            }
            let Some(table) = table else { continue };
            let chains = &mut saved.tables[table as usize].chains;
            if let Some(declared) = line.strip_prefix(':') {
                let mut words = declared.split(' ');
                let name = words.next().unwrap_or_default();
                chains.entry(name).or_default().policy = words.next().unwrap_or("-");
            } else if let Some((counters, rest)) = line.split_once(" -A ") {
                let (name, rule) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
                chains.entry(name).or_default().lines.push(Line { counters, rule });
            }
        }
        saved
    }

    pub fn table(&self, table: Table) -> &SavedTable<'a> {
        &self.tables[table as usize]
    }
    pub fn chain(&self, table: Table, name: &str) -> Option<&SavedChain<'a>> {
        self.table(table).chains.get(name)
    }
    /// The rules of a chain; none if there is no such chain.
    pub fn lines(&self, table: Table, name: &str) -> &[Line<'a>] {
        self.chain(table, name).map_or(&[], |chain| &chain.lines)
    }
}

impl<'a> SavedTable<'a> {
    pub fn chains(&self) -> impl Iterator<Item = (&'a str, &SavedChain<'a>)> {
        self.chains.iter().map(|(name, chain)| (*name, chain))
    }
    pub fn has_chain(&self, name: &str) -> bool {
        self.chains.get(name).is_some_and(|chain| chain.policy == "-")
    }
}

impl SavedChain<'_> {
    /// Whether the chain holds exactly these rules. `buffer` is only to be used again.
    pub fn holds(&self, chain: &Chain, buffer: &mut String) -> bool {
        self.lines.len() == chain.rules.len()
            && self.lines.iter().zip(&chain.rules).all(|(line, rule)| {
                buffer.clear();
                rule_text(buffer, rule);
                line.is(buffer)
            })
    }
}

impl<'a> Line<'a> {
    /// Whether it is this rule, which may be written in another way.
    pub fn is(&self, text: &str) -> bool {
        if self.rule == text {
            return true;
        }
        let parsed = |text: &str| parse::parse_rule(&format!("-A X{text}"));
        matches!((parsed(self.rule), parsed(text)), (Ok(this), Ok(that)) if this == that)
    }

    /// Its comment, without the quotes.
    pub fn comment(&self) -> Option<&'a str> {
        let mut words = Words(self.rule);
        words.by_ref().find(|word| *word == "--comment")?;
        words.next().map(|word| word.trim_matches('"'))
    }

    /// The name behind `-j` or `-g`: a chain, or a target. A target's own options follow it.
    pub fn target(&self) -> Option<&'a str> {
        let mut words = Words(self.rule);
        while let Some(word) = words.next() {
            match word {
                "-j" | "-g" => return words.next(),
                // The text may be any word, and is written without quotes if it needs none.
                "--comment" | "--string" => drop(words.next()),
                _ => {}
            }
        }
        None
    }
}

/// The words of a rule, as they stand there: one with quotes is one, in which a backslash takes the
/// meaning from what follows it (xtables_save_string, libxtables/xtables.c of iptables).
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches(' ');
        let (mut quoted, mut escaped) = (false, false);
        let end = text.find(|c| {
            let ends = c == ' ' && !quoted;
            quoted ^= c == '"' && !escaped;
            escaped = quoted && c == '\\' && !escaped;
            ends
        });
        let (word, rest) = text.split_at(end.unwrap_or(text.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Generated\n*security\n:INPUT DROP [0:0]\n[0:0] -A INPUT -j ACCEPT\nCOMMIT\n\
        *nat\n:PREROUTING ACCEPT [1:2]\n:A - [0:0]\n:B - [0:0]\n[3:4] -A PREROUTING -i x -j A\n\
        [0:0] -A A -m comment --comment \"a -j b\" -j DNAT --to-destination 1.1.1.1\n\
        [0:0] -A A\nCOMMIT\n";

    #[test]
    fn a_save_is_taken_apart() {
        let saved = Saved::read(TEXT);
        let nat = saved.table(Table::Nat);
        assert_eq!(
            nat.chains().map(|(name, _)| name).collect::<Vec<_>>(),
            ["A", "B", "PREROUTING"]
        );
        assert!(nat.has_chain("B") && !nat.has_chain("PREROUTING") && !nat.has_chain("C"));
        assert_eq!(saved.chain(Table::Nat, "PREROUTING").map(|c| c.policy), Some("ACCEPT"));
        assert!(saved.chain(Table::Filter, "INPUT").is_none(), "the security table's");
        let line = saved.lines(Table::Nat, "PREROUTING")[0];
        assert_eq!((line.counters, line.rule), ("[3:4]", " -i x -j A"));
        let targets = saved.lines(Table::Nat, "A").iter().map(Line::target);
        assert_eq!(targets.collect::<Vec<_>>(), [Some("DNAT"), None]);
    }

    /// A rule of somebody else's that only speaks of a chain was taken for the chain's owner's.
    #[test]
    fn what_is_quoted_is_no_target() {
        for (rule, target) in [
            (r#" -i x -j LOG --log-prefix " -j KUBE-X""#, Some("LOG")),
            (r#" -j LOG --log-prefix "\" -j KUBE-X \"""#, Some("LOG")),
            (r#" -m comment --comment "\" -j \\" -g KUBE-X"#, Some("KUBE-X")),
            (" -m comment --comment -j -j A", Some("A")),
            (r#" -m comment --comment " -j KUBE-X ""#, None),
            (" -s 10.0.0.1/32 -j DNAT --to-destination 1.1.1.1", Some("DNAT")),
            (" -j", None),
        ] {
            assert_eq!(Line { counters: "", rule }.target(), target, "{rule}");
        }
    }

    #[test]
    fn a_rule_may_be_written_in_two_ways() {
        let line = Line { counters: "", rule: " -s 10.0.0.0/8 -m comment --comment x -j A" };
        assert!(line.is(" -s 10.0.0.0/8 -m comment --comment \"x\" -j A"));
        assert!(!line.is(" -s 10.0.0.0/8 -m comment --comment y -j A"));
    }
}
