//! Which kinds there are to collect: those of the configuration, and if definitions are among
//! them, those that are declared (`GetDeletableResources`, `resyncMonitors` and `IsSynced` of
//! upstream's garbage collector).
//!
//! Upstream asks for all kinds every 30 s. Here the definitions are watched, so what one declares
//! is known as soon as it is served.

use crate::controllers::world::{ObjectChange, sides};
use crate::controllers::{Controllers, Effect};
use crate::objects::definition::served_kind;
use crate::objects::kinds::Interner;
use crate::objects::{Key, Kind, Name, OwnerReference};
use crate::ports::api::{self, Scope};
use kubesim_runtime::{Context, Ticket, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// What cannot be shown for so long is done without (`initialSyncTimeout`, in
/// cmd/kube-controller-manager/app/core.go).
const PATIENCE: Duration = Duration::from_secs(30);

/// Every kind that is there from the start, less what nothing owns and nobody deletes by hand
/// (`DefaultIgnoredResources`).
pub fn collectable() -> Vec<Kind> {
    Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Event).collect()
}

#[derive(Clone, Debug, Default)]
pub struct Kinds {
    names: Interner,
    /// By their definitions, with the watches of their objects.
    declared: BTreeMap<Key, (Kind, Ticket)>,
    /// Not shown yet, and asked for since then.
    awaited: BTreeMap<Kind, Time>,
    /// Declared no more, and still shown.
    undeclared: Vec<Kind>,
}

impl Kinds {
    /// Watches one, as far as it matters here: of a definition, that is all of it.
    pub fn watch(&mut self, kind: Kind, ctx: &mut Context<'_, Controllers>) -> Ticket {
        let scope = match kind {
            Kind::CustomResourceDefinition => Scope::All,
            _ => Scope::Metadata,
        };
        self.awaited.insert(kind, ctx.now());
        ctx.perform(Effect::Collect(api::Effect::Watch { kind, scope }))
    }

    /// True if this was the last one to be shown.
    pub fn shown(&mut self, kind: Kind) -> bool {
        self.awaited.remove(&kind).is_some() && self.awaited.is_empty()
    }

    /// Until when it is not known what all objects own; `None` if it is, or if it is not worth
    /// waiting for.
    pub fn unknown_until(&self, now: Time) -> Option<Time> {
        let ends = self.awaited.values().map(|since| *since + PATIENCE);
        ends.filter(|end| *end > now).max()
    }

    pub fn definition_changed(
        &mut self,
        change: &ObjectChange<'_>,
        ctx: &mut Context<'_, Controllers>,
    ) {
        let (key, _, new) = sides(change);
        let kind = new.and_then(|crd| served_kind(crd, &mut self.names));
        let known = self.declared.get(key).map(|(kind, _)| *kind);
        if kind == known {
            return;
        }
        if let Some((kind, watch)) = self.declared.remove(key) {
            ctx.cancel(watch);
            self.awaited.remove(&kind);
            self.undeclared.push(kind);
        }
        if let Some(kind) = kind {
            let watch = self.watch(kind, ctx);
            self.undeclared.retain(|other| *other != kind);
            self.declared.insert(key.clone(), (kind, watch));
        }
    }

    pub fn take_undeclared(&mut self) -> Vec<Kind> {
        std::mem::take(&mut self.undeclared)
    }

    /// False of one that is declared no more: what is still told of it is late.
    pub fn has(&self, kind: Kind) -> bool {
        !matches!(kind, Kind::Custom(_)) || self.declared.values().any(|(one, _)| *one == kind)
    }

    /// Where an owner reference points; `None` if nobody can say: it is of a kind that this
    /// cluster does not have, or in a namespace, but what it owns is in none.
    pub fn place(&self, owner: &OwnerReference, dependent: &Key) -> Option<(Kind, Key)> {
        // Whichever version it names, the objects are the same.
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let named = |kind: &Kind| kind.name() == owner.kind && kind.group() == group;
        let declared = self.declared.values().map(|(kind, _)| kind);
        let kind = *Kind::ALL.iter().chain(declared).find(|kind| named(kind))?;
        let namespace = match kind.namespaced() {
            true if dependent.namespace.is_empty() => return None,
            true => dependent.namespace.clone(),
            false => Name::default(),
        };
        Some((kind, Key::new(namespace, owner.name.as_str())))
    }
}
