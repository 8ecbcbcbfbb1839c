//! The rules port: what an owner asks of the tables.

use super::compile::{ChainId, Compiled, CompiledSet, chain_id, jump, jumps, refusal};
use super::entry::Entry as Connection;
use super::flat::FlatTable;
use super::table::{self, Entry, HOOKS, Local, Owner, Ruleset, TABLES, built_in};
use super::{Netfilter, State};
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatSet, FlatValue, Front};
use kubesim_actors::ports::rules::virtuals::{DEVICE, Virtual, VirtualSet};
use kubesim_actors::ports::rules::{
    BaseRule, Chain, ChainKey, ChainSet, Chains, CtEntry, CtFilter, FlatSettings, Place, Reply,
    Request, Rule, Table, text,
};
use kubesim_runtime::Time;
use smol_str::SmolStr;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

type LocalChains = Arc<[(ChainKey, Arc<Chain>)]>;

impl Netfilter {
    /// Carries out a request of the rules port; all of it or nothing. Of virtual services, what is
    /// netfilter's: see `Kernel::rules`.
    pub fn request(&mut self, request: &Request, now: Time) -> Reply {
        self.request_at(request, &[], now)
    }

    /// As [`Netfilter::request`], where node ports are on these addresses.
    pub(in crate::kernel) fn request_at(
        &mut self,
        request: &Request,
        node: &[Ipv4Net],
        now: Time,
    ) -> Reply {
        let state = self.state();
        match request {
            Request::Apply { owner, base, shared, local } => {
                let (missing, version) = (state.missing(owner), shared.version());
                let result = state.apply(owner, base, shared, local);
                Reply::Applied { owner: owner.clone(), version, missing, result }
            }
            Request::ApplyFlat { owner, settings, shared, local } => {
                let (owner, version) = (owner.clone(), shared.version());
                let missing = state.missing(&owner);
                state.apply_flat(owner.clone(), *settings, shared.clone(), local.clone());
                Reply::Applied { owner, version, missing, result: Ok(()) }
            }
            Request::ApplyVirtual { owner, chains, shared, local } => {
                let (missing, version) = (state.missing(owner), shared.version());
                let result = state.apply_virtual(owner, chains, shared, local, node, now);
                Reply::Applied { owner: owner.clone(), version, missing, result }
            }
            Request::ReadBase { table, chain } => state.read_base(*table, chain),
            Request::Verify { owner } => state.verify(owner, node, now),
            Request::DeleteConntrack { filters } => state.delete_conntrack(filters, now),
            Request::ListDnat => state.list_dnat(now),
        }
    }

    /// `nft delete table`: an owner's flat elements and what gives them their meaning.
    pub fn delete_flat(&mut self, owner: &str) {
        let state = self.state();
        state
            .beside
            .flat
            .iter_mut()
            .filter(|table| table.owner == owner)
            .for_each(|t| t.gone = true);
        state.changed();
    }
}

impl State {
    pub fn apply(
        &mut self,
        owner: &SmolStr,
        base: &Arc<[BaseRule]>,
        shared: &ChainSet,
        local: &LocalChains,
    ) -> Result<(), String> {
        let next = self.rules.prepare(owner, base, shared, local);
        self.rules.check(&next).map_err(|what| {
            format!("iptables-restore v1.8.9 (legacy): {what}\n\nError occurred at line: COMMIT")
        })?;
        self.rules.commit(next);
        let Ruleset { user, owners, .. } = &self.rules;
        self.recent.retain(|name| {
            owners.iter().any(|owner| {
                owner.compiled.names_recent(name)
                    || owner.local.values().any(|l| l.compiled.recent_names().any(|n| n == name))
            }) || user.values().any(|chain| chain.compiled().recent_names().any(|n| n == name))
        });
        self.changed();
        Ok(())
    }

    pub fn apply_flat(
        &mut self,
        owner: SmolStr,
        settings: FlatSettings,
        shared: FlatSet,
        local: Arc<[(FlatKey, FlatValue)]>,
    ) {
        let next = FlatTable::new(owner, settings, shared, local);
        match self.beside.flat.iter_mut().find(|table| table.owner == next.owner) {
            Some(table) => table.apply(next),
            None => self.beside.flat.push(next),
        }
        self.changed();
    }

    pub fn apply_virtual(
        &mut self,
        owner: &SmolStr,
        chains: &Chains,
        shared: &VirtualSet,
        local: &Arc<[(Front, Arc<Virtual>)]>,
        node: &[Ipv4Net],
        now: Time,
    ) -> Result<(), String> {
        let other =
            self.beside.ipvs.as_ref().and_then(|ipvs| ipvs.owner()).filter(|other| *other != owner);
        if let Some(other) = other {
            return Err(format!("{DEVICE} and its services are {other}'s"));
        }
        self.apply(owner, &chains.base, &chains.shared, &chains.local)?;
        let ipvs = self.beside.ipvs.get_or_insert_default();
        let (shared, local) = (shared.clone(), Arc::clone(local));
        ipvs.apply(owner.clone(), shared, local, node, &mut self.conntrack, now);
        self.changed();
        Ok(())
    }

    pub fn verify(&mut self, owner: &SmolStr, node: &[Ipv4Net], now: Time) -> Reply {
        let mut reply = self.verify_rules(owner);
        let ipvs = self.beside.ipvs.as_mut().filter(|ipvs| ipvs.owner() == Some(owner));
        if let (Some(ipvs), Reply::Verified { intact, missing, .. }) = (ipvs, &mut reply) {
            missing.extend(ipvs.verify(node, &mut self.conntrack, now));
            *intact = missing.is_empty();
        }
        reply
    }

    fn verify_rules(&self, owner: &SmolStr) -> Reply {
        let missing = self.believed(owner);
        let missing = missing.unwrap_or_else(|| vec![format!("nothing of {owner} is loaded")]);
        Reply::Verified { owner: owner.clone(), intact: missing.is_empty(), missing }
    }

    /// What does not stand of what an owner has applied, if it has.
    fn missing(&self, owner: &SmolStr) -> Vec<String> {
        self.believed(owner).unwrap_or_default()
    }

    /// The same; `None` of an owner that has applied nothing.
    fn believed(&self, owner: &SmolStr) -> Option<Vec<String>> {
        if let Some(table) = self.beside.flat.iter().find(|table| table.owner == *owner) {
            return Some(match table.gone {
                true => vec![format!("table ip {owner} is gone")],
                false => Vec::new(),
            });
        }
        let known = self.rules.owners.iter().find(|known| known.name == *owner)?;
        // Nobody has touched anything since: most verifications end here.
        let untouched = known.seen == self.rules.edits;
        Some(if untouched { Vec::new() } else { self.rules.missing(known) })
    }

    pub fn read_base(&self, table: Table, chain: &SmolStr) -> Reply {
        let hook = built_in(table, chain);
        let policy_drop = hook.is_some_and(|hook| self.rules.built_in(table, hook).policy_drop);
        let key = ChainKey { table, name: chain.clone() };
        let rules = self.rules.rules_of(&key).unwrap_or_default().into();
        Reply::Base { table, chain: chain.clone(), policy_drop, rules }
    }

    pub fn delete_conntrack(&mut self, filters: &[CtFilter], now: Time) -> Reply {
        // What a proxy wants gone was rewritten; most nodes have nothing of the kind.
        let all_rewritten = filters.iter().all(CtFilter::wants_rewritten);
        if all_rewritten && !self.conntrack.rewrites() {
            return Reply::ConntrackDeleted { entries: 0 };
        }
        let entries = self.conntrack.delete(now, |entry| {
            let known = described(entry);
            (entry.dst_nat || !all_rewritten) && filters.iter().any(|filter| filter.matches(&known))
        });
        Reply::ConntrackDeleted { entries }
    }

    pub fn list_dnat(&self, now: Time) -> Reply {
        let live = self.conntrack.iter().filter(|entry| entry.dnat(now));
        let entries = live.map(described);
        Reply::Dnat { entries: entries.collect() }
    }
}

impl Connection {
    fn dnat(&self, now: Time) -> bool {
        self.dst_nat && self.expires() > now
    }
}

fn described(entry: &Connection) -> CtEntry {
    CtEntry {
        protocol: entry.protocol(),
        src: entry.original.src,
        sport: entry.original.sport,
        original_dst: entry.original.dst,
        original_dport: entry.original.dport,
        dnat_to: entry.reply.src,
        dnat_port: entry.reply.sport,
    }
}

impl Ruleset {
    fn prepare(
        &self,
        name: &SmolStr,
        base: &Arc<[BaseRule]>,
        shared: &ChainSet,
        local: &LocalChains,
    ) -> Owner {
        let before = self.owners.iter().find(|owner| owner.name == *name);
        let compiled = CompiledSet::of(shared, before.map(|old| (&old.shared, &*old.compiled)));
        let compile = |key: &ChainKey, chain: &Arc<Chain>| {
            let id = chain_id(key.table, &key.name);
            let old = before.and_then(|owner| owner.local.get(&id));
            let compiled = match old.filter(|old| Arc::ptr_eq(&old.chain, chain)) {
                Some(old) => Arc::clone(&old.compiled),
                None => Arc::new(Compiled::new(key.table, chain.rules.iter())),
            };
            (id, Local { key: key.clone(), chain: Arc::clone(chain), compiled })
        };
        let local: BTreeMap<ChainId, Local> =
            local.iter().map(|(key, chain)| compile(key, chain)).collect();
        Owner {
            name: name.clone(),
            shared: shared.clone(),
            shared_bits: compiled.bits(),
            compiled,
            local_bits: local.keys().fold(0, |bits, id| bits | table::id_bit(*id)),
            local,
            base: Arc::clone(base),
            flushed: [false; 4],
            seen: self.edits,
        }
    }

    /// Whether everything would still make sense with this owner's new rules: the first thing
    /// that would not.
    fn check(&self, next: &Owner) -> Result<(), String> {
        if let Some(text) = next.compiled.refusal() {
            return Err(text.clone());
        }
        let others = || self.owners.iter().filter(|owner| owner.name != next.name);
        let resolves = |id: ChainId| {
            next.local.contains_key(&id)
                || next.compiled.get(id).is_some()
                || self.user.contains_key(&id)
                || others().any(|owner| owner.applied_id(id))
        };
        for (id, key) in next.compiled.unresolved() {
            if !resolves(id) {
                return Err(table::no_target(&key.name));
            }
        }
        for Local { key, chain, .. } in next.local.values() {
            check_rules(key.table, &chain.rules, &resolves)?;
        }
        for base in next.base.iter() {
            if built_in(base.table, &base.chain).is_none() {
                return Err(format!("Chain '{}' does not exist", base.chain));
            }
            check_rules(base.table, std::slice::from_ref(&base.rule), &resolves)?;
        }
        self.check_others(next, &resolves)
    }

    /// A chain that somebody else still jumps to cannot go.
    fn check_others(&self, next: &Owner, resolves: &dyn Fn(ChainId) -> bool) -> Result<(), String> {
        let busy = |name: &str| format!("CHAIN_DEL failed (Device or resource busy): chain {name}");
        let built_in = self
            .all_built_in()
            .flat_map(|(table, _, chain)| chain.entries().iter().map(move |entry| (table, entry)));
        let user = self.user.values().filter(|chain| {
            next.applied(&chain.key).is_none() && self.owner_of(&chain.key).is_none()
        });
        let user = user
            .flat_map(|chain| chain.entries().iter().map(move |entry| (chain.key.table, entry)));
        for (table, entry) in built_in.chain(user) {
            if entry.owner.as_ref() == Some(&next.name) {
                continue;
            }
            if let Some(to) = jump(table, &entry.rule)
                && !resolves(chain_id(to.table, &to.name))
            {
                return Err(busy(&to.name));
            }
        }
        for owner in self.owners.iter().filter(|owner| owner.name != next.name) {
            for (id, key) in owner.compiled.unresolved() {
                if !owner.local.contains_key(&id) && !resolves(id) {
                    return Err(busy(&key.name));
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, next: Owner) {
        let before = self.owners.iter().position(|owner| owner.name == next.name);
        // What others did to the owner's chains is overwritten.
        let old = before.map(|at| &self.owners[at]);
        self.user.retain(|_, chain| {
            next.applied(&chain.key).is_none()
                && old.is_none_or(|old| old.applied(&chain.key).is_none())
        });
        // The same rules as last time, and nobody has touched them since: they stand.
        let unmoved = old.is_some_and(|old| old.seen == next.seen && old.base == next.base);
        for table in TABLES {
            if unmoved {
                break;
            }
            for hook in HOOKS {
                let chain = self.built_in_mut(table, hook);
                let here = |base: &&BaseRule| {
                    base.table == table && built_in(table, &base.chain) == Some(hook)
                };
                let wanted: Vec<_> = next.base.iter().filter(here).collect();
                if !stands(chain.entries(), &next.name, &wanted) {
                    chain.edit(|rows| place(rows, &next.name, &wanted));
                }
            }
        }
        match before {
            Some(at) => self.owners[at] = next,
            None => self.owners.push(next),
        }
    }

    /// What of an owner's is not as applied, in iptables' words.
    fn missing(&self, owner: &Owner) -> Vec<String> {
        let mut missing = Vec::new();
        for (table, flushed) in TABLES.into_iter().zip(owner.flushed) {
            if flushed && owner.chains().any(|(key, _)| key.table == table) {
                let name = text::table_name(table);
                missing.push(format!("-t {name}: all chains of {} are empty", owner.name));
            }
        }
        for chain in self.user.values() {
            if let Some(applied) = owner.applied(&chain.key)
                && !chain.rules().eq(applied.rules.iter())
            {
                let (table, name) = (text::table_name(chain.key.table), &chain.key.name);
                missing.push(format!("-t {table} {name}: not as applied"));
            }
        }
        let mut left: BTreeMap<(Table, &str), Vec<&Rule>> = BTreeMap::new();
        for (table, hook, chain) in self.all_built_in() {
            let ours = chain.entries().iter().filter(|e| e.owner.as_ref() == Some(&owner.name));
            let rules = ours.map(|entry| &entry.rule).collect();
            left.insert((table, table::hook_name(hook)), rules);
        }
        for base in owner.base.iter() {
            let rules = left.entry((base.table, &base.chain)).or_default();
            match rules.iter().position(|rule| **rule == base.rule) {
                Some(at) => {
                    rules.remove(at);
                }
                None => missing.push(table::line(base.table, &base.chain, &base.rule)),
            }
        }
        missing
    }
}

impl Owner {
    fn applied_id(&self, id: ChainId) -> bool {
        self.local.contains_key(&id) || self.compiled.get(id).is_some()
    }
}

fn check_rules(
    table: Table,
    rules: &[Rule],
    resolves: &dyn Fn(ChainId) -> bool,
) -> Result<(), String> {
    if let Some(text) = rules.iter().find_map(|rule| refusal(table, rule)) {
        return Err(text);
    }
    match jumps(table, rules).find(|to| !resolves(chain_id(to.table, &to.name))) {
        Some(to) => Err(table::no_target(&to.name)),
        None => Ok(()),
    }
}

/// Whether the owner's base rules of one chain stand where [`place`] would put them.
fn stands(entries: &[Entry], owner: &SmolStr, wanted: &[&BaseRule]) -> bool {
    let ours = |entry: &Entry| entry.owner.as_ref() == Some(owner);
    let firsts = wanted.iter().filter(|base| base.place == Place::First).count();
    let lasts = wanted.len() - firsts;
    if entries.len() < wanted.len() || entries.iter().filter(|e| ours(e)).count() != wanted.len() {
        return false;
    }
    let (head, tail) = (&entries[..firsts], &entries[entries.len() - lasts..]);
    let wanted_in = |place: Place| wanted.iter().filter(move |base| base.place == place);
    let same = |entries: &[Entry], place: Place| {
        entries.iter().zip(wanted_in(place)).all(|(e, base)| ours(e) && e.rule == base.rule)
    };
    same(head, Place::First) && same(tail, Place::Last)
}

/// The owner's base rules of one chain become exactly `wanted`: the first ones before everything
/// else, the last ones after. A rule that was there keeps its counter.
fn place(rows: &mut Vec<(Entry, Cell<u64>)>, owner: &SmolStr, wanted: &[&BaseRule]) {
    let (mut ours, foreign): (Vec<_>, Vec<_>) = std::mem::take(rows)
        .into_iter()
        .partition(|(entry, _)| entry.owner.as_ref() == Some(owner));
    let mut row =
        |base: &&BaseRule| match ours.iter().position(|(entry, _)| entry.rule == base.rule) {
            Some(at) => ours.swap_remove(at),
            None => {
                let entry = Entry { rule: base.rule.clone(), owner: Some(owner.clone()) };
                (entry, Cell::new(0))
            }
        };
    let first = |base: &&&BaseRule| base.place == Place::First;
    rows.extend(wanted.iter().filter(first).map(&mut row));
    rows.extend(foreign);
    rows.extend(wanted.iter().filter(|base| !first(base)).map(row));
}
