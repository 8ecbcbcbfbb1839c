//! Defaults (`pkg/apiserver/schema/defaulting`).

use super::Schema;
use crate::objects::validation::Causes;
use serde_json::Value;

impl Schema {
    /// Puts in the defaults of what was left out, or is null and must not be.
    pub fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, property) in &self.properties {
                    let Some(default) = property.default.as_ref().filter(|one| !one.is_null())
                    else {
                        continue;
                    };
                    let said = map.get(name);
                    if said.is_none_or(|said| said.is_null() && !property.nullable) {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in map {
                    match (self.properties.get(name), self.additional()) {
                        (Some(property), _) => property.fill(value),
                        (None, Some(each)) => each.fill_one(value),
                        (None, None) => {}
                    }
                }
            }
            Value::Array(items) => {
                if let Some(each) = &self.items {
                    items.iter_mut().for_each(|item| each.fill_one(item));
                }
            }
            _ => {}
        }
    }

    /// One of many.
    fn fill_one(&self, value: &mut Value) {
        if value.is_null() && !self.nullable {
            *value = self.default.clone().unwrap_or_default();
        }
        self.fill(value);
    }

    /// Takes out what is null and must not be, and has no default
    /// (`PruneNonNullableNullsWithoutDefaults`).
    pub fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|name, value| {
                    let schema = self.properties.get(name).or_else(|| self.additional());
                    let Some(schema) = schema else { return true };
                    schema.drop_nulls(value);
                    let defaulted = schema.default.as_ref().is_some_and(|one| !one.is_null());
                    !value.is_null() || schema.nullable || defaulted
                });
            }
            Value::Array(items) => {
                if let Some(each) = &self.items {
                    items.iter_mut().for_each(|item| each.drop_nulls(item));
                }
            }
            _ => {}
        }
    }

    /// Whether each default is what its schema allows, and nothing besides (`ValidateDefaults`).
    /// `path` is the schema's own.
    pub fn check_defaults(&self, path: &str, causes: &mut Causes) {
        if let Some(default) = &self.default {
            let mut pruned = default.clone();
            if default.is_object() && !self.prune(&mut pruned).is_empty() {
                let why = "must not have unknown fields";
                causes.invalid(format_args!("{path}.default"), default, why);
            }
            self.check_at(default, &format!("{path}.default"), causes);
        }
        if let Some(items) = &self.items {
            items.check_defaults(&format!("{path}.items"), causes);
        }
        for (name, property) in &self.properties {
            property.check_defaults(&format!("{path}.properties[{name}]"), causes);
        }
    }
}
