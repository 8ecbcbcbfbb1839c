//! `events.k8s.io/v1`: events of the core group under other names (kubernetes
//! `pkg/apis/events/v1/conversion.go`), and stricter (`pkg/apis/core/validation/events.go`).

use super::Other;
use k8s_openapi::api::events::v1::Event as EventV1;
use kubesim_actors::objects::validation::Causes;
use kubesim_actors::objects::{Event, Kind, Object, names, retyped};
use serde_json::{Map, Value, json};

pub static V1: Other = Other {
    kind: Kind::Event,
    api_version: "events.k8s.io/v1",
    retyped: retyped::<EventV1>,
    from_held: |event| rename(event, |(held, ours)| (held, ours)),
    to_held: |event| rename(event, |(held, ours)| (ours, held)),
    fields: &[
        ("reason", "reason"),
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
        ("type", "type"),
    ],
    check,
};

/// As the core group calls a field, and as this one does.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(
    event: &mut Map<String, Value>,
    way: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    for (from, to) in NAMES.map(way) {
        if let Some(value) = event.remove(from) {
            event.insert(to.to_owned(), value);
        }
    }
}

/// Characters of a controller's instance, an action, a reason; and of a note.
const LONGEST: usize = 128;
const LONGEST_NOTE: usize = 1024;

fn check(new: &Object, old: Option<&Object>, causes: &mut Causes) {
    let Some(event) = new.event() else { return };
    if event.event_time.is_some() {
        reported(event, &new.key.namespace, causes);
    }
    match old.and_then(Object::event) {
        None => made(event, causes),
        Some(old) => changed(event, old, causes),
    }
}

/// What one that says when it happened has to say besides.
fn reported(event: &Event, namespace: &str, causes: &mut Causes) {
    let about = event.involved_object.namespace.as_deref().unwrap_or_default();
    if about.is_empty() && !["default", "kube-system"].contains(&namespace) {
        causes.invalid("involvedObject.namespace", "\"\"", "does not match event.namespace");
    }
    let controller = event.reporting_component.as_deref().unwrap_or_default();
    if controller.is_empty() {
        causes.required("reportingController", "");
    }
    for why in names::qualified(controller) {
        causes.invalid("reportingController", format_args!("{controller:?}"), why);
    }
    for (field, text) in [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ] {
        let text = text.as_deref().unwrap_or_default();
        if text.is_empty() {
            causes.required(field, "");
        }
        short(field, text, LONGEST, causes);
    }
    short("message", event.message.as_deref().unwrap_or_default(), LONGEST_NOTE, causes);
}

fn short(field: &str, text: &str, longest: usize, causes: &mut Causes) {
    if text.len() > longest {
        causes.invalid(field, "\"\"", format_args!("can have at most {longest} characters"));
    }
}

fn made(event: &Event, causes: &mut Causes) {
    series(event, causes);
    if event.event_time.is_none() {
        causes.required("eventTime", "");
    }
    let kind = event.type_.as_deref().unwrap_or_default();
    if !["Normal", "Warning"].contains(&kind) {
        causes.invalid("type", "\"\"", format_args!("has invalid value: {kind}"));
    }
    let source = event.source.as_ref();
    let source = source.is_some_and(|said| {
        [&said.component, &said.host].into_iter().flatten().any(|text| !text.is_empty())
    });
    for (field, said) in [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.is_some_and(|count| count != 0)),
        ("source", source),
    ] {
        if said {
            causes.invalid(field, "\"\"", "needs to be unset");
        }
    }
}

fn series(event: &Event, causes: &mut Causes) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or_default() < 2 {
        causes.invalid("series.count", "\"\"", "should be at least 2");
    }
    if series.last_observed_time.is_none() {
        causes.required("series.lastObservedTime", "");
    }
}

/// Of one that was told, only its series may change.
fn changed(new: &Event, old: &Event, causes: &mut Causes) {
    if new.series != old.series {
        series(new, causes);
    }
    let fields = |event: &Event| json!(event).as_object().cloned().unwrap_or_default();
    let (new, old) = (fields(new), fields(old));
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ] {
        if new.get(field) != old.get(field) {
            let value = new.get(field).cloned().unwrap_or_default();
            let shown = if field == "reportingComponent" { "reportingController" } else { field };
            causes.invalid(shown, value, "field is immutable");
        }
    }
}
