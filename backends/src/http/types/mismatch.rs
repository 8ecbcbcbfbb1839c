//! What is told of a value that its place's type cannot be read of, in the words of Go's decoder
//! (`UnmarshalTypeError` in sigs.k8s.io/json, which is encoding/json's).

use super::{Field, Many, Place, Type, quantities};
use kubesim_actors::objects::{Path, Step};
use serde_json::Value;

/// Of an object that stands at `place` and that cannot be read because of what is at the path in
/// it. `None` where Go has no word of its own.
pub fn mismatch(place: Place<'_>, object: &Value, path: &Path) -> Option<String> {
    let (mut here, mut value) = (place, object);
    let (mut outer, mut names) = (None, Vec::new());
    for step in &path.0 {
        match step {
            Step::Field(name) => {
                if let Some(message) = here.message() {
                    outer = Some(message.name);
                    names.push(name.as_str());
                }
                (here, value) = (here.field(name), &value[name]);
            }
            Step::Item(index) => (here, value) = (here.element(), &value[*index]),
        }
    }
    let (field, wanted) = match here {
        Place::Field(field) => (field, all(field)),
        Place::Each(field) => (field, each(field)),
        _ => return None,
    };
    let whole = field.many == Many::One || matches!(here, Place::Each(_));
    let word = word(value, whole && field.kind == Type::Int);
    match field.kind {
        Type::Quantity if whole => return Some(quantities::FORM.to_owned()),
        // Those have readers of their own, which know of no place.
        Type::IntOrString if whole => return Some(simple(&word, "int32")),
        Type::Time | Type::MicroTime if whole && !value.is_string() => {
            return Some(simple(&word, "string"));
        }
        Type::Time | Type::MicroTime | Type::Json if whole => return None,
        // A text, but not of bytes.
        Type::Bytes if whole && value.is_string() => return None,
        _ => {}
    }
    let outer = outer?.rsplit('.').next()?;
    let names = names.join(".");
    Some(format!(
        "json: cannot unmarshal {word} into Go struct field {outer}.{names} of type {wanted}"
    ))
}

fn simple(word: &str, wanted: &str) -> String {
    format!("json: cannot unmarshal {word} into Go value of type {wanted}")
}

fn word(value: &Value, for_number: bool) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        // One with a fraction, or too large.
        Value::Number(number) if for_number => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

/// What Go calls the type of a field.
fn all(field: &Field) -> String {
    if let Some(go) = field.go {
        return go.to_owned();
    }
    let before = match field.many {
        Many::One => "",
        Many::List => "[]",
        Many::Map => "map[string]",
    };
    format!("{before}{}", one(field.kind))
}

/// What Go calls the type of one of what a field has many of.
fn each(field: &Field) -> String {
    let of_named = |go: &'static str| go.strip_prefix("[]").or(go.strip_prefix("map[string]"));
    field.go.and_then(of_named).unwrap_or(one(field.kind)).to_owned()
}

fn one(kind: Type) -> &'static str {
    match kind {
        Type::String => "string",
        Type::Bool => "bool",
        Type::Int => "int32",
        Type::Bytes => "[]uint8",
        Type::Time => "v1.Time",
        Type::MicroTime => "v1.MicroTime",
        Type::Quantity => "resource.Quantity",
        Type::IntOrString => "intstr.IntOrString",
        Type::Json => "runtime.RawExtension",
        Type::Strings => "[]string",
        Type::Message(name) => name.rsplit('/').next().unwrap_or(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::versions::Served;
    use kubesim_actors::objects::Kind;
    use serde_json::json;

    /// What is told of an object of which one value is not of its type.
    fn told(kind: Kind, value: Value) -> String {
        let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.name(),
                                "metadata": {"name": "a"}});
        object.as_object_mut().expect("fields").extend(value.as_object().cloned().expect("fields"));
        let served = Served::held(kind);
        let (read, _) = served.read(&object);
        let (path, why) = read.err().unwrap_or_else(|| panic!("{object} is read"));
        mismatch(served.place(), &object, &path).unwrap_or_else(|| why.to_string())
    }

    #[test]
    fn a_value_of_another_type_is_told_as_go_does() {
        let of = |what: &str, field: &str, wanted: &str| {
            format!("json: cannot unmarshal {what} into Go struct field {field} of type {wanted}")
        };
        let pod = |container: Value| json!({"spec": {"containers": [container]}});
        for (kind, value, expected) in [
            (
                Kind::Deployment,
                json!({"spec": {"replicas": "two"}}),
                of("string", "DeploymentSpec.spec.replicas", "int32"),
            ),
            (
                Kind::Deployment,
                json!({"spec": {"replicas": 1.5}}),
                of("number 1.5", "DeploymentSpec.spec.replicas", "int32"),
            ),
            (
                Kind::Pod,
                json!({"spec": {"containers": {"name": "c"}}}),
                of("object", "PodSpec.spec.containers", "[]v1.Container"),
            ),
            (
                Kind::Pod,
                pod(json!({"name": "c", "command": ["a", 1]})),
                of("number", "Container.spec.containers.command", "string"),
            ),
            (
                Kind::Pod,
                pod(json!({"name": "c", "imagePullPolicy": true})),
                of("bool", "Container.spec.containers.imagePullPolicy", "v1.PullPolicy"),
            ),
            (
                Kind::Pod,
                pod(json!({"name": "c", "resources": {"limits": []}})),
                of(
                    "array",
                    "ResourceRequirements.spec.containers.resources.limits",
                    "v1.ResourceList",
                ),
            ),
            (Kind::ConfigMap, json!({"data": {"a": 1}}), of("number", "ConfigMap.data", "string")),
            (
                Kind::Service,
                json!({"spec": {"ports": [{"port": 80, "targetPort": true}]}}),
                "json: cannot unmarshal bool into Go value of type int32".to_owned(),
            ),
        ] {
            assert_eq!(told(kind, value), expected);
        }
    }
}
