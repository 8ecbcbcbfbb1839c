use super::*;
use crate::objects::validation::Causes;
use serde_json::json;

fn schema(value: Value) -> Schema {
    Schema::read(&value).expect("a schema")
}

/// With these properties in its `spec`.
fn of_spec(properties: Value) -> Schema {
    let spec = json!({"type": "object", "properties": properties});
    schema(json!({"type": "object", "properties": {"spec": spec}}))
}

fn wrong(schema: &Schema, object: Value) -> Vec<String> {
    let mut causes = Causes::default();
    schema.check(&object, &mut causes);
    causes.into_list()
}

/// What is wrong with the field `a` of `spec`.
#[track_caller]
fn refused(property: Value, value: Value, expected: &[&str]) {
    let found = wrong(&of_spec(json!({"a": property})), json!({"spec": {"a": value}}));
    assert_eq!(found, expected);
}

/// The schema of the CronTab that upstream's documentation defines.
fn cron_tab() -> Schema {
    of_spec(json!({
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "image": {"type": "string"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
    }))
}

#[test]
fn what_upstreams_documentation_refuses_is_refused_in_its_words() {
    let object = json!({"spec": {"cronSpec": "* * * *", "image": "a", "replicas": 15}});
    let found = wrong(&cron_tab(), object);
    assert_eq!(
        found,
        [
            "spec.cronSpec: Invalid value: \"* * * *\": spec.cronSpec in body should match \
         '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$'",
            "spec.replicas: Invalid value: 15: spec.replicas in body should be less than or equal to 10",
        ]
    );
    let right = json!({"spec": {"cronSpec": "* * * * */5", "image": "a", "replicas": 5}});
    assert!(wrong(&cron_tab(), right).is_empty());
}

#[test]
fn each_kind_of_value_has_its_limits() {
    let least = json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true});
    let why = "spec.a: Invalid value: 0.5: spec.a in body should be greater than 0.5";
    refused(least, json!(0.5), &[why]);
    let factor = json!({"type": "integer", "multipleOf": 3});
    let why = "spec.a: Invalid value: 7: spec.a in body should be a multiple of 3";
    refused(factor, json!(7), &[why]);
    let short = json!({"type": "string", "minLength": 2, "maxLength": 3});
    refused(short.clone(), json!("äöü"), &[]);
    let why = "spec.a: Too long: may not be more than 3 bytes";
    refused(short.clone(), json!("abcd"), &[why]);
    let why = "spec.a: Invalid value: \"a\": spec.a in body should be at least 2 chars long";
    refused(short, json!("a"), &[why]);
    let words = json!({"type": "string", "enum": ["x", "y"]});
    let why = "spec.a: Unsupported value: \"z\": supported values: \"x\", \"y\"";
    refused(words, json!("z"), &[why]);
    let numbers = json!({"type": "integer", "enum": [1, 2]});
    refused(numbers.clone(), json!(2), &[]);
    refused(numbers, json!(3), &["spec.a: Unsupported value: 3: supported values: \"1\", \"2\""]);
    let list = json!({"type": "array", "items": {"type": "integer"}, "minItems": 2,
                      "maxItems": 3, "uniqueItems": true});
    let why = "spec.a: Invalid value: 1: spec.a in body should have at least 2 items";
    refused(list.clone(), json!([1]), &[why]);
    let why = "spec.a: Too many: 4: must have at most 3 items";
    refused(list.clone(), json!([1, 2, 3, 4]), &[why]);
    refused(
        list,
        json!([1, "b", 1]),
        &[
            "spec.a[1]: Invalid value: \"string\": spec.a[1] in body must be of type integer: \
         \"string\"",
            "spec.a: Invalid value: \"\": spec.a in body shouldn't contain duplicates",
        ],
    );
    let map = json!({"type": "object", "additionalProperties": {"type": "string"},
                     "minProperties": 1, "maxProperties": 2});
    let why = "spec.a: Invalid value: 0: spec.a in body should have at least 1 properties";
    refused(map.clone(), json!({}), &[why]);
    refused(
        map.clone(),
        json!({"k": 1}),
        &["spec.a.k: Invalid value: \"integer\": spec.a.k in body must be of type string: \
         \"integer\""],
    );
    let why = "spec.a: Too many: 3: must have at most 2 items";
    refused(map, json!({"a": "", "b": "", "c": ""}), &[why]);
    let both = json!({"type": "object", "required": ["x", "y"], "properties": {
        "x": {"type": "string"}, "y": {"type": "string"}}});
    refused(both, json!({"x": "1"}), &["spec.a.y: Required value"]);
}

#[test]
fn types_are_told_as_they_are() {
    let wrong = |wanted: &str, is: &str| {
        format!("spec.a: Invalid value: {is:?}: spec.a in body must be of type {wanted}: {is:?}")
    };
    for (kind, value, is) in [
        ("string", json!(1), "integer"),
        ("integer", json!("1"), "string"),
        ("integer", json!(1.5), "number"),
        ("boolean", json!({}), "object"),
        ("object", json!([]), "array"),
        ("array", json!(true), "boolean"),
        ("string", json!(null), "null"),
    ] {
        let property = json!({"type": kind, "items": {"type": "string"}});
        refused(property, value, &[&wrong(kind, is)]);
    }
    // A number without a fraction is a whole one, and a whole one a number.
    refused(json!({"type": "integer"}), json!(2.0), &[]);
    refused(json!({"type": "number"}), json!(2), &[]);
    refused(json!({"type": "string", "nullable": true}), json!(null), &[]);
    let either = json!({"x-kubernetes-int-or-string": true});
    refused(either.clone(), json!("50%"), &[]);
    refused(either.clone(), json!(5), &[]);
    refused(either, json!(true), &[&wrong("integer,string", "boolean")]);
}

#[test]
fn formats_hold_or_do_not() {
    for (format, right, other) in [
        ("date-time", "2024-01-01T00:00:00Z", "2024-01-01"),
        ("date", "2024-02-29", "2023-02-29"),
        ("duration", "1h30m5.5s", "1 hour"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "fd00::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("mac", "00:00:5e:00:53:01", "00:00:5e"),
        ("byte", "aGk=", "a?"),
        ("uuid", "00000000-0000-0000-0000-000000000000", "0000"),
        ("uuid4", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("hostname", "a-b.example", "-a"),
        ("email", "a.b@example.com", "a@"),
        ("uri", "https://example.com/x", "example"),
        ("hexcolor", "#FFFFFF", "#FFFG"),
    ] {
        let property = json!({"type": "string", "format": format});
        refused(property.clone(), json!(right), &[]);
        let why = format!(
            "spec.a: Invalid value: {other:?}: spec.a in body must be of type {format}: {other:?}"
        );
        refused(property, json!(other), &[&why]);
    }
    refused(json!({"type": "string", "format": "unheard-of"}), json!("x"), &[]);
    refused(json!({"type": "integer", "format": "int32"}), json!(5), &[]);
}

#[test]
fn junctors_tell_what_comes_closest() {
    let any = json!({"type": "object", "properties": {"x": {"type": "string"},
        "y": {"type": "string"}}, "anyOf": [{"required": ["x"]}, {"required": ["y"]}]});
    refused(any.clone(), json!({"y": "1"}), &[]);
    refused(
        any,
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec.a\" must validate at least one schema (anyOf)",
            "spec.a.x: Required value",
        ],
    );
    let one = json!({"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 7}]});
    refused(one.clone(), json!(3), &[]);
    refused(
        one,
        json!(6),
        &["<nil>: Invalid value: \"\": \"spec.a\" must validate one and only one schema (oneOf). \
         Found 2 valid alternatives"],
    );
    let none = json!({"type": "integer", "oneOf": [{"minimum": 5}]});
    refused(
        none,
        json!(1),
        &[
            "<nil>: Invalid value: \"\": \"spec.a\" must validate one and only one schema (oneOf). \
         Found none valid",
            "spec.a: Invalid value: 1: spec.a in body should be greater than or equal to 5",
        ],
    );
    let all = json!({"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 7}]});
    refused(
        all,
        json!(9),
        &[
            "spec.a: Invalid value: 9: spec.a in body should be less than or equal to 7",
            "<nil>: Invalid value: \"\": \"spec.a\" must validate all the schemas (allOf)",
        ],
    );
    let not = json!({"type": "integer", "not": {"minimum": 5}});
    refused(not.clone(), json!(4), &[]);
    let why = "<nil>: Invalid value: \"\": \"spec.a\" must not validate the schema (not)";
    refused(not, json!(5), &[why]);
}

#[test]
fn lists_have_each_element_once() {
    let set = json!({"type": "array", "items": {"type": "string"},
                     "x-kubernetes-list-type": "set"});
    refused(set, json!(["x", "y", "x", "x"]), &["spec.a[2]: Duplicate value: \"x\""]);
    let map = json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name", "port"],
        "items": {"type": "object", "properties": {"name": {"type": "string"},
                  "port": {"type": "integer"}}}});
    let items = json!([{"name": "x", "port": 1}, {"name": "x", "port": 2}, {"name": "x"}]);
    refused(map.clone(), items, &[]);
    let twice = json!([{"name": "x", "port": 1}, {"name": "x", "port": 1}]);
    let why = "spec.a[1]: Duplicate value: map[string]interface {}{\"name\":\"x\", \"port\":1}";
    refused(map, twice, &[why]);
}

#[test]
fn what_is_not_known_is_taken_out_and_told() {
    let schema = of_spec(json!({
        "known": {"type": "string"},
        "list": {"type": "array", "items": {"type": "object",
                 "properties": {"x": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object",
                "properties": {"x": {"type": "string"}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                 "properties": {"closed": {"type": "object"}}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true,
                "properties": {"spec": {"type": "object"}}},
    }));
    let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"},
        "other": 1, "spec": {"known": "k", "odd": {"x": 1},
        "list": [{"x": "1", "y": "2"}], "map": {"any": {"x": "1", "y": 2}},
        "open": {"any": {"thing": 1}, "closed": {"thing": 1}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {}},
                "spec": {"x": 1}, "status": {}}}});
    let mut pruned = schema.prune(&mut object);
    pruned.sort();
    let told = [
        "other",
        "spec.list[0].y",
        "spec.map.any.y",
        "spec.odd",
        "spec.open.closed.thing",
        "spec.pod.spec.x",
        "spec.pod.status",
    ];
    assert_eq!(pruned, told);
    let expected = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a"},
        "spec": {"known": "k", "list": [{"x": "1"}], "map": {"any": {"x": "1"}},
        "open": {"any": {"thing": 1}, "closed": {}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {}}, "spec": {}}}});
    assert_eq!(object, expected);
}

#[test]
fn what_was_left_out_gets_its_default() {
    let inner = json!({"type": "object", "properties": {"z": {"type": "integer", "default": 7}}});
    let schema = of_spec(json!({
        "x": {"type": "string", "default": "d"},
        "null": {"type": "string", "nullable": true, "default": "d"},
        "gone": {"type": "string"},
        "object": {"type": "object", "default": {}, "properties": inner["properties"]},
        "list": {"type": "array", "items": inner},
        "map": {"type": "object", "additionalProperties": inner},
    }));
    let mut object = json!({"spec": {"x": null, "null": null, "gone": null, "list": [{}],
                                     "map": {"a": {"z": 1}, "b": {}, "c": null}}});
    schema.drop_nulls(&mut object);
    schema.fill(&mut object);
    let expected = json!({"spec": {"x": "d", "null": null, "object": {"z": 7}, "list": [{"z": 7}],
                                   "map": {"a": {"z": 1}, "b": {"z": 7}}}});
    assert_eq!(object, expected);
    // Nothing is put where there is nothing.
    let mut empty = json!({});
    schema.fill(&mut empty);
    assert_eq!(empty, json!({}));
}

#[test]
fn a_schema_says_outside_of_junctors_what_there_is() {
    let path = "spec.validation.openAPIV3Schema";
    let told = |value: Value| schema(value).structural(path);
    assert!(cron_tab().structural(path).is_empty());
    let typeless = json!({"properties": {"a": {"type": "array"},
        "b": {"type": "array", "items": {}}, "c": {}}});
    assert_eq!(
        told(typeless),
        [
            "spec.validation.openAPIV3Schema.properties[a].items: Required value: must be specified",
            "spec.validation.openAPIV3Schema.properties[b].items.type: Required value: must not be \
         empty for specified array items",
            "spec.validation.openAPIV3Schema.properties[c].type: Required value: must not be empty \
         for specified object fields",
            "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root",
        ]
    );
    let nested = json!({"type": "object", "properties": {"a": {"type": "string"}},
        "anyOf": [{"type": "object", "description": "x", "properties": {"b": {"minLength": 1}}}]});
    assert_eq!(
        told(nested),
        [
            "spec.validation.openAPIV3Schema.anyOf[0].description: Forbidden: must be empty to be \
         structural",
            "spec.validation.openAPIV3Schema.anyOf[0].type: Forbidden: must be empty to be structural",
            "spec.validation.openAPIV3Schema.properties[b]: Required value: because it is defined in \
         spec.validation.openAPIV3Schema.anyOf[0].properties[b]",
        ]
    );
    let either = json!({"x-kubernetes-int-or-string": true,
                        "anyOf": [{"type": "integer"}, {"type": "string"}]});
    assert!(told(json!({"type": "object", "properties": {"a": either}})).is_empty());
    let meta = |properties: Value| {
        json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": properties}}})
    };
    assert!(told(meta(json!({"name": {"type": "string", "maxLength": 5}}))).is_empty());
    assert_eq!(
        told(meta(json!({"labels": {"type": "object"}}))),
        ["spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify \
         anything other than name and generateName, but metadata is implicitly specified",]
    );
    let pattern =
        json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}});
    let why = &told(pattern)[0];
    let begins = "spec.validation.openAPIV3Schema.properties[a].pattern: Invalid value: \"(\": \
                  must be a valid regular expression, but isn't: ";
    assert!(why.starts_with(begins), "{why}");
}
