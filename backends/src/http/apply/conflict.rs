//! What one is told whose configuration changes what others own (apimachinery
//! `pkg/util/managedfields/internal/conflict.go`): kubectl adds its help to it.

use super::managers::Manager;
use super::update::Conflict;
use crate::http::status::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn failure(conflicts: &[Conflict]) -> Failure {
    let mut by_manager: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut causes: Vec<Value> = Vec::new();
    for (manager, path) in conflicts {
        let (manager, path) = (named(manager), path.iter().map(ToString::to_string));
        let path: String = path.collect();
        causes.push(json!({"reason": "FieldManagerConflict",
            "message": format!("conflict with {manager}"), "field": path}));
        by_manager.entry(manager).or_default().push(path);
    }
    let told = match (conflicts, by_manager.first_key_value()) {
        ([_], Some((manager, paths))) => {
            format!("1 conflict: conflict with {manager}: {}", paths.join(""))
        }
        _ => {
            let lines = by_manager.iter().flat_map(|(manager, paths)| {
                let paths = paths.iter().map(|path| format!("- {path}"));
                std::iter::once(format!("conflicts with {manager}:")).chain(paths)
            });
            let lines: Vec<String> = lines.collect();
            format!("{} conflicts: {}", conflicts.len(), lines.join("\n"))
        }
    };
    let failure = Failure::new(409, "Conflict", format!("Apply failed with {told}"));
    Failure { details: Some(json!({"causes": causes})), ..failure }
}

fn named(manager: &Manager) -> String {
    let mut name = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        name = format!("{name} with subresource {:?}", manager.subresource);
    }
    if !manager.applies {
        name = format!("{name} using {}", manager.version);
    }
    name
}
