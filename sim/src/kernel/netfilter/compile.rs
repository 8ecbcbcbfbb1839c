//! Rules and chains, compiled for walking, and whole sets of them, compiled once per version.
//!
//! A chain's number is a hash of its table and name, so that a chain compiles without knowing any
//! other, and a set follows a change by compiling the changed chains alone.

use super::chains::Chains;
use super::family::Bits;
use super::matches::{Key, Test};
use super::table;
use super::walk::Outcome;
use crate::kernel::family::{Family, V4};
use crate::kernel::mutants::{Mutant, mutated};
use imbl::{OrdMap, OrdSet};
use kubesim_actors::ports::rules::{
    Address, Chain, ChainKey, ChainSet, Match, Protocol, Rule, Table, Target, text,
};
use kubesim_runtime::{Change, Hasher};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use smol_str::SmolStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A chain by the hash of its table and name.
pub(super) type ChainId = u64;

pub(super) fn chain_id(table: Table, name: &str) -> ChainId {
    let mut hasher = Hasher::default();
    hasher.u64(table as u64);
    hasher.str(name);
    hasher.finish()
}

/// Chains shorter than this are walked rule by rule.
const INDEX_FROM: usize = 12;

/// A rule: a run of its chain's tests, and what to do when all hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CompiledRule<F: Family = V4> {
    from: u32,
    to: u32,
    pub action: Action<F>,
}

/// A target, without names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<F: Family = V4> {
    Jump(ChainId),
    Goto(ChainId),
    Return,
    End(Outcome<F>),
    Mark {
        value: u32,
        mask: u32,
    },
    NoTrack,
    /// Only counts.
    None,
}

impl<F: Family> Action<F> {
    fn of(table: Table, target: &Target<F::Addr>) -> Action<F> {
        match target {
            Target::Jump(name) => Action::Jump(chain_id(table, name)),
            Target::Goto(name) => Action::Goto(chain_id(table, name)),
            Target::Return => Action::Return,
            Target::Accept => Action::End(Outcome::Accept),
            Target::Drop => Action::End(Outcome::Drop),
            Target::Reject(with) => Action::End(Outcome::Reject(*with)),
            Target::Dnat { to, port } => Action::End(Outcome::Dnat { to: *to, port: *port }),
            Target::Snat { to } => Action::End(Outcome::Snat { to: *to }),
            Target::Masquerade { random_fully } => {
                Action::End(Outcome::Masquerade { random_fully: *random_fully })
            }
            Target::Mark { value, mask } => Action::Mark { value: *value, mask: *mask },
            Target::NoTrack => Action::NoTrack,
            // Refused before anything is walked.
            Target::Other(_) | Target::None => Action::None,
        }
    }
}

/// Where the rule can be found without asking it. Stops at the first test with a side effect:
/// from there on the rule has to be asked.
fn probe_of<F: Family>(tests: &[Test<F>]) -> Option<u64> {
    let whole = F::Addr::WHOLE.bits();
    let one = |addr: &Bits<F>| F::Addr::folded(*addr);
    let (mut src, mut dst, mut protocol, mut dport) = (None, None, None, None);
    for test in tests.iter().take_while(|test| !test.has_side_effect()) {
        match test {
            Test::Source { addr, mask, not: false } if *mask == whole => src = Some(one(addr)),
            Test::Destination { addr, mask, not: false } if *mask == whole => {
                dst = Some(one(addr));
            }
            Test::Protocol { is, not: false } => protocol = Some(*is),
            Test::DestinationPort { from, to, not: false } if from == to => {
                dport = Some(*from);
            }
            _ => {}
        }
    }
    match (dst, protocol.zip(dport), src) {
        (Some(dst), Some((protocol, port)), _) => Some(probe::service(dst, protocol, port)),
        (Some(dst), None, _) => Some(probe::destination(dst)),
        (None, Some((protocol, port)), _) => Some(probe::port(protocol, port)),
        (None, None, Some(src)) => Some(probe::source(src)),
        (None, None, None) => None,
    }
}

/// Keys of the index: two bits of kind, then what the kind needs. Addresses are folded: that two
/// have one key costs a question, as each rule found is asked.
mod probe {
    use super::Protocol;

    pub fn service(dst: u32, protocol: Protocol, port: u16) -> u64 {
        u64::from(dst) | u64::from(port) << 32 | (protocol as u64) << 48
    }
    pub fn destination(dst: u32) -> u64 {
        u64::from(dst) | 1 << 62
    }
    pub fn port(protocol: Protocol, port: u16) -> u64 {
        u64::from(port) | (protocol as u64) << 48 | 2 << 62
    }
    pub fn source(src: u32) -> u64 {
        u64::from(src) | 3 << 62
    }
}

/// A chain. All its tests lie side by side: a short chain costs two cache lines, not one a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled<F: Family = V4> {
    pub(super) table: Table,
    pub(super) rules: Vec<CompiledRule<F>>,
    pub(super) tests: Vec<Test<F>>,
    index: Option<Box<Index>>,
}

/// Rule numbers by probe, ascending; rules without a probe apart. A packet meets, in rule order,
/// the rules without one and those under the few probes it can have; no other could match it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Index {
    probed: FxHashMap<u64, SmallVec<[u32; 4]>>,
    generic: Vec<u32>,
    /// Which of the four kinds of probe occur.
    kinds: [bool; 4],
}

impl<F: Family> Compiled<F> {
    /// A chain without rules, for one that somebody has emptied.
    pub(super) const EMPTY: &'static Compiled<F> =
        &Compiled { table: Table::Filter, rules: Vec::new(), tests: Vec::new(), index: None };

    pub(super) fn new<'a>(
        table: Table,
        rules: impl Iterator<Item = &'a Rule<F::Addr>>,
    ) -> Compiled<F> {
        let (mut compiled, mut tests) = (Vec::new(), Vec::new());
        for rule in rules {
            let from = tests.len();
            tests.extend(rule.matches.iter().filter_map(Test::compile));
            // Header fields first, then the extensions as written.
            tests[from..].sort_by_key(|test| !test.is_header());
            let (from, to) = (from as u32, tests.len() as u32);
            compiled.push(CompiledRule { from, to, action: Action::of(table, &rule.target) });
        }
        compiled.shrink_to_fit();
        tests.shrink_to_fit();
        let mut chain = Compiled { table, rules: compiled, tests, index: None };
        if chain.rules.len() >= INDEX_FROM {
            chain.index = Some(Box::new(Index::new(&chain)));
        }
        chain
    }

    #[inline]
    pub(super) fn tests(&self, rule: &CompiledRule<F>) -> &[Test<F>] {
        &self.tests[rule.from as usize..rule.to as usize]
    }

    pub(super) fn needs_conntrack(&self) -> bool {
        self.tests.iter().any(Test::needs_conntrack)
            || self.rules.iter().any(|rule| rule.action == Action::NoTrack)
    }

    /// The lists of `-m recent` that its rules name.
    pub(super) fn recent_names(&self) -> impl Iterator<Item = &SmolStr> {
        self.tests.iter().filter_map(Test::recent_name)
    }

    /// The numbers of the rules that may match, ascending.
    #[inline]
    pub(super) fn candidates(&self, key: &Key<F>) -> Candidates<'_> {
        match &self.index {
            None => Candidates::All(0..self.rules.len() as u32),
            Some(index) => Candidates::Some(index.lists(key)),
        }
    }
}

/// Chains that machines hold themselves and that are alike: a thousand nodes with the same rules in
/// FORWARD walk one copy, which stays in the processor's cache. What comes out depends on the chain
/// alone, so sharing changes nothing but the cost.
#[derive(Clone, Debug)]
pub struct ChainPool<F: Family = V4>(Arc<Mutex<Vec<Weak<Compiled<F>>>>>);

impl<F: Family> Default for ChainPool<F> {
    fn default() -> Self {
        ChainPool(Arc::default())
    }
}

impl<F: Family> ChainPool<F> {
    pub(super) fn of(&self, chain: &Arc<Compiled<F>>) -> Arc<Compiled<F>> {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pool.iter().filter_map(Weak::upgrade).find(|known| known == chain) {
            return known;
        }
        pool.retain(|chain| chain.strong_count() > 0);
        pool.push(Arc::downgrade(chain));
        Arc::clone(chain)
    }
}

impl Index {
    fn new<F: Family>(chain: &Compiled<F>) -> Index {
        let mut index = Index::default();
        for (number, rule) in (0u32..).zip(&chain.rules) {
            match probe_of(chain.tests(rule)) {
                Some(probe) => {
                    index.kinds[(probe >> 62) as usize] = true;
                    index.probed.entry(probe).or_default().push(number);
                }
                None => index.generic.push(number),
            }
        }
        index
    }

    fn lists<F: Family>(&self, key: &Key<F>) -> SmallVec<[&[u32]; 5]> {
        let (src, dst) = (F::Addr::folded(key.src), F::Addr::folded(key.dst));
        let mut lists: SmallVec<[&[u32]; 5]> = SmallVec::new();
        let mut add = |kind: usize, probe: u64| {
            if self.kinds[kind] {
                lists.extend(self.probed.get(&probe).map(SmallVec::as_slice));
            }
        };
        if let Some((_, dport)) = key.ports {
            add(0, probe::service(dst, key.protocol, dport));
            add(2, probe::port(key.protocol, dport));
        }
        add(1, probe::destination(dst));
        add(3, probe::source(src));
        if !self.generic.is_empty() && !mutated(Mutant::IndexOverlooks) {
            lists.push(&self.generic);
        }
        lists
    }
}

pub(super) enum Candidates<'a> {
    All(std::ops::Range<u32>),
    /// Ascending lists to be merged.
    Some(SmallVec<[&'a [u32]; 5]>),
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Candidates::All(range) => range.next(),
            Candidates::Some(lists) => {
                let least = lists.iter_mut().filter(|list| !list.is_empty());
                let list = least.min_by_key(|list| list[0])?;
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(*first)
            }
        }
    }
}

/// What is wrong with a rule in this table, in x_tables' words.
pub(super) fn refusal<A: Address>(table: Table, rule: &Rule<A>) -> Option<String> {
    let module =
        |words: &str| words.split(' ').find(|word| !word.starts_with('-')).map(String::from);
    for found in &rule.matches {
        if let Match::Other(words) = found {
            let name = module(words).unwrap_or_default();
            return Some(format!("Couldn't load match `{name}':No such file or directory"));
        }
    }
    let (target, only) = match &rule.target {
        Target::Other(words) => return Some(table::no_target(&module(words).unwrap_or_default())),
        Target::Dnat { .. } => ("DNAT", Table::Nat),
        Target::Snat { .. } => ("SNAT", Table::Nat),
        Target::Masquerade { .. } => ("MASQUERADE", Table::Nat),
        Target::Reject(_) => ("REJECT", Table::Filter),
        Target::NoTrack => ("CT", Table::Raw),
        _ => return None,
    };
    (table != only).then(|| {
        let (is, only) = (text::table_name(table), text::table_name(only));
        format!("{target}: only valid in {only} table, not {is}")
    })
}

/// A whole [`ChainSet`], compiled: shared by every machine at its version.
#[derive(Clone, Debug)]
pub struct CompiledSet<F: Family = V4> {
    /// Looked up at every jump, never iterated.
    chains: Chains<F>,
    /// Who is jumped to, and how often.
    referenced: OrdMap<ChainId, (ChainKey, u32)>,
    /// The targets of jumps that no chain of this set is.
    unresolved: OrdSet<ChainId>,
    recent: OrdMap<SmolStr, u32>,
    refused: OrdMap<ChainId, String>,
}

/// A compiled set and what it was made of, for the next version to start from.
struct Made<F: Family> {
    set: ChainSet<F::Addr>,
    compiled: Arc<CompiledSet<F>>,
}

/// The memo key of compiled sets.
const MEMO: u64 = 0x6e66_7365_7400;

impl<F: Family> Default for CompiledSet<F> {
    fn default() -> Self {
        CompiledSet {
            chains: Chains::default(),
            referenced: OrdMap::new(),
            unresolved: OrdSet::new(),
            recent: OrdMap::new(),
            refused: OrdMap::new(),
        }
    }
}

impl<F: Family> CompiledSet<F> {
    /// Compiled once per version; from `previous` by its difference where there is one.
    pub fn of(
        set: &ChainSet<F::Addr>,
        previous: Option<(&ChainSet<F::Addr>, &CompiledSet<F>)>,
    ) -> Arc<CompiledSet<F>> {
        let made = set.memo_after(MEMO, |last: Option<Arc<Made<F>>>| {
            let last = last.as_deref().map(|last| (&last.set, &*last.compiled));
            let newest =
                [last, previous].into_iter().flatten().max_by_key(|(old, _)| old.version());
            let compiled = match newest {
                Some((old, compiled)) => compiled.clone().follow(old, set),
                None => CompiledSet::default().follow(&ChainSet::empty(set.history()), set),
            };
            Made { set: set.bare(), compiled: Arc::new(compiled) }
        });
        Arc::clone(&made.compiled)
    }

    fn follow(mut self, old: &ChainSet<F::Addr>, new: &ChainSet<F::Addr>) -> CompiledSet<F> {
        for change in old.diff(new) {
            match change {
                Change::Added(key, chain) => self.put(key, chain),
                Change::Removed(key, chain) => self.take(key, chain),
                Change::Changed { key, old, new } => {
                    self.take(key, old);
                    self.put(key, new);
                }
            }
        }
        self
    }

    fn put(&mut self, key: &ChainKey, chain: &Arc<Chain<F::Addr>>) {
        let id = chain_id(key.table, &key.name);
        let compiled = Compiled::<F>::new(key.table, chain.rules.iter());
        for name in compiled.recent_names() {
            *self.recent.entry(name.clone()).or_insert(0) += 1;
        }
        if let Some(text) = chain.rules.iter().find_map(|rule| refusal(key.table, rule)) {
            self.refused.insert(id, text);
        }
        for to in jumps(key.table, &chain.rules) {
            let to_id = chain_id(to.table, &to.name);
            self.referenced.entry(to_id).or_insert((to, 0)).1 += 1;
            self.judge(to_id);
        }
        self.chains.insert(id, Arc::new(compiled));
        self.judge(id);
    }

    fn take(&mut self, key: &ChainKey, chain: &Arc<Chain<F::Addr>>) {
        let id = chain_id(key.table, &key.name);
        if let Some(compiled) = self.chains.remove(id) {
            for name in compiled.recent_names() {
                decrease(&mut self.recent, name, |count| count);
            }
        }
        self.refused.remove(&id);
        for to in jumps(key.table, &chain.rules) {
            let to_id = chain_id(to.table, &to.name);
            decrease(&mut self.referenced, &to_id, |(_, count)| count);
            self.judge(to_id);
        }
        self.judge(id);
    }

    fn judge(&mut self, id: ChainId) {
        if self.referenced.contains_key(&id) && self.chains.get(id).is_none() {
            self.unresolved.insert(id);
        } else {
            self.unresolved.remove(&id);
        }
    }

    /// The [`super::table::id_bit`]s of all its chains, and perhaps of some that are gone.
    pub fn bits(&self) -> u64 {
        self.chains.bits()
    }
    #[inline]
    pub fn get(&self, id: ChainId) -> Option<&Compiled<F>> {
        self.chains.get(id)
    }
    pub fn unresolved(&self) -> impl Iterator<Item = (ChainId, &ChainKey)> {
        self.unresolved.iter().filter_map(|id| Some((*id, &self.referenced.get(id)?.0)))
    }
    pub fn refusal(&self) -> Option<&String> {
        self.refused.values().next()
    }
    pub fn names_recent(&self, name: &SmolStr) -> bool {
        self.recent.contains_key(name)
    }
}

fn decrease<K: Ord + Clone, V: Clone>(
    map: &mut OrdMap<K, V>,
    key: &K,
    count: impl Fn(&mut V) -> &mut u32,
) {
    let Some(value) = map.get_mut(key) else {
        return;
    };
    let left = count(value);
    *left -= 1;
    if *left == 0 {
        map.remove(key);
    }
}

/// The chains that these rules jump or go to.
pub(super) fn jumps<A: Address>(table: Table, rules: &[Rule<A>]) -> impl Iterator<Item = ChainKey> {
    rules.iter().filter_map(move |rule| jump(table, rule))
}

pub(super) fn jump<A: Address>(table: Table, rule: &Rule<A>) -> Option<ChainKey> {
    match &rule.target {
        Target::Jump(name) | Target::Goto(name) => Some(ChainKey { table, name: name.clone() }),
        _ => None,
    }
}
