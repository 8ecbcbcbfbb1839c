//! Discovery: which groups, versions and resources there are, one by one (`meta.k8s.io/v1`) and all
//! at once (`apidiscovery.k8s.io`, KEP-3352).

use super::accept;
use super::body::Answer;
use super::nodes::{What, usage};
use super::resources::{self, Group, Review};
use super::status::Failure;
use super::versions::Served;
use kubesim_actors::objects::{Definitions, Kind};
use serde_json::{Value, json};

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2_BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// `/api` or `/apis`, in the first form that the client takes. `measure`: what nodes and pods use
/// is measured.
pub fn groups(
    core: bool,
    accepted: &str,
    definitions: &Definitions,
    measure: bool,
) -> Result<Answer, Failure> {
    for media in accept::media(accepted).iter().filter(|media| media.is_json()) {
        let aggregated = media.parameter("as") == "APIGroupDiscoveryList"
            && media.parameter("g") == "apidiscovery.k8s.io";
        match media.parameter("v") {
            "v2" if aggregated => return Ok(all_at_once(core, ("v2", V2), definitions, measure)),
            "v2beta1" if aggregated => {
                return Ok(all_at_once(core, ("v2beta1", V2_BETA1), definitions, measure));
            }
            _ if media.parameter("as").is_empty() => {
                return Ok(Answer::json(&legacy(core, definitions, measure)));
            }
            _ => {}
        }
    }
    match accepted {
        "" => Ok(Answer::json(&legacy(core, definitions, measure))),
        _ => Err(Failure::not_acceptable("application/json")),
    }
}

fn legacy(core: bool, definitions: &Definitions, measure: bool) -> Value {
    if core {
        return json!({"kind": "APIVersions", "versions": ["v1"],
                      "serverAddressByClientCIDRs": []});
    }
    let groups = resources::groups(definitions).into_iter().chain(measure.then(usage::group));
    let groups: Vec<Value> = groups.map(|group| group_of(&group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub fn group_of(group: &Group) -> Value {
    let name = group.name;
    let version =
        |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/apis/apps`.
pub fn group(name: &str, definitions: &Definitions) -> Result<Value, Failure> {
    let groups = resources::groups(definitions);
    let known = groups.iter().find(|known| known.name == name);
    let mut group = group_of(known.ok_or_else(Failure::no_such_resource)?);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Ok(group)
}

/// `/api/v1`, `/apis/apps/v1`.
pub fn group_version(group: &str, version: &str, definitions: &Definitions) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for served in resources::in_version(group, version, definitions) {
        let kind = served.kind;
        all.push(json!({
            "name": kind.plural(), "singularName": served.singular(), "kind": kind.name(),
            "namespaced": kind.namespaced(), "verbs": served.verbs(), "shortNames": served.short(),
            "categories": served.categories(),
        }));
        for sub in served.subresources() {
            let (of, version, name) = served.type_of(Some(*sub));
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural(), sub.name()), "singularName": "",
                "namespaced": kind.namespaced(), "kind": name, "verbs": sub.verbs(),
            });
            if of != group {
                entry["group"] = of.into();
                entry["version"] = version.into();
            }
            all.push(entry);
        }
        for what in of_node(kind) {
            all.push(json!({
                "name": format!("{}/{}", kind.plural(), what.name()), "singularName": "",
                "namespaced": true, "kind": what.kind(), "verbs": what.verbs(),
            }));
        }
    }
    all.extend(resources::reviews(group, version).map(|review| {
        json!({"name": review.plural, "singularName": review.kind.to_lowercase(),
               "namespaced": review.namespaced, "kind": review.kind, "verbs": ["create"]})
    }));
    by_name(&mut all, "name", definitions, group);
    let name = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": all})
}

fn all_at_once(
    core: bool,
    (version, content_type): (&str, &'static str),
    definitions: &Definitions,
    measure: bool,
) -> Answer {
    let groups = match core {
        true => vec![resources::core()],
        false => resources::groups(definitions),
    };
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let version = |version: &&str| {
                let resources = aggregated_version(group.name, version, definitions);
                json!({"version": version, "resources": resources, "freshness": "Current"})
            };
            let versions: Vec<Value> = group.versions.iter().map(version).collect();
            let meta = match group.name {
                "" => json!({"creationTimestamp": null}),
                name => json!({"name": name, "creationTimestamp": null}),
            };
            json!({"metadata": meta, "versions": versions})
        })
        .chain((measure && !core).then(usage::aggregated))
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    Answer::bytes(content_type, list.to_string())
}

fn aggregated_version(group: &str, version: &str, definitions: &Definitions) -> Vec<Value> {
    let kinds = resources::in_version(group, version, definitions);
    let kinds = kinds.map(|served| aggregated(&served));
    let reviews = resources::reviews(group, version).map(aggregated_review);
    let mut all: Vec<Value> = kinds.chain(reviews).collect();
    by_name(&mut all, "resource", definitions, group);
    all
}

/// As upstream installs them (apiserver's `pkg/endpoints/installer.go`). Declared kinds are told
/// one after the other, each with its subresources behind it (apiextensions-apiserver's
/// `customresource_discovery_controller.go`).
fn by_name(resources: &mut [Value], field: &str, definitions: &Definitions, group: &str) {
    if resources::is_declared(group, definitions) {
        return;
    }
    resources.sort_by(|a, b| a[field].as_str().cmp(&b[field].as_str()));
}

fn aggregated(served: &Served) -> Value {
    let kind = served.kind;
    let type_of = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let mut subresources: Vec<Value> = served
        .subresources()
        .iter()
        .map(|sub| {
            json!({"subresource": sub.name(), "responseKind": type_of(served.type_of(Some(*sub))),
                   "verbs": sub.verbs()})
        })
        .collect();
    for what in of_node(kind) {
        let kind = json!({"group": "", "version": "v1", "kind": what.kind()});
        let one = json!({"subresource": what.name(), "responseKind": kind, "verbs": what.verbs()});
        subresources.push(one);
    }
    subresources.sort_by(|a, b| a["subresource"].as_str().cmp(&b["subresource"].as_str()));
    json!({
        "resource": kind.plural(), "responseKind": type_of(served.type_of(None)),
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": served.singular(), "verbs": served.verbs(), "shortNames": served.short(),
        "categories": served.categories(), "subresources": subresources,
    })
}

/// What is asked of the nodes of a kind's objects.
fn of_node(kind: Kind) -> impl Iterator<Item = What> {
    What::ALL.into_iter().filter(move |_| kind == Kind::Pod)
}

fn aggregated_review(review: &Review) -> Value {
    json!({
        "resource": review.plural, "scope": if review.namespaced { "Namespaced" } else { "Cluster" },
        "responseKind": {"group": review.group, "version": "v1", "kind": review.kind},
        "singularResource": review.kind.to_lowercase(), "verbs": ["create"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_resources() {
        let mut one_by_one = Vec::new();
        let mut at_once = Vec::new();
        let mut groups = vec![resources::core()];
        let none = Definitions::default();
        groups.extend(resources::groups(&none));
        for group in groups {
            for version in group.versions {
                let list = group_version(group.name, version, &none);
                let names = list["resources"].as_array().expect("resources").clone();
                one_by_one.extend(names.iter().map(|one| one["name"].as_str().map(str::to_owned)));
                for entry in aggregated_version(group.name, version, &none) {
                    let plural = entry["resource"].as_str().expect("a name").to_owned();
                    at_once.push(Some(plural.clone()));
                    for sub in entry["subresources"].as_array().into_iter().flatten() {
                        let sub = sub["subresource"].as_str().expect("a name");
                        at_once.push(Some(format!("{plural}/{sub}")));
                    }
                }
            }
        }
        one_by_one.sort();
        at_once.sort();
        assert_eq!(one_by_one, at_once);
    }

    #[test]
    fn kinds_are_told_in_upstreams_order() {
        let (mut all, none) = (Vec::new(), Definitions::default());
        for group in [resources::core()].into_iter().chain(resources::groups(&none)) {
            let kinds = aggregated_version(group.name, group.versions[0], &none);
            let shown = kinds.iter().filter(|kind| kind["categories"] == json!(["all"]));
            all.extend(shown.map(|kind| kind["resource"].as_str().expect("a name").to_owned()));
        }
        let expected = "pods replicationcontrollers services daemonsets deployments replicasets \
                        statefulsets horizontalpodautoscalers cronjobs jobs";
        assert_eq!(all.join(" "), expected);
    }

    #[test]
    fn the_version_to_prefer_comes_first() {
        let autoscaling = group("autoscaling", &Definitions::default()).expect("a group");
        let version = |version: &str| json!({"groupVersion": format!("autoscaling/{version}"), "version": version});
        assert_eq!(autoscaling["versions"], json!([version("v2"), version("v1")]));
        assert_eq!(autoscaling["preferredVersion"], version("v2"));
        let old = aggregated_version("autoscaling", "v1", &Definitions::default());
        let kind =
            json!({"group": "autoscaling", "version": "v1", "kind": "HorizontalPodAutoscaler"});
        assert_eq!((old.len(), &old[0]["responseKind"]), (1, &kind));
        assert_eq!(old[0]["subresources"][0]["responseKind"], kind);
    }

    #[test]
    fn the_form_is_the_first_that_is_taken() {
        let kind = |accepted: &str| {
            groups(false, accepted, &Definitions::default(), false)
                .map(|answer| answer.content_type)
        };
        assert_eq!(kind(""), Ok("application/json"));
        assert_eq!(kind(&format!("{V2},{V2_BETA1},application/json")), Ok(V2));
        assert_eq!(kind(&format!("{V2_BETA1},application/json")), Ok(V2_BETA1));
        assert_eq!(kind("application/json, */*"), Ok("application/json"));
        assert_eq!(kind("text/html").map_err(|failure| failure.code), Err(406));
    }
}
