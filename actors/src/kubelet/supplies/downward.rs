//! What a pod is told of itself: its fields, and what its containers ask for
//! (pkg/fieldpath/fieldpath.go, pkg/api/v1/resource/helpers.go).

use crate::kubelet::env::{Facts, field_value};
use crate::objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, ResourceFieldSelector};
use std::collections::BTreeMap;

/// The content of one file. The error says what is wrong with what it asks for.
pub fn file(item: &DownwardAPIVolumeFile, facts: &Facts<'_>) -> Result<String, String> {
    if let Some(field) = &item.field_ref {
        let path = field.field_path.as_str();
        let whole = match path {
            "metadata.labels" => Some(&facts.pod.meta.labels),
            "metadata.annotations" => Some(&facts.pod.meta.annotations),
            _ => None,
        };
        return match whole {
            Some(map) => Ok(lines(map.as_ref())),
            None => field_value(path, facts).ok_or_else(|| unsupported(path)),
        };
    }
    match &item.resource_field_ref {
        Some(field) => resource(field, None, facts),
        None => Err(format!("{} has no source", item.path)),
    }
}

pub fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// `FormatMap`: a line each, the value in quotes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let all = map.into_iter().flatten();
    let lines: Vec<String> = all.map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// As Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An amount in so many times its divisor, rounded up. A limit that is not set is what the node
/// has. `own` is the container that asks, if one does.
pub fn resource(
    field: &ResourceFieldSelector,
    own: Option<&Container>,
    facts: &Facts<'_>,
) -> Result<String, String> {
    let spec = facts.spec;
    let name = field.container_name.as_deref().filter(|name| !name.is_empty());
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let container = match name {
        Some(name) => all.find(|container| container.name == name),
        None => own,
    };
    let container =
        container.ok_or_else(|| format!("container {} not found", name.unwrap_or_default()))?;
    let wrong = || format!("unsupported container resource : {}", field.resource);
    let (list, resource) = field.resource.split_once('.').ok_or_else(wrong)?;
    let given = container.resources.as_ref();
    let given = match list {
        "limits" => given.and_then(|given| given.limits.as_ref()),
        "requests" => given.and_then(|given| given.requests.as_ref()),
        _ => return Err(wrong()),
    };
    let node = match (list, resource) {
        ("limits", "cpu") => facts.cpu_millis,
        ("limits", "memory") => facts.memory_bytes.saturating_mul(1000),
        (_, "cpu" | "memory" | "ephemeral-storage") => 0,
        (_, other) if other.starts_with("hugepages-") => 0,
        _ => return Err(wrong()),
    };
    let thousandths = |text: &str| Quantity::parse(text).map(Quantity::thousandths);
    let amount = given.and_then(|list| thousandths(&list.get(resource)?.0));
    // A request is nothing if it is not made; a limit of nothing is none.
    let amount = amount.and_then(|amount| u64::try_from(amount).ok());
    let amount = match list {
        "limits" => amount.filter(|amount| *amount > 0).unwrap_or(node),
        _ => amount.unwrap_or(0),
    };
    let divisor = field.divisor.as_ref().and_then(|divisor| thousandths(&divisor.0));
    let divisor = divisor.and_then(|divisor| u64::try_from(divisor).ok());
    let divisor = divisor.filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok(amount.div_ceil(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lines_as_go_quotes_them() {
        let map = [("a", "x\"y"), ("b", "1\n2"), ("c", "ü")];
        let map = map.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        assert_eq!(lines(Some(&map)), "a=\"x\\\"y\"\nb=\"1\\n2\"\nc=\"ü\"");
        assert_eq!(lines(None), "");
    }
}
