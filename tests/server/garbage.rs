//! What owns and is owned, of any kind, is collected: with the stock `kubectl`.

use super::plane::{each, get, until};
use crate::world::Server;
use serde_json::json;

const GADGETS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
";

/// Makes one of a kind that needs no more than a name, owned by another.
fn make(server: &Server, [version, kind, name]: [&str; 3], owner: Option<(&str, &str, &str)>) {
    let references = owner.map(|(version, kind, name)| {
        let uid = server.kubectl(&format!("get {kind} {name} -o jsonpath={{.metadata.uid}}"));
        json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid,
                "blockOwnerDeletion": true}])
    });
    let object = json!({"apiVersion": version, "kind": kind,
                        "metadata": {"name": name, "ownerReferences": references}});
    server.with("create -f -", &object.to_string());
}

fn there(server: &Server, what: &str, name: &str) -> bool {
    get(server, what).iter().any(|one| one["metadata"]["name"] == name)
}

#[test]
fn a_deletion_of_any_kind_comes_to_its_end() {
    each(&[], |server| {
        for name in ["let-go", "first"] {
            make(server, ["v1", "ConfigMap", name], None);
            make(server, ["v1", "Secret", name], Some(("v1", "ConfigMap", name)));
        }
        server.kubectl("delete configmap let-go --cascade=orphan --timeout=20s");
        let owners = server.kubectl("get secret let-go -o jsonpath={.metadata.ownerReferences}");
        assert_eq!(owners, "", "it has no owner any more");
        // kubectl waits until it is gone, which is after what it owns.
        server.kubectl("delete configmap first --cascade=foreground --timeout=20s");
        assert!(!there(server, "secrets", "first"));
    });
}

#[test]
fn what_a_custom_resource_owns_goes_with_it() {
    each(&[], |server| {
        server.with("create -f -", GADGETS);
        let established = "--for=condition=Established --timeout=10s crd/gadgets.example.com";
        server.kubectl(&format!("wait {established}"));
        for name in ["one", "two", "three"] {
            make(server, ["example.com/v1", "Gadget", name], None);
            make(server, ["v1", "Secret", name], Some(("example.com/v1", "Gadget", name)));
        }
        server.kubectl("delete gadget one --timeout=20s");
        until("the secret went", || !there(server, "secrets", "one"));
        server.kubectl("delete gadget two --cascade=orphan --timeout=20s");
        assert!(there(server, "secrets", "two"));
        server.kubectl("delete crd gadgets.example.com --timeout=20s");
        until("the last secret went", || !there(server, "secrets", "three"));
        assert!(there(server, "secrets", "two"));
    });
}

#[test]
fn a_namespace_is_emptied_of_what_was_declared() {
    each(&[], |server| {
        server.with("create -f -", GADGETS);
        let established = "--for=condition=Established --timeout=10s crd/gadgets.example.com";
        server.kubectl(&format!("wait {established}"));
        server.kubectl("create namespace team");
        let gadget = json!({"apiVersion": "example.com/v1", "kind": "Gadget",
                            "metadata": {"name": "g", "namespace": "team"}});
        server.with("create -f -", &gadget.to_string());
        server.kubectl("delete namespace team --timeout=20s");
        assert!(get(server, "gadgets -A").is_empty());
    });
}
