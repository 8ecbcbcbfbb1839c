//! What a CustomResourceDefinition makes of the API: the kind it declares, and how that is served.
//! Made anew with each change of the definition; a [`Kind`] stays the same.

use super::kinds::{Interner, Names, Sub};
use super::schema::Schema;
use super::{Key, Kind, Object, Uid};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keeps a definition until all its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// One definition, as it is served.
#[derive(Debug)]
pub struct Definition {
    pub kind: Kind,
    /// Those of the CustomResourceDefinition.
    pub uid: Uid,
    pub revision: u64,
    pub list_kind: String,
    pub singular: String,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    /// It is being deleted, and so are its objects: there come no new ones.
    pub terminating: bool,
    /// Its objects have a status that is written by itself: in the version in which they are
    /// stored, which decides for all.
    pub has_status: bool,
    /// Those that are served: the one that clients are to prefer comes first.
    pub versions: Vec<Version>,
}

#[derive(Debug)]
pub struct Version {
    /// `example.com/v1`.
    pub api_version: &'static str,
    pub schema: Schema,
    /// As it was written.
    pub text: Value,
    pub columns: Vec<Printed>,
    pub subresources: &'static [Sub],
    /// If it can be scaled.
    pub scale: Option<Scaled>,
    /// Paths that objects can be selected by: `spec.color`.
    pub selectable: Vec<String>,
    /// What a client of an old version is told.
    pub warning: Option<String>,
}

/// A column of `kubectl get` (`CustomResourceColumnDefinition`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Printed {
    pub name: String,
    pub r#type: String,
    pub format: String,
    pub description: String,
    pub priority: i32,
    pub json_path: String,
}

/// Where the numbers of a Scale are (`CustomResourceSubresourceScale`): `.spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scaled {
    pub spec_replicas_path: String,
    pub status_replicas_path: String,
    pub label_selector_path: String,
}

/// All definitions whose kinds are served.
#[derive(Clone, Debug, Default)]
pub struct Definitions(BTreeMap<Kind, Arc<Definition>>);

impl Definitions {
    pub fn get(&self, kind: Kind) -> Option<&Arc<Definition>> {
        self.0.get(&kind)
    }

    /// By group, and there by plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.0.values()
    }

    /// Those of these CustomResourceDefinitions; what has not changed stays the one it is.
    #[must_use]
    pub fn updated<'a>(
        &self,
        crds: impl Iterator<Item = &'a Arc<Object>>,
        kinds: &mut Interner,
    ) -> Definitions {
        let mut definitions = BTreeMap::new();
        for crd in crds {
            let same =
                |known: &&Arc<Definition>| known.uid == crd.uid && known.revision == crd.version;
            let known = self.iter().find(same).cloned();
            let definition = known.or_else(|| Definition::read(crd, kinds).map(Arc::new));
            if let Some(definition) = definition {
                definitions.insert(definition.kind, definition);
            }
        }
        Definitions(definitions)
    }
}

/// Whether a condition of a CustomResourceDefinition holds.
pub fn holds(status: &Value, condition: &str) -> bool {
    let mut all = status["conditions"].as_array().into_iter().flatten();
    all.any(|one| one["type"] == condition && one["status"] == "True")
}

/// Names that were not accepted later leave those that were.
fn accepted<'a>(status: &'a Value, name: &str) -> &'a str {
    status["acceptedNames"][name].as_str().unwrap_or_default()
}

/// What a CustomResourceDefinition's kind is called. `None` if its names were not accepted.
fn accepted_names(crd: &Object) -> Option<Names<'_>> {
    let plain = crd.plain()?;
    let (fields, status) = (&plain.fields, &plain.status);
    holds(status, "Established").then(|| Names {
        group: fields.text("spec.group"),
        plural: accepted(status, "plural"),
        kind: accepted(status, "kind"),
        namespaced: fields.text("spec.scope") == "Namespaced",
    })
}

/// The kind that a CustomResourceDefinition declares, as a client knows it: of the version that
/// clients are to prefer, when it was first seen. `None` if it is not served.
pub fn served_kind(crd: &Object, kinds: &mut Interner) -> Option<Kind> {
    let names = accepted_names(crd)?;
    let served = crd.plain()?.fields.list("spec.versions").iter();
    let served = served.filter(|version| version["served"] == true);
    let version =
        served.filter_map(|version| version["name"].as_str()).min_by(|a, b| preferred(a, b));
    Some(kinds.kind(names, version?))
}

impl Definition {
    /// The key of its CustomResourceDefinition.
    pub fn crd(&self) -> Key {
        Key::cluster(format!("{}.{}", self.kind.plural(), self.kind.group()))
    }

    /// `None` if its names were not accepted.
    pub fn read(crd: &Object, kinds: &mut Interner) -> Option<Definition> {
        let (plain, names) = (crd.plain()?, accepted_names(crd)?);
        let (fields, status) = (&plain.fields, &plain.status);
        let list = |name: &str| -> Vec<String> {
            let all = status["acceptedNames"][name].as_array().into_iter().flatten();
            all.filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        let all = fields.list("spec.versions");
        let stored = all.iter().find(|version| version["storage"] == true)?;
        let kind = kinds.kind(names, stored["name"].as_str().unwrap_or_default());
        let mut versions: Vec<Version> = all
            .iter()
            .filter(|version| version["served"] == true)
            .filter_map(|version| Version::read(names.group, names.kind, version, kinds))
            .collect();
        versions.sort_by(|a, b| preferred(a.name(), b.name()));
        Some(Definition {
            kind,
            uid: crd.uid,
            revision: crd.version,
            list_kind: accepted(status, "listKind").to_owned(),
            singular: accepted(status, "singular").to_owned(),
            short: list("shortNames"),
            categories: list("categories"),
            terminating: crd.deleting(),
            has_status: !stored["subresources"]["status"].is_null(),
            versions,
        })
    }
}

impl Version {
    fn read(group: &str, kind: &str, version: &Value, kinds: &mut Interner) -> Option<Version> {
        let name = version["name"].as_str()?;
        let text = version["schema"]["openAPIV3Schema"].clone();
        let part = |value: &Value| value.clone();
        let columns = part(&version["additionalPrinterColumns"]);
        let columns: Vec<Printed> = serde_json::from_value(columns).unwrap_or_default();
        let scale: Option<Scaled> =
            serde_json::from_value(part(&version["subresources"]["scale"])).unwrap_or_default();
        let status = !version["subresources"]["status"].is_null();
        let subresources: &[Sub] = match (status, scale.is_some()) {
            (true, true) => &[Sub::Status, Sub::Scale],
            (true, false) => &[Sub::Status],
            (false, true) => &[Sub::Scale],
            (false, false) => &[],
        };
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let selectable = selectable.filter_map(|field| field["jsonPath"].as_str());
        let selectable = selectable.map(|path| path.trim_start_matches('.').to_owned()).collect();
        let said = version["deprecationWarning"].as_str().map(str::to_owned);
        let told = || format!("{group}/{name} {kind} is deprecated");
        let deprecated = version["deprecated"] == true;
        Some(Version {
            api_version: kinds.text(&format!("{group}/{name}")),
            schema: Schema::read(&text).ok()?,
            text,
            columns: if columns.is_empty() { vec![Printed::age()] } else { columns },
            subresources,
            scale,
            selectable,
            warning: deprecated.then(|| said.unwrap_or_else(told)),
        })
    }

    /// `v1`.
    pub fn name(&self) -> &'static str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }
}

impl Printed {
    /// Of a version that has none (apiextensions-apiserver `pkg/apiserver/helpers.go`,
    /// `serveDefaultColumnIfEmpty`).
    fn age() -> Printed {
        Printed {
            name: "Age".to_owned(),
            r#type: "date".to_owned(),
            json_path: ".metadata.creationTimestamp".to_owned(),
            ..Printed::default()
        }
    }
}

/// Versions that are meant to last come before betas, and these before alphas, each from the
/// highest down; others follow by the alphabet (apimachinery
/// `pkg/version/helpers.go`, `CompareKubeAwareVersionStrings`).
fn priority(name: &str) -> impl Ord + use<> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Priority {
        Numbered(u8, std::cmp::Reverse<(u64, u64)>),
        Other(String),
    }
    let numbered = || {
        let rest = name.strip_prefix('v')?;
        for (word, place) in [("beta", 1), ("alpha", 2)] {
            if let Some((major, minor)) = rest.split_once(word) {
                let (major, minor) = (number(major)?, number(minor)?);
                return Some(Priority::Numbered(place, std::cmp::Reverse((major, minor))));
            }
        }
        Some(Priority::Numbered(0, std::cmp::Reverse((number(rest)?, 0))))
    };
    numbered().unwrap_or_else(|| Priority::Other(name.to_owned()))
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

/// The order of versions' names.
pub fn preferred(a: &str, b: &str) -> Ordering {
    priority(a).cmp(&priority(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn crd(established: &str) -> Object {
        let version = |name: &str, served: bool, storage: bool| {
            json!({"name": name, "served": served, "storage": storage,
                   "schema": {"openAPIV3Schema": {"type": "object"}},
                   "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n",
                       "statusReplicasPath": ".status.n"}}})
        };
        let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget",
            "listKind": "WidgetList", "shortNames": ["wd"]});
        let object = Object::from_json(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": names,
                "versions": [version("v1beta1", true, false), version("v2", false, false),
                    version("v1", true, true), version("v1alpha1", true, false)]},
            "status": {"acceptedNames": names, "storedVersions": ["v1"],
                "conditions": [{"type": "Established", "status": established,
                    "lastTransitionTime": "2024-01-01T00:00:00Z", "reason": "", "message": ""}]},
        }));
        object.expect("a definition")
    }

    #[test]
    fn a_definition_says_how_its_kind_is_served() {
        let mut kinds = Interner::default();
        assert!(Definition::read(&crd("False"), &mut kinds).is_none());
        let definition = Definition::read(&crd("True"), &mut kinds).expect("established");
        let served: Vec<&str> = definition.versions.iter().map(|one| one.api_version).collect();
        assert_eq!(served, ["example.com/v1", "example.com/v1beta1", "example.com/v1alpha1"]);
        assert_eq!((definition.kind.name(), &*definition.short), ("Widget", &["wd".into()][..]));
        assert_eq!(definition.kind.api_version(), "example.com/v1");
        let version = &definition.versions[0];
        assert_eq!(version.subresources, [Sub::Status, Sub::Scale]);
        assert_eq!(version.scale.as_ref().expect("a scale").spec_replicas_path, ".spec.n");
        assert_eq!(version.columns, [Printed::age()]);
        let crd = Arc::new(crd("True"));
        let one = Definitions::default().updated([&crd].into_iter(), &mut kinds);
        let same = one.updated([&crd].into_iter(), &mut kinds);
        let of = |all: &Definitions| all.get(definition.kind).cloned().expect("a definition");
        assert!(Arc::ptr_eq(&of(&one), &of(&same)));
        assert!(one.updated([].into_iter(), &mut kinds).get(definition.kind).is_none());
    }

    #[test]
    fn versions_are_preferred_as_upstream_does() {
        let mut names = ["foo10", "v1", "v10beta3", "v11alpha2", "v2", "foo1", "v3beta1", "v10"];
        names.sort_by(|a, b| preferred(a, b));
        let expected = ["v10", "v2", "v1", "v10beta3", "v3beta1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(names, expected);
    }
}
