//! The tables of one namespace: built-in chains, foreign chains, and what owners have applied.

use super::Hook;
use super::compile::{ChainId, ChainPool, Compiled, CompiledSet, chain_id, jump, jumps, refusal};
use super::family::said;
use super::walk::Counted;
use crate::kernel::family::{Family, V4};
use kubesim_actors::ports::rules::{
    Address, BaseRule, Chain, ChainKey, ChainSet, Rule, Table, text,
};
use kubesim_runtime::near;
use smallvec::SmallVec;
use smol_str::SmolStr;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const HOOKS: [Hook; 5] =
    [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
pub(super) const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];

pub(super) fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Input => "INPUT",
        Hook::Forward => "FORWARD",
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    }
}

/// Whether a table has a chain at a hook.
pub(super) fn is_built_in(table: Table, hook: Hook) -> bool {
    match table {
        Table::Raw => matches!(hook, Hook::Prerouting | Hook::Output),
        Table::Mangle => true,
        Table::Nat => hook != Hook::Forward,
        Table::Filter => matches!(hook, Hook::Input | Hook::Forward | Hook::Output),
    }
}

/// Where a built-in chain stands in a set of them.
pub(super) fn bit(table: Table, hook: Hook) -> u32 {
    1 << (table as usize * HOOKS.len() + hook as usize)
}

pub(super) fn id_bit(id: ChainId) -> u64 {
    1 << (id & 63)
}

fn approach_compiled<F: Family>(chain: &Compiled<F>, pass: usize) {
    if pass == 1 {
        near::value(chain);
    } else {
        near::slice(&chain.rules, 2);
        near::slice(&chain.tests, 4);
    }
}

/// The hook of a built-in chain of a table.
pub(super) fn built_in(table: Table, name: &str) -> Option<Hook> {
    let named = HOOKS.into_iter().find(|hook| hook_name(*hook) == name);
    named.filter(|hook| is_built_in(table, *hook))
}

/// A rule that this namespace holds itself.
#[derive(Clone, Debug)]
pub(super) struct Entry<F: Family = V4> {
    pub rule: Rule<F::Addr>,
    /// Whose base rule it is; `None` for foreign ones.
    pub owner: Option<SmolStr>,
}

/// A chain that this namespace holds itself, with its counters.
#[derive(Clone, Debug)]
pub(super) struct Chained<F: Family = V4> {
    pub key: ChainKey,
    /// Only built-in chains have a policy.
    pub policy_drop: bool,
    entries: Vec<Entry<F>>,
    compiled: Arc<Compiled<F>>,
    /// `compiled` came out of the pool.
    pooled: bool,
    packets: SmallVec<[Cell<u64>; 8]>,
}

impl<F: Family> Chained<F> {
    pub fn new(key: ChainKey) -> Chained<F> {
        let compiled = Arc::new(Compiled::new(key.table, std::iter::empty()));
        let (entries, packets) = (Vec::new(), SmallVec::new());
        Chained { key, policy_drop: false, entries, compiled, pooled: false, packets }
    }
    pub fn entries(&self) -> &[Entry<F>] {
        &self.entries
    }
    pub fn rules(&self) -> impl Iterator<Item = &Rule<F::Addr>> {
        self.entries.iter().map(|entry| &entry.rule)
    }
    pub fn compiled(&self) -> &Compiled<F> {
        &self.compiled
    }
    pub fn packets(&self, number: usize) -> Option<u64> {
        self.packets.get(number).map(Cell::get)
    }
    pub fn counted(&self) -> Counted<'_, F> {
        Counted { chain: &self.compiled, packets: &self.packets }
    }
    /// A rule in iptables' own words.
    pub fn told(&self, number: usize) -> String {
        let rule = self.rules().nth(number).map(|rule| text::rule_line(&self.key.name, rule));
        format!("-t {} {}", text::table_name(self.key.table), rule.unwrap_or_default())
    }
    /// Rewrites the rules; those that stay keep their counters.
    pub fn edit(&mut self, change: impl FnOnce(&mut Vec<(Entry<F>, Cell<u64>)>)) {
        let packets = std::mem::take(&mut self.packets);
        let mut rows: Vec<_> = std::mem::take(&mut self.entries).into_iter().zip(packets).collect();
        change(&mut rows);
        (self.entries, self.packets) = rows.into_iter().unzip();
        let rules = self.entries.iter().map(|entry| &entry.rule);
        self.compiled = Arc::new(Compiled::new(self.key.table, rules));
        self.pooled = false;
    }
    fn share(&mut self, pool: &ChainPool<F>) {
        if !self.pooled {
            self.compiled = pool.of(&self.compiled);
            self.pooled = true;
        }
    }
    pub fn needs_conntrack(&self) -> bool {
        self.compiled.needs_conntrack()
    }
}

/// What one owner has applied.
#[derive(Clone, Debug)]
pub(super) struct Owner<F: Family = V4> {
    pub name: SmolStr,
    pub shared: ChainSet<F::Addr>,
    pub compiled: Arc<CompiledSet<F>>,
    /// [`CompiledSet::bits`]: most owners have few chains, and most jumps are not to them.
    pub shared_bits: u64,
    pub local: BTreeMap<ChainId, Local<F>>,
    /// One bit of each local chain's number: most jumps need not look into the map.
    pub local_bits: u64,
    pub base: Arc<[BaseRule<F::Addr>]>,
    /// Somebody has emptied all chains of a table.
    pub flushed: [bool; 4],
    /// As of this change of the rules everything of it stood as applied.
    pub seen: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Local<F: Family = V4> {
    pub key: ChainKey,
    pub chain: Arc<Chain<F::Addr>>,
    pub compiled: Arc<Compiled<F>>,
}

impl<F: Family> Owner<F> {
    fn find(&self, id: ChainId) -> Option<&Compiled<F>> {
        let overlaid = || self.local.get(&id).map(|local| &*local.compiled);
        let own = if self.local_bits & id_bit(id) != 0 { overlaid() } else { None };
        own.or_else(
            || {
                if self.shared_bits & id_bit(id) != 0 { self.compiled.get(id) } else { None }
            },
        )
    }
    /// The chain as applied, whatever has been done to it since.
    pub fn applied(&self, key: &ChainKey) -> Option<&Arc<Chain<F::Addr>>> {
        match self.local.get(&chain_id(key.table, &key.name)) {
            Some(local) => Some(&local.chain),
            None => self.shared.get(key),
        }
    }
    /// All its chains as applied.
    pub fn chains(&self) -> impl Iterator<Item = (&ChainKey, &Arc<Chain<F::Addr>>)> {
        let overlaid = |key: &ChainKey| self.local.contains_key(&chain_id(key.table, &key.name));
        let shared = self.shared.iter().filter(move |(key, _)| !overlaid(key));
        shared.chain(self.local.values().map(|local| (&local.key, &local.chain)))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Ruleset<F: Family = V4> {
    built_in: Vec<Chained<F>>,
    /// Foreign chains, and chains of owners that somebody else has changed since.
    pub user: BTreeMap<ChainId, Chained<F>>,
    pub owners: Vec<Owner<F>>,
    pub pool: ChainPool<F>,
    /// Counts changes that somebody other than an owner made.
    pub edits: u64,
}

impl<F: Family> Default for Ruleset<F> {
    fn default() -> Self {
        let key = |table, hook| ChainKey { table, name: hook_name(hook).into() };
        let all = TABLES.into_iter().flat_map(|table| HOOKS.map(|hook| (table, hook)));
        let built_in = all.map(|(table, hook)| Chained::new(key(table, hook))).collect();
        Ruleset {
            built_in,
            user: BTreeMap::new(),
            owners: Vec::new(),
            pool: ChainPool::default(),
            edits: 0,
        }
    }
}

impl<F: Family> Ruleset<F> {
    /// Asks for the memory of the built-in chains that are `loaded` and of owners' local ones.
    pub fn approach(&self, loaded: u32, pass: usize) {
        if pass == 0 {
            near::slice(&self.owners, 8);
        } else {
            for local in self.owners.iter().flat_map(|owner| owner.local.values()) {
                approach_compiled(&local.compiled, pass);
            }
        }
        let loaded = (0..self.built_in.len()).filter(|at| loaded & 1 << at != 0);
        for chain in loaded.map(|at| &self.built_in[at]) {
            if pass == 0 {
                near::value(chain);
            } else {
                near::slice(&chain.packets, 1);
                approach_compiled(&chain.compiled, pass);
            }
        }
    }
    #[inline]
    pub fn built_in(&self, table: Table, hook: Hook) -> &Chained<F> {
        &self.built_in[table as usize * HOOKS.len() + hook as usize]
    }
    pub fn built_in_mut(&mut self, table: Table, hook: Hook) -> &mut Chained<F> {
        &mut self.built_in[table as usize * HOOKS.len() + hook as usize]
    }
    /// After a change: chains of this namespace's own that others have as well become theirs.
    pub fn share(&mut self) {
        for chain in self.built_in.iter_mut().chain(self.user.values_mut()) {
            chain.share(&self.pool);
        }
    }
    /// The built-in chains that exist, in the order of tables and hooks.
    pub fn all_built_in(&self) -> impl Iterator<Item = (Table, Hook, &Chained<F>)> {
        let all = TABLES.into_iter().flat_map(|table| HOOKS.map(|hook| (table, hook)));
        let existing = all.filter(|(table, hook)| is_built_in(*table, *hook));
        existing.map(|(table, hook)| (table, hook, self.built_in(table, hook)))
    }

    /// A chain by number: as somebody has changed it, else as its owner applied it.
    #[inline]
    pub fn find(&self, id: ChainId) -> Option<Counted<'_, F>> {
        if let Some(chain) = self.user.get(&id) {
            return Some(chain.counted());
        }
        self.owners.iter().find_map(|owner| {
            let applied = owner.find(id)?;
            let flushed = owner.flushed[applied.table as usize];
            Some(Counted { chain: if flushed { Compiled::EMPTY } else { applied }, packets: &[] })
        })
    }

    /// All chains as they stand, by number, but for the built-in ones.
    pub fn standing(&self) -> impl Iterator<Item = (ChainId, &Compiled<F>)> {
        let applied = self.owners.iter().flat_map(Owner::chains);
        let ids = applied.map(|(key, _)| chain_id(key.table, &key.name));
        let ids = ids.filter(|id| !self.user.contains_key(id)).chain(self.user.keys().copied());
        ids.filter_map(|id| Some((id, self.find(id)?.chain)))
    }

    /// Whether a rule that this namespace holds itself is nobody's who has applied chains. In the
    /// picture of another kernel nobody has: there the proxy's chains are known by their names.
    pub fn is_foreign(&self, chain: &Chained<F>, number: usize) -> bool {
        let Some(entry) = chain.entries.get(number).filter(|entry| entry.owner.is_none()) else {
            return false;
        };
        if self.owners.is_empty() {
            let proxys = |name: &str| name.starts_with("KUBE-");
            let to = jump(chain.key.table, &entry.rule);
            return !proxys(&chain.key.name) && to.is_none_or(|to| !proxys(&to.name));
        }
        let owner = self.owner_of(&chain.key);
        let applied = owner.and_then(|owner| owner.applied(&chain.key));
        applied.is_none_or(|applied| !applied.rules.contains(&entry.rule))
    }

    /// The owner of a chain as applied.
    pub fn owner_of(&self, key: &ChainKey) -> Option<&Owner<F>> {
        self.owners.iter().find(|owner| owner.applied(key).is_some())
    }

    pub fn exists(&self, key: &ChainKey) -> bool {
        built_in(key.table, &key.name).is_some()
            || self.find(chain_id(key.table, &key.name)).is_some()
    }

    /// The chain, to be changed: an owner's chain becomes this namespace's own first.
    fn chain_mut(&mut self, table: Table, name: &str) -> Result<&mut Chained<F>, String> {
        if let Some(hook) = built_in(table, name) {
            return Ok(self.built_in_mut(table, hook));
        }
        let key = ChainKey { table, name: name.into() };
        let id = chain_id(table, name);
        if !self.user.contains_key(&id) {
            let rules = self.rules_of(&key).ok_or_else(no_chain::<F>)?;
            let mut own = Chained::new(key);
            let row = |rule| (Entry { rule, owner: None }, Cell::new(0));
            own.edit(|rows| rows.extend(rules.into_iter().map(row)));
            self.user.insert(id, own);
        }
        self.user.get_mut(&id).ok_or_else(no_chain::<F>)
    }

    /// Puts a foreign rule at a place: 0 is first, `usize::MAX` last.
    pub fn put(
        &mut self,
        table: Table,
        chain: &str,
        at: usize,
        rule: Rule<F::Addr>,
    ) -> Result<(), String> {
        if let Some(text) = refusal(table, &rule) {
            return Err(text);
        }
        if let Some(to) = jump(table, &rule)
            && (built_in(to.table, &to.name).is_some() || !self.exists(&to))
        {
            return Err(no_target(&to.name));
        }
        let chain = self.chain_mut(table, chain)?;
        let rules = chain.entries.len();
        if at != usize::MAX && at > rules {
            return Err(said::<F>("Index of insertion too big."));
        }
        chain.edit(|rows| {
            let at = at.min(rules);
            rows.insert(at, (Entry { rule, owner: None }, Cell::new(0)));
        });
        Ok(())
    }

    /// Takes the first rule that is equal.
    pub fn delete(
        &mut self,
        table: Table,
        chain: &str,
        rule: &Rule<F::Addr>,
    ) -> Result<(), String> {
        let chain = self.chain_mut(table, chain)?;
        let at = chain.entries.iter().position(|entry| entry.rule == *rule);
        let missing = "Bad rule (does a matching rule exist in that chain?).";
        let at = at.ok_or_else(|| said::<F>(missing))?;
        chain.edit(|rows| {
            rows.remove(at);
        });
        Ok(())
    }

    /// Takes the rule with a number; 0 is the first.
    pub fn delete_at(&mut self, table: Table, chain: &str, at: usize) -> Result<(), String> {
        let chain = self.chain_mut(table, chain)?;
        if at >= chain.entries.len() {
            return Err(said::<F>("Index of deletion too big."));
        }
        chain.edit(|rows| {
            rows.remove(at);
        });
        Ok(())
    }

    pub fn new_chain(&mut self, table: Table, name: &str) -> Result<(), String> {
        let key = ChainKey { table, name: name.into() };
        if self.exists(&key) {
            return Err(said::<F>("Chain already exists."));
        }
        self.user.insert(chain_id(table, name), Chained::new(key));
        Ok(())
    }

    /// `-F`: all rules of a chain, or of every chain of a table.
    pub fn flush(&mut self, table: Table, chain: Option<&str>) -> Result<(), String> {
        if let Some(name) = chain {
            self.chain_mut(table, name)?.edit(Vec::clear);
            return Ok(());
        }
        for hook in HOOKS {
            self.built_in_mut(table, hook).edit(Vec::clear);
        }
        for chain in self.user.values_mut().filter(|chain| chain.key.table == table) {
            chain.edit(Vec::clear);
        }
        for owner in &mut self.owners {
            owner.flushed[table as usize] = true;
        }
        Ok(())
    }

    /// `-X`: a foreign chain that nothing jumps to and that is empty.
    pub fn delete_chain(&mut self, table: Table, name: &str) -> Result<(), String> {
        let key = ChainKey { table, name: name.into() };
        let id = chain_id(table, name);
        if !self.user.contains_key(&id) || self.owner_of(&key).is_some() {
            return Err(no_chain::<F>());
        }
        self.may_go(&key)?;
        self.user.remove(&id);
        Ok(())
    }

    /// `-X` alone: every chain of a table that is not built in, or none.
    pub fn delete_chains(&mut self, table: Table) -> Result<(), String> {
        let owned = self.owners.iter().flat_map(|owner| owner.chains().map(|(key, _)| key));
        let all = self.user.values().map(|chain| &chain.key).chain(owned);
        let all: BTreeSet<_> = all.filter(|key| key.table == table).collect();
        all.into_iter().try_for_each(|key| self.may_go(key))?;
        self.user.retain(|_, chain| chain.key.table != table);
        Ok(())
    }

    /// In the order in which the kernel's library looks (TC_DELETE_CHAIN, libiptc/libiptc.c).
    fn may_go(&self, key: &ChainKey) -> Result<(), String> {
        let foreign = self.own_rules().any(|(table, rule)| jump(table, rule).as_ref() == Some(key));
        let theirs = |owner: &Owner<F>| {
            owner.chains().any(|(at, chain)| jumps(at.table, &chain.rules).any(|to| to == *key))
        };
        if foreign || self.owners.iter().any(theirs) {
            return Err(said::<F>("Too many links."));
        }
        match self.rules_of(key) {
            Some(rules) if !rules.is_empty() => Err(said::<F>("Directory not empty.")),
            _ => Ok(()),
        }
    }

    /// Every rule that this namespace holds itself, with its table.
    pub fn own_rules(&self) -> impl Iterator<Item = (Table, &Rule<F::Addr>)> {
        let chains = self.built_in.iter().chain(self.user.values());
        chains.flat_map(|chain| chain.rules().map(move |rule| (chain.key.table, rule)))
    }

    /// The rules of a chain as they stand.
    pub fn rules_of(&self, key: &ChainKey) -> Option<Vec<Rule<F::Addr>>> {
        if let Some(hook) = built_in(key.table, &key.name) {
            return Some(self.built_in(key.table, hook).rules().cloned().collect());
        }
        if let Some(chain) = self.user.get(&chain_id(key.table, &key.name)) {
            return Some(chain.rules().cloned().collect());
        }
        let owner = self.owner_of(key)?;
        if owner.flushed[key.table as usize] {
            return Some(Vec::new());
        }
        owner.applied(key).map(|chain| chain.rules.clone())
    }

    pub fn counter(&self, table: Table, chain: &str, number: usize) -> Option<u64> {
        match built_in(table, chain) {
            Some(hook) => self.built_in(table, hook).packets(number),
            None => self.user.get(&chain_id(table, chain))?.packets(number),
        }
    }

    pub fn needs_conntrack(&self) -> bool {
        !self.owners.is_empty()
            || self.built_in.iter().chain(self.user.values()).any(Chained::needs_conntrack)
    }
    pub fn has_nat_rules(&self) -> bool {
        HOOKS.into_iter().any(|hook| !self.built_in(Table::Nat, hook).entries.is_empty())
    }
    /// The built-in chains that could do something to a packet, by [`bit`].
    pub fn loaded(&self) -> u32 {
        let busy = |chain: &Chained<F>| !chain.entries.is_empty() || chain.policy_drop;
        self.built_in.iter().zip(0..).fold(0, |bits, (c, at)| bits | u32::from(busy(c)) << at)
    }
    /// No rule, no policy: nothing that could happen to a packet.
    pub fn is_empty(&self) -> bool {
        let idle = |chain: &Chained<F>| chain.entries.is_empty() && !chain.policy_drop;
        self.owners.is_empty() && self.user.is_empty() && self.built_in.iter().all(idle)
    }
}

pub(super) fn no_chain<F: Family>() -> String {
    said::<F>("No chain/target/match by that name.")
}

pub(super) fn no_target(name: &str) -> String {
    format!("Couldn't load target `{name}':No such file or directory")
}

/// For messages: `-t nat -A PREROUTING …`.
pub(super) fn line<A: Address>(table: Table, chain: &str, rule: &Rule<A>) -> String {
    format!("-t {} {}", text::table_name(table), text::rule_line(chain, rule))
}
