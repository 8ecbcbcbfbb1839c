//! Stories of several who write one object. Cases are after upstream's own
//! (structured-merge-diff `merge/*_test.go`), written anew.

use super::fields::{Set, Step};
use super::managers::{Manager, Managers};
use super::update::{Refusal, Writer};
use crate::http::types::{self, Place};
use crate::http::versions::Served;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::objects::Kind;
use serde_json::{Value, json};

/// One object and its owners.
struct Story {
    served: Served,
    object: Value,
    managers: Managers,
    second: i64,
}

impl Story {
    fn of(kind: Kind) -> Story {
        let served = Served::held(kind);
        Story { served, object: json!({}), managers: Managers::default(), second: 0 }
    }

    fn writer<'a>(&mut self, manager: &'a str) -> Writer<'a> {
        self.second += 1;
        let now = Time(Timestamp::from_second(self.second).expect("a time"));
        Writer { manager, sub: None, has_status: true, served: self.served.clone(), now }
    }

    fn update(&mut self, manager: &str, new: Value) -> &mut Self {
        let writer = self.writer(manager);
        let managers = writer.update(self.object.clone(), new.clone(), self.managers.clone());
        (self.managers, self.object) = (managers.expect("it is compared"), new);
        self
    }

    fn try_apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), Refusal> {
        let writer = self.writer(manager);
        writer.check(&config).expect("a configuration");
        let (object, managers) =
            writer.apply(&self.object, &config, self.managers.clone(), force)?;
        (self.object, self.managers) = (object, managers);
        Ok(())
    }

    fn apply(&mut self, manager: &str, config: Value) -> &mut Self {
        self.try_apply(manager, config, false).expect("no conflict");
        self
    }

    fn force(&mut self, manager: &str, config: Value) -> &mut Self {
        self.try_apply(manager, config, true).expect("forced");
        self
    }

    /// The places that are in conflict, and with whom.
    fn conflicts(&mut self, manager: &str, config: Value) -> Vec<String> {
        match self.try_apply(manager, config, false) {
            Err(Refusal::Conflicts(all)) => {
                let told = |(manager, path): &(Manager, Vec<Step>)| {
                    let path: String = path.iter().map(Step::to_string).collect();
                    format!("{} {path}", manager.name)
                };
                all.iter().map(told).collect()
            }
            other => panic!("no conflict: {other:?}"),
        }
    }

    #[track_caller]
    fn is(&mut self, object: Value) -> &mut Self {
        assert_eq!(self.object, object);
        self
    }

    #[track_caller]
    fn owns(&mut self, manager: &str, fields: Value) -> &mut Self {
        let all = self.managers.0.iter().filter(|(known, _)| known.name == manager);
        let set = all.fold(Set::default(), |set, (_, owned)| set.union(&owned.set));
        assert_eq!(json!(set), fields, "{manager}");
        self
    }
}

const DEPLOYMENT: &str = "apps/v1.Deployment";

#[test]
fn one_who_applies_owns_what_it_said_and_no_more() {
    let config = |replicas: i32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
                     "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    let fields = json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec":
        {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}});
    let mut story = Story::of(Kind::Deployment);
    story.apply("a", config(2)).is(config(2)).owns("a", fields.clone());
    let before = story.managers.clone();
    story.apply("a", config(2));
    assert_eq!(story.managers, before, "its time as well");
    story.apply("a", config(3)).is(config(3)).owns("a", fields);
    assert_ne!(story.managers, before, "it is newer");
}

#[test]
fn fields_that_others_own_are_in_conflict_until_forced() {
    let config = |replicas: i32| json!({"spec": {"replicas": replicas}});
    let owned = json!({"f:spec": {"f:replicas": {}}});
    let mut story = Story::of(Kind::Deployment);
    story.apply("a", config(2)).apply("b", config(2));
    story.owns("a", owned.clone()).owns("b", owned.clone());
    assert_eq!(story.conflicts("c", config(3)), ["a .spec.replicas", "b .spec.replicas"]);
    story.is(config(2)).owns("c", json!({}));
    story.force("c", config(3)).is(config(3)).owns("c", owned.clone());
    story.owns("a", json!({})).owns("b", json!({}));
    // An update takes as well, and cannot be refused.
    story.update("hand", config(4)).owns("hand", owned).owns("c", json!({}));
    assert_eq!(story.conflicts("c", config(3)), ["hand .spec.replicas"]);
}

#[test]
fn what_is_applied_no_longer_goes_if_nobody_else_has_it() {
    let labels = |names: &[&str]| {
        let labels: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), json!("x"))).collect();
        json!({"metadata": {"labels": labels}})
    };
    let mut story = Story::of(Kind::ConfigMap);
    story.apply("a", labels(&["mine", "ours", "shared"])).apply("b", labels(&["shared"]));
    story.update("hand", labels(&["hers", "mine", "ours", "shared"]));
    story.apply("a", labels(&["ours"])).is(labels(&["hers", "ours", "shared"]));
    story.owns("a", json!({"f:metadata": {"f:labels": {"f:ours": {}}}}));
    story.owns("hand", json!({"f:metadata": {"f:labels": {"f:hers": {}}}}));
    // All that it had goes, and with it what is empty then.
    story.apply("a", json!({})).is(labels(&["hers", "shared"])).owns("a", json!({}));
    story.apply("b", json!({"data": {"k": "v"}}));
    story.is(json!({"metadata": {"labels": {"hers": "x"}}, "data": {"k": "v"}}));
}

#[test]
fn elements_of_a_list_have_owners_of_their_own() {
    let pod = |containers: Value| json!({"spec": {"containers": containers}});
    let (a, b) = (json!({"name": "a", "image": "a:1"}), json!({"name": "b", "image": "b:1"}));
    let mut story = Story::of(Kind::Pod);
    story.apply("one", pod(json!([a]))).apply("two", pod(json!([b])));
    story.is(pod(json!([a, b])));
    // Who adds a field to another's element has that field, and the element with it.
    let port = json!({"name": "a", "ports": [{"containerPort": 80}]});
    story.apply("three", pod(json!([port])));
    let whole = json!({"name": "a", "image": "a:1", "ports": [{"containerPort": 80}]});
    story.is(pod(json!([whole, b])));
    let ports = json!({"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
        {".": {}, "f:containerPort": {}}});
    story.owns(
        "three",
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}":
        {".": {}, "f:name": {}, "f:ports": ports}}}}),
    );
    // The image goes, but not the element, which has another owner.
    story.apply("one", json!({}));
    story.is(pod(json!([port, b])));
    story.apply("three", json!({})).is(pod(json!([b])));
    // Order is that of who applies.
    let c = json!({"name": "c", "image": "c:1"});
    story.apply("two", pod(json!([c, b]))).is(pod(json!([c, b])));
    assert_eq!(
        story.conflicts("one", pod(json!([{"name": "b", "image": "b:2"}]))),
        ["two .spec.containers[name=\"b\"].image"]
    );
}

#[test]
fn sets_unite_and_atomic_lists_have_one_owner() {
    let pod = |finalizers: Value, tolerations: Value| json!({"metadata": {"finalizers": finalizers}, "spec": {"tolerations": tolerations}});
    let (x, y) = (json!({"key": "x"}), json!({"key": "y"}));
    let mut story = Story::of(Kind::Pod);
    story.apply("a", pod(json!(["e/a", "e/b"]), json!([x])));
    story.apply("b", json!({"metadata": {"finalizers": ["e/c", "e/b"]}}));
    story.is(pod(json!(["e/a", "e/c", "e/b"]), json!([x])));
    let other = json!({"spec": {"tolerations": [x, y]}});
    assert_eq!(story.conflicts("b", other), ["a .spec.tolerations"]);
    story.apply("a", json!({"spec": {"tolerations": [y]}}));
    story.is(pod(json!(["e/c", "e/b"]), json!([y])));
    // A struct can be one as well.
    let selector = |label: &str| json!({"spec": {"selector": {"matchLabels": {label: "x"}}}});
    let mut story = Story::of(Kind::Deployment);
    story.apply("a", selector("a"));
    assert_eq!(story.conflicts("b", selector("b")), ["a .spec.selector"]);
    story.force("b", selector("b")).is(selector("b")).owns("a", json!({}));
}

#[test]
fn an_update_owns_what_it_changed() {
    let object = |image: &str, extra: Value| {
        json!({"metadata": {"name": "d", "uid": "u", "annotations": extra},
            "spec": {"strategy": {"type": "Recreate"}, "template": {"spec": {
                "containers": [{"name": "c", "image": image}]}}},
            "status": {"replicas": 1}})
    };
    let container = json!({".": {}, "f:image": {}, "f:name": {}, "f:resources": {}});
    let mut story = Story::of(Kind::Deployment);
    // Structs that Go always has do not become anybody's; a map that comes to be does.
    story.update("make", object("i:1", json!({"a": "b"})));
    story.owns(
        "make",
        json!({
        "f:metadata": {"f:annotations": {".": {}, "f:a": {}}},
        "f:spec": {"f:strategy": {"f:type": {}}, "f:template": {"f:spec": {"f:containers":
            {"k:{\"name\":\"c\"}": container}}}}}),
    );
    story.update("set", object("i:2", json!({"a": "b", "c": "d"})));
    story.owns(
        "set",
        json!({
        "f:metadata": {"f:annotations": {"f:c": {}}},
        "f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}":
            {"f:image": {}}}}}}}),
    );
    // Who comes back after a while has one entry, and what is gone is nobody's.
    story.update("make", object("i:3", json!({"a": "b"})));
    story.owns("set", json!({}));
    assert_eq!(story.managers.0.len(), 1);
}

#[test]
fn what_was_there_before_the_first_apply_is_nobodys_to_take() {
    let mut story = Story::of(Kind::ConfigMap);
    story.object = json!({"data": {"a": "1"}});
    let config = |value: &str| json!({"data": {"a": value}});
    assert_eq!(story.conflicts("a", config("2")), ["before-first-apply .data.a"]);
    story.apply("a", config("1"));
    story.owns("before-first-apply", json!({"f:data": {".": {}, "f:a": {}}}));
    story.owns("a", json!({"f:data": {"f:a": {}}}));
}

#[test]
fn a_subresource_is_an_owner_of_its_own() {
    let status = |kind: &str| json!({"status": {"conditions": [{"type": kind}]}});
    let mut story = Story::of(Kind::Node);
    let mut writer = story.writer("kubelet");
    writer.sub = Some(crate::http::resources::Sub::Status);
    let config = json!({"metadata": {"labels": {"a": "b"}}, "status": status("Ready")["status"]});
    let (_, managers) =
        writer.apply(&json!({}), &config, Managers::default(), false).expect("applied");
    let (manager, owned) = managers.0.first_key_value().expect("an owner");
    assert_eq!((&manager.subresource[..], manager.applies), ("status", true));
    let fields = json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}":
        {".": {}, "f:type": {}}}}});
    assert_eq!(json!(owned.set), fields);
    // Nor is the status the main resource's.
    story.apply("a", status("Ready")).owns("a", json!({}));
}

#[test]
fn of_a_type_that_is_not_known_maps_are_granular_and_lists_atomic() {
    let mut story = Story::of(Kind::Subnet);
    story.apply("a", json!({"spec": {"routes": [{"to": "x"}], "mtu": 1400}}));
    story.apply("b", json!({"spec": {"backend": {"type": "vxlan"}}}));
    let both =
        json!({"spec": {"routes": [{"to": "x"}], "mtu": 1400, "backend": {"type": "vxlan"}}});
    story.is(both).owns("b", json!({"f:spec": {".": {}, "f:backend": {".": {}, "f:type": {}}}}));
    let other = json!({"spec": {"routes": [{"to": "y"}]}});
    assert_eq!(story.conflicts("b", other), ["a .spec.routes"]);
}

#[test]
fn a_configuration_that_is_none_of_its_type_is_told_field_by_field() {
    let place = Place::Object(types::named(DEPLOYMENT).expect("a kind"));
    let why = |config: Value| super::check::check(place, &config).expect_err("wrong");
    assert_eq!(why(json!({"spec": {"x": 1}})), ".spec.x: field not declared in schema");
    assert_eq!(
        why(json!({"spec": {"replicas": "2"}})),
        ".spec.replicas: expected numeric (int or float), got string"
    );
    assert_eq!(why(json!({"spec": {"template": "t"}})), ".spec.template: expected map, got &{t}");
    let pod =
        |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    assert_eq!(
        why(pod(json!([{"name": "a"}, {"name": "a"}]))),
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
    assert_eq!(
        why(pod(json!([{"name": "a", "imag": "x"}, {"name": "b", "stdin": 1}]))),
        "errors:\n  .spec.template.spec.containers[name=\"a\"].imag: field not declared in schema\n  \
         .spec.template.spec.containers[name=\"b\"].stdin: expected boolean, got &{1}"
    );
    let whole = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"paused": null,
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}});
    assert_eq!(super::check::check(place, &whole), Ok(()));
}
