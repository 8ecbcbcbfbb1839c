//! Kinds that definitions declare, as clients have them.

use super::world::{Ask, World, play};
use super::*;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["color"], "properties": {
            "color": {"type": "string", "enum": ["red", "blue"]},
            "size": {"type": "integer", "default": 3, "minimum": 1},
            "replicas": {"type": "integer"},
            "parts": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "count": {"type": "integer"}}}},
            "words": {"type": "array", "items": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "ready": {"type": "boolean"},
            "selector": {"type": "string"}}},
    }})
}

fn crd() -> Value {
    let mut beta = schema();
    beta["properties"]["spec"]["properties"].as_object_mut().expect("fields").remove("size");
    let columns = json!([
        {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
    ]);
    let subresources = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}});
    let version = |name: &str, schema: Value, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
               "schema": {"openAPIV3Schema": schema}, "subresources": subresources,
               "additionalPrinterColumns": columns,
               "selectableFields": [{"jsonPath": ".spec.color"}]})
    };
    let mut old = version("v1beta1", beta, false);
    old["deprecated"] = true.into();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"],
                "categories": ["all"]},
            "versions": [version("v1", schema(), true), old]},
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name},
           "spec": spec})
}

async fn declare(world: &World) -> Value {
    world.send(&format!("POST {CRDS}"), &crd()).await.ok()
}

#[test]
fn what_is_declared_is_found() {
    play(|world| async move {
        assert_eq!(world.get(WIDGETS).await.code, 404);
        let made = declare(&world).await;
        assert_eq!(made["status"]["acceptedNames"]["singular"], "widget");
        let group = world.get("/apis/example.com").await.ok();
        assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
        assert_eq!(group["versions"].as_array().expect("versions").len(), 2);
        let list = world.get("/apis/example.com/v1").await.ok();
        let resources = list["resources"].as_array().expect("resources");
        let names: Vec<_> = resources.iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
        assert_eq!(resources[0]["shortNames"], json!(["wd"]));
        assert_eq!(
            (&resources[2]["kind"], &resources[2]["group"]),
            (&json!("Scale"), &json!("autoscaling"))
        );
        // One that is not served any more is not found, at once.
        let mut less = crd();
        less["spec"]["versions"][1]["served"] = false.into();
        less["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
        world.send(&format!("PUT {CRDS}/widgets.example.com"), &less).await.ok();
        assert_eq!(world.get("/apis/example.com/v1beta1").await.code, 404);
        assert_eq!(world.get(WIDGETS).await.ok()["kind"], "WidgetList");
    });
}

#[test]
fn an_object_is_completed_cut_and_checked() {
    play(|world| async move {
        declare(&world).await;
        let words = format!("POST {WIDGETS}");
        let mut said = widget("a", json!({"color": "red", "colour": "x", "free": {"any": [1]}}));
        said["status"] = json!({"ready": true});
        let made = world.send(&words, &said).await;
        assert_eq!(made.warnings, ["299 - \"unknown field \\\"spec.colour\\\"\""]);
        let made = made.ok();
        assert_eq!(made["spec"], json!({"color": "red", "size": 3, "free": {"any": [1]}}));
        assert_eq!((made.get("status"), &made["metadata"]["generation"]), (None, &json!(1)));
        let strict = world.send(&format!("{words}?fieldValidation=Strict"), &said).await;
        assert_eq!(strict.refusal().0, 400);
        let message = strict.json()["message"].to_string();
        assert!(message.contains("strict decoding error: unknown field \\\"spec.colour\\\""));
        let wrong = world.send(&words, &widget("b", json!({"color": "green", "size": 0}))).await;
        assert_eq!(wrong.refusal(), (422, "Invalid".to_owned()));
        let causes = wrong.json()["details"]["causes"].clone();
        let fields: Vec<_> =
            causes.as_array().expect("causes").iter().map(|one| one["field"].clone()).collect();
        assert_eq!(fields, ["spec.color", "spec.size"]);
        let message = wrong.json()["message"].as_str().expect("text").to_owned();
        assert!(message.starts_with("Widget.example.com \"b\" is invalid: ["), "{message}");
        let bare = world
            .send(
                &words,
                &json!({"apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": {"name": "b"}}),
            )
            .await;
        assert_eq!(bare.json()["details"]["causes"][0]["message"], "Required value");
    });
}

#[test]
fn tables_selectors_and_watches_are_its_definitions() {
    play(|world| async move {
        declare(&world).await;
        let mut watch = world.watch(&format!("{WIDGETS}?watch=1")).await;
        for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
            world
                .send(&format!("POST {WIDGETS}"), &widget(name, json!({"color": color})))
                .await
                .ok();
        }
        assert_eq!(watch.told().await, "ADDED a");
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let words = format!("GET {WIDGETS}");
        let table = world.ask(Ask { words: &words, accept, ..Ask::default() }).await.ok();
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let names: Vec<_> =
            columns.iter().map(|one| (one["name"].clone(), one["priority"].clone())).collect();
        let expected = [("Name", 0), ("Color", 0), ("Size", 1)].map(|(a, b)| (json!(a), json!(b)));
        assert_eq!(names, expected);
        assert_eq!(table["rows"][1]["cells"], json!(["b", "blue", 3]));
        let names = async |query: &str| {
            let list = world.get(&format!("{WIDGETS}?{query}")).await.ok();
            let items = list["items"].as_array().expect("items").clone();
            items.iter().map(|one| one["metadata"]["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("fieldSelector=spec.color%3Dred").await, ["a", "c"]);
        assert_eq!(names("limit=2").await, ["a", "b"]);
        let unknown = world.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D3")).await;
        assert_eq!(unknown.code, 400);
    });
}

#[test]
fn patches_but_for_the_strategic_change_it() {
    play(|world| async move {
        declare(&world).await;
        world.send(&format!("POST {WIDGETS}"), &widget("a", json!({"color": "red"}))).await.ok();
        let path = format!("{WIDGETS}/a");
        let more = json!({"spec": {"size": 5}});
        let merged = world.patch(&path, "merge-patch", &more).await.ok();
        assert_eq!(
            (&merged["spec"]["size"], &merged["metadata"]["generation"]),
            (&json!(5), &json!(2))
        );
        let strategic = world.patch(&path, "strategic-merge-patch", &more).await;
        assert_eq!(strategic.refusal(), (415, "UnsupportedMediaType".to_owned()));
        let message = strategic.json()["message"].as_str().expect("text").to_owned();
        let types = ["json-patch+json", "merge-patch+json", "apply-patch+yaml"];
        let types = types.map(|kind| format!("application/{kind}")).join(", ");
        assert!(message.contains(&format!("include: {types};")), "{message}");
        let operation = json!([{"op": "replace", "path": "/spec/color", "value": "blue"}]);
        let patched = world.patch(&path, "json-patch", &operation).await.ok();
        assert_eq!(patched["spec"]["color"], "blue");
        let wrong = world.patch(&path, "merge-patch", &json!({"spec": {"color": "x"}})).await;
        assert_eq!(wrong.code, 422);
    });
}

#[test]
fn a_status_and_a_scale_are_written_by_themselves() {
    play(|world| async move {
        declare(&world).await;
        world.send(&format!("POST {WIDGETS}"), &widget("a", json!({"color": "red"}))).await.ok();
        let path = format!("{WIDGETS}/a");
        let said = json!({"spec": {"size": 9}, "status": {"replicas": 2, "selector": "a=b"}});
        let status = world.patch(&format!("{path}/status"), "merge-patch", &said).await.ok();
        assert_eq!(
            (&status["spec"]["size"], &status["status"]["replicas"]),
            (&json!(3), &json!(2))
        );
        assert_eq!(status["metadata"]["generation"], 1);
        let wrong = json!({"status": {"ready": "yes"}});
        assert_eq!(world.patch(&format!("{path}/status"), "merge-patch", &wrong).await.code, 422);
        let unscaled = world.get(&format!("{path}/scale")).await;
        assert_eq!(unscaled.code, 500, "it does not say how many it wants");
        let wanted = json!({"spec": {"replicas": 4}});
        let scaled = world.patch(&format!("{path}/scale"), "merge-patch", &wanted).await.ok();
        assert_eq!(scaled["kind"], "Scale");
        assert_eq!(scaled["status"], json!({"replicas": 2, "selector": "a=b"}));
        let now = world.get(&path).await.ok();
        assert_eq!(now["spec"]["replicas"], 4);
        assert_eq!(now["status"]["replicas"], 2);
    });
}

#[test]
fn what_is_applied_is_owned_as_the_schema_says() {
    play(|world| async move {
        declare(&world).await;
        let path = |manager: &str| format!("{WIDGETS}/a?fieldManager={manager}");
        let part = |name: &str, count: i64| json!({"name": name, "count": count});
        let ours = widget("a", json!({"color": "red", "parts": [part("x", 1)], "words": ["a"]}));
        world.apply(&path("one"), &ours).await.ok();
        let theirs = widget("a", json!({"parts": [part("y", 2)]}));
        let both = world.apply(&path("two"), &theirs).await.ok();
        assert_eq!(both["spec"]["parts"], json!([part("x", 1), part("y", 2)]));
        let fields = both["metadata"]["managedFields"].as_array().expect("entries");
        let two = fields.iter().find(|entry| entry["manager"] == "two").expect("an entry");
        let own = json!({"f:spec": {"f:parts": {"k:{\"name\":\"y\"}":
            {".": {}, "f:name": {}, "f:count": {}}}}});
        assert_eq!(two["fieldsV1"], own);
        let conflict = widget("a", json!({"words": ["b"], "parts": [part("x", 3)]}));
        let refused = world.apply(&path("two"), &conflict).await;
        assert_eq!(refused.refusal(), (409, "Conflict".to_owned()));
        let causes = refused.json()["details"]["causes"].as_array().expect("causes").len();
        assert_eq!(causes, 2);
        let none = world.apply(&path("one"), &widget("a", json!({"color": "red"}))).await.ok();
        assert_eq!(none["spec"]["parts"], json!([part("y", 2)]));
        let wrong = world.apply(&path("one"), &widget("a", json!({"nothing": 1}))).await;
        let message = wrong.json()["message"].as_str().expect("text").to_owned();
        assert!(message.ends_with(".spec.nothing: field not declared in schema"), "{message}");
    });
}

#[test]
fn each_version_has_a_schema_of_its_own() {
    play(|world| async move {
        declare(&world).await;
        let said = widget("a", json!({"color": "red"}));
        let made = world.send(&format!("POST {WIDGETS}"), &said).await;
        assert!(made.warnings.is_empty());
        let beta = WIDGETS.replace("v1", "v1beta1");
        let old = world.get(&format!("{beta}/a")).await;
        assert_eq!(old.warnings, ["299 - \"example.com/v1beta1 Widget is deprecated\""]);
        let old = old.ok();
        assert_eq!(
            (&old["apiVersion"], &old["spec"]),
            (&json!("example.com/v1beta1"), &json!({"color": "red"}))
        );
        let list = world.get(&beta).await.ok();
        assert_eq!(list["items"][0]["spec"], json!({"color": "red"}));
        let change = json!({"spec": {"color": "blue"}});
        world.patch(&format!("{beta}/a"), "merge-patch", &change).await.ok();
        let new = world.get(&format!("{WIDGETS}/a")).await.ok();
        assert_eq!(new["spec"], json!({"color": "blue", "size": 3}));
    });
}

#[test]
fn what_was_allowed_once_can_stay() {
    play(|world| async move {
        let made = declare(&world).await;
        world.send(&format!("POST {WIDGETS}"), &widget("a", json!({"color": "red"}))).await.ok();
        let mut narrow = made;
        for version in [0, 1] {
            let schema = &mut narrow["spec"]["versions"][version]["schema"]["openAPIV3Schema"];
            schema["properties"]["spec"]["properties"]["color"]["enum"] = json!(["blue"]);
        }
        world.send(&format!("PUT {CRDS}/widgets.example.com"), &narrow).await.ok();
        let path = format!("{WIDGETS}/a");
        let label = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"size": 7}});
        world.patch(&path, "merge-patch", &label).await.ok();
        let worse = json!({"spec": {"color": "green"}});
        assert_eq!(world.patch(&path, "merge-patch", &worse).await.code, 422);
        let new =
            world.send(&format!("POST {WIDGETS}"), &widget("b", json!({"color": "red"}))).await;
        assert_eq!(new.code, 422);
    });
}

#[test]
fn openapi_says_what_is_declared() {
    play(|world| async move {
        let before = world.get("/openapi/v3").await.ok();
        assert_eq!(before["paths"].get("apis/example.com/v1"), None);
        declare(&world).await;
        let root = world.get("/openapi/v3").await.ok();
        let url = root["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str();
        let document = world.get(url.expect("a place")).await.ok();
        let schemas = &document["components"]["schemas"];
        let kind = &schemas["com.example.v1.Widget"];
        assert_eq!(kind["properties"]["spec"]["properties"]["size"]["default"], 3);
        assert_eq!(kind["properties"]["kind"]["type"], "string");
        let gvk = json!([{"group": "example.com", "version": "v1", "kind": "Widget"}]);
        assert_eq!(kind["x-kubernetes-group-version-kind"], gvk);
        assert!(schemas.get("com.example.v1.WidgetList").is_some());
        assert!(schemas.get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").is_some());
        let path = "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}";
        let patch = &document["paths"][path]["patch"]["requestBody"]["content"];
        assert_eq!(patch.as_object().expect("types").len(), 3, "no strategic one");
        let v2 = world.get("/openapi/v2").await.ok();
        let old = &v2["definitions"]["com.example.v1.Widget"];
        assert_eq!(old["properties"]["spec"]["properties"]["color"]["type"], "string");
        assert!(v2["definitions"].get("io.k8s.api.core.v1.Pod").is_some());
    });
}

#[test]
fn a_definition_that_goes_takes_its_objects_with_it() {
    play(|world| async move {
        declare(&world).await;
        world.send(&format!("POST {WIDGETS}"), &widget("a", json!({"color": "red"}))).await.ok();
        let mut watch = world.watch(&format!("{WIDGETS}?watch=1")).await;
        assert_eq!(watch.told().await, "ADDED a");
        let gone = world.send(&format!("DELETE {CRDS}/widgets.example.com"), &json!({})).await.ok();
        assert_eq!(gone["kind"], "CustomResourceDefinition");
        assert_eq!(watch.told().await, "DELETED a");
        while world.get(&format!("{CRDS}/widgets.example.com")).await.code != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(world.get(WIDGETS).await.code, 404);
        declare(&world).await;
        assert_eq!(world.get(WIDGETS).await.ok()["items"], json!([]));
    });
}
