//! Rules through `iptables-save` and `iptables-restore`.
//!
//! A change is written from what differs from the last one, without a look at the kernel. The
//! kernel is read at an owner's first Apply, after a refusal or a Verify that missed something,
//! and where an owner applies again what it has applied: then somebody doubts that it stands.
//!
//! `iptables-restore` commits table by table: a change of two tables that is refused in the
//! second stands in the first, until the next Apply reads the kernel and finds it.

mod edits;
mod plan;
mod programs;
mod saved;

pub use programs::Programs;

use super::Written;
use edits::Edits;
use kubesim_actors::ports::rules::text::table_name;
use kubesim_actors::ports::rules::{
    BaseRule, Chain, ChainKey, ChainSet, Reply, Rule, Table, Target, parse,
};
use saved::{Line, Saved};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All owners but the one at hand.
type Owners = Vec<Owner>;

pub struct Iptables {
    programs: Programs,
    owners: BTreeMap<SmolStr, Owner>,
    written: Written,
}

/// What an owner has applied, or wants to.
#[derive(Clone, Debug)]
struct Owner {
    base: Arc<[BaseRule]>,
    shared: ChainSet,
    local: Arc<[(ChainKey, Arc<Chain>)]>,
    /// The kernel holds it, as far as this driver knows.
    trusted: bool,
}

impl Iptables {
    pub fn new(programs: Programs) -> Self {
        Iptables { programs, owners: BTreeMap::new(), written: Written::default() }
    }

    pub fn written(&self) -> Written {
        self.written
    }

    pub async fn apply(
        &mut self,
        name: &SmolStr,
        base: Arc<[BaseRule]>,
        shared: ChainSet,
        local: Arc<[(ChainKey, Arc<Chain>)]>,
    ) -> (Vec<String>, Result<(), String>) {
        if let Err(why) = check(&base) {
            return (Vec::new(), Err(why));
        }
        let wanted = Owner { base, shared, local, trusted: true };
        let before = self.owners.remove(name);
        let change = before.as_ref().filter(|old| old.trusted);
        let change = change.and_then(|old| plan::difference(old, &wanted));
        let written = match change.filter(|edits| !edits.is_empty()) {
            Some(edits) => self.write(&edits).await.is_ok(),
            None => false,
        };
        // Not known, doubted, or refused: perhaps what was there is no more.
        let (missing, result) = match written {
            true => (Vec::new(), Ok(())),
            false => self.reconcile(name, before.as_ref(), &wanted).await,
        };
        let doubted = |owner: Owner| Owner { trusted: false, ..owner };
        let now = match &result {
            Ok(()) => Some(wanted),
            // What is known to be the owner's is not forgotten.
            Err(_) => before.map(doubted),
        };
        if let Some(now) = now {
            self.owners.insert(name.clone(), now);
        }
        (missing, result.map_err(|why| format!("the rules of {name} were not set: {why}")))
    }

    /// Also what is missing of what was believed to stand.
    async fn reconcile(
        &mut self,
        name: &str,
        before: Option<&Owner>,
        wanted: &Owner,
    ) -> (Vec<String>, Result<(), String>) {
        let text = match self.save().await {
            Ok(text) => text,
            Err(why) => return (Vec::new(), Err(why)),
        };
        let saved = Saved::read(&text);
        let believed = before.filter(|before| before.trusted);
        let missing = believed.map(|believed| plan::missing(&saved, name, believed));
        let others: Owners = self.owners.values().cloned().collect();
        let edits = plan::reconcile(&saved, before, wanted, &others);
        let written = if edits.is_empty() { Ok(()) } else { self.write(&edits).await };
        (missing.unwrap_or_default(), written)
    }

    pub async fn verify(&mut self, name: SmolStr) -> Result<Reply, String> {
        let text = if self.owners.contains_key(&name) { self.save().await? } else { String::new() };
        let missing = match self.owners.get_mut(&name) {
            Some(owner) => {
                let missing = plan::missing(&Saved::read(&text), &name, owner);
                owner.trusted &= missing.is_empty();
                missing
            }
            None => vec![format!("nothing of {name} is loaded")],
        };
        Ok(Reply::Verified { owner: name, intact: missing.is_empty(), missing })
    }

    pub async fn read_base(&mut self, table: Table, chain: SmolStr) -> Result<Reply, String> {
        let text = self.save().await?;
        let saved = Saved::read(&text);
        let is_chain = |name: &str| saved.table(table).has_chain(name);
        let rules = saved.lines(table, &chain).iter().map(|line| foreign(&chain, line, &is_chain));
        let rules = rules.collect();
        let policy_drop = saved.chain(table, &chain).is_some_and(|chain| chain.policy == "DROP");
        Ok(Reply::Base { table, chain, policy_drop, rules })
    }

    async fn save(&mut self) -> Result<String, String> {
        self.written.reads += 1;
        self.programs.save().await
    }

    async fn write(&mut self, edits: &Edits<'_>) -> Result<(), String> {
        let input = edits.input();
        self.written.transactions += 1;
        self.written.bytes += input.len() as u64;
        self.programs.restore(&input).await
    }
}

/// A rule whoever wrote it. What cannot be taken apart is one word for word.
fn foreign(chain: &str, line: &Line<'_>, is_chain: &dyn Fn(&str) -> bool) -> Rule {
    match parse::parse_foreign(&format!("-A {chain}{}", line.rule), is_chain) {
        Ok((_, rule)) => rule,
        Err(_) => Rule { matches: Vec::new(), target: Target::Other(line.rule.into()) },
    }
}

fn check(base: &[BaseRule]) -> Result<(), String> {
    let built_in = |rule: &&BaseRule| !is_built_in(rule.table, &rule.chain);
    match base.iter().find(built_in) {
        Some(rule) => {
            Err(format!("table {} has no built-in chain {}", table_name(rule.table), rule.chain))
        }
        None => Ok(()),
    }
}

/// As the kernel registers them (`valid_hooks` in net/ipv4/netfilter/iptable_*.c).
fn is_built_in(table: Table, chain: &str) -> bool {
    match table {
        Table::Raw => matches!(chain, "PREROUTING" | "OUTPUT"),
        Table::Mangle => {
            matches!(chain, "PREROUTING" | "INPUT" | "FORWARD" | "OUTPUT" | "POSTROUTING")
        }
        Table::Nat => matches!(chain, "PREROUTING" | "INPUT" | "OUTPUT" | "POSTROUTING"),
        Table::Filter => matches!(chain, "INPUT" | "FORWARD" | "OUTPUT"),
    }
}

impl Owner {
    /// Its chains of one table by name, local ones in place of shared ones.
    fn chains(&self, table: Table) -> BTreeMap<&str, (&ChainKey, &Chain)> {
        let from = ChainKey { table, name: SmolStr::default() };
        let shared = self.shared.iter_from(&from).take_while(|(key, _)| key.table == table);
        let local = self.local.iter().map(|(key, chain)| (key, chain));
        let all = shared.chain(local.filter(|(key, _)| key.table == table));
        all.map(|(key, chain)| (key.name.as_str(), (key, &**chain))).collect()
    }

    fn has_chain(&self, table: Table, name: &str) -> bool {
        let key = ChainKey { table, name: name.into() };
        self.view().get(&key).is_some()
    }

    fn view(&self) -> View<'_> {
        View { shared: &self.shared, local: self.local.iter().map(|(k, c)| (k, c)).collect() }
    }
}

/// An owner's chains, to be looked up.
struct View<'a> {
    shared: &'a ChainSet,
    local: BTreeMap<&'a ChainKey, &'a Arc<Chain>>,
}

impl<'a> View<'a> {
    fn get(&self, key: &ChainKey) -> Option<&'a Arc<Chain>> {
        self.local.get(key).copied().or_else(|| self.shared.get(key))
    }
}
