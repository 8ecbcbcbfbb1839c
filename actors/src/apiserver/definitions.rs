//! CustomResourceDefinitions, as far as the server itself has to see to them: which of its names
//! one gets, what it makes of the cache, and that its objects go before it does.
//!
//! Upstream has controllers for that (apiextensions-apiserver `pkg/controller/status`,
//! `establish`, `finalizer`), which come a moment after the write. Here the names are given in the
//! write itself, since the actor sees all writes one after the other, those under way included: a
//! definition that was answered is one that is served, and no two have one name.

use super::apply::{Outcome, State};
use super::cache::derived_history;
use super::pending::Job;
use super::{ApiServer, Cache, errors};
use crate::objects::definition::{CLEANUP, holds};
use crate::objects::validation::Causes;
use crate::objects::{Body, Definition, Key, Kind, Object, Plain, View, time};
use crate::ports::api::{DeleteOptions, Error, Request};
use kubesim_runtime::{Context, Snapshot, Wall};
use serde_json::{Value, json};
use std::sync::Arc;

const CRD: Kind = Kind::CustomResourceDefinition;

/// Objects of a definition that are deleted at a time.
const BATCH: usize = 100;

type Ctx<'a> = Context<'a, ApiServer>;

/// Whether objects of this kind may be made; others are there from the start.
pub(super) fn may_create(cache: &Cache, kind: Kind, key: &Key) -> Result<(), Error> {
    let Kind::Custom(_) = kind else { return Ok(()) };
    match cache.definitions.get(kind) {
        None => Err(errors::not_found(kind, &key.name)),
        Some(definition) if definition.terminating => {
            let why = "create not allowed while custom resource definition is terminating";
            Err(errors::forbidden(kind, &key.name, why))
        }
        Some(_) => Ok(()),
    }
}

/// Whether an object's status is written by itself.
pub(super) fn has_status(cache: &Cache, kind: Kind) -> bool {
    cache.definitions.get(kind).is_some_and(|definition| definition.has_status)
}

/// What holds of a definition besides what its fields say by themselves.
pub(super) fn validate(new: &Object, old: Option<&Object>, causes: &mut Causes) {
    let Some(plain) = new.plain() else { return };
    let fields = &plain.fields;
    let name = format!("{}.{}", fields.text("spec.names.plural"), fields.text("spec.group"));
    if old.is_none() && new.key.name != name {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.invalid("metadata.name", format_args!("{:?}", new.key.name), why);
    }
    if let Some(old) = old.and_then(Object::plain)
        && holds(&old.status, "Established")
    {
        for path in ["spec.scope", "spec.names.kind"] {
            if old.fields.at(path) != fields.at(path) {
                let value = format_args!("{:?}", fields.text(path));
                causes.invalid(path, value, "field is immutable");
            }
        }
    }
    let versions = fields.list("spec.versions");
    let stored = plain.status["storedVersions"].as_array().into_iter().flatten();
    for (index, stored) in stored.enumerate() {
        if versions.iter().any(|version| version["name"] == *stored) {
            continue;
        }
        let name = stored.as_str().unwrap_or_default();
        let why = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain \
             in spec.versions until a storage migration ensures no data remains persisted in \
             {name} and removes {name} from status.storedVersions"
        );
        causes.invalid(format_args!("status.storedVersions[{index}]"), stored, why);
    }
}

/// Gives a definition that is to be written the names that are free.
pub(super) fn settle(crd: &mut Object, state: &State<'_>) {
    let status = settled(crd, state.cache, &state.under_way, state.wall);
    if let Body::Plain(plain) = &mut crd.body
        && *plain.status != status
    {
        plain.status = Arc::new(status);
    }
}

/// The same of one that stands: a name may have become free.
pub(super) fn resettle(state: &State<'_>, old: &Arc<Object>) -> Outcome {
    let mut new = (**old).clone();
    settle(&mut new, state);
    match new.plain().map(|plain| &plain.status) == old.plain().map(|plain| &plain.status) {
        true => Outcome::Same(old.clone()),
        false => Outcome::Put { object: new, expected: old.version },
    }
}

/// Names in use in a group.
#[derive(Default)]
struct Used {
    resources: Vec<String>,
    kinds: Vec<String>,
}

impl Used {
    fn find(group: &str, but: &Key, cache: &Cache, under_way: &[Arc<Object>]) -> Used {
        let mut used = Used::default();
        // Kinds that are there from the start have their names.
        for kind in Kind::ALL.iter().filter(|kind| kind.group() == group) {
            let declaration = kind.declaration();
            used.resources.extend([kind.plural().to_owned(), declaration.singular()]);
            used.resources.extend(declaration.short.iter().map(|short| (*short).to_owned()));
            used.kinds.extend([kind.name().to_owned(), format!("{kind}List")]);
        }
        let stored = cache.views.get(&CRD).into_iter().flat_map(View::values);
        for crd in stored.chain(under_way).filter(|crd| crd.key != *but) {
            let Some(plain) = crd.plain() else { continue };
            if plain.fields.text("spec.group") == group {
                used.add(&plain.status["acceptedNames"]);
            }
        }
        used
    }

    fn add(&mut self, names: &Value) {
        let text = |name: &str| names[name].as_str().map(str::to_owned);
        self.resources.extend(["plural", "singular"].into_iter().filter_map(text));
        let short = names["shortNames"].as_array().into_iter().flatten();
        self.resources.extend(short.filter_map(|one| one.as_str().map(str::to_owned)));
        self.kinds.extend(["kind", "listKind"].into_iter().filter_map(text));
    }
}

/// A definition's status with the names that it gets (`calculateNamesAndConditions` of
/// `naming_controller.go`; `establishing_controller.go`; `strategy.go`).
fn settled(crd: &Object, cache: &Cache, under_way: &[Arc<Object>], now: Wall) -> Value {
    let Some(Plain { fields, status, .. }) = crd.plain() else { return Value::Null };
    let mut status = if status.is_object() { (**status).clone() } else { json!({}) };
    let used = Used::find(fields.text("spec.group"), &crd.key, cache, under_way);
    let asked = fields.at("spec.names").cloned().unwrap_or_default();
    let old = status["acceptedNames"].clone();
    let mut names = if old.is_object() { old.clone() } else { json!({}) };
    let mut refused = None;
    let taken = |word: &Value, used: &[String]| used.iter().any(|one| *word == **one);
    for (name, used, reason) in [
        ("plural", &used.resources, "PluralConflict"),
        ("singular", &used.resources, "SingularConflict"),
        ("shortNames", &used.resources, "ShortNamesConflict"),
        ("kind", &used.kinds, "KindConflict"),
        ("listKind", &used.kinds, "ListKindConflict"),
    ] {
        let word = &asked[name];
        let words = word.as_array().map_or(std::slice::from_ref(word), Vec::as_slice);
        let fresh = *word != old[name];
        match words.iter().find(|word| fresh && taken(word, used)) {
            Some(word) => refused = Some((reason, format!("{word} is already in use"))),
            None => put(&mut names, name, word),
        }
    }
    put(&mut names, "categories", &asked["categories"]);
    status["acceptedNames"] = names;
    let established = holds(&status, "Established");
    let (accepted, reason, why) = match &refused {
        Some((reason, why)) => ("False", *reason, why.as_str()),
        None => ("True", "NoConflicts", "no conflicts found"),
    };
    set_condition(&mut status, ["NamesAccepted", accepted, reason, why], now);
    if !established {
        let why = "the initial names have been accepted";
        let condition = match refused {
            None => ["Established", "True", "InitialNamesAccepted", why],
            Some(_) => ["Established", "False", "NotAccepted", "not all names are accepted"],
        };
        set_condition(&mut status, condition, now);
    }
    let stored = fields.list("spec.versions").iter().find(|version| version["storage"] == true);
    let stored = stored.map(|version| version["name"].clone());
    let mut all = status["storedVersions"].as_array().cloned().unwrap_or_default();
    all.extend(stored.filter(|stored| !all.contains(stored)));
    status["storedVersions"] = all.into();
    status
}

/// Sets a field, or takes it away.
fn put(object: &mut Value, field: &str, value: &Value) {
    match value {
        Value::Null => drop(object.as_object_mut().and_then(|fields| fields.remove(field))),
        value => object[field] = value.clone(),
    }
}

/// Its type, status, reason and message; the time is that of the change of status.
fn set_condition(status: &mut Value, [kind, holds, reason, message]: [&str; 4], now: Wall) {
    let mut all = status["conditions"].as_array().cloned().unwrap_or_default();
    let old = all.iter().find(|one| one["type"] == kind && one["status"] == holds);
    let since =
        old.map(|one| one["lastTransitionTime"].clone()).unwrap_or_else(|| json!(time(now)));
    let condition = json!({"type": kind, "status": holds, "reason": reason, "message": message,
                           "lastTransitionTime": since});
    match all.iter_mut().find(|one| one["type"] == kind) {
        Some(known) => *known = condition,
        None => all.push(condition),
    }
    status["conditions"] = all.into();
}

/// Deletion, asked for by a client: first what it declares is to go (`etcd.go` of
/// `pkg/registry/customresourcedefinition`).
pub(super) fn mark(marked: &mut Object, now: Wall) {
    let finalizers = &mut Arc::make_mut(&mut marked.meta).finalizers;
    let finalizers = finalizers.get_or_insert_default();
    if !finalizers.iter().any(|name| name == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
    }
    if let Body::Plain(plain) = &mut marked.body {
        let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will \
                   begin soon";
        let condition = ["Terminating", "True", "InstanceDeletionPending", why];
        set_condition(Arc::make_mut(&mut plain.status), condition, now);
    }
}

impl ApiServer {
    /// Serves what the definitions in the cache say. What was stored of a kind stays in the cache
    /// when its definition is gone, as it does in the store.
    pub(super) fn redefine(&mut self) {
        let Some(crds) = self.cache.views.get(&CRD) else { return };
        let definitions = self.cache.definitions.updated(crds.values(), &mut self.kinds);
        let kinds: Vec<Kind> = definitions.iter().map(|definition| definition.kind).collect();
        kinds.into_iter().for_each(|kind| self.make_view(kind));
        self.cache.definitions = Arc::new(definitions);
    }

    /// Of a declared kind, if there is none yet.
    pub(super) fn make_view(&mut self, kind: Kind) {
        let first = self.cache.views.get(&Kind::Namespace).map(View::history);
        let new = if self.config.memo { Snapshot::empty } else { Snapshot::without_memo };
        let revision = self.cache.revision;
        self.cache.views.entry(kind).or_insert_with(|| {
            // As much another history as if it were drawn.
            let mut view = new(derived_history(first.unwrap_or_default(), kind, ""));
            view.advance(revision);
            view
        });
    }

    /// The definitions, as they are to be written when this one is.
    pub(super) fn definitions_under_way(&self, kind: Kind) -> Vec<Arc<Object>> {
        let definitions = || self.under_way(CRD).flatten().cloned().collect();
        if kind == CRD { definitions() } else { Vec::new() }
    }

    /// A write is over, whatever became of it.
    pub(super) fn definitions_after(&mut self, kind: Kind, key: &Key, ctx: &mut Ctx<'_>) {
        match kind {
            Kind::CustomResourceDefinition => {
                self.rename(ctx);
                self.clean_up(key, ctx);
            }
            Kind::Custom(_) => {
                let terminating = self.cache.definitions.get(kind).filter(|one| one.terminating);
                if let Some(crd) = terminating.map(|definition| definition.crd()) {
                    self.clean_up(&crd, ctx);
                }
            }
            _ => {}
        }
    }

    /// The store was read.
    pub(super) fn look_after_definitions(&mut self, ctx: &mut Ctx<'_>) {
        let crds = self.cache.views.get(&CRD).into_iter().flat_map(View::values);
        let going: Vec<Key> =
            crds.filter(|crd| crd.deleting()).map(|crd| crd.key.clone()).collect();
        self.rename(ctx);
        going.iter().for_each(|crd| self.clean_up(crd, ctx));
    }

    /// Definitions that did not get their names may get them now.
    fn rename(&mut self, ctx: &mut Ctx<'_>) {
        let crds = self.cache.views.get(&CRD).into_iter().flat_map(View::values);
        let refused = crds.filter(|crd| {
            let status = crd.plain().map(|plain| &*plain.status);
            !crd.deleting() && status.is_some_and(|status| !holds(status, "NamesAccepted"))
        });
        let refused: Vec<Arc<Object>> = refused.cloned().collect();
        let under_way = self.definitions_under_way(CRD);
        for crd in refused {
            let status = settled(&crd, &self.cache, &under_way, ctx.wall());
            let same = crd.plain().is_some_and(|plain| *plain.status == status);
            if !same && !self.busy(&(CRD, crd.key.clone())) {
                self.submit_definition(Request::UpdateStatus { object: crd }, ctx);
            }
        }
    }

    /// Deletes what a definition that is being deleted declares, some at a time, and lets it go
    /// when all is gone.
    fn clean_up(&mut self, key: &Key, ctx: &mut Ctx<'_>) {
        let Some(crd) = self.cache.object(CRD, key).filter(|crd| crd.deleting()).cloned() else {
            return;
        };
        let of = |one: &&Arc<Definition>| one.uid == crd.uid;
        let kind = self.cache.definitions.iter().find(of).map(|definition| definition.kind);
        if let Some(kind) = kind
            && self.has_objects(kind, ctx)
        {
            return;
        }
        let held = |crd: &Object| crd.meta.finalizers.iter().flatten().any(|one| one == CLEANUP);
        if !held(&crd) || self.busy(&(CRD, key.clone())) {
            return;
        }
        let mut last = Object { version: 0, ..(*crd).clone() };
        if let Some(finalizers) = &mut Arc::make_mut(&mut last.meta).finalizers {
            finalizers.retain(|one| one != CLEANUP);
        }
        self.submit_definition(Request::Update { object: Arc::new(last) }, ctx);
    }

    /// Whether there are objects of a kind, or may be a moment later; the next ones are deleted.
    fn has_objects(&mut self, kind: Kind, ctx: &mut Ctx<'_>) -> bool {
        let under_way = self.under_way(kind).count();
        let Some(view) = self.cache.views.get(&kind) else { return under_way > 0 };
        let left = view.len();
        let next = view
            .iter()
            .filter(|(key, object)| !object.deleting() && !self.busy(&(kind, (*key).clone())));
        let next = next.take(BATCH.saturating_sub(under_way));
        let next: Vec<_> = next.map(|(key, object)| (key.clone(), object.uid)).collect();
        for (key, uid) in next {
            let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
            self.submit_definition(Request::Delete { kind, key, options }, ctx);
        }
        left > 0 || under_way > 0
    }

    fn submit_definition(&mut self, request: Request, ctx: &mut Ctx<'_>) {
        self.submit(Job::of(None, Arc::new(request)), ctx);
    }
}
