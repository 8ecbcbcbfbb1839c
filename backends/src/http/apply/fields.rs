//! Sets of fields (structured-merge-diff's `fieldpath`): which places of an object someone owns.

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// One step down into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field, or a key of a map.
    Field(SmolStr),
    /// The element of a list whose fields are these, by name.
    Key(Vec<(SmolStr, Scalar)>),
    /// The element of a set.
    Value(Scalar),
    Index(u64),
}

/// What elements are known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    Int(i64),
    Text(SmolStr),
    Bool(bool),
    /// Anything else, as JSON.
    Other(String),
}

impl Scalar {
    pub fn of(value: &Value) -> Scalar {
        match value {
            Value::String(text) => Scalar::Text(text.into()),
            Value::Bool(said) => Scalar::Bool(*said),
            other => match other.as_i64() {
                Some(number) => Scalar::Int(number),
                None => Scalar::Other(other.to_string()),
            },
        }
    }

    fn json(&self) -> Value {
        match self {
            Scalar::Int(number) => (*number).into(),
            Scalar::Text(text) => text.as_str().into(),
            Scalar::Bool(said) => (*said).into(),
            Scalar::Other(json) => serde_json::from_str(json).unwrap_or_default(),
        }
    }
}

impl Step {
    pub fn field(name: &str) -> Step {
        Step::Field(name.into())
    }

    /// As FieldsV1 has it: `f:NAME`, `k:{…}`, `v:VALUE`, `i:INDEX`. `Ok(None)`: of a kind that a
    /// later release may know.
    fn parse(text: &str) -> Result<Option<Step>, String> {
        let wrong = |why: &dyn Display| format!("the path element {text:?}: {why}");
        let (kind, rest) = text.split_once(':').ok_or_else(|| wrong(&"it has no colon"))?;
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| wrong(&error));
        Ok(Some(match kind {
            "f" => Step::field(rest),
            "v" => Step::Value(Scalar::of(&json()?)),
            "i" => Step::Index(rest.parse().map_err(|error| wrong(&error))?),
            "k" => match json()? {
                Value::Object(fields) => {
                    let fields =
                        fields.iter().map(|(name, value)| (name.into(), Scalar::of(value)));
                    Step::Key(fields.collect())
                }
                _ => return Err(wrong(&"a key is an object of fields")),
            },
            _ => return Ok(None),
        }))
    }

    fn print(&self) -> SmolStr {
        match self {
            Step::Field(name) => {
                let mut text = SmolStrBuilder::new();
                ["f:", name].into_iter().for_each(|part| text.push_str(part));
                text.finish()
            }
            Step::Key(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.to_string(), value.json()));
                format_smolstr!("k:{}", Value::Object(fields.collect()))
            }
            Step::Value(value) => format_smolstr!("v:{}", value.json()),
            Step::Index(index) => format_smolstr!("i:{index}"),
        }
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.json())
    }
}

/// As a person reads it: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Step::Value(value) => write!(f, "[={value}]"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Places of an object. One that is in it says nothing of those above and below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<Step, Node>);

/// In a set, or with something in it below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub member: bool,
    pub below: Set,
}

impl Node {
    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    pub fn into_below(self) -> Set {
        self.below
    }

    fn some(self) -> Option<Node> {
        (!self.is_empty()).then_some(self)
    }
}

impl Set {
    /// The whole object (no step) is never in it.
    pub fn insert(&mut self, path: &[Step]) {
        match path {
            [] => {}
            [last] => self.at(last, |node| node.member = true),
            [first, rest @ ..] => self.at(first, |node| node.below.insert(rest)),
        }
    }

    /// All that is in it at a step, and below.
    pub fn put(&mut self, step: Step, node: Node) {
        self.0.insert(step, node);
    }

    /// A step is copied only where there was nothing yet: most paths share theirs.
    fn at(&mut self, step: &Step, change: impl FnOnce(&mut Node)) {
        match self.0.get_mut(step) {
            Some(node) => change(node),
            None => {
                let mut node = Node::default();
                change(&mut node);
                self.0.insert(step.clone(), node);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, step: &Step) -> bool {
        self.0.get(step).is_some_and(|node| node.member)
    }

    /// What is in it below a place.
    pub fn below(&self, step: &Step) -> Option<&Set> {
        self.0.get(step).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    pub fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        union.add(other.clone());
        union
    }

    /// Takes in what is in the other one.
    pub fn add(&mut self, other: Set) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (step, node) in other.0 {
            let ours = self.0.entry(step).or_default();
            ours.member |= node.member;
            ours.below.add(node.below);
        }
    }

    pub fn intersection(&self, other: &Set) -> Set {
        self.each(|step, node| {
            let theirs = other.0.get(step)?;
            let below = node.below.intersection(&theirs.below);
            Node { member: node.member && theirs.member, below }.some()
        })
    }

    pub fn difference(&self, other: &Set) -> Set {
        let mut rest = self.clone();
        rest.remove(other);
        rest
    }

    /// Takes out what is in the other one, which mostly is little.
    pub fn remove(&mut self, other: &Set) {
        for (step, theirs) in &other.0 {
            let Some(node) = self.0.get_mut(step) else { continue };
            node.below.remove(&theirs.below);
            node.member &= !theirs.member;
            if !node.member && node.below.is_empty() {
                self.0.remove(step);
            }
        }
    }

    /// What is below one of these steps at the top, and no other.
    pub fn only(mut self, keep: impl Fn(&Step) -> bool) -> Set {
        self.0.retain(|step, _| keep(step));
        self
    }

    fn each(&self, node: impl Fn(&Step, &Node) -> Option<Node>) -> Set {
        let nodes = self.0.iter().filter_map(|(step, old)| Some((step.clone(), node(step, old)?)));
        Set(nodes.collect())
    }

    /// With all that has something in the set below it and is wanted: told by the path to it.
    pub fn with_parents(&self, wanted: &mut impl FnMut(&[Step]) -> bool) -> Set {
        let mut path = Vec::new();
        self.parents(&mut path, wanted)
    }

    fn parents(&self, path: &mut Vec<Step>, wanted: &mut impl FnMut(&[Step]) -> bool) -> Set {
        let mut set = Set::default();
        for (step, node) in &self.0 {
            path.push(step.clone());
            let below = node.below.parents(path, wanted);
            let member = node.member || !below.is_empty() && wanted(path);
            path.pop();
            set.0.insert(step.clone(), Node { member, below });
        }
        set
    }

    /// All places that are in it.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        for (step, node) in &self.0 {
            at.push(step.clone());
            if node.member {
                paths.push(at.clone());
            }
            node.below.collect(at, paths);
            at.pop();
        }
    }

    /// The error says what is no `FieldsV1`.
    pub fn from_json(value: &Value) -> Result<Set, String> {
        let Value::Object(fields) = value else {
            return Err(format!("a set of fields is an object, and not {value}"));
        };
        let mut set = Set::default();
        for (text, value) in fields.iter().filter(|(text, _)| *text != ".") {
            let Some(step) = Step::parse(text)? else { continue };
            let below = Set::from_json(value)?;
            let member = below.is_empty() || value.get(".").is_some();
            set.0.insert(step, Node { member, below });
        }
        Ok(set)
    }
}

/// `FieldsV1`: a place that is in it, with others below it, has a field ".", the first one; the
/// others follow in the order of the alphabet.
impl Serialize for Set {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Fields { dot: false, set: self }.serialize(serializer)
    }
}

struct Fields<'a> {
    dot: bool,
    set: &'a Set,
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let printed = self.set.0.iter().map(|(step, node)| (step.print(), node));
        let mut printed: Vec<(SmolStr, &Node)> = printed.collect();
        printed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut map = serializer.serialize_map(None)?;
        if self.dot {
            map.serialize_entry(".", &Set::default())?;
        }
        for (step, Node { member, below }) in printed {
            let dot = *member && !below.is_empty();
            map.serialize_entry(&step, &Fields { dot, set: below })?;
        }
        map.end()
    }
}

/// As [`Set::from_json`], without a value in between. Why it is none is told better there.
impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(fields: D) -> Result<Set, D::Error> {
        Ok(Node::deserialize(fields)?.below)
    }
}

/// A member is what has a field ".", or nothing below it.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(fields: D) -> Result<Node, D::Error> {
        struct Below;
        impl<'de> Visitor<'de> for Below {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a set of fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
                let (mut dot, mut below) = (false, Set::default());
                while let Some(text) = fields.next_key::<Cow<'_, str>>()? {
                    match Step::parse(&text) {
                        _ if text == "." => {
                            dot = true;
                            fields.next_value::<IgnoredAny>()?;
                        }
                        Ok(Some(step)) => {
                            below.0.insert(step, fields.next_value()?);
                        }
                        Ok(None) => {
                            fields.next_value::<IgnoredAny>()?;
                        }
                        Err(why) => return Err(A::Error::custom(why)),
                    }
                }
                Ok(Node { member: dot || below.is_empty(), below })
            }
        }
        fields.deserialize_map(Below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        Set::from_json(&value).expect("a set")
    }

    #[test]
    fn a_set_is_read_and_printed() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}},
                "f:finalizers": {"v:\"kubernetes\"": {}, "v:7": {}, "v:true": {}, "v:1.5": {}},
                "f:old": {"i:3": {}},
            },
        });
        let read = set(fields.clone());
        assert_eq!(serde_json::to_string(&read).expect("text"), fields.to_string());
        assert_eq!(text_of(&fields), Ok(read.clone()));
        let paths: Vec<String> = read.paths().iter().map(|path| text(path)).collect();
        for path in [
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.containers[name=\"a\"]",
            ".spec.containers[name=\"a\"].image",
            ".spec.finalizers[=\"kubernetes\"]",
            ".spec.finalizers[=7]",
            ".spec.old[3]",
        ] {
            assert!(paths.contains(&path.to_owned()), "{path}: {paths:?}");
        }
        assert_eq!(paths.len(), 10);
        // Of what a later release may write, nothing is kept.
        let later = json!({"f:a": {}, "z:b": {"f:c": {}}});
        assert_eq!(set(later.clone()), set(json!({"f:a": {}})));
        assert_eq!(text_of(&later), Ok(set(later)));
        for wrong in [
            json!([]),
            json!({"f:a": 1}),
            json!({"spec": {}}),
            json!({"k:7": {}}),
            json!({"k:{": {}}),
            json!({"i:x": {}}),
        ] {
            assert!(Set::from_json(&wrong).is_err() && text_of(&wrong).is_err(), "{wrong}");
        }
    }

    /// As it is read without a value in between.
    fn text_of(fields: &Value) -> Result<Set, String> {
        serde_json::from_str(&fields.to_string()).map_err(|error| error.to_string())
    }

    fn text(path: &[Step]) -> String {
        path.iter().map(Step::to_string).collect()
    }

    #[test]
    fn a_place_says_nothing_of_those_around_it() {
        let parent = set(json!({"f:a": {}}));
        let child = set(json!({"f:a": {"f:b": {}}}));
        let both = set(json!({"f:a": {".": {}, "f:b": {}}}));
        assert_eq!(parent.union(&child), both);
        assert_eq!(both.difference(&child), parent);
        assert_eq!(both.difference(&parent), child);
        assert_eq!(parent.intersection(&child), Set::default());
        assert_eq!(both.intersection(&child), child);
        assert_eq!(child.with_parents(&mut |path| text(path) == ".a"), both);
    }

    fn any_set() -> impl Strategy<Value = Set> {
        let step = prop_oneof![
            "[ab]".prop_map(|name| Step::field(&name)),
            (0..2_i64).prop_map(|value| Step::Value(Scalar::Int(value))),
            "[ab]".prop_map(|name| Step::Key(vec![("name".into(), Scalar::Text(name.into()))])),
        ];
        let path = prop::collection::vec(step, 1..4);
        prop::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in any_set(), b in any_set()) {
            let (ours, theirs) = (a.paths(), b.paths());
            let has = |paths: &[Vec<Step>], path: &Vec<Step>| paths.contains(path);
            for path in a.union(&b).paths() {
                prop_assert!(has(&ours, &path) || has(&theirs, &path));
            }
            let both: Vec<_> = ours.iter().filter(|path| has(&theirs, path)).cloned().collect();
            prop_assert_eq!(a.intersection(&b).paths(), both);
            let rest: Vec<_> = ours.iter().filter(|path| !has(&theirs, path)).cloned().collect();
            prop_assert_eq!(a.difference(&b).paths(), rest);
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            let printed = serde_json::to_string(&a).expect("text");
            let value: Value = serde_json::from_str(&printed).expect("JSON");
            prop_assert_eq!(value.to_string(), printed, "in its order");
            prop_assert_eq!(Set::from_json(&value), Ok(a.clone()));
            prop_assert_eq!(text_of(&value), Ok(a));
        }
    }
}
