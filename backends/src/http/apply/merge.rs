//! An object with a configuration merged into it, and one that items are taken out of.

use super::fields::{Set, Step};
use super::walk::{step_of, steps};
use crate::http::types::{Owned, Place};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};

/// What `ours` becomes when `theirs` is applied to it.
pub fn merge(place: Place<'_>, ours: Option<&Value>, theirs: &Value) -> Result<Value, String> {
    let lists = [Some(theirs), ours.filter(|_| theirs.is_null())];
    let is_list = lists.into_iter().flatten().any(Value::is_array);
    match (ours, theirs, place.owned(is_list)) {
        (Some(Value::Object(ours)), Value::Object(theirs), Owned::Granular) => {
            let mut merged = ours.clone();
            for (name, value) in theirs {
                let value = merge(place.field(name), ours.get(name), value)?;
                merged.insert(name.clone(), value);
            }
            Ok(Value::Object(merged))
        }
        (Some(Value::Array(ours)), Value::Array(theirs), owned @ (Owned::Set | Owned::Map(_)))
            if !theirs.is_empty() =>
        {
            let (ours, theirs) = (steps(place, &owned, ours)?, steps(place, &owned, theirs)?);
            elements(place.element(), &ours, &theirs).map(Value::Array)
        }
        // An empty list or none of elements with owners of their own takes nothing away.
        (Some(old @ Value::Array(items)), _, Owned::Set | Owned::Map(_)) if !items.is_empty() => {
            Ok(old.clone())
        }
        (Some(old @ Value::Object(fields)), Value::Null, Owned::Granular) if !fields.is_empty() => {
            Ok(old.clone())
        }
        _ => Ok(theirs.clone()),
    }
}

/// Elements of both lists stand in the order of theirs, and what only one has keeps its place
/// between them: ours first.
fn elements(
    place: Place<'_>,
    ours: &[(Step, &Value)],
    theirs: &[(Step, &Value)],
) -> Result<Vec<Value>, String> {
    let mut known: BTreeMap<&Step, Vec<&Value>> = BTreeMap::new();
    for (step, item) in ours {
        known.entry(step).or_default().push(item);
    }
    let merged = |step: &Step, item: &Value| match known.get(step).map(Vec::as_slice) {
        // Those that are there more than once are replaced.
        Some([one]) => merge(place, Some(one), item),
        _ => merge(place, None, item),
    };
    let also_theirs = |step: &Step| theirs.iter().any(|(known, _)| known == step);
    let mut shared: VecDeque<&Step> =
        theirs.iter().map(|(step, _)| step).filter(|step| known.contains_key(step)).collect();
    let (mut out, mut ours) = (Vec::new(), ours.iter().peekable());
    for (step, item) in theirs {
        // What is ours alone comes before the next of both, in our order.
        while let Some((mine, value)) = ours.peek() {
            if !also_theirs(mine) {
                out.push((*value).clone());
            } else if Some(mine) == shared.front().copied() {
                break;
            }
            ours.next();
        }
        out.push(merged(step, item)?);
        if shared.front() == Some(&step) {
            shared.pop_front();
            ours.next_if(|(mine, _)| mine == step);
        }
    }
    let rest = ours.filter(|(mine, _)| !also_theirs(mine));
    out.extend(rest.map(|(_, value)| (*value).clone()));
    Ok(out)
}

/// The value less what is in the set, with all that is below it. `None`: nothing is left.
pub fn remove(place: Place<'_>, value: &Value, gone: &Set) -> Option<Value> {
    match (value, place.owned(value.is_array())) {
        (Value::Object(fields), Owned::Granular) => {
            let mut left = Map::new();
            for (name, value) in fields {
                let step = Step::field(name);
                if gone.has(&step) {
                    continue;
                }
                let kept = match gone.below(&step) {
                    None => value.clone(),
                    Some(below) => match remove(place.field(name), value, below) {
                        Some(kept) => kept,
                        None => continue,
                    },
                };
                left.insert(name.clone(), kept);
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (Value::Array(items), owned @ (Owned::Set | Owned::Map(_))) => {
            let kept = items.iter().filter_map(|item| {
                let Ok(step) = step_of(place.element(), &owned, item) else {
                    return Some(item.clone());
                };
                if gone.has(&step) {
                    return None;
                }
                match gone.below(&step) {
                    None => Some(item.clone()),
                    Some(below) => Some(remove(place.element(), item, below).unwrap_or_default()),
                }
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (Value::Object(_) | Value::Array(_), _) => None,
        (scalar, _) => Some(scalar.clone()),
    }
}
