//! Server-side apply (KEP-555): a client says what it wants, and the server knows whose each field
//! is. `fields` has sets of fields, `walk`, `merge` and `check` are what a type says of a value,
//! `update` is what a write does to the owners, `managers` is how an object keeps them.

mod check;
mod conflict;
mod entry;
mod fields;
mod managers;
mod merge;
pub mod options;
#[cfg(test)]
mod tests;
mod update;
mod walk;

use self::managers::{Managers, is_reset};
use self::update::{Refusal, Writer};
use super::resources::Sub;
use super::status::Failure;
use super::versions::Served;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kubesim_actors::apiserver;
use kubesim_actors::objects::{Managed, Object, time};
use kubesim_runtime::Wall;
use serde_json::{Map, Value, json};

/// Who writes what, and when.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub served: &'a Served,
    pub sub: Option<Sub>,
    pub manager: &'a str,
    pub now: Wall,
}

/// `kubectl apply` of old keeps what it applied here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who applies for `kubectl apply --server-side`, if nothing else is said.
const KUBECTL: &str = "kubectl";

impl Write<'_> {
    fn writer(&self) -> Writer<'_> {
        Writer {
            manager: self.manager,
            sub: self.sub,
            has_status: self.served.has(Sub::Status),
            served: self.served.clone(),
            now: time(self.now),
        }
    }

    /// The object as the client sees it, but for whose its fields are.
    pub fn bare(&self, object: &Object) -> Value {
        self.served.json(&bare(object))
    }

    fn read(&self, object: &Object) -> Result<Managers, String> {
        let version =
            |version: &str| self.served.in_version(version).map(|there| there.api_version());
        Managers::read(&object.managed, version)
    }

    /// Gives an object that is to be written its defaults, and notes in it whose its fields are
    /// then: those that were left out are those who leave them out. `live` is what it takes the
    /// place of.
    pub fn track(&self, live: Option<&Object>, new: &mut Object) {
        let managers = self.tracked(live, new);
        new.managed = managers.map(|one| one.print()).unwrap_or_default();
    }

    /// `None`: nobody's, as of an object that was never tracked.
    fn tracked(&self, live: Option<&Object>, new: &mut Object) -> Option<Managers> {
        let before = || live.and_then(|live| self.read(live).ok()).unwrap_or_default();
        let managers = match self.sub {
            None if is_reset(&new.managed) => Managers::default(),
            // A client may change them; one that does not know them takes nothing away.
            None => self.read(new).ok().filter(|one| !one.0.is_empty()).unwrap_or_else(before),
            Some(_) => before(),
        };
        if managers.0.is_empty() && live.is_some() {
            return None;
        }
        apiserver::default(new);
        let old = live.map_or_else(|| Value::Object(Map::new()), |live| self.bare(live));
        self.writer().update(old, self.bare(new), managers).ok()
    }

    /// The object that the configuration makes of `live`, with its owners, as JSON.
    pub fn apply(
        &self,
        live: Option<&Object>,
        config: &Value,
        force: bool,
    ) -> Result<Value, Failure> {
        let writer = self.writer();
        writer.check(config).map_err(|why| self.no_config(config, &why))?;
        let managers = live.map_or_else(|| Ok(Managers::default()), |live| self.read(live));
        let managers = managers.map_err(|why| {
            Failure::new(500, "", format!("failed to decode managed fields: {why}"))
        })?;
        let old = live.map_or_else(|| Value::Object(Map::new()), |live| self.bare(live));
        let applied = writer.apply(&old, config, managers.clone(), force).or_else(|refusal| {
            match self.left(&writer, &old, refusal) {
                None => writer.apply(&old, config, managers, true),
                Some(refusal) => Err(refusal),
            }
        });
        let (mut new, managers) = applied.map_err(|refusal| match refusal {
            Refusal::Conflicts(conflicts) => conflict::failure(&conflicts),
            Refusal::Wrong(why) => Failure::new(500, "", why),
        })?;
        self.remember(&mut new, config);
        let mut new = walk::without_nulls(writer.place(), new);
        let entries = managers.print().entries();
        // Who applies says nothing of the metadata if the path has the name.
        if !new["metadata"].is_object() {
            new["metadata"] = Value::Object(Map::new());
        }
        new["metadata"]["managedFields"] = json!(entries);
        Ok(new)
    }

    /// Takes back that owners are newer if nothing else is new, once what was applied has its
    /// defaults (apiserver's `IgnoreManagedFieldsTimestampsTransformer`).
    pub fn settle(live: &Object, new: &mut Object) {
        let timeless = |object: &Object| -> Vec<ManagedFieldsEntry> {
            let entries = object.managed.entries().into_iter().flatten();
            entries.map(|entry| ManagedFieldsEntry { time: None, ..entry }).collect()
        };
        if new.managed == live.managed || timeless(new) != timeless(live) {
            return;
        }
        let mut defaulted = new.clone();
        apiserver::default(&mut defaulted);
        if bare(&defaulted).to_json() == bare(live).to_json() {
            new.managed = live.managed.clone();
        }
    }

    fn no_config(&self, config: &Value, why: &str) -> Failure {
        let text = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let kind = options::type_name(self.served.type_of(None));
        let what = format!("failed to create typed patch object ({namespace}/{name}; {kind})");
        Failure::new(500, "", format!("{what}: {why}"))
    }

    /// What is left of a refusal if conflicts do not count that are about what `kubectl apply` of
    /// old applied and nobody changed since (apimachinery's `lastappliedmanager.go`). `None`:
    /// nothing.
    fn left(&self, writer: &Writer<'_>, live: &Value, refusal: Refusal) -> Option<Refusal> {
        let Refusal::Conflicts(conflicts) = &refusal else { return Some(refusal) };
        if self.manager != KUBECTL {
            return Some(refusal);
        }
        let last = live["metadata"]["annotations"][LAST_APPLIED].as_str();
        let last = last.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let last = last.filter(|last| last["apiVersion"] == self.served.api_version());
        let allowed = last.and_then(|last| writer.unchanged_since(&last, live).ok());
        let Some(allowed) = allowed.map(|set| set.paths()) else { return Some(refusal) };
        let rest = conflicts.iter().filter(|(_, path)| !allowed.contains(path)).cloned();
        let rest: Vec<_> = rest.collect();
        (!rest.is_empty()).then_some(Refusal::Conflicts(rest))
    }

    /// Keeps for `kubectl apply` of old what is applied, where it kept something (apimachinery's
    /// `lastappliedupdater.go`).
    fn remember(&self, new: &mut Value, config: &Value) {
        let annotations = new.get_mut("metadata").and_then(|meta| meta.get_mut("annotations"));
        let last = annotations.and_then(|all| all.get_mut(LAST_APPLIED));
        let Some(last) = last.filter(|_| self.manager == KUBECTL) else { return };
        let mut config = config.clone();
        if let Some(Value::Object(all)) =
            config.get_mut("metadata").and_then(|meta| meta.get_mut("annotations"))
        {
            all.remove(LAST_APPLIED);
        }
        *last = format!("{config}\n").into();
    }
}

/// The object, but for whose its fields are.
fn bare(object: &Object) -> Object {
    Object { managed: Managed::default(), ..object.clone() }
}
