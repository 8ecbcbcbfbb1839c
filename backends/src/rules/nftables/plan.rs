//! What has to be written: from one version to the next, or from what stands in the kernel.

use super::Owner;
use super::batch::Batch;
use super::element::set_of;
use super::kernel::{self, Found};
use super::led::{Led, Treated};
use super::schema::{SETS, TREATMENTS, base_chains, led_chain};
use crate::netlink::{Netlink, Refusal};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};
use kubesim_runtime::Change;
use std::collections::{BTreeMap, BTreeSet};

/// The sets that hold elements of [`FlatKey`]s.
pub const FLAT_SETS: std::ops::Range<usize> = 0..TREATMENTS;

#[derive(Default)]
pub struct Plan {
    /// The table is made anew: why. Then the rest is everything.
    rebuild: Option<Rebuild>,
    /// Elements that go, those that change included, by set.
    gone: [Vec<FlatKey>; FLAT_SETS.end],
    put: [Vec<(FlatKey, FlatValue)>; FLAT_SETS.end],
    /// Elements that are none of ours, by their keys.
    foreign: Vec<(usize, Vec<u8>)>,
    chains: Vec<Led>,
    /// Elements of the map of treatments that go, and chains.
    unled: Vec<Treated>,
    chains_gone: Vec<String>,
}

enum Rebuild {
    /// There is none.
    Absent,
    /// It is there and is not the table it should be: in what.
    Flawed(String),
}

impl Plan {
    /// From what an owner has applied to what it wants, where the kernel holds the former. Counts
    /// the users of `new`'s treatments. Costs what the two do not share.
    pub fn difference(old: &Owner, new: &mut Owner) -> Plan {
        let mut keys: BTreeSet<FlatKey> = BTreeSet::new();
        for change in old.shared.diff(&new.shared) {
            let (Change::Added(key, _) | Change::Changed { key, .. } | Change::Removed(key, _)) =
                change;
            keys.insert(*key);
        }
        if old.local != new.local {
            keys.extend(old.local.iter().chain(new.local.iter()).map(|(key, _)| *key));
        }
        let mut plan = Plan::default();
        let mut users: BTreeMap<Led, i64> = BTreeMap::new();
        for key in keys {
            let (was, is) = (old.get(&key), new.get(&key));
            if was == is {
                continue;
            }
            let set = set_of(&key);
            if let Some(value) = was {
                plan.gone[set].push(key);
                count(&mut users, &key, &value, -1);
            }
            if let Some(value) = is {
                plan.put[set].push((key, value));
                count(&mut users, &key, &value, 1);
            }
        }
        new.users = old.users.clone();
        for (led, more) in users {
            let before = i64::from(old.users.get(&led).copied().unwrap_or_default());
            match (before, before + more) {
                (0, 1..) => plan.chains.push(led),
                (1.., ..=0) => {
                    plan.unled.extend(led.treated());
                    plan.chains_gone.push(led.name().into());
                }
                _ => {}
            }
            match u32::try_from(before + more) {
                Ok(now @ 1..) => drop(new.users.insert(led, now)),
                _ => drop(new.users.remove(&led)),
            }
        }
        plan
    }

    /// A table made anew.
    pub fn everything(wanted: &Owner, flaw: Option<String>) -> Plan {
        let rebuild = Some(flaw.map_or(Rebuild::Absent, Rebuild::Flawed));
        let chains = wanted.users.keys().copied().collect();
        let mut plan = Plan { rebuild, chains, ..Plan::default() };
        for (key, value) in wanted.elements() {
            plan.put[set_of(&key)].push((key, value));
        }
        plan
    }

    pub fn is_empty(&self) -> bool {
        let Plan { rebuild, gone, put, foreign, chains, unled, chains_gone } = self;
        rebuild.is_none()
            && gone.iter().all(Vec::is_empty)
            && put.iter().all(Vec::is_empty)
            && (foreign.is_empty() && chains.is_empty())
            && (unled.is_empty() && chains_gone.is_empty())
    }

    /// What is not as it was applied.
    pub fn missing(self, table: &str) -> Vec<String> {
        match self.rebuild {
            Some(Rebuild::Absent) => return vec![format!("table ip {table} is gone")],
            Some(Rebuild::Flawed(flaw)) => return vec![flaw],
            None => {}
        }
        let mut missing = Vec::new();
        for set in FLAT_SETS {
            let name = SETS[set].name;
            let put: BTreeSet<_> = self.put[set].iter().map(|(key, _)| key).collect();
            let strange = self.gone[set].iter().filter(|key| !put.contains(key)).count()
                + self.foreign.iter().filter(|(at, _)| *at == set).count();
            if !put.is_empty() {
                missing.push(format!("map {name}: {} elements not as applied", put.len()));
            }
            if strange > 0 {
                missing.push(format!("map {name}: {strange} elements of somebody else"));
            }
        }
        missing.extend(self.chains.iter().map(|t| format!("chain {}: not as applied", t.name())));
        missing
    }

    pub fn write(&self, mut batch: Batch<'_>, wanted: &Owner) {
        if let Some(rebuild) = &self.rebuild {
            batch.new_table();
            if let Rebuild::Flawed(_) = rebuild {
                batch.delete_table();
                batch.new_table();
            }
            SETS.iter().enumerate().for_each(|(number, set)| batch.new_set(number, set));
            let base = base_chains(&wanted.settings);
            base.iter().for_each(|chain| batch.new_chain(chain));
            base.iter().for_each(|chain| batch.new_rules(chain));
        }
        // Whatever leads to a chain goes before it, and comes after it.
        self.unled.iter().for_each(|treated| batch.lead(treated, false));
        for (set, key) in &self.foreign {
            batch.delete_raw(*set, key);
        }
        for set in FLAT_SETS {
            batch.delete(set, &self.gone[set]);
        }
        self.chains_gone.iter().for_each(|name| batch.delete_chain(name));
        for led in &self.chains {
            let chain = led_chain(led, &wanted.settings);
            batch.new_chain(&chain);
            batch.new_rules(&chain);
            if let Led::Treated(treated) = led {
                batch.lead(treated, true);
            }
        }
        for set in FLAT_SETS {
            batch.put(set, &self.put[set]);
        }
        batch.end();
    }
}

fn count(users: &mut BTreeMap<Led, i64>, key: &FlatKey, value: &FlatValue, more: i64) {
    if let Some(led) = Led::by(key, value) {
        *users.entry(led).or_default() += more;
    }
}

/// From what stands in the kernel to what an owner wants.
pub fn reconcile(
    netlink: &mut Netlink,
    table: &str,
    found: &Found,
    wanted: &Owner,
) -> Result<Plan, Refusal> {
    let mut base = base_chains(&wanted.settings);
    let based: BTreeSet<_> = base.iter().map(|chain| chain.name.clone()).collect();
    // Elements of a large map lead to these: they cannot be made anew alone.
    let remembering = wanted.users.keys().filter(|led| led.treated().is_none());
    let remembering = remembering.filter(|led| found.chains.contains_key(led.name().as_str()));
    base.extend(remembering.map(|led| led_chain(led, &wanted.settings)));
    if let Some(flaw) = found.flaw(&base) {
        return Ok(Plan::everything(wanted, Some(flaw).filter(|_| !found.is_empty())));
    }
    let mut plan = Plan::default();
    treatments(netlink, table, found, wanted, &mut plan)?;
    let needed: BTreeSet<String> = wanted.users.keys().map(|t| t.name().into()).collect();
    for name in found.chains.keys().filter(|name| !based.contains(name.as_str())) {
        let again = plan.chains.iter().any(|led| led.name() == name.as_str());
        if !needed.contains(name) || again {
            plan.chains_gone.push(name.clone());
        }
    }
    elements(netlink, table, wanted, &mut plan)?;
    Ok(plan)
}

/// Both sides in the order of keys, side by side.
fn elements(
    netlink: &mut Netlink,
    table: &str,
    wanted: &Owner,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let mut there: Vec<(FlatKey, FlatValue)> = Vec::new();
    for set in FLAT_SETS {
        let unknown =
            kernel::elements(netlink, table, set, |unknown, shown| match shown.read(set) {
                Some(element) => there.push(element),
                None => unknown.push((set, shown.key.to_vec())),
            })?;
        plan.foreign.extend(unknown);
    }
    there.sort_unstable_by_key(|(key, _)| *key);
    let mut there = there.into_iter().peekable();
    for (key, value) in wanted.elements() {
        while let Some((gone, _)) = there.next_if(|(found, _)| *found < key) {
            plan.gone[set_of(&gone)].push(gone);
        }
        let found = there.next_if(|(found, _)| *found == key);
        if found == Some((key, value)) {
            continue;
        }
        if found.is_some() {
            plan.gone[set_of(&key)].push(key);
        }
        plan.put[set_of(&key)].push((key, value));
    }
    there.for_each(|(gone, _)| plan.gone[set_of(&gone)].push(gone));
    Ok(())
}

/// Each chain in use is there, and each treatment's is led to; no other is.
fn treatments(
    netlink: &mut Netlink,
    table: &str,
    found: &Found,
    wanted: &Owner,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let led = kernel::elements(netlink, table, TREATMENTS, |led, shown| {
        led.push((shown.key.to_vec(), shown.chain.map(String::from)));
    })?;
    let mut fine = BTreeSet::new();
    for (key, chain) in led {
        let Ok(code) = <[u8; 4]>::try_from(&key[..]) else {
            plan.foreign.push((TREATMENTS, key));
            continue;
        };
        let treated = Treated::from_code(u32::from_ne_bytes(code));
        let led = Led::Treated(treated);
        let right = chain.as_deref() == Some(led.name().as_str())
            && wanted.users.contains_key(&led)
            && found.has(&led_chain(&led, &wanted.settings));
        if right {
            fine.insert(led);
        } else {
            plan.unled.push(treated);
        }
    }
    let there = |led: &Led| match led {
        Led::Treated(_) => fine.contains(led),
        Led::Remember(_) => found.chains.contains_key(led.name().as_str()),
    };
    plan.chains.extend(wanted.users.keys().filter(|led| !there(led)));
    Ok(())
}
