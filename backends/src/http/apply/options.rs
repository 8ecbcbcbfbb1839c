//! What a write's query says of who writes, and how it is applied (apimachinery's
//! `ValidatePatchOptions`, apiserver's `managerOrUserAgent`).

use crate::http::body;
use crate::http::route::Query;
use crate::http::status::Failure;
use serde_json::Value;

pub const MEDIA_TYPE: &str = "application/apply-patch+yaml";
/// Bytes of a manager's name.
const LONGEST: usize = 128;

/// The name of who writes: as the query says, or how the client's program is called. `options` is
/// the kind of the write's options.
pub fn manager(query: &Query, agent: &str, options: &str) -> Result<String, Failure> {
    let said = query.text("fieldManager");
    if said.is_empty() {
        let program = agent.split('/').next().unwrap_or_default();
        let mut name = String::new();
        for c in program.chars().filter(|c| !c.is_control()) {
            if name.len() + c.len_utf8() > LONGEST {
                break;
            }
            name.push(c);
        }
        return Ok(name);
    }
    if said.len() > LONGEST {
        let cause = format!("fieldManager: Too long: may not be more than {LONGEST} bytes");
        return Err(Failure::invalid_options(options, &cause));
    }
    if let Some((at, c)) = said.char_indices().find(|(_, c)| c.is_control()) {
        let code = u32::from(c);
        let cause = format!(
            "fieldManager: Invalid value: {said:?}: invalid character U+{code:04X} (at position {at})"
        );
        return Err(Failure::invalid_options(options, &cause));
    }
    Ok(said.to_owned())
}

/// Whether fields are to be taken from those who own them. Only who applies may ask for it, and
/// must say its name.
pub fn force(query: &Query, applies: bool) -> Result<bool, Failure> {
    let cause = match applies {
        true if query.text("fieldManager").is_empty() => {
            "fieldManager: Required value: is required for apply patch"
        }
        false if query.is_set("force") => {
            "force: Forbidden: may not be specified for non-apply patch"
        }
        _ => return Ok(query.flag("force")),
    };
    Err(Failure::invalid_options("PatchOptions", cause))
}

/// A configuration: YAML, of which JSON is a part, of this type (group, version, kind).
pub fn config(bytes: &[u8], expected: (&str, &str, &str)) -> Result<Value, Failure> {
    let json = serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object);
    let config = json.map_or_else(|| body::value(bytes, "application/yaml"), Ok);
    let config = config.map_err(|failure| {
        Failure::bad_request(format!("error decoding YAML: {}", failure.message))
    })?;
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    let (group, version) = match text("apiVersion").split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", text("apiVersion")),
    };
    let theirs = (group, version, text("kind"));
    if theirs != expected {
        return Err(Failure::bad_request(format!("invalid object type: {}", type_name(theirs))));
    }
    // Whether it is null or not there.
    if config["metadata"]["managedFields"].is_null() {
        return Ok(config);
    }
    Err(Failure::bad_request("metadata.managedFields must be nil"))
}

/// As Go prints it.
pub fn type_name((group, version, kind): (&str, &str, &str)) -> String {
    format!("{group}/{version}, Kind={kind}")
}
