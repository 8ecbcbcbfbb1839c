//! Reads: pure functions of a published [`Cache`].

use super::errors;
use super::namespaces::SYSTEM;
use crate::objects::{Definitions, Key, Kind, Name, Object, Uid, View};
use crate::ports::api::{Error, Reason, Reply, Request};
use crate::ports::store::StoreKey;
use kubesim_runtime::Hasher;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The newest views, by kind; absent until the store was read.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    pub views: BTreeMap<Kind, View>,
    /// How the kinds that are declared while the cluster runs are served.
    pub definitions: Arc<Definitions>,
    /// The store revision this is a view of.
    pub revision: u64,
    /// Watches from before this revision get 410.
    pub compacted: u64,
    /// What the write at `revision` changed, if this cache is one write ahead of the one published
    /// before it; spares observers of the stream the comparison of views.
    pub last: Option<LastWrite>,
}

/// One object before and after one write.
#[derive(Clone, Debug)]
pub struct LastWrite {
    pub kind: Kind,
    pub key: Key,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

impl Cache {
    pub fn object(&self, kind: Kind, key: &Key) -> Option<&Arc<Object>> {
        self.views.get(&kind)?.get(key)
    }

    /// Tells this store from any other, one that began anew in its place included: the uid of
    /// `kube-system`, which is made first, goes never, and by which clusters are told apart
    /// upstream too (OpenTelemetry's `k8s.cluster.uid`). etcd's `cluster_id` would not do, as it
    /// is made of the members' addresses and the token they are started with
    /// (server/etcdserver/api/membership/cluster.go): one that lost its disk has it again. `None`
    /// for an instant, while a new store gets what must exist.
    pub fn identity(&self) -> Option<Uid> {
        self.object(Kind::Namespace, &Key::cluster(SYSTEM)).map(|namespace| namespace.uid)
    }

    /// Whether this is a later version of the same history. Kinds that were declared meanwhile
    /// have begun theirs.
    pub fn goes_on(&self, old: &Cache) -> bool {
        let same = |(kind, view): (&Kind, &View)| match (old.views.get(kind), kind) {
            (Some(old), _) => old.history() == view.history(),
            (None, kind) => matches!(kind, Kind::Custom(_)) && !old.views.is_empty(),
        };
        self.views.iter().all(same)
    }

    /// The object of this name, or upstream's `pods "a" not found`.
    pub fn get(&self, kind: Kind, key: &Key) -> Result<Reply, Error> {
        let found = self.object(kind, key).cloned().map(Reply::Object);
        found.ok_or_else(|| errors::not_found(kind, &key.name))
    }

    /// All of a kind, in one namespace or (empty) in all, as of the kind's newest version.
    pub fn list(&self, kind: Kind, namespace: &Name) -> Result<Reply, Error> {
        let Some(view) = self.views.get(&kind) else {
            return Err(Error::new(Reason::TooManyRequests, "storage is (re)initializing"));
        };
        if namespace.is_empty() || !kind.namespaced() {
            return Ok(Reply::List(view.clone()));
        }
        let mut part = view.derived(derived_history(view.history(), kind, namespace));
        part.advance(view.version());
        let first = Key::new(namespace.clone(), "");
        for (key, object) in view.iter_from(&first).take_while(|(k, _)| k.namespace == *namespace) {
            part.insert(key.clone(), object.clone(), view.version());
        }
        Ok(Reply::List(part))
    }

    /// Answers a read; `None` for a write.
    pub fn read(&self, request: &Request) -> Option<Result<Reply, Error>> {
        match request {
            Request::Get { kind, key } => Some(self.get(*kind, key)),
            Request::List { kind, namespace } => Some(self.list(*kind, namespace)),
            _ => None,
        }
    }
}

impl Cache {
    /// Keys of every object in this namespace.
    pub(super) fn in_namespace(&self, namespace: &str) -> Vec<StoreKey> {
        let first = Key::new(namespace, "");
        let mut found = Vec::new();
        for (kind, view) in self.views.iter().filter(|(kind, _)| kind.namespaced()) {
            let here = view.iter_from(&first).take_while(|(key, _)| key.namespace == namespace);
            found.extend(here.map(|(key, _)| (*kind, key.clone())));
        }
        found
    }

    pub(super) fn namespace_is_empty(&self, namespace: &str) -> bool {
        let first = Key::new(namespace, "");
        self.views.iter().filter(|(kind, _)| kind.namespaced()).all(|(_, view)| {
            view.iter_from(&first).next().is_none_or(|(key, _)| key.namespace != namespace)
        })
    }
}

/// The history of a part of a view: another one for each part, the same for the same part.
pub(super) fn derived_history(history: u64, kind: Kind, part: &str) -> u64 {
    let mut hasher = Hasher::default();
    hasher.u64(history);
    hasher.u64(kind.number());
    hasher.str(part);
    hasher.finish()
}
