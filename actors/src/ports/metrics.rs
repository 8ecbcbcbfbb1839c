//! What pods use, as the resource metrics API has it (`metrics.k8s.io/v1beta1`, `PodMetrics`).

use crate::objects::{Key, LabelSelector, Name};
use kubesim_runtime::{Answers, Digest, Effect, Hasher, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Asks what the pods with these labels use. Answered once.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whom the answer is for.
    pub subject: Key,
    pub namespace: Name,
    pub selector: LabelSelector,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub subject: Key,
    /// By the pods' names; pods that were not measured are left out. Or why nothing is known, as
    /// the API words it.
    pub result: Result<Arc<BTreeMap<Name, Usage>>, String>,
}

/// What one pod uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Usage {
    /// The end of the time in which it was measured, and how long that was.
    pub at: Wall,
    pub window: Duration,
    /// By container, and there by resource (`cpu`, `memory`): in thousandths of its unit.
    pub containers: BTreeMap<Name, BTreeMap<Name, i64>>,
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        Answers::One
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        hasher.str(&self.subject.namespace);
        hasher.str(&self.subject.name);
        std::hash::Hash::hash(&self.result, hasher);
    }
}
