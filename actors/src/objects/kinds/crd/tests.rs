use super::*;
use crate::objects::Object;

fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}],
        },
    });
    change(&mut crd);
    let object = Object::from_json(crd).expect("a definition");
    let mut fields = (*object.plain().expect("fields").fields).clone();
    defaults(&mut fields);
    let mut causes = Causes::default();
    validate(&fields, &mut causes);
    causes.into_list()
}

/// A change of the only schema.
fn schema(change: impl FnOnce(&mut Value)) -> Vec<String> {
    wrong(|crd| change(&mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
}

#[test]
fn what_is_left_out_gets_upstreams_defaults() {
    assert_eq!(wrong(|_| {}), [""; 0]);
    let mut fields =
        Fields(json!({"spec": {"names": {"kind": "Widget"}}}).as_object().unwrap().clone());
    defaults(&mut fields);
    assert_eq!(fields.text("spec.names.singular"), "widget");
    assert_eq!(fields.text("spec.names.listKind"), "WidgetList");
    assert_eq!(fields.text("spec.conversion.strategy"), "None");
}

#[test]
fn bounds_are_written_as_they_were_said() {
    let schema = json!({"type": "object", "minProperties": 1, "properties": {
        "a": {"type": "number", "minimum": 1, "maximum": 2.5, "default": 2.0}}});
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    let object = Object::from_json(crd).expect("a definition").to_json();
    let text = object["spec"]["versions"][0]["schema"].to_string();
    assert!(text.contains("\"minimum\":1,") && text.contains("\"maximum\":2.5"), "{text}");
}

#[test]
fn names_and_versions_are_checked_in_upstreams_words() {
    let group = wrong(|crd| crd["spec"]["group"] = "example".into());
    let why = "spec.group: Invalid value: \"example\": should be a domain with at least one dot";
    assert_eq!(group, [why]);
    let scope = wrong(|crd| crd["spec"]["scope"] = "World".into());
    let why = "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \
               \"Namespaced\"";
    assert_eq!(scope, [why]);
    let names = wrong(|crd| crd["spec"]["names"]["listKind"] = "Widget".into());
    let why = "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the \
               same";
    assert_eq!(names, [why]);
    let kind = wrong(|crd| crd["spec"]["names"]["kind"] = "Wid get".into());
    assert!(kind.iter().any(|why| why.contains("may have mixed case")), "{kind:?}");
    let stored = wrong(|crd| crd["spec"]["versions"][0]["storage"] = false.into());
    let why = "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as \
               storage version";
    assert_eq!(stored, [why]);
    let bare =
        wrong(|crd| drop(crd["spec"]["versions"][0].as_object_mut().unwrap().remove("schema")));
    assert_eq!(bare, ["spec.versions[0].schema.openAPIV3Schema: Required value"]);
    let webhook = wrong(|crd| crd["spec"]["conversion"] = json!({"strategy": "Webhook"}));
    let why =
        "spec.conversion.strategy: Unsupported value: \"Webhook\": supported values: \"None\"";
    assert_eq!(webhook, [why]);
}

#[test]
fn what_is_wrong_with_a_schema_is_told_where_upstream_has_it() {
    let root = "spec.validation.openAPIV3Schema";
    let untyped = schema(|schema| schema["properties"]["spec"] = json!({"properties": {}}));
    let why = "type: Required value: must not be empty for specified object fields";
    assert_eq!(untyped, [format!("{root}.properties[spec].{why}")]);
    let rules = schema(|schema| schema["x-kubernetes-validations"] = json!([{"rule": "true"}]));
    let why = "Forbidden: this server does not evaluate rules in CEL";
    assert_eq!(rules, [format!("{root}.x-kubernetes-validations: {why}")]);
    let list = json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["id"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}}}});
    let keys = schema(|schema| schema["properties"]["items"] = list);
    let why = "Invalid value: []string{\"id\"}: entries must all be names of item properties";
    assert_eq!(keys, [format!("{root}.properties[items].x-kubernetes-list-map-keys: {why}")]);
    let default = schema(|schema| schema["properties"]["spec"]["default"] = json!({"size": "x"}));
    assert!(default[0].starts_with(&format!("{root}.properties[spec].default.size: Invalid")));
    let both = json!({"type": "object", "properties": {"a": {"type": "string"}},
                      "additionalProperties": {"type": "string"}});
    let both = schema(|schema| schema["properties"]["spec"] = both);
    let why = "additionalProperties and properties are mutual exclusive";
    assert_eq!(both, [format!("{root}.properties[spec].additionalProperties: Forbidden: {why}")]);
    let status = wrong(|crd| {
        let version = &mut crd["spec"]["versions"][0];
        version["subresources"] = json!({"status": {}});
        version["schema"]["openAPIV3Schema"]["minProperties"] = 1.into();
    });
    assert!(status[0].contains("fields are allowed at the root of the schema"), "{status:?}");
    // Where the versions differ, each is told by itself.
    let two = wrong(|crd| {
        let mut other = crd["spec"]["versions"][0].clone();
        other["name"] = "v2".into();
        other["storage"] = false.into();
        other["schema"]["openAPIV3Schema"]["type"] = "array".into();
        crd["spec"]["versions"].as_array_mut().unwrap().push(other);
    });
    let path = "spec.versions[1].schema.openAPIV3Schema";
    assert!(two.iter().all(|why| why.starts_with(path)) && !two.is_empty(), "{two:?}");
}

#[test]
fn columns_scales_and_selectable_fields_are_checked() {
    let version = |part: &'static str, value: Value| {
        wrong(move |crd| crd["spec"]["versions"][0][part] = value)
    };
    let columns = json!([{"name": "Size", "type": "text", "jsonPath": "spec.size"}]);
    let at = "spec.additionalPrinterColumns[0]";
    let expected = [
        format!(
            "{at}.type: Invalid value: \"text\": must be one of boolean,date,integer,number,string"
        ),
        format!(
            "{at}.JSONPath: Invalid value: \"spec.size\": must be a simple json path starting with ."
        ),
    ];
    assert_eq!(version("additionalPrinterColumns", columns), expected);
    let scale = json!({"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ""}});
    let at = "spec.subresources.scale";
    let expected = [
        format!(
            "{at}.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec"
        ),
        format!("{at}.statusReplicasPath: Required value"),
    ];
    assert_eq!(version("subresources", scale), expected);
    let fields = json!([{"jsonPath": ".spec.size"}, {"jsonPath": ".spec"}, {"jsonPath": ".x"}]);
    let told = version("selectableFields", fields);
    let at = "spec.versions[0].selectableFields";
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with(&format!("{at}[1].jsonPath: Invalid")), "{told:?}");
    assert!(told[1].contains("is an invalid path"), "{told:?}");
}
