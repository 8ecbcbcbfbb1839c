//! Label selectors, and an index from a pod's labels to the selectors that may match them.

use crate::objects::{Key, LabelSelector, Name};
use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

static NONE: Labels = BTreeMap::new();

/// The labels, or none.
pub fn labels(of: Option<&Labels>) -> &Labels {
    of.unwrap_or(&NONE)
}

/// Every pair of the selector is among the labels.
pub fn includes(labels: &Labels, pairs: &Labels) -> bool {
    pairs.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// `metav1.LabelSelectorAsSelector`: an empty selector matches everything; an operator nobody
/// knows matches nothing.
pub fn matches(selector: &LabelSelector, of: &Labels) -> bool {
    let pairs = selector.match_labels.as_ref().is_none_or(|pairs| includes(of, pairs));
    let mut terms = selector.match_expressions.iter().flatten();
    pairs
        && terms.all(|term| {
            let value = of.get(&term.key);
            let listed = value.is_some_and(|v| term.values.iter().flatten().any(|x| x == v));
            match term.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Which named selectors may match a set of labels. Each selector is filed under the one of its
/// pairs that fewest others use, so that a look-up costs a probe per label of the pod and not a
/// test per selector of the namespace.
#[derive(Clone, Debug, Default)]
pub struct SelectorIndex {
    by_pair: BTreeMap<Name, BTreeMap<String, BTreeMap<String, BTreeSet<Name>>>>,
    /// Selectors without any pair.
    broad: BTreeMap<Name, BTreeSet<Name>>,
    filed: BTreeMap<Key, Option<(String, String)>>,
}

impl SelectorIndex {
    pub fn insert(&mut self, key: &Key, pairs: &Labels) {
        self.remove(key);
        let users = |(name, value): &(&String, &String)| {
            self.users(&key.namespace, name, value).map_or(0, BTreeSet::len)
        };
        let rarest = pairs.iter().min_by_key(users).map(|(k, v)| (k.clone(), v.clone()));
        match &rarest {
            Some((k, v)) => {
                let names = self.by_pair.entry(key.namespace.clone()).or_default();
                let values = names.entry(k.clone()).or_default();
                values.entry(v.clone()).or_default().insert(key.name.clone());
            }
            None => {
                let broad = self.broad.entry(key.namespace.clone()).or_default();
                broad.insert(key.name.clone());
            }
        }
        self.filed.insert(key.clone(), rarest);
    }

    pub fn remove(&mut self, key: &Key) {
        match self.filed.remove(key) {
            Some(Some((k, v))) => {
                let names = self.by_pair.get_mut(&key.namespace);
                if let Some(values) = names.and_then(|names| names.get_mut(&k))
                    && let Some(users) = values.get_mut(&v)
                {
                    users.remove(&key.name);
                    if users.is_empty() {
                        values.remove(&v);
                    }
                }
            }
            Some(None) => {
                if let Some(names) = self.broad.get_mut(&key.namespace) {
                    names.remove(&key.name);
                }
            }
            None => {}
        }
    }

    fn users(&self, namespace: &Name, name: &str, value: &str) -> Option<&BTreeSet<Name>> {
        self.by_pair.get(namespace)?.get(name)?.get(value)
    }

    /// The selectors of the namespace that share a pair with the labels (and those without one).
    pub fn candidates(&self, namespace: &Name, of: &Labels) -> Vec<Key> {
        let mut found = Vec::new();
        for (name, value) in of {
            found.extend(self.users(namespace, name, value).into_iter().flatten());
        }
        found.extend(self.broad.get(namespace).into_iter().flatten());
        found.into_iter().map(|name| Key::new(namespace.clone(), name.clone())).collect()
    }
}
