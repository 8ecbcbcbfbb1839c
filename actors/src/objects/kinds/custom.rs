//! Kinds that CustomResourceDefinitions declare, as far as they never change. All that may change
//! with a definition's text is in [`Definition`](crate::objects::Definition).
//!
//! A [`Kind`] is copied and compared all the time, so what a declared one is called is kept for the
//! life of the process: a few hundred bytes for each name that was ever seen, once for each
//! [`Interner`], which belongs to whoever makes kinds (the API server, and the drivers of stores).

use super::cells::{AGE, Column, NAME};
use super::declaration::{Parts, STATUS};
use super::{Declaration, Kind, Rules};
use crate::objects::names;
use crate::objects::strict::Reader;
use kubesim_runtime::Hasher;
use serde::Deserialize;
use serde_json::{Error, Map, Value};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hash;

/// Equal are those of one name, whoever made them.
#[derive(Clone, Copy)]
pub struct Custom(&'static Identity);

#[derive(Debug)]
struct Identity {
    declaration: Declaration,
    /// Where its objects live in the store: `example.com/widgets`.
    directory: &'static str,
    number: u64,
}

/// What a kind is called and where its objects live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub kind: &'a str,
    pub namespaced: bool,
}

impl Custom {
    pub const fn declaration(self) -> &'static Declaration {
        &self.0.declaration
    }

    pub const fn directory(self) -> &'static str {
        self.0.directory
    }

    pub(super) fn number(self) -> u64 {
        self.0.number
    }

    pub fn names(self) -> Names<'static> {
        let Declaration { kind, plural, api_version, namespaced, .. } = &self.0.declaration;
        let group = api_version.split('/').next().unwrap_or_default();
        Names { group, plural, kind, namespaced: *namespaced }
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0) || self.names() == other.names()
    }
}
impl Eq for Custom {}

impl Ord for Custom {
    fn cmp(&self, other: &Self) -> Ordering {
        if std::ptr::eq(self.0, other.0) {
            return Ordering::Equal;
        }
        self.names().cmp(&other.names())
    }
}
impl PartialOrd for Custom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Custom {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Names { group, plural, .. } = self.names();
        write!(f, "{plural}.{group}")
    }
}

/// Makes kinds, and gives the same one for the same names.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    kinds: Vec<Custom>,
    texts: BTreeSet<&'static str>,
}

impl Interner {
    /// A kind of these names; `version` is the one that its objects say they are of where they are
    /// held, if it was not seen before.
    pub fn kind(&mut self, names: Names<'_>, version: &str) -> Kind {
        let known = self.kinds.iter().find(|custom| custom.names() == names).copied();
        Kind::Custom(known.unwrap_or_else(|| self.made(names, version)))
    }

    /// The kind whose objects live there, if it was seen.
    pub fn at(&self, directory: &str, namespaced: bool) -> Option<Kind> {
        let here = |custom: &&Custom| {
            custom.directory() == directory && custom.names().namespaced == namespaced
        };
        self.kinds.iter().find(here).copied().map(Kind::Custom)
    }

    /// A text that is kept, as `example.com/v1`.
    pub fn text(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.texts.get(text) {
            return known;
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        self.texts.insert(kept);
        kept
    }

    fn made(&mut self, names: Names<'_>, version: &str) -> Custom {
        let Names { group, plural, kind, namespaced } = names;
        let mut hasher = Hasher::default();
        [group, plural, kind].into_iter().for_each(|text| hasher.str(text));
        hasher.u64(u64::from(namespaced));
        let identity = Identity {
            declaration: Declaration {
                kind: self.text(kind),
                plural: self.text(plural),
                api_version: self.text(&format!("{group}/{version}")),
                namespaced,
                short: &[],
                categories: &[],
                subresources: STATUS,
                fields: &[],
                columns: COLUMNS,
                generation: true,
                name: names::subdomain,
                deprecated: None,
                rules: Some(RULES),
            },
            directory: self.text(&format!("{group}/{plural}")),
            number: hasher.finish(),
        };
        let custom = Custom(Box::leak(Box::new(identity)));
        self.kinds.push(custom);
        custom
    }
}

/// Of a definition that has none.
const COLUMNS: &[Column] = &[NAME, AGE];

/// What its objects may say is a version's to know: the front reads, completes and checks them by
/// the version in which they come.
const RULES: Rules = Rules {
    shape,
    create: |_, _| {},
    status: || Value::Null,
    defaults: |_| {},
    validate: |_, _| {},
    update: |_, _, _| {},
};

fn shape(value: Reader<'_, '_>) -> Result<Parts, Error> {
    let meta = value.field("metadata")?;
    let mut fields = Map::deserialize(value.value)?;
    for other in ["apiVersion", "kind", "metadata"] {
        fields.remove(other);
    }
    let status = fields.remove("status").unwrap_or_default();
    Ok((meta, fields, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDGETS: Names<'_> =
        Names { group: "example.com", plural: "widgets", kind: "Widget", namespaced: true };

    #[test]
    fn a_kind_is_made_once_and_is_what_it_is_called() {
        let (mut ours, mut theirs) = (Interner::default(), Interner::default());
        let kind = ours.kind(WIDGETS, "v1");
        assert_eq!(ours.kind(WIDGETS, "v2"), kind);
        assert_eq!(theirs.kind(WIDGETS, "v2"), kind, "whoever made it");
        assert_eq!(kind.number(), theirs.kind(WIDGETS, "v2").number());
        assert_eq!(
            (kind.group(), kind.name(), kind.plural()),
            ("example.com", "Widget", "widgets")
        );
        assert_eq!(kind.api_version(), "example.com/v1");
        assert!(kind.namespaced() && kind > Kind::CustomResourceDefinition);
        let other = ours.kind(Names { namespaced: false, ..WIDGETS }, "v1");
        assert_ne!(other, kind);
        assert_eq!(ours.at("example.com/widgets", true), Some(kind));
        assert_eq!(ours.at("example.com/widgets", false), Some(other));
        assert_eq!(ours.at("example.com/gadgets", true), None);
        assert_eq!(ours.kinds.len(), 2);
    }
}
