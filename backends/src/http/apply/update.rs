//! What a write does to the owners of an object's fields (structured-merge-diff's
//! `merge/update.go`, and the managers that apimachinery puts before it).

use super::fields::{Set, Step};
use super::managers::{Manager, Managers, Owned};
use super::walk::{Comparison, compare, filled, set_of};
use super::{check, merge};
use crate::http::resources::Sub;
use crate::http::types::Place;
use crate::http::versions::Served;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Who writes, what, and when.
pub struct Writer<'a> {
    pub manager: &'a str,
    pub sub: Option<Sub>,
    /// What is written has a status that is written by itself.
    pub has_status: bool,
    /// In which version it is written.
    pub served: Served,
    pub now: Time,
}

/// Somebody else owns what is to be changed.
pub type Conflict = (Manager, Vec<Step>);

/// Why nothing was applied.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    Conflicts(Vec<Conflict>),
    /// The object or the configuration is not one of its type.
    Wrong(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Wrong(why)
    }
}

/// Whose the fields are that an object had before somebody first applied to it.
const BEFORE: &str = "before-first-apply";

impl Writer<'_> {
    /// Whether fields below a step at the top are written there (upstream's `GetResetFields`).
    fn writes(&self, step: &Step) -> bool {
        let is = |name: &str| matches!(step, Step::Field(field) if field == name);
        match self.sub {
            Some(Sub::Status | Sub::Approval) => is("status"),
            Some(_) => is("spec"),
            None => !(self.has_status && is("status")),
        }
    }

    fn manager(&self, applies: bool) -> Manager {
        let name = if self.manager.is_empty() { "unknown" } else { self.manager };
        let subresource = self.sub.map_or("", Sub::name).to_owned();
        let version = if applies { "" } else { self.version() };
        Manager { name: name.to_owned(), applies, subresource, version }
    }

    /// What it consists of there.
    pub fn place(&self) -> Place<'_> {
        self.served.place()
    }

    fn version(&self) -> &'static str {
        self.served.api_version()
    }

    /// The same write, as it is in another version.
    fn at(&self, version: &str) -> Writer<'_> {
        let there = (version != self.version()).then(|| self.served.in_version(version));
        let served = there.flatten().unwrap_or_else(|| self.served.clone());
        Writer { served, now: self.now.clone(), ..*self }
    }

    /// What changes, in this version and in those in which somebody owns something.
    fn changes(
        &self,
        old: Value,
        new: Value,
        managers: &Managers,
    ) -> Result<BTreeMap<&'static str, Comparison>, String> {
        let mut changes = BTreeMap::new();
        let versions = managers.0.values().map(|owned| owned.version);
        for version in versions.filter(|version| *version != self.version()) {
            if changes.contains_key(version) {
                continue;
            }
            let there = self.at(version);
            let value = |value: &Value| self.served.converted(value.clone(), &there.served);
            changes.insert(version, there.compare(value(&old), value(&new))?);
        }
        // Mostly the only one: that one copies nothing.
        changes.insert(self.version(), self.compare(old, new)?);
        Ok(changes)
    }

    fn compare(&self, old: Value, new: Value) -> Result<Comparison, String> {
        let (old, new) = (filled(self.place(), old), filled(self.place(), new));
        Ok(compare(self.place(), &old, &new)?.only(|step| self.writes(step)))
    }

    /// A write that is no apply: what it changes is its manager's from now on.
    pub fn update(
        &self,
        old: Value,
        new: Value,
        mut managers: Managers,
    ) -> Result<Managers, String> {
        let mut changes = self.changes(old, new, &managers)?;
        for owned in managers.0.values_mut() {
            changes[owned.version].leave(&mut owned.set);
        }
        let mut taken = changes.remove(self.version()).unwrap_or_default().into_written();
        taken.remove(&NEVER_OWNED);
        if !taken.is_empty() {
            let mine = managers.0.entry(self.manager(false)).or_default();
            mine.set.add(taken);
            mine.version = self.version();
            mine.time = Some(self.now.clone());
        }
        managers.drop_empty();
        managers.cap();
        Ok(managers)
    }

    /// The object with the configuration in it, and who owns what then.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        mut managers: Managers,
        force: bool,
    ) -> Result<(Value, Managers), Refusal> {
        if managers.0.is_empty() {
            let (served, now) = (self.served.clone(), self.now.clone());
            let before = Writer { manager: BEFORE, served, now, ..*self };
            managers = before.update(Value::Object(Map::new()), live.clone(), managers)?;
        }
        let me = self.manager(true);
        let merged = merge::merge(self.place(), Some(live), config)?;
        let set = set_of(self.place(), config)?.only(|step| self.writes(step));
        let last = managers.0.remove(&me).unwrap_or_default();
        let (version, time) = (self.version(), last.time.clone());
        managers.0.insert(me.clone(), Owned { set: set.clone(), version, time });
        let new = self.prune(merged, &managers, &last)?;
        let changes = self.changes(live.clone(), new.clone(), &managers)?;
        let others = || managers.0.iter().filter(|(manager, _)| **manager != me);
        let conflicts = others().flat_map(|(manager, owned)| {
            let theirs = owned.set.intersection(&changes[owned.version].written()).paths();
            theirs.into_iter().map(|path| (manager.clone(), path))
        });
        let conflicts: Vec<Conflict> = conflicts.collect();
        if !force && !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
        let set = set.difference(&NEVER_OWNED);
        for (manager, owned) in &mut managers.0 {
            if *manager != me {
                changes[owned.version].leave(&mut owned.set);
                continue;
            }
            let same = set == last.set && version == last.version;
            if !same || changes[version] != Comparison::default() {
                owned.time = Some(self.now.clone());
            }
            owned.set.clone_from(&set);
        }
        managers.drop_empty();
        Ok((new, managers))
    }

    /// Takes out what the manager applied last time and does not now, if nobody else owns it: in
    /// the version of last time.
    fn prune(&self, merged: Value, managers: &Managers, last: &Owned) -> Result<Value, String> {
        if last.set.is_empty() {
            return Ok(merged);
        }
        let there = self.at(last.version);
        let merged = self.served.converted(merged, &there.served);
        let last = there.with_structs(&last.set);
        let mut pruned = there.less(&merged, &last);
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for one in managers.0.values() {
            let set = owned.entry(one.version).or_default();
            *set = set.union(&one.set);
        }
        // First what is owned in that version: a conversion may need it.
        let mine = owned.remove(there.version()).unwrap_or_default();
        pruned = there.with_owned(&merged, &pruned, &mine)?;
        for (version, set) in &owned {
            let other = there.at(version);
            let value = |value: &Value| there.served.converted(value.clone(), &other.served);
            let kept = other.with_owned(&value(&merged), &value(&pruned), set)?;
            pruned = other.served.converted(kept, &there.served);
        }
        // What was not this manager's stays, whoever's it is.
        let gone = there.set(&merged)?.difference(&there.set(&pruned)?).intersection(&last);
        Ok(there.served.converted(there.less(&merged, &gone), &self.served))
    }

    /// `pruned` with what of `merged` is in the set.
    fn with_owned(&self, merged: &Value, pruned: &Value, owned: &Set) -> Result<Value, String> {
        let kept = self.set(pruned)?.union(&self.with_structs(owned));
        Ok(self.less(merged, &self.set(merged)?.difference(&kept)))
    }

    fn less(&self, value: &Value, gone: &Set) -> Value {
        let empty = || Value::Object(Map::new());
        merge::remove(self.place(), value, gone).unwrap_or_else(empty)
    }

    fn set(&self, value: &Value) -> Result<Set, String> {
        set_of(self.place(), value).map(|set| self.with_structs(&set))
    }

    /// With the structs that have something in the set (`EnsureNamedFieldsAreMembers`).
    fn with_structs(&self, set: &Set) -> Set {
        set.with_parents(&mut |path| match path {
            [above @ .., Step::Field(name)] => {
                let place = above.iter().fold(self.place(), |place, step| match step {
                    Step::Field(name) => place.field(name),
                    _ => place.element(),
                });
                place.declares(name)
            }
            _ => false,
        })
    }

    /// Whether a configuration is one of its type.
    pub fn check(&self, config: &Value) -> Result<(), String> {
        check::check(self.place(), config)
    }

    /// In which places what was applied by a client (`kubectl apply` of old) is as it was.
    pub fn unchanged_since(&self, applied: &Value, live: &Value) -> Result<Set, String> {
        let applied = filled(self.place(), applied.clone());
        let comparison = compare(self.place(), &applied, &filled(self.place(), live.clone()))?;
        let differs = comparison.all();
        Ok(set_of(self.place(), &applied)?.difference(&differs))
    }
}

/// What says which object it is, and what only the server says (`stripmeta.go`).
static NEVER_OWNED: LazyLock<Set> = LazyLock::new(|| {
    let mut set = Set::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.insert(&[Step::field(name)]);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&[Step::field("metadata"), Step::field(name)]);
    }
    set
});
