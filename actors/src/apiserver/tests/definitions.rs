//! CustomResourceDefinitions and what they declare: made, served, kept, and gone.

use super::*;
use crate::objects::Definition;
use serde_json::json;

const CRD: Kind = Kind::CustomResourceDefinition;

fn crd(plural: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

fn with_status(mut crd: Value) -> Value {
    crd["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    crd
}

fn condition(object: &Object, kind: &str) -> (String, String) {
    let status = &object.plain().expect("fields").status;
    let all = status["conditions"].as_array().expect("conditions");
    let one = all.iter().find(|one| one["type"] == kind).expect("the condition");
    let text = |field: &str| one[field].as_str().expect("text").to_owned();
    (text("status"), text("reason"))
}

fn key(plural: &str) -> Key {
    Key::cluster(format!("{plural}.example.com"))
}

impl Rig {
    fn definition(&self, plural: &str) -> Option<Arc<Definition>> {
        self.cache.definitions.iter().find(|one| one.kind.plural() == plural).cloned()
    }

    fn declared(&self, plural: &str) -> Kind {
        self.definition(plural).expect("a definition").kind
    }

    /// Of a declared kind, in namespace `default`.
    fn make(&mut self, kind: Kind, name: &str, fields: Value) -> Result<Arc<Object>, String> {
        let mut value = json!({"metadata": {"name": name}});
        value.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
        let object = Arc::new(Object::from_json_of(kind, value).expect("an object"));
        self.object(Request::Create { object })
    }
}

#[test]
fn a_definition_is_served_when_it_is_answered() {
    let mut rig = Rig::new();
    let made = rig.create(crd("widgets", "Widget")).expect("made");
    assert_eq!(condition(&made, "NamesAccepted"), ("True".into(), "NoConflicts".into()));
    assert_eq!(condition(&made, "Established"), ("True".into(), "InitialNamesAccepted".into()));
    assert_eq!(made.plain().expect("fields").status["storedVersions"], json!(["v1"]));
    let kind = rig.declared("widgets");
    let made = rig.make(kind, "a", json!({"spec": {"size": 1}})).expect("made");
    assert_eq!((made.meta.generation, made.key.to_string()), (Some(1), "default/a".into()));
    assert_eq!(
        rig.make(kind, "a", json!({})),
        Err("widgets.example.com \"a\" already exists".into())
    );
    let patch = json!({"spec": {"size": 2}});
    let changed = rig.patch(kind, made.key.clone(), Subresource::Main, patch).expect("patched");
    assert_eq!(changed.meta.generation, Some(2));
    // After a restart all is there.
    rig.restart();
    rig.run();
    assert_eq!(rig.declared("widgets"), kind);
    let again = rig.get(kind, &made.key).expect("the widget");
    assert_eq!(again.plain().expect("fields").fields.number("spec.size"), Some(2));
}

#[test]
fn a_status_is_written_by_itself_where_it_is_declared() {
    let mut rig = Rig::new();
    rig.create(crd("plain", "Plain")).expect("made");
    rig.create(with_status(crd("split", "Split"))).expect("made");
    let size = |object: &Object| object.plain().expect("fields").status["size"].clone();
    let said = json!({"spec": {}, "status": {"size": 1}});
    let plain = rig.declared("plain");
    let made = rig.make(plain, "a", said.clone()).expect("made");
    assert_eq!(size(&made), 1);
    let patch = json!({"status": {"size": 2}});
    let key = made.key.clone();
    let changed = rig.patch(plain, key.clone(), Subresource::Main, patch.clone()).expect("patched");
    assert_eq!((size(&changed), changed.meta.generation), (json!(2), Some(2)));
    let split = rig.declared("split");
    let made = rig.make(split, "a", said).expect("made");
    assert_eq!(size(&made), Value::Null, "a new object has none");
    let same = rig.patch(split, key.clone(), Subresource::Main, patch.clone()).expect("patched");
    assert_eq!((size(&same), same.version), (Value::Null, made.version));
    let changed = rig.patch(split, key, Subresource::Status, patch).expect("patched");
    assert_eq!((size(&changed), changed.meta.generation), (json!(2), Some(1)));
}

#[test]
fn names_are_one_definitions_and_free_when_it_is_gone() {
    let mut rig = Rig::new();
    rig.create(crd("widgets", "Widget")).expect("made");
    let second = rig.create(crd("gadgets", "Widget")).expect("made");
    assert_eq!(condition(&second, "NamesAccepted"), ("False".into(), "ListKindConflict".into()));
    assert_eq!(condition(&second, "Established"), ("False".into(), "NotAccepted".into()));
    assert!(rig.definition("gadgets").is_none());
    rig.delete(CRD, key("widgets")).expect("deleted");
    rig.run();
    assert!(rig.get(CRD, &key("widgets")).is_none());
    let second = rig.get(CRD, &key("gadgets")).expect("the other one").clone();
    assert_eq!(condition(&second, "Established").0, "True");
    assert_eq!(rig.declared("gadgets").name(), "Widget");
    // Of two at once, one gets the name.
    let both = ["a", "b"].map(|plural| {
        let object = Object::from_json(crd(plural, "Same")).expect("a definition");
        rig.send(Request::Create { object: Arc::new(object) })
    });
    rig.run();
    for call in both {
        rig.answers.remove(&call).expect("an answer").expect("made");
    }
    let kinds = rig.cache.definitions.iter().filter(|one| one.kind.name() == "Same").count();
    assert_eq!(kinds, 1);
}

#[test]
fn a_name_that_is_there_from_the_start_is_taken() {
    let mut rig = Rig::new();
    let mut ours = crd("subnets", "Network");
    ours["metadata"]["name"] = "subnets.net.kubesim.dev".into();
    ours["spec"]["group"] = "net.kubesim.dev".into();
    let made = rig.create(ours).expect("made");
    assert_eq!(condition(&made, "NamesAccepted"), ("False".into(), "PluralConflict".into()));
}

#[test]
fn what_a_definition_must_not_say_or_change_is_refused() {
    let mut rig = Rig::new();
    let mut misnamed = crd("widgets", "Widget");
    misnamed["metadata"]["name"] = "other.example.com".into();
    let why = rig.create(misnamed).expect_err("refused");
    assert!(why.contains("must be spec.names.plural+\".\"+spec.group"), "{why}");
    rig.create(crd("widgets", "Widget")).expect("made");
    let mut change = |patch: Value| rig.patch(CRD, key("widgets"), Subresource::Main, patch);
    for (patch, field) in [
        (json!({"spec": {"scope": "Cluster"}}), "spec.scope"),
        (json!({"spec": {"group": "example.org"}}), "spec.group"),
        (json!({"spec": {"names": {"plural": "others"}}}), "spec.names.plural"),
        (json!({"spec": {"names": {"kind": "Other"}}}), "spec.names.kind"),
    ] {
        let why = change(patch).expect_err(field);
        assert!(why.contains(&format!("{field}: Invalid value")), "{field}: {why}");
        assert!(why.contains("field is immutable"), "{why}");
    }
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let version = json!({"name": "v2", "served": true, "storage": true, "schema": schema});
    let why = change(json!({"spec": {"versions": [version]}})).expect_err("a stored version");
    assert!(why.contains("status.storedVersions[0]: Invalid value: \"v1\": missing"), "{why}");
    let old = json!({"name": "v1", "served": false, "storage": false, "schema": schema});
    let both = change(json!({"spec": {"versions": [old, version]}})).expect("changed");
    assert_eq!(both.plain().expect("fields").status["storedVersions"], json!(["v1", "v2"]));
    let definition = rig.definition("widgets").expect("a definition");
    let served: Vec<_> = definition.versions.iter().map(|one| one.api_version).collect();
    assert_eq!(served, ["example.com/v2"], "at once");
}

#[test]
fn the_objects_of_a_definition_go_before_it() {
    let mut rig = Rig::new();
    rig.create(crd("widgets", "Widget")).expect("made");
    let kind = rig.declared("widgets");
    for number in 0..250 {
        rig.make(kind, &format!("w{number}"), json!({})).expect("made");
    }
    let held = json!({"metadata": {"finalizers": ["example.com/f"]}});
    let last = Key::new("default", "w7");
    rig.patch(kind, last.clone(), Subresource::Main, held).expect("held");
    let call =
        rig.send(Request::Delete { kind: CRD, key: key("widgets"), options: Default::default() });
    let mut most = 0;
    while !rig.outgoing.is_empty() {
        most = most.max(rig.outgoing.len());
        let request = rig.outgoing.remove(0);
        let reply = rig.store.request(&request);
        rig.reply(reply);
    }
    assert!((2..=100).contains(&most), "{most} at a time");
    rig.answers.remove(&call).expect("an answer").expect("deleted");
    let crd_now = rig.get(CRD, &key("widgets")).expect("it waits").clone();
    assert_eq!(
        condition(&crd_now, "Terminating"),
        ("True".into(), "InstanceDeletionPending".into())
    );
    assert_eq!(rig.cache.views[&kind].len(), 1);
    let why = rig.make(kind, "new", json!({})).expect_err("refused");
    assert!(why.ends_with("create not allowed while custom resource definition is terminating"));
    // It goes on after a restart.
    rig.restart();
    rig.run();
    let free = json!({"metadata": {"finalizers": null}});
    rig.patch(kind, last, Subresource::Main, free).expect("let go");
    rig.run();
    assert!(rig.get(CRD, &key("widgets")).is_none());
    assert!(rig.definition("widgets").is_none());
    rig.make(kind, "late", json!({})).expect_err("nothing is declared");
    rig.create(crd("widgets", "Widget")).expect("made again");
    assert_eq!(rig.cache.views[&kind].len(), 0);
}

#[test]
fn a_namespace_takes_what_is_declared_with_it() {
    let mut rig = Rig::new();
    rig.create(crd("widgets", "Widget")).expect("made");
    let kind = rig.declared("widgets");
    rig.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))
        .expect("made");
    let object = json!({"metadata": {"name": "a", "namespace": "x"}});
    let object = Arc::new(Object::from_json_of(kind, object).expect("an object"));
    rig.object(Request::Create { object }).expect("made");
    rig.delete(Kind::Namespace, Key::cluster("x")).expect("deleted");
    rig.run();
    assert!(rig.cache.views[&kind].is_empty());
    assert!(rig.get(Kind::Namespace, &Key::cluster("x")).is_none());
}
