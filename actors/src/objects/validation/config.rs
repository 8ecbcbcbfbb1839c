//! Secrets and ConfigMaps, and amounts that stand by a name (pkg/apis/core/validation:
//! `ValidateSecret`, `ValidateConfigMap`).

use super::Causes;
use super::amounts::{FORM, NEGATIVE};
use crate::objects::kinds::Fields;
use crate::objects::quantity::thousandths;
use crate::objects::{ConfigMap, names};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// `MaxSecretSize`, and of a ConfigMap: bytes.
const LARGEST: usize = 1 << 20;

/// What is written as text is kept as data.
pub fn complete_secret(fields: &mut Fields) {
    fields.default("type", "Opaque");
    let texts = fields.0.remove("stringData");
    let texts = texts.as_ref().and_then(Value::as_object).into_iter().flatten();
    let texts: Vec<_> =
        texts.map(|(key, text)| (key.clone(), text.as_str().unwrap_or_default())).collect();
    if texts.is_empty() {
        // In Go an empty map is left out (`omitempty`).
        if fields.map("data").next().is_none() {
            fields.0.remove("data");
        }
        return;
    }
    let mut data = fields.at("data").cloned().unwrap_or_else(|| json!({}));
    for (key, text) in texts {
        let bytes = ByteString(text.as_bytes().to_vec());
        data[key] = serde_json::to_value(bytes).unwrap_or_default();
    }
    fields.set("data", data);
}

pub fn secret(fields: &Fields, causes: &mut Causes) {
    let mut size = 0;
    for (key, value) in fields.map("data") {
        keyed("data", key, causes);
        // Four characters stand for three bytes.
        size += value.as_str().unwrap_or_default().trim_end_matches('=').len() * 3 / 4;
    }
    too_long("data", size, causes);
    let has = |key: &str| fields.map("data").any(|(name, _)| name == key);
    let needed: &[&str] = match fields.text("type") {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            &["username", "password"]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| !has(key)) {
        causes.required(format_args!("data[{key}]"), "");
    }
}

pub fn secret_update(new: &Fields, old: &Fields, causes: &mut Causes) {
    if new.text("type") != old.text("type") {
        let value = format_args!("{:?}", new.text("type"));
        causes.invalid("type", value, "field is immutable");
    }
    if old.flag("immutable") {
        let why = "field is immutable when `immutable` is set";
        if !new.flag("immutable") {
            causes.forbidden("immutable", why);
        }
        if new.at("data") != old.at("data") {
            causes.forbidden("data", why);
        }
    }
}

pub fn config_map(new: &ConfigMap, old: Option<&ConfigMap>, causes: &mut Causes) {
    let texts = new.data.iter().flatten();
    let bytes = new.binary_data.iter().flatten();
    let mut size = 0;
    for (key, value) in texts {
        keyed("data", key, causes);
        if new.binary_data.as_ref().is_some_and(|all| all.contains_key(key)) {
            let why = "duplicate of key present in binaryData";
            causes.invalid(format_args!("data[{key}]"), format_args!("{key:?}"), why);
        }
        size += value.len();
    }
    for (key, value) in bytes {
        keyed("binaryData", key, causes);
        size += value.0.len();
    }
    too_long("", size, causes);
    let Some(old) = old.filter(|old| old.immutable == Some(true)) else { return };
    let why = "field is immutable when `immutable` is set";
    if new.immutable != Some(true) {
        causes.forbidden("immutable", why);
    }
    if new.data != old.data {
        causes.forbidden("data", why);
    }
    if new.binary_data != old.binary_data {
        causes.forbidden("binaryData", why);
    }
}

fn keyed(field: &str, key: &str, causes: &mut Causes) {
    for why in names::config_key(key) {
        causes.invalid(format_args!("{field}[{key}]"), format_args!("{key:?}"), why);
    }
}

fn too_long(field: &str, size: usize, causes: &mut Causes) {
    if size > LARGEST {
        causes.too_long(field, LARGEST);
    }
}

/// Amounts by the names of what they are of.
pub fn quantities<'a>(
    field: &str,
    amounts: impl Iterator<Item = (&'a String, &'a Value)>,
    causes: &mut Causes,
) {
    for (name, amount) in amounts {
        let text = amount.as_str().unwrap_or_default();
        let why = match thousandths(text) {
            None => FORM,
            Some(..0) => NEGATIVE,
            Some(_) => continue,
        };
        causes.invalid(format_args!("{field}[{name}]"), format_args!("{text:?}"), why);
    }
}
