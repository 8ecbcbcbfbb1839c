//! Discovery: which groups, versions and resources there are, one by one (`meta.k8s.io/v1`) and all
//! at once (`apidiscovery.k8s.io`, KEP-3352).

use super::accept;
use super::body::Answer;
use super::resources::{self, Resource, Review};
use super::status::Failure;
use kubesim_actors::objects::Kind;
use serde_json::{Value, json};

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2_BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// `/api` or `/apis`, in the first form that the client takes.
pub fn groups(core: bool, accepted: &str) -> Result<Answer, Failure> {
    for media in accept::media(accepted).iter().filter(|media| media.is_json()) {
        let aggregated = media.parameter("as") == "APIGroupDiscoveryList"
            && media.parameter("g") == "apidiscovery.k8s.io";
        match media.parameter("v") {
            "v2" if aggregated => return Ok(all_at_once(core, "v2", V2)),
            "v2beta1" if aggregated => return Ok(all_at_once(core, "v2beta1", V2_BETA1)),
            _ if media.parameter("as").is_empty() => return Ok(Answer::json(&legacy(core))),
            _ => {}
        }
    }
    match accepted {
        "" => Ok(Answer::json(&legacy(core))),
        _ => Err(Failure::not_acceptable("application/json")),
    }
}

fn legacy(core: bool) -> Value {
    if core {
        return json!({"kind": "APIVersions", "versions": ["v1"],
                      "serverAddressByClientCIDRs": []});
    }
    let groups: Vec<Value> =
        resources::groups().iter().map(|(name, version)| group_of(name, version)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_of(name: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

/// `/apis/apps`.
pub fn group(name: &str) -> Result<Value, Failure> {
    let groups = resources::groups();
    let known = groups.iter().find(|(known, _)| *known == name);
    let (name, version) = known.ok_or_else(Failure::no_such_resource)?;
    let mut group = group_of(name, version);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Ok(group)
}

/// `/api/v1`, `/apis/apps/v1`.
pub fn group_version(group: &str, version: &str) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for resource in resources::in_version(group, version) {
        let kind = resource.kind;
        all.push(json!({
            "name": kind.plural(), "singularName": resource.singular(), "kind": kind.name(),
            "namespaced": kind.namespaced(), "verbs": resource.verbs(), "shortNames": resource.short,
            "categories": resource.categories,
        }));
        for sub in resource.subresources {
            let (group, version, name) = sub.type_of(kind);
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural(), sub.name()), "singularName": "",
                "namespaced": kind.namespaced(), "kind": name, "verbs": sub.verbs(),
            });
            if group != kind.group() {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            all.push(entry);
        }
    }
    all.extend(resources::reviews(group, version).map(|review| {
        json!({"name": review.plural, "singularName": review.kind.to_lowercase(),
               "namespaced": review.namespaced, "kind": review.kind, "verbs": ["create"]})
    }));
    let name = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": all})
}

fn all_at_once(core: bool, version: &str, content_type: &'static str) -> Answer {
    let groups = match core {
        true => vec![("", "v1")],
        false => resources::groups(),
    };
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, version)| {
            let mut all: Vec<Value> =
                resources::in_version(group, version).map(aggregated).collect();
            all.extend(resources::reviews(group, version).map(aggregated_review));
            let meta = match *group {
                "" => json!({"creationTimestamp": null}),
                group => json!({"name": group, "creationTimestamp": null}),
            };
            json!({"metadata": meta, "versions": [
                {"version": version, "resources": all, "freshness": "Current"}
            ]})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    Answer::bytes(content_type, list.to_string())
}

fn aggregated(resource: &Resource) -> Value {
    let kind = resource.kind;
    let type_of = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            json!({"subresource": sub.name(), "responseKind": type_of(sub.type_of(kind)),
                   "verbs": sub.verbs()})
        })
        .collect();
    json!({
        "resource": kind.plural(), "responseKind": type_of(own_type(kind)),
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular(), "verbs": resource.verbs(), "shortNames": resource.short,
        "categories": resource.categories, "subresources": subresources,
    })
}

fn aggregated_review(review: &Review) -> Value {
    json!({
        "resource": review.plural, "scope": if review.namespaced { "Namespaced" } else { "Cluster" },
        "responseKind": {"group": review.group, "version": "v1", "kind": review.kind},
        "singularResource": review.kind.to_lowercase(), "verbs": ["create"],
    })
}

fn own_type(kind: Kind) -> (&'static str, &'static str, &'static str) {
    (kind.group(), kind.version(), kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_resources() {
        let mut one_by_one = Vec::new();
        let mut groups = vec![("", "v1")];
        groups.extend(resources::groups());
        for (group, version) in groups {
            let list = group_version(group, version);
            let names = list["resources"].as_array().expect("resources").clone();
            one_by_one.extend(names.iter().map(|one| one["name"].as_str().map(str::to_owned)));
        }
        let mut at_once = Vec::new();
        for (group, version) in resources::groups() {
            let reviews = resources::reviews(group, version).map(aggregated_review);
            at_once.extend(reviews.map(|one| one["resource"].as_str().map(str::to_owned)));
        }
        for resource in resources::all() {
            let entry = aggregated(resource);
            let plural = entry["resource"].as_str().expect("a name").to_owned();
            at_once.push(Some(plural.clone()));
            for sub in entry["subresources"].as_array().expect("subresources") {
                let sub = sub["subresource"].as_str().expect("a name");
                at_once.push(Some(format!("{plural}/{sub}")));
            }
        }
        one_by_one.sort();
        at_once.sort();
        assert_eq!(one_by_one, at_once);
    }

    #[test]
    fn the_form_is_the_first_that_is_taken() {
        let kind = |accepted: &str| groups(false, accepted).map(|answer| answer.content_type);
        assert_eq!(kind(""), Ok("application/json"));
        assert_eq!(kind(&format!("{V2},{V2_BETA1},application/json")), Ok(V2));
        assert_eq!(kind(&format!("{V2_BETA1},application/json")), Ok(V2_BETA1));
        assert_eq!(kind("application/json, */*"), Ok("application/json"));
        assert_eq!(kind("text/html").map_err(|failure| failure.code), Err(406));
    }
}
