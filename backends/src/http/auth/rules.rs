//! What a rule allows, and which rules cover others (kubernetes `pkg/apis/rbac/v1/
//! evaluation_helpers.go`, component-helpers `auth/rbac/validation/policy_comparator.go`).

use super::attributes::{Attributes, Objects, Of};
use k8s_openapi::api::rbac::v1::PolicyRule;

const ALL: &str = "*";

/// A list of a rule; none is an empty one.
pub fn list(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

fn has(all: &[String], word: &str) -> bool {
    all.iter().any(|one| one == ALL || one == word)
}

pub fn allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    if !has(&rule.verbs, &attributes.verb) {
        return false;
    }
    match &attributes.of {
        Of::Path(path) => list(&rule.non_resource_urls).iter().any(|url| url_matches(url, path)),
        Of::Objects(objects) => {
            let names = list(&rule.resource_names);
            has(list(&rule.api_groups), &objects.group)
                && resource_matches(list(&rule.resources), objects)
                && (names.is_empty() || names.contains(&objects.name))
        }
    }
}

fn url_matches(url: &str, path: &str) -> bool {
    let prefix = url.ends_with(ALL).then(|| url.trim_end_matches(ALL));
    url == path || prefix.is_some_and(|prefix| path.starts_with(prefix))
}

fn resource_matches(resources: &[String], objects: &Objects) -> bool {
    let combined = objects.combined();
    // `*/scale` is that of every resource.
    let of_any = |one: &String| {
        !objects.subresource.is_empty() && one.strip_prefix("*/") == Some(&objects.subresource)
    };
    has(resources, &combined) || resources.iter().any(of_any)
}

/// Those of the rules that the owner's do not cover, taken apart: each of one verb, group and
/// resource, or of one verb and path. Each has to be covered by a single one of the owner's.
pub fn missing(owner: &[PolicyRule], rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let covered = |single: &PolicyRule| owner.iter().any(|rule| covers(rule, single));
    rules.iter().flat_map(singles).filter(|single| !covered(single)).collect()
}

fn singles(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |word: &String| Some(vec![word.clone()]);
    let mut singles = Vec::new();
    for verb in &rule.verbs {
        let single = || PolicyRule { verbs: vec![verb.clone()], ..PolicyRule::default() };
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let named = |resource_names| PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names,
                    ..single()
                };
                match list(&rule.resource_names) {
                    [] => singles.push(named(None)),
                    names => singles.extend(names.iter().map(|name| named(one(name)))),
                }
            }
        }
        for url in list(&rule.non_resource_urls) {
            singles.push(PolicyRule { non_resource_urls: one(url), ..single() });
        }
    }
    singles
}

fn covers(owner: &PolicyRule, single: &PolicyRule) -> bool {
    let all = |owner: &[String], words: &[String]| words.iter().all(|word| has(owner, word));
    let resource = |word: &String| {
        let owned = list(&owner.resources);
        let of_any = word.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        has(owned, word) || of_any.is_some_and(|of_any| owned.contains(&of_any))
    };
    let names = (list(&owner.resource_names), list(&single.resource_names));
    let named = names.0.is_empty()
        || !names.1.is_empty() && names.1.iter().all(|name| names.0.contains(name));
    let url = |word: &String| {
        list(&owner.non_resource_urls).iter().any(|url| url == ALL || url_matches(url, word))
    };
    all(&owner.verbs, &single.verbs)
        && all(list(&owner.api_groups), list(&single.api_groups))
        && list(&single.resources).iter().all(resource)
        && named
        && list(&single.non_resource_urls).iter().all(url)
}

/// Those that differ in their verbs only, as one (`pkg/registry/rbac/validation/
/// policy_compact.go`).
pub fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut compact: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = |one: &&mut PolicyRule| {
            PolicyRule { verbs: rule.verbs.clone(), ..(**one).clone() } == rule
        };
        match compact.iter_mut().find(same) {
            Some(one) => one.verbs.extend(rule.verbs),
            None => compact.push(rule),
        }
    }
    compact
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}` (`CompactString`).
pub fn described(rule: &PolicyRule) -> String {
    let words = |name: &str, words: &[String]| {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        (!words.is_empty()).then(|| format!("{name}:[{}]", quoted.join(" ")))
    };
    let parts = [
        words("APIGroups", list(&rule.api_groups)),
        words("Resources", list(&rule.resources)),
        words("NonResourceURLs", list(&rule.non_resource_urls)),
        words("ResourceNames", list(&rule.resource_names)),
        words("Verbs", &rule.verbs),
    ];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).expect("a rule")
    }

    fn resources(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
        rule(json!({"verbs": verbs, "apiGroups": groups, "resources": resources}))
    }

    #[test]
    fn rules_allow_as_upstream_has_it() {
        let asked = |verb: &str, group: &str, resource: &str, name: &str| {
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let objects = Objects {
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: sub.to_owned(),
                name: name.to_owned(),
                ..Objects::default()
            };
            Attributes::objects(verb, objects)
        };
        let pods = resources(&["get"], &[""], &["pods"]);
        assert!(allows(&pods, &asked("get", "", "pods", "a")));
        assert!(!allows(&pods, &asked("list", "", "pods", "")));
        assert!(!allows(&pods, &asked("get", "apps", "pods", "a")));
        assert!(!allows(&pods, &asked("get", "", "pods/status", "a")));
        let scale = resources(&["*"], &["*"], &["*/scale"]);
        assert!(allows(&scale, &asked("patch", "apps", "deployments/scale", "a")));
        assert!(!allows(&scale, &asked("patch", "apps", "deployments", "a")));
        let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["*"],
                           "resourceNames": ["a"]});
        assert!(allows(&rule(named.clone()), &asked("get", "", "pods/log", "a")));
        assert!(!allows(&rule(named), &asked("get", "", "pods", "b")));
        let at = |path: &str| Attributes { verb: "get".to_owned(), of: Of::Path(path.to_owned()) };
        let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/api/*", "/version"]}));
        for (path, allowed) in [("/api/v1", true), ("/version", true), ("/version/", false)] {
            assert_eq!(allows(&urls, &at(path)), allowed, "{path}");
        }
        assert!(!allows(&resources(&["*"], &["*"], &["*"]), &at("/version")));
    }

    #[test]
    fn what_is_not_covered_is_told_in_short() {
        let owner = [
            resources(&["get", "list"], &[""], &["pods"]),
            resources(&["*"], &["apps"], &["*/scale"]),
        ];
        let wanted = [
            resources(&["get", "delete", "watch"], &["", "apps"], &["pods"]),
            resources(&["get"], &["apps"], &["deployments/scale"]),
        ];
        let missing = compact(missing(&owner, &wanted));
        let told: Vec<String> = missing.iter().map(described).collect();
        let expected = [
            "{APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"delete\" \"watch\"]}",
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}",
        ];
        assert_eq!(told, expected);
        let all = [rule(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}))];
        assert_eq!(super::missing(&all, &all), []);
    }
}
