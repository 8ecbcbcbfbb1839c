//! What a write does to the owners of an object's fields (structured-merge-diff's
//! `merge/update.go`, and the managers that apimachinery puts before it).

use super::fields::{Set, Step};
use super::managers::{Manager, Managers, Owned};
use super::walk::{Comparison, compare, filled, set_of};
use super::{check, merge};
use crate::http::resources::Sub;
use crate::http::types::Place;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

/// Who writes, what, and when.
pub struct Writer<'a> {
    pub manager: &'a str,
    pub sub: Option<Sub>,
    /// What is written has a status that is written by itself.
    pub has_status: bool,
    pub place: Place,
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
        Manager { name: name.to_owned(), applies, subresource }
    }

    fn compare(&self, old: &Value, new: &Value) -> Result<Comparison, String> {
        let comparison = compare(self.place, &filled(self.place, old), &filled(self.place, new))?;
        Ok(comparison.only(|step| self.writes(step)))
    }

    /// A write that is no apply: what it changes is its manager's from now on.
    pub fn update(
        &self,
        old: &Value,
        new: &Value,
        mut managers: Managers,
    ) -> Result<Managers, String> {
        let comparison = self.compare(old, new)?;
        let changed = comparison.modified.union(&comparison.added);
        let gone = changed.union(&comparison.removed);
        for owned in managers.0.values_mut() {
            owned.set = owned.set.difference(&gone);
        }
        let taken = changed.difference(&never_owned());
        if !taken.is_empty() {
            let mine = managers.0.entry(self.manager(false)).or_default();
            mine.set = mine.set.union(&taken);
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
            let before = Writer { manager: BEFORE, now: self.now.clone(), ..*self };
            managers = before.update(&Value::Object(Map::new()), live, managers)?;
        }
        let me = self.manager(true);
        let merged = merge::merge(self.place, Some(live), config)?;
        let set = set_of(self.place, config)?.only(|step| self.writes(step));
        let last = managers.0.remove(&me).unwrap_or_default();
        managers.0.insert(me.clone(), Owned { set: set.clone(), time: last.time.clone() });
        let new = self.prune(merged, &managers, &last.set)?;
        let comparison = self.compare(live, &new)?;
        let changed = comparison.modified.union(&comparison.added);
        let others = || managers.0.iter().filter(|(manager, _)| **manager != me);
        let conflicts = others().flat_map(|(manager, owned)| {
            let theirs = owned.set.intersection(&changed).paths();
            theirs.into_iter().map(|path| (manager.clone(), path))
        });
        let conflicts: Vec<Conflict> = conflicts.collect();
        if !force && !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
        let gone = changed.union(&comparison.removed);
        let set = set.difference(&never_owned());
        for (manager, owned) in &mut managers.0 {
            if *manager != me {
                owned.set = owned.set.difference(&gone);
                continue;
            }
            if set != last.set || comparison != Comparison::default() {
                owned.time = Some(self.now.clone());
            }
            owned.set.clone_from(&set);
        }
        managers.drop_empty();
        Ok((new, managers))
    }

    /// Takes out what the manager applied last time and does not now, if nobody else owns it.
    fn prune(&self, merged: Value, managers: &Managers, last: &Set) -> Result<Value, String> {
        if last.is_empty() {
            return Ok(merged);
        }
        let set = |value: &Value| set_of(self.place, value).map(|set| self.with_structs(&set));
        let empty = || Value::Object(Map::new());
        let less = |gone: &Set| merge::remove(self.place, &merged, gone).unwrap_or_else(empty);
        let last = self.with_structs(last);
        let whole = set(&merged)?;
        let owned = managers.0.values().fold(Set::default(), |all, one| all.union(&one.set));
        let kept = set(&less(&last))?.union(&self.with_structs(&owned));
        let pruned = less(&whole.difference(&kept));
        // What was not this manager's stays, whoever's it is.
        let gone = whole.difference(&set(&pruned)?).intersection(&last);
        Ok(less(&gone))
    }

    /// With the structs that have something in the set (`EnsureNamedFieldsAreMembers`).
    fn with_structs(&self, set: &Set) -> Set {
        set.with_parents(&mut |path| match path {
            [above @ .., Step::Field(name)] => {
                let place = above.iter().fold(self.place, |place, step| match step {
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
        check::check(self.place, config)
    }

    /// In which places what was applied by a client (`kubectl apply` of old) is as it was.
    pub fn unchanged_since(&self, applied: &Value, live: &Value) -> Result<Set, String> {
        let applied = filled(self.place, applied);
        let comparison = compare(self.place, &applied, &filled(self.place, live))?;
        let differs = comparison.modified.union(&comparison.added).union(&comparison.removed);
        Ok(set_of(self.place, &applied)?.difference(&differs))
    }
}

/// What says which object it is, and what only the server says (`stripmeta.go`).
fn never_owned() -> Set {
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
}
