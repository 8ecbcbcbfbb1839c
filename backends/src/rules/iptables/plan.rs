//! What has to be written: pure functions of what is wanted and what is there.

use super::edits::{BuiltInEdits, Edits};
use super::saved::{Line, Saved, TABLES};
use super::{Owner, Owners};
use kubesim_actors::ports::rules::text::{rule_line, rule_text, table_name};
use kubesim_actors::ports::rules::{BaseRule, Chain, ChainKey, Match, Place, Rule, Table};
use kubesim_runtime::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// From what an owner has applied to what it wants, where the kernel holds the former. Costs what
/// the two do not share. `None` if the built-in chains change: their foreign rules have to be seen.
pub fn difference<'a>(old: &'a Owner, new: &'a Owner) -> Option<Edits<'a>> {
    if old.base != new.base {
        return None;
    }
    let mut keys: BTreeSet<&ChainKey> = BTreeSet::new();
    for change in old.shared.diff(&new.shared) {
        let (Change::Added(key, _) | Change::Changed { key, .. } | Change::Removed(key, _)) =
            change;
        keys.insert(key);
    }
    if !Arc::ptr_eq(&old.local, &new.local) {
        keys.extend(old.local.iter().chain(new.local.iter()).map(|(key, _)| key));
    }
    let (was, is) = (old.view(), new.view());
    let mut edits = Edits::default();
    for key in keys {
        match (was.get(key), is.get(key)) {
            (was, Some(now)) if was != Some(now) => edits.put(key, now),
            (Some(_), None) => edits.remove(key.table, &key.name),
            _ => {}
        }
    }
    Some(edits)
}

/// From what stands in the kernel to what an owner wants. `before` is what it applied last, as
/// far as this driver knows; `others` are owners whose chains are not touched.
pub fn reconcile<'a>(
    saved: &'a Saved<'a>,
    before: Option<&'a Owner>,
    wanted: &'a Owner,
    others: &Owners,
) -> Edits<'a> {
    let mut edits = Edits::default();
    let mut buffer = String::new();
    let families = families(before, wanted);
    for table in TABLES {
        let desired = wanted.chains(table);
        for (name, (key, chain)) in &desired {
            let there = saved.chain(table, name);
            if !there.is_some_and(|there| there.holds(chain, &mut buffer)) {
                edits.put(key, chain);
            }
        }
        let known = before.map(|before| before.chains(table)).unwrap_or_default();
        let mut owned: BTreeSet<&str> = desired.keys().chain(known.keys()).copied().collect();
        let leads_to = |name: &str| {
            families.iter().any(|family| name.starts_with(family))
                && !others.iter().any(|other| other.has_chain(table, name))
        };
        add_reachable(saved, table, &mut owned, &leads_to);
        let ours = Ours::of(table, before, wanted, &owned);
        let used = used_by_others(saved, table, &ours);
        for name in owned.iter().filter(|name| !desired.contains_key(**name)) {
            if saved.table(table).has_chain(name) && !used.contains(name) {
                edits.remove(table, name);
            }
        }
        built_in(saved, table, wanted, &ours, &mut edits);
    }
    edits
}

/// The first words of the owner's chain names (`KUBE-`). A chain that is named so and that the
/// owner's own chains lead to is one that a former life of it has left.
fn families(before: Option<&Owner>, wanted: &Owner) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    for table in TABLES {
        let chains = before.into_iter().chain([wanted]).flat_map(|owner| owner.chains(table));
        for (name, _) in chains {
            if let Some(end) = name.find('-')
                && !families.contains(&name[..=end])
            {
                families.insert(name[..=end].to_owned());
            }
        }
    }
    families
}

/// Follows jumps from chains that are the owner's.
fn add_reachable<'a>(
    saved: &'a Saved<'a>,
    table: Table,
    owned: &mut BTreeSet<&'a str>,
    leads_to: &dyn Fn(&str) -> bool,
) {
    let mut open: Vec<&str> = owned.iter().copied().collect();
    while let Some(name) = open.pop() {
        for target in saved.lines(table, name).iter().filter_map(Line::target) {
            let chain = saved.table(table).has_chain(target);
            if chain && !owned.contains(target) && leads_to(target) {
                owned.insert(target);
                open.push(target);
            }
        }
    }
}

/// Tells the owner's rules of one table from others'.
struct Ours<'a> {
    owned: &'a BTreeSet<&'a str>,
    /// By built-in chain, those it applied last and those it wants.
    base: BTreeMap<&'a str, Vec<String>>,
    /// The owner is new to this driver. Then a jump to one of its chains is its own as well, where
    /// it says so: its comment is one of these. Anybody's rule may lead there.
    adopting: Option<BTreeSet<&'a str>>,
}

impl<'a> Ours<'a> {
    fn of(
        table: Table,
        before: Option<&'a Owner>,
        wanted: &'a Owner,
        owned: &'a BTreeSet<&'a str>,
    ) -> Self {
        let mut base: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let adopting = before.is_none().then(|| comments(wanted));
        for owner in before.into_iter().chain([wanted]) {
            for rule in owner.base.iter().filter(|rule| rule.table == table) {
                base.entry(&rule.chain).or_default().push(text(&rule.rule));
            }
        }
        Ours { owned, base, adopting }
    }

    fn has(&self, chain: &str, line: &Line<'_>) -> bool {
        let known = self.base.get(chain).map(Vec::as_slice).unwrap_or_default();
        known.iter().any(|text| line.is(text))
            || self.adopting.as_ref().is_some_and(|comments| {
                let says = line.comment().is_some_and(|comment| comments.contains(comment));
                says && line.target().is_some_and(|to| self.owned.contains(to))
            })
    }
}

/// Of an owner's rules in built-in chains.
fn comments(owner: &Owner) -> BTreeSet<&str> {
    let matches = owner.base.iter().flat_map(|base| &base.rule.matches);
    let comments = matches.filter_map(|one| match one {
        Match::Comment(text) => Some(text.as_str()),
        _ => None,
    });
    comments.collect()
}

/// What somebody else's rules lead to: such a chain cannot go, and is left alone.
fn used_by_others<'a>(saved: &'a Saved<'a>, table: Table, ours: &Ours<'_>) -> BTreeSet<&'a str> {
    let chains = saved.table(table).chains().filter(|(name, _)| !ours.owned.contains(name));
    let foreign = chains.flat_map(|(name, chain)| {
        let built_in = chain.policy != "-";
        chain.lines.iter().filter(move |line| !(built_in && ours.has(name, line)))
    });
    foreign.filter_map(Line::target).collect()
}

/// The owner's rules in the built-in chains of one table. Where they do not stand exactly as they
/// should, all of them are taken out and put in, with the counters they had.
fn built_in<'a>(
    saved: &'a Saved<'a>,
    table: Table,
    wanted: &'a Owner,
    ours: &Ours<'_>,
    edits: &mut Edits<'a>,
) {
    let mut chains: BTreeMap<&str, Vec<&BaseRule>> = BTreeMap::new();
    for (name, _) in saved.table(table).chains().filter(|(_, chain)| chain.policy != "-") {
        chains.entry(name).or_default();
    }
    for rule in wanted.base.iter().filter(|rule| rule.table == table) {
        chains.entry(&rule.chain).or_default().push(rule);
    }
    for (chain, wanted) in chains {
        let lines = saved.lines(table, chain);
        let ours: Vec<bool> = lines.iter().map(|line| ours.has(chain, line)).collect();
        if !stands(lines, &ours, &wanted) {
            edits.built_in(table, arrange(chain, lines, &ours, &wanted));
        }
    }
}

fn text(rule: &Rule) -> String {
    let mut text = String::new();
    rule_text(&mut text, rule);
    text
}

/// Whether the owner's rules of a built-in chain are exactly `wanted`: those for the first places
/// before all others, the rest behind them.
fn stands(lines: &[Line<'_>], ours: &[bool], wanted: &[&BaseRule]) -> bool {
    let places = |place: Place| wanted.iter().filter(move |base| base.place == place);
    let (first, last) = (places(Place::First).count(), places(Place::Last).count());
    if lines.len() < first + last || ours.iter().filter(|ours| **ours).count() != first + last {
        return false;
    }
    let same = |lines: &[Line<'_>], place: Place| {
        lines.iter().zip(places(place)).all(|(line, base)| line.is(&text(&base.rule)))
    };
    same(&lines[..first], Place::First) && same(&lines[lines.len() - last..], Place::Last)
}

fn arrange<'a>(
    chain: &'a str,
    lines: &'a [Line<'a>],
    ours: &[bool],
    wanted: &[&'a BaseRule],
) -> BuiltInEdits<'a> {
    let stood = lines.iter().zip(ours).filter(|(_, ours)| **ours).map(|(line, _)| line);
    let rules = |place: Place| {
        let counted = |base: &&'a BaseRule| {
            let text = text(&base.rule);
            let counters = stood.clone().find(|line| line.is(&text));
            (counters.map_or("[0:0]", |line| line.counters), &base.rule)
        };
        wanted.iter().filter(|base| base.place == place).map(counted).collect()
    };
    let (first, last) = (rules(Place::First), rules(Place::Last));
    BuiltInEdits { chain, gone: stood.map(|line| line.rule).collect(), first, last }
}

/// What of an owner's does not stand in the kernel as it was applied, in iptables' words. Where a
/// rule of a built-in chain stands is nobody's loss: others put theirs before it, as docker does,
/// and upstream asks only whether it is there (`EnsureRule`, pkg/util/iptables/iptables.go). The
/// next write puts it back in its place.
pub fn missing(saved: &Saved<'_>, name: &str, owner: &Owner) -> Vec<String> {
    let mut missing = Vec::new();
    for table in TABLES {
        let chains = owner.chains(table);
        let filled = || chains.iter().filter(|(_, (_, chain))| !chain.rules.is_empty());
        if filled().next().is_some()
            && filled().all(|(name, _)| saved.lines(table, name).is_empty())
        {
            missing.push(format!("-t {}: all chains of {name} are empty", table_name(table)));
            continue;
        }
        missing.extend(changed_chains(saved, table, &chains));
    }
    for base in owner.base.iter() {
        let text = text(&base.rule);
        if !saved.lines(base.table, &base.chain).iter().any(|line| line.is(&text)) {
            let table = table_name(base.table);
            missing.push(format!("-t {table} {}", rule_line(&base.chain, &base.rule)));
        }
    }
    missing
}

fn changed_chains(
    saved: &Saved<'_>,
    table: Table,
    chains: &BTreeMap<&str, (&ChainKey, &Chain)>,
) -> Vec<String> {
    let mut buffer = String::new();
    let mut stands = |name: &str, chain: &Chain| {
        saved.chain(table, name).is_some_and(|there| there.holds(chain, &mut buffer))
    };
    let changed = chains.iter().filter(|(name, (_, chain))| !stands(name, chain));
    let table = table_name(table);
    changed.map(|(name, _)| format!("-t {table} {name}: not as applied")).collect()
}
