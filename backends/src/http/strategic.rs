//! Strategic merge patch (apimachinery `pkg/util/strategicpatch`): a merge in which the elements of
//! some lists are known by a key, and directives say what else to do:
//! `$patch: replace|delete|merge`, `$deleteFromPrimitiveList/F`, `$setElementOrder/F`,
//! `$retainKeys`.

use super::types::{Merged, Message, Place};
use serde_json::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges the patch into the object, which is such a message.
pub fn apply(message: &'static Message, object: &mut Value, patch: &Value) -> Result<(), String> {
    merge(Place::Object(message), object, patch)
}

fn merge(place: Place<'_>, target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(PATCH).map(|word| word.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut whole = patch.clone();
            whole.remove(PATCH);
            *target = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(unknown_directive(other)),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    if let Some(kept) = patch.get(RETAIN) {
        let kept = kept.as_array().ok_or_else(|| format!("{RETAIN}: must be a list of fields"))?;
        target.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    // As the lists were before.
    let lists = patch.iter().filter_map(|(name, order)| {
        let field = name.strip_prefix(ORDER)?;
        let before = target.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        Some((field, order, before))
    });
    let lists: Vec<_> = lists.collect();
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(DELETE_FROM) {
            remove_texts(target, field, value)?;
        } else if !name.starts_with('$') {
            merge_field(place, target, name, value)?;
        }
    }
    for (field, order, before) in lists {
        let order = order.as_array().ok_or_else(|| format!("{ORDER}{field}: must be a list"))?;
        if let Some(Value::Array(items)) = target.get_mut(field) {
            let merged = std::mem::take(items);
            *items = in_order(place.field(field).merged(true), merged, order, &before);
        }
    }
    Ok(())
}

fn unknown_directive(word: &str) -> String {
    format!("{PATCH}: unknown value {word:?}: known are \"delete\", \"merge\" and \"replace\"")
}

fn merge_field(
    place: Place<'_>,
    target: &mut Map<String, Value>,
    name: &str,
    value: &Value,
) -> Result<(), String> {
    match value {
        Value::Null => {
            target.remove(name);
            Ok(())
        }
        Value::Array(items) => {
            let old = target.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let old = old.as_array_mut().map(std::mem::take).unwrap_or_default();
            let list = place.field(name);
            let merged = match list.merged(true) {
                Merged::Whole | Merged::Fields => items.clone(),
                Merged::Union => in_order(Merged::Union, union(&old, items), items, &old),
                Merged::By(key) => merge_by(list.element(), (name, key), old, items)?,
            };
            target.insert(name.to_owned(), Value::Array(merged));
            Ok(())
        }
        _ if place.field(name).merged(false) == Merged::Whole => {
            target.insert(name.to_owned(), value.clone());
            Ok(())
        }
        _ => {
            let field = target.entry(name).or_insert(Value::Null);
            merge(place.field(name), field, value)
        }
    }
}

fn union(old: &[Value], items: &[Value]) -> Vec<Value> {
    let mut all = old.to_vec();
    for item in items {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
    all
}

fn merge_by(
    element: Place<'_>,
    (name, key): (&str, &'static str),
    mut old: Vec<Value>,
    items: &[Value],
) -> Result<Vec<Value>, String> {
    // An element that is nothing but a directive is about the whole list.
    if items.iter().any(|item| item[PATCH] == "replace" && item.get(key).is_none()) {
        let kept = items.iter().filter(|item| item.get(PATCH).is_none());
        return Ok(kept.cloned().collect());
    }
    if items.iter().any(|item| item.get(key).is_none()) {
        return Err(format!("{name}: an element has no {key:?}, by which elements are known"));
    }
    let (gone, items): (Vec<&Value>, Vec<&Value>) =
        items.iter().partition(|item| item[PATCH] == "delete");
    old.retain(|known| gone.iter().all(|gone| known.get(key) != gone.get(key)));
    let before = old.clone();
    for item in &items {
        let id = &item[key];
        match old.iter_mut().find(|known| known.get(key) == Some(id)) {
            Some(known) => merge(element, known, item)?,
            None => {
                let mut new = Value::Null;
                merge(element, &mut new, item)?;
                old.push(new);
            }
        }
    }
    let order: Vec<Value> = items.into_iter().cloned().collect();
    Ok(in_order(Merged::By(key), old, &order, &before))
}

fn remove_texts(target: &mut Map<String, Value>, field: &str, gone: &Value) -> Result<(), String> {
    let gone = gone.as_array().ok_or_else(|| format!("{DELETE_FROM}{field}: must be a list"))?;
    if let Some(Value::Array(items)) = target.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// What is named stands in the order of that, what is not in the order there was. The two lists
/// are then merged: of what was there before, whichever was first; what is new stands before what
/// is left (upstream's `normalizeElementOrder`).
fn in_order(list: Merged, merged: Vec<Value>, named: &[Value], before: &[Value]) -> Vec<Value> {
    let place = |among: &[Value], item: &Value| {
        among.iter().position(|other| match list {
            Merged::By(key) => other.get(key).is_some() && other.get(key) == item.get(key),
            _ => other == item,
        })
    };
    let is_named = |item: &Value| place(named, item).is_some();
    let (mut named_items, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(is_named);
    named_items.sort_by_key(|item| place(named, item));
    others.sort_by_key(|item| place(before, item));
    let mut ordered = Vec::with_capacity(named_items.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named_items {
        if let Some(at) = place(before, &item) {
            while let Some(other) = others.next_if(|other| place(before, other) < Some(at)) {
                ordered.push(other);
            }
        }
        ordered.push(item);
    }
    ordered.extend(others);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::types;
    use crate::http::versions::Served;
    use kubesim_actors::objects::Kind;
    use serde_json::json;

    fn patched(kind: Kind, mut object: Value, patch: Value) -> Result<Value, String> {
        apply(Served::held(kind).message(), &mut object, &patch).map(|()| object)
    }

    #[test]
    fn elements_are_known_by_their_key() {
        let object = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}], "args": ["x"]},
            {"name": "b", "image": "b:1"},
        ]}}}});
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [
                {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}], "args": ["y"]},
                {"name": "b", "$patch": "delete"},
                {"name": "c", "image": "c:1"},
            ],
        }}}});
        let expected = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": "c:1"},
            {"name": "a", "image": "a:2", "args": ["y"],
             "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
        ]}}}});
        assert_eq!(patched(Kind::Deployment, object, patch), Ok(expected));
    }

    /// kubectl's documentation shows the first one ("Update API Objects in Place Using kubectl
    /// patch"): what is new stands first.
    #[test]
    fn elements_stand_in_the_patchs_order_among_those_that_were_there() {
        let list = |names: &str| {
            let names = names.chars().map(|name| json!({"name": name.to_string()}));
            names.collect::<Vec<Value>>()
        };
        let containers = |patch: Value| {
            let object = json!({"spec": {"containers": list("abcd")}});
            let patched = patched(Kind::Pod, object, json!({ "spec": patch })).expect("a pod");
            let names = patched["spec"]["containers"].as_array().expect("a list").clone();
            names.iter().filter_map(|one| one["name"].as_str()).collect::<String>()
        };
        assert_eq!(containers(json!({"containers": list("x")})), "xabcd");
        assert_eq!(containers(json!({"containers": list("db")})), "acdb");
        assert_eq!(containers(json!({"containers": list("bx")})), "abxcd");
        let order = json!({"$setElementOrder/containers": list("dxb"), "containers": list("x")});
        assert_eq!(containers(order), "acdxb");
    }

    #[test]
    fn lists_without_a_key_are_replaced_and_sets_united() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]},
            "spec": {"tolerations": [{"key": "x"}], "hostAliases": [{"ip": "::1"}]}});
        let patch = json!({"metadata": {"finalizers": ["c"],
                "$deleteFromPrimitiveList/finalizers": ["a"]},
            "spec": {"tolerations": [{"key": "y"}],
                     "hostAliases": [{"ip": "::1", "hostnames": ["h"]}]}});
        let expected = json!({"metadata": {"finalizers": ["c", "b"]},
            "spec": {"tolerations": [{"key": "y"}],
                     "hostAliases": [{"ip": "::1", "hostnames": ["h"]}]}});
        assert_eq!(patched(Kind::Pod, object, patch), Ok(expected));
    }

    /// The same name is merged in one kind and replaced in another.
    #[test]
    fn each_kind_has_its_own_lists() {
        let both = |list: &str, ours: Value, theirs: Value| {
            let object = json!({"spec": {list: ours}});
            (object, json!({"spec": {list: theirs}}))
        };
        let ports = || {
            both(
                "ports",
                json!([{"port": 80, "name": "http"}, {"port": 81}]),
                json!([{"port": 80, "nodePort": 30000}]),
            )
        };
        let merged = json!([{"port": 80, "name": "http", "nodePort": 30000}, {"port": 81}]);
        let (object, patch) = ports();
        assert_eq!(patched(Kind::Service, object, patch), Ok(json!({"spec": {"ports": merged}})));
        // Of a kind that is not Kubernetes', all but the metadata.
        let (object, patch) = ports();
        assert_eq!(patched(Kind::Subnet, object, patch.clone()), Ok(patch));
        let object = json!({"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
        let patch = json!({"ports": [{"port": 81}]});
        let expected = json!({"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 81}]});
        assert_eq!(patched(Kind::EndpointSlice, object, patch), Ok(expected));
    }

    /// Of kinds that are merged by what the table says only.
    #[test]
    fn lists_of_any_kind_are_known() {
        let merged = |message: &str, mut object: Value, patch: Value| {
            let message = types::named(message).expect("a message");
            merge(Place::Object(message), &mut object, &patch).map(|()| object)
        };
        let tls = json!({"spec": {"tls": [{"hosts": ["b"]}]}});
        let object = json!({"spec": {"tls": [{"hosts": ["a"], "secretName": "s"}]}});
        assert_eq!(merged("networking/v1.Ingress", object, tls.clone()), Ok(tls));
        let claims = json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "b"}}]}});
        let object = json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "a"}}]}});
        assert_eq!(merged("apps/v1.StatefulSet", object, claims.clone()), Ok(claims));
        let object = json!({"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "c"}]});
        let patch = json!({"secrets": [{"name": "b"}], "imagePullSecrets": [{"name": "d"}]});
        let expected = json!({"secrets": [{"name": "b"}, {"name": "a"}],
                              "imagePullSecrets": [{"name": "d"}]});
        assert_eq!(merged("core/v1.ServiceAccount", object, patch), Ok(expected));
        // A struct that is replaced.
        let selects = |label: &str| json!({"spec": {"selector": {"matchLabels": {label: ""}}}});
        let replaced = merged("policy/v1.PodDisruptionBudget", selects("a"), selects("b"));
        assert_eq!(replaced, Ok(selects("b")));
        // Labels are a map: a key in it is no field.
        let object = json!({"metadata": {"labels": {"finalizers": "a"}}});
        let patch = json!({"metadata": {"labels": {"finalizers": "b", "x": "y"}}});
        assert_eq!(merged("core/v1.Secret", object, patch.clone()), Ok(patch));
    }

    #[test]
    fn directives_replace_delete_and_retain() {
        let object = || {
            json!({"spec": {"strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1}}, "selector": {"a": "b"}}})
        };
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "selector": {"$patch": "replace", "c": "d"}}});
        let expected = json!({"spec": {"strategy": {"type": "Recreate"}, "selector": {"c": "d"}}});
        assert_eq!(patched(Kind::Deployment, object(), patch), Ok(expected));
        let all = json!({"spec": {"volumes": [{"$patch": "replace"}, {"name": "n"}]}});
        let volumes = json!({"spec": {"volumes": [{"name": "o"}]}});
        let expected = json!({"spec": {"volumes": [{"name": "n"}]}});
        assert_eq!(patched(Kind::Pod, volumes, all), Ok(expected));
        for wrong in [
            json!({"spec": {"$patch": "jump"}}),
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"$retainKeys": "type"}}),
        ] {
            assert!(patched(Kind::Pod, object(), wrong.clone()).is_err(), "{wrong}");
        }
    }
}
