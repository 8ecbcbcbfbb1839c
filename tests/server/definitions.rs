//! Kinds of one's own: a CustomResourceDefinition and what it declares, with the stock `kubectl`.

use super::world::{Place, Server, clients};
use super::{ANY, each, rows};

const CRD: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Size, type: integer, jsonPath: .spec.size, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        description: Widget is what a machine has many of.
        type: object
        required: [spec]
        properties:
          spec:
            description: What is wanted of it.
            type: object
            required: [color]
            properties:
              color: {description: How it looks., type: string, enum: [red, blue]}
              size: {type: integer, default: 3}
              replicas: {type: integer, default: 1}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, count: {type: integer}}
          status:
            type: object
            properties: {replicas: {type: integer}}
  - name: v1beta1
    served: true
    storage: false
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {color: {type: string}}
";

const WIDGET: &str = "
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
spec: {color: red}
";

fn declare(server: &Server) {
    let made = server.with("apply -f -", CRD);
    assert_eq!(made, "customresourcedefinition.apiextensions.k8s.io/widgets.example.com created\n");
    let met =
        server.kubectl("wait --for=condition=Established --timeout=10s crd/widgets.example.com");
    assert!(met.ends_with(" condition met\n"), "{met}");
}

fn refused(server: &Server, words: &str, input: &str) -> String {
    let out = server.run(&words.split_whitespace().collect::<Vec<_>>(), input);
    assert!(!out.status.success(), "kubectl {words} succeeds");
    String::from_utf8(out.stderr).expect("UTF-8")
}

#[test]
fn a_definition_is_applied_and_its_kind_is_had() {
    each(|_, server| {
        declare(server);
        let shown = server.kubectl("get crd");
        let head: Vec<&str> = shown.lines().next().expect("a head").split_whitespace().collect();
        assert_eq!(head, ["NAME", "CREATED", "AT"]);
        assert!(shown.contains("\nwidgets.example.com   20"), "{shown}");
        let known = server.kubectl("api-resources --api-group=example.com");
        let row = ["widgets", "wd", "example.com/v1", "true", "Widget"];
        assert_eq!(rows(&known)[1], row);
        assert_eq!(server.with("apply -f -", WIDGET), "widget.example.com/w created\n");
        assert_eq!(server.with("apply -f -", WIDGET), "widget.example.com/w unchanged\n");
        assert_eq!(rows(&server.kubectl("get wd")), [&["NAME", "COLOR", "AGE"][..], &["w", "red"]]);
        let wide = server.kubectl("get widgets -o wide");
        assert_eq!(rows(&wide)[1], ["w", "red", "3"]);
        assert!(server.kubectl("get all").contains("widget.example.com/w"));
        let changed = WIDGET.replace("red", "blue");
        assert_eq!(server.with("apply -f -", &changed), "widget.example.com/w configured\n");
        let path = "{.spec.color},{.spec.size},{.metadata.generation}";
        assert_eq!(server.kubectl(&format!("get wd w -o jsonpath={path}")), "blue,3,2");
        let old = "get widgets.v1beta1.example.com w -o jsonpath={.apiVersion},{.spec}";
        assert_eq!(server.kubectl(old), r#"example.com/v1beta1,{"color":"blue"}"#);
        server.kubectl("label wd w team=a");
        assert_eq!(server.kubectl("get wd -l team=a -o name"), "widget.example.com/w\n");
        assert_eq!(server.kubectl("scale wd w --replicas=5"), "widget.example.com/w scaled\n");
        assert_eq!(server.kubectl("get wd w -o jsonpath={.spec.replicas}"), "5");
        let patch = r#"{"status":{"replicas":4}}"#;
        server.kubectl(&format!("patch wd w --type=merge --subresource=status -p {patch}"));
        assert_eq!(server.kubectl("get wd w -o jsonpath={.status.replicas}"), "4");
        let why = server.fails(&format!("patch wd w -p {patch}"));
        assert!(why.contains("unknown format"), "{why}");
        let mut edit = server.command(&["edit", "wd", "w"]);
        let edited =
            edit.env("KUBE_EDITOR", "sed -i s/blue/red/").output().expect("kubectl starts");
        assert_eq!(String::from_utf8_lossy(&edited.stdout), "widget.example.com/w edited\n");
        assert_eq!(server.kubectl("get wd w -o jsonpath={.spec.color}"), "red");
        assert_eq!(server.kubectl("delete wd w"), "widget.example.com \"w\" deleted\n");
        assert_eq!(server.kubectl("get wd -o name"), "");
    });
}

#[test]
fn what_its_schema_does_not_allow_is_refused() {
    each(|_, server| {
        declare(server);
        let why = refused(server, "create -f -", &WIDGET.replace("red", "green"));
        let expected = "The Widget \"w\" is invalid: spec.color: Unsupported value: \"green\": \
                        supported values: \"red\", \"blue\"\n";
        assert_eq!(why, expected);
        let unknown = WIDGET.replace("color: red", "color: red, colour: x");
        let why = refused(server, "create -f -", &unknown);
        assert!(why.contains("strict decoding error: unknown field \"spec.colour\""), "{why}");
        let made = server.with("create --validate=false -f -", &unknown);
        assert_eq!(made, "widget.example.com/w created\n");
        let spec = server.kubectl("get wd w -o jsonpath={.spec}");
        assert_eq!(spec, r#"{"color":"red","replicas":1,"size":3}"#);
        // And of a definition.
        let untyped = CRD.replace("            type: object\n            required: [color]\n", "");
        let why = refused(server, "apply -f -", &untyped);
        let expected = "properties[spec].type: Required value: must not be empty for specified \
                        object fields";
        assert!(why.contains(expected), "{why}");
        let rules = CRD.replace(
            "        required: [spec]\n",
            "        x-kubernetes-validations: [{rule: 'true'}]\n",
        );
        let why = refused(server, "apply -f -", &rules);
        assert!(why.contains("x-kubernetes-validations: Forbidden: this server does not"), "{why}");
    });
}

#[test]
fn its_objects_are_applied_at_the_server_and_explained() {
    each(|_, server| {
        declare(server);
        let part = |name: &str| WIDGET.replace("{color: red}", name);
        let apply = |manager: &str| format!("apply --server-side --field-manager={manager} -f -");
        let ours = part("{color: red, parts: [{name: a, count: 1}]}");
        let applied = "widget.example.com/w serverside-applied\n";
        assert_eq!(server.with(&apply("one"), &ours), applied);
        let theirs = part("{parts: [{name: b}]}");
        assert_eq!(server.with(&apply("two"), &theirs), applied);
        let names = "get wd w -o jsonpath={.spec.parts[*].name}";
        assert_eq!(server.kubectl(names), "a b");
        let why = refused(server, &apply("two"), &part("{color: blue}"));
        assert!(why.contains("conflict with \"one\": .spec.color"), "{why}");
        let said = server.kubectl("explain wd.spec");
        assert!(
            said.contains("GROUP:      example.com\nKIND:       Widget\nVERSION:    v1\n"),
            "{said}"
        );
        assert!(said.contains("What is wanted of it.") && said.contains("How it looks."), "{said}");
        assert!(server.kubectl("explain widgets").contains("what a machine has many of"));
    });
}

#[test]
fn a_definition_goes_after_its_objects() {
    each(|_, server| {
        declare(server);
        server.with("create -f -", WIDGET);
        let gone = server.kubectl("delete crd widgets.example.com --timeout=20s");
        assert!(gone.contains("\"widgets.example.com\" deleted"), "{gone}");
        assert_eq!(server.kubectl("get crd -o name"), "");
        let why = server.fails("get widgets");
        assert!(
            why.contains("the server doesn't have a resource type \"widgets\"")
                || why.contains("could not find the requested resource"),
            "{why}"
        );
        declare(server);
        assert_eq!(server.kubectl("get widgets -o name"), "");
    });
}

#[test]
fn what_is_declared_is_there_after_a_restart() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let server = Server::start(&place, ANY, &client);
    declare(&server);
    server.with("create -f -", WIDGET);
    server.kill();
    let server = Server::start(&place, ANY, &client);
    assert_eq!(rows(&server.kubectl("get wd"))[1], ["w", "red"]);
    assert_eq!(server.kubectl("get crd -o name").lines().count(), 1);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn roles_are_of_declared_kinds_as_of_others() {
    each(|_, server| {
        declare(server);
        server.with("create -f -", WIDGET);
        server.kubectl("create role see --verb=get,list --resource=widgets.example.com");
        server.kubectl("create rolebinding see --role=see --user=jane");
        assert_eq!(server.kubectl("auth can-i get widgets --as=jane"), "yes\n");
        assert_eq!(rows(&server.kubectl("get wd --as=jane"))[1], ["w", "red"]);
        let why = server.fails("delete wd w --as=jane");
        assert!(
            why.contains("cannot delete resource \"widgets\" in API group \"example.com\""),
            "{why}"
        );
    });
}
