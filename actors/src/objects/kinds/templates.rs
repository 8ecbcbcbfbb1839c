//! Templates of pods in the specs of what makes pods.

use super::Fields;
use crate::objects::validation::{self, Causes};
use crate::objects::{LabelSelector, pod_spec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use std::collections::BTreeMap;

/// Sets what a template leaves out, if there is one.
pub fn complete(fields: &mut Fields, path: &str) {
    if fields.at(path).is_some_and(Value::is_object) {
        let mut template: PodTemplateSpec = fields.part(path);
        pod_spec::defaults(template.spec.get_or_insert_default());
        fields.set_part(path, &template);
    }
}

pub fn pod(path: &str, fields: &Fields, causes: &mut Causes) {
    let template: PodTemplateSpec = fields.part(path);
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    validation::labels(&format!("{path}.metadata.labels"), labels, causes);
    match &template.spec {
        Some(spec) => validation::template_spec(&format!("{path}.spec"), spec, causes),
        None => causes.required(format_args!("{path}.spec.containers"), ""),
    }
}

/// The selector, and the template that makes what it selects.
pub fn selected(fields: &Fields, causes: &mut Causes) {
    let selector: LabelSelector = fields.part("spec.selector");
    let template: Option<PodTemplateSpec> = fields.part("spec.template");
    validation::selector(&selector, template.as_ref(), causes);
    not_negative(
        fields,
        &["spec.replicas", "spec.minReadySeconds", "spec.revisionHistoryLimit"],
        causes,
    );
}

pub fn not_negative(fields: &Fields, paths: &[&str], causes: &mut Causes) {
    for path in paths {
        if let Some(number) = fields.number(path).filter(|number| *number < 0) {
            causes.invalid(path, number, "must be greater than or equal to 0");
        }
    }
}

/// A selector by equality takes the template's labels if it is left out.
pub fn labels_select(fields: &mut Fields) {
    let labels: BTreeMap<String, String> = fields.part("spec.template.metadata.labels");
    if fields.map("spec.selector").next().is_none() && !labels.is_empty() {
        fields.set_part("spec.selector", &labels);
    }
}

/// A selector by sets must stay as it is.
pub fn immutable_selector(new: &Fields, old: &Fields, causes: &mut Causes) {
    let selector = |fields: &Fields| -> LabelSelector { fields.part("spec.selector") };
    let now = selector(new);
    if now != selector(old) {
        let value = validation::golang::label_selector(&now);
        causes.invalid("spec.selector", value, "field is immutable");
    }
}

/// What must stay as it is.
pub fn immutable(new: &Fields, old: &Fields, paths: &[&str], causes: &mut Causes) {
    for path in paths {
        if new.at(path) != old.at(path) {
            let value = new.at(path).cloned().unwrap_or_default();
            causes.invalid(path, value, "field is immutable");
        }
    }
}
