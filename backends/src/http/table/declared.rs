//! The columns that a definition declares (apiextensions-apiserver
//! `pkg/registry/customresource/tableconvertor`).

use super::path::{Path, text};
use crate::http::read::Show;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::objects::Object;
use kubesim_actors::objects::definition::Printed;
use kubesim_actors::objects::kinds::texts;
use kubesim_runtime::Wall;
use serde_json::{Value, json};

/// Those up to the first whose path is not understood, as upstream's convertor has it.
fn understood(columns: &[Printed]) -> impl Iterator<Item = (&Printed, Path)> {
    columns.iter().map_while(|column| Some((column, Path::parse(&column.json_path)?)))
}

pub fn definitions(columns: &[Printed]) -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name",
                      "description": "", "priority": 0});
    let declared = understood(columns).map(|(column, _)| {
        let path = &column.json_path;
        let description = match column.description.as_str() {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            said => said.to_owned(),
        };
        json!({"name": column.name, "type": column.r#type, "format": column.format,
               "description": description, "priority": column.priority})
    });
    std::iter::once(name).chain(declared).collect()
}

pub fn cells(object: &Object, columns: &[Printed], show: &Show) -> Vec<Value> {
    let json = show.served.json(object);
    let name = Value::from(object.key.name.as_str());
    let declared =
        understood(columns).map(|(column, path)| cell(&column.r#type, path.first(&json), show.now));
    std::iter::once(name).chain(declared).collect()
}

fn cell(kind: &str, value: Option<&Value>, now: Wall) -> Value {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Value::Null };
    match kind {
        "string" => text(value).into(),
        "integer" => match (value.as_i64(), value.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => (number as i64).into(),
            _ => Value::Null,
        },
        "number" => value.as_f64().map(Value::from).unwrap_or_default(),
        "boolean" => value.as_bool().map(Value::from).unwrap_or_default(),
        "date" => match value.as_str() {
            Some(date) => match date.parse::<Timestamp>() {
                Ok(then) => texts::since(Some(&Time(then)), now).into(),
                Err(_) => "<invalid>".into(),
            },
            None => Value::Null,
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_cell_is_of_its_columns_type() {
        let now = Wall::from_unix_secs(1_700_000_000) + Duration::from_secs(60);
        let shown = |kind: &str, value: Value| cell(kind, Some(&value), now);
        assert_eq!(shown("string", json!(3)), "3");
        assert_eq!(shown("string", json!(["a", 1])), "[\"a\",1]");
        assert_eq!(shown("integer", json!(3.7)), 3);
        assert_eq!(shown("integer", json!("3")), Value::Null);
        assert_eq!(shown("number", json!(3)), 3.0);
        assert_eq!(shown("boolean", json!(true)), true);
        assert_eq!(shown("date", json!("2023-11-14T22:13:20Z")), "60s");
        assert_eq!(shown("date", json!("yesterday")), "<invalid>");
        assert_eq!(cell("string", None, now), Value::Null);
    }
}
