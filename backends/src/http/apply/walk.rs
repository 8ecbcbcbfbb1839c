//! Walks over typed values (structured-merge-diff's `typed`): what a configuration owns, and in
//! which places two values differ.

use super::fields::{Node, Scalar, Set, Step};
use crate::http::types::{Many, Message, Owned, Place, Type};
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Which element of a list this is. The error says why it is none of its list.
pub fn step_of(element: Place<'_>, owned: &Owned<'_>, item: &Value) -> Result<Step, String> {
    let wrong = |why: &str| Err(format!("associative list {why}"));
    let Owned::Map(keys) = owned else {
        return match item {
            Value::Object(_) => wrong("without keys has an element that's a map type"),
            Value::Array(_) => wrong("without keys has an element that's a list"),
            Value::Null => wrong("without keys has an element that's an explicit null"),
            scalar => Ok(Step::Value(Scalar::of(scalar))),
        };
    };
    let Value::Object(fields) = item else {
        return wrong(match item {
            Value::Null => "with keys may not have a null element",
            _ => "with keys may not have non-map elements",
        });
    };
    let said = keys.iter().filter_map(|key| {
        let value = fields.get(*key).or_else(|| element.default(key))?;
        Some((SmolStr::new(key), Scalar::of(value)))
    });
    let mut said: Vec<(SmolStr, Scalar)> = said.collect();
    said.sort();
    if said.is_empty() {
        return wrong(&format!(
            "with keys has an element that omits all key fields {keys:?} (and doesn't have \
             default values for any key fields)"
        ));
    }
    Ok(Step::Key(said))
}

/// The elements of a list, each under its step, in their order.
pub fn steps<'a>(
    place: Place<'_>,
    owned: &Owned<'_>,
    items: &'a [Value],
) -> Result<Vec<(Step, &'a Value)>, String> {
    let step = |(index, item)| {
        let step = step_of(place.element(), owned, item);
        step.map(|step| (step, item)).map_err(|why| format!("element {index}: {why}"))
    };
    items.iter().enumerate().map(step).collect()
}

fn none_or_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// What one who applies a value owns: its leaves, the elements of its lists, and the keys of its
/// maps.
pub fn set_of(place: Place<'_>, value: &Value) -> Result<Set, String> {
    let mut set = Set::default();
    own(place, value, &mut Vec::new(), &mut set)?;
    Ok(set)
}

fn own(place: Place<'_>, value: &Value, path: &mut Vec<Step>, set: &mut Set) -> Result<(), String> {
    match (value, place.owned(value.is_array())) {
        (Value::Object(fields), Owned::Granular) => {
            for (name, value) in fields {
                path.push(Step::field(name));
                own(place.field(name), value, path, set)?;
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || !place.declares(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Value::Array(items), owned @ (Owned::Set | Owned::Map(_))) => {
            let steps = steps(place, &owned, items)?;
            for (step, item) in &steps {
                let twice = steps.iter().filter(|(other, _)| other == step).count() > 1;
                path.push(step.clone());
                if !twice {
                    own(place.element(), item, path, set)?;
                }
                set.insert(path);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
    Ok(())
}

/// In which places a value differs from an older one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

pub fn compare(place: Place<'_>, old: &Value, new: &Value) -> Result<Comparison, String> {
    let found = Found::at(place, Some(old), Some(new))?;
    let [added, modified, removed] = found.0.map(Node::into_below);
    Ok(Comparison { added, modified, removed })
}

impl Comparison {
    /// What is another value now.
    pub fn written(&self) -> Set {
        self.modified.union(&self.added)
    }

    pub fn into_written(self) -> Set {
        let Comparison { added, mut modified, .. } = self;
        modified.add(added);
        modified
    }

    /// Takes out of a set what is another value now, or is gone.
    pub fn leave(&self, set: &mut Set) {
        for changed in [&self.added, &self.modified, &self.removed] {
            set.remove(changed);
        }
    }

    /// That, and what is gone.
    pub fn all(&self) -> Set {
        self.written().union(&self.removed)
    }

    /// Of what is below these steps at the top.
    pub fn only(self, keep: impl Fn(&Step) -> bool) -> Comparison {
        Comparison {
            added: self.added.only(&keep),
            modified: self.modified.only(&keep),
            removed: self.removed.only(&keep),
        }
    }
}

/// Of a place and what is below it: what was added, modified, removed.
#[derive(Default)]
struct Found([Node; 3]);

const ADDED: usize = 0;
const MODIFIED: usize = 1;
const REMOVED: usize = 2;

impl Found {
    fn at(place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<Found, String> {
        let is = |kind: fn(&Value) -> bool| {
            let fits = |value: Option<&Value>| value.is_none_or(|one| one.is_null() || kind(one));
            fits(old) && fits(new)
        };
        // Where both are empty, the difference of none and empty is one.
        let leaf = none_or_empty(old) && none_or_empty(new);
        let list = is(Value::is_array);
        let mut found = Found::default();
        match place.owned(list) {
            Owned::Granular if !leaf && is(Value::is_object) => {
                let [old, new] = [old, new].map(|value| value.and_then(Value::as_object));
                for name in names(old, new) {
                    let [old, new] = [old, new].map(|fields| fields?.get(name));
                    let below = Found::at(place.field(name), old, new)?;
                    found.put(below, || Step::field(name));
                }
            }
            owned @ (Owned::Set | Owned::Map(_)) if !leaf && list => {
                found.elements(place, &owned, [old, new])?;
            }
            _ => {
                if let (Some(old), Some(new)) = (old, new) {
                    found.0[MODIFIED].member = !equal(old, new);
                    return Ok(found);
                }
            }
        }
        match (old, new) {
            (None, _) => found.0[ADDED].member = true,
            (_, None) => found.0[REMOVED].member = true,
            _ => {}
        }
        Ok(found)
    }

    /// What was found below a step; mostly that is nothing.
    fn put(&mut self, below: Found, step: impl Fn() -> Step) {
        for (ours, below) in self.0.iter_mut().zip(below.0) {
            if !below.is_empty() {
                ours.below.put(step(), below);
            }
        }
    }

    /// An element that is there more than once is told only as a whole.
    fn elements(
        &mut self,
        place: Place<'_>,
        owned: &Owned<'_>,
        lists: [Option<&Value>; 2],
    ) -> Result<(), String> {
        let mut all: BTreeMap<Step, [Vec<&Value>; 2]> = BTreeMap::new();
        for (side, list) in lists.into_iter().enumerate() {
            let items = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for (step, item) in steps(place, owned, items)? {
                all.entry(step).or_default()[side].push(item);
            }
        }
        let element = place.element();
        for (step, [before, after]) in all {
            let [one, other] = [&before, &after].map(|all| all.first().copied());
            let below = match (&before[..], &after[..]) {
                ([] | [_], [] | [_]) => Found::at(element, one, other)?,
                ([_, _, ..], [_, _, ..]) => {
                    let mut both = Found::default();
                    both.0[MODIFIED].member = before != after;
                    both
                }
                (_, [_, _, ..]) => Found::of_one(element, [one, None], ADDED)?,
                _ => Found::of_one(element, [None, other], REMOVED)?,
            };
            self.put(below, || step.clone());
        }
        Ok(())
    }

    /// Of an element that is there once, if at all, where there were more of it, or will be: these
    /// are added, or removed, as a whole.
    fn of_one(
        element: Place<'_>,
        [old, new]: [Option<&Value>; 2],
        others: usize,
    ) -> Result<Found, String> {
        let mut found = match (old, new) {
            (None, None) => Found::default(),
            _ => Found::at(element, old, new)?,
        };
        found.0[others].member = true;
        Ok(found)
    }
}

/// Of both, each once, in the order of the alphabet.
fn names<'a>(
    old: Option<&'a Map<String, Value>>,
    new: Option<&'a Map<String, Value>>,
) -> Vec<&'a String> {
    let mut names: Vec<&String> = [old, new].into_iter().flatten().flat_map(Map::keys).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// 1 is 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(name, a): (&String, &Value)| b.get(name).is_some_and(|b| equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

/// As Go's types have it: structs that are no pointers are there even if nothing in them is, and
/// so are some lists. What is compared is compared in this form.
pub fn filled(place: Place<'_>, mut value: Value) -> Value {
    fill(place, &mut value);
    value
}

fn fill(place: Place<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| fill(place.field(name), value));
            for field in place.message().map(Message::filled).unwrap_or_default() {
                if fields.contains_key(field.name) {
                    continue;
                }
                let inner = match field.many {
                    Many::One => filled(place.field(field.name), Value::Object(Map::new())),
                    Many::List | Many::Map => Value::Null,
                };
                fields.insert(field.name.to_owned(), inner);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(place.element(), item)),
        _ => {}
    }
}

/// Without what is null: in Go, what is not there.
pub fn without_nulls(place: Place<'_>, value: Value) -> Value {
    match value {
        Value::Object(fields) if !is_json(place) => {
            let said = fields.into_iter().filter(|(_, value)| !value.is_null());
            said.map(|(name, value)| {
                let value = without_nulls(place.field(&name), value);
                (name, value)
            })
            .collect()
        }
        Value::Array(items) if !is_json(place) => {
            items.into_iter().map(|item| without_nulls(place.element(), item)).collect()
        }
        other => other,
    }
}

fn is_json(place: Place<'_>) -> bool {
    matches!(place, Place::Field(field) | Place::Each(field) if field.kind == Type::Json)
}
