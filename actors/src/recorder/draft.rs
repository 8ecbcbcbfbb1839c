//! What is told, before it is known whether it is new; and what is written for it.

use crate::objects::{Body, Event, Key, Kind, Name, Object, Uid, micro_time, time};
use k8s_openapi::api::core::v1::{EventSeries, EventSource, ObjectReference};
use kubesim_runtime::Wall;
use serde_json::Value;
use std::sync::Arc;

/// What kind of news it is: its type, its reason, and for some what was being done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tidings {
    /// `Normal` or `Warning`.
    pub severity: &'static str,
    pub reason: Name,
    /// Of events in series only.
    pub action: &'static str,
}

impl Tidings {
    pub fn normal(reason: &str) -> Tidings {
        Tidings { severity: "Normal", reason: Name::from(reason), action: "" }
    }
    pub fn warning(reason: &str) -> Tidings {
        Tidings { severity: "Warning", reason: Name::from(reason), action: "" }
    }
    pub fn doing(self, action: &'static str) -> Tidings {
        Tidings { action, ..self }
    }
}

/// What an event is about: an object, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub kind: &'static str,
    pub api_version: &'static str,
    pub key: Key,
    pub uid: String,
    /// `spec.containers{web}`; empty for all of it.
    pub part: String,
}

impl From<&Object> for Reference {
    fn from(object: &Object) -> Reference {
        let kind = object.kind();
        let uid = object.uid;
        Reference {
            kind: kind.name(),
            api_version: kind.api_version(),
            key: object.key.clone(),
            uid: if uid == Uid::NONE { String::new() } else { uid.to_string() },
            part: String::new(),
        }
    }
}

impl From<&Arc<Object>> for Reference {
    fn from(object: &Arc<Object>) -> Reference {
        Reference::from(&**object)
    }
}

impl Reference {
    /// The Node of this name as its kubelet knows it: its uid is its name
    /// (`NodeRef` in cmd/kubelet/app/server.go).
    pub fn node(name: &str) -> Reference {
        let (kind, api_version) = (Kind::Node.name(), Kind::Node.api_version());
        let key = Key::cluster(name);
        Reference { kind, api_version, key, uid: name.to_owned(), part: String::new() }
    }

    /// A part of the object: `spec.containers{web}`.
    pub fn at(self, part: String) -> Reference {
        Reference { part, ..self }
    }

    /// All of the object, for what does not matter of which part it is told.
    pub(super) fn whole(&self) -> Reference {
        Reference { part: String::new(), ..self.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct Draft {
    pub component: String,
    pub host: String,
    pub about: Reference,
    pub what: Tidings,
    pub message: String,
    pub at: Wall,
    /// What its name ends with: nanoseconds since the epoch.
    pub stamp: i128,
}

/// What is written: the event as it is to be, and if it is there already, what changes.
#[derive(Clone, Debug)]
pub struct Record {
    pub object: Arc<Object>,
    pub patch: Option<Value>,
}

impl Draft {
    pub fn name(&self) -> String {
        format!("{}.{:x}", self.about.key.name, self.stamp)
    }

    fn reference(&self) -> ObjectReference {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let Reference { kind, api_version, key, uid, part } = &self.about;
        ObjectReference {
            api_version: some(api_version),
            kind: some(kind),
            namespace: some(&key.namespace),
            name: some(&key.name),
            uid: some(uid),
            field_path: some(part),
            resource_version: None,
        }
    }

    /// In the object's namespace, or in `default` of an object in none (`makeEvent`).
    fn object(&self, name: &str, event: Event) -> Arc<Object> {
        let namespace = match self.about.key.namespace.as_str() {
            "" => "default",
            other => other,
        };
        Arc::new(Object::new(Key::new(namespace, name), Body::Event(Arc::new(event))))
    }

    /// One that has happened so often since then (`makeEvent` of tools/record/event.go).
    pub fn counted(&self, name: &str, count: i32, first: Wall) -> Arc<Object> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let event = Event {
            involved_object: self.reference(),
            reason: some(&self.what.reason),
            message: some(&self.message),
            source: Some(EventSource { component: some(&self.component), host: some(&self.host) }),
            first_timestamp: Some(time(first)),
            last_timestamp: Some(time(self.at)),
            count: Some(count),
            type_: some(self.what.severity),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        };
        self.object(name, event)
    }

    /// One that is told by when it was, and its series if it was more than once
    /// (`makeEvent` of tools/events/event_recorder.go).
    pub fn in_series(&self, series: Option<EventSeries>) -> Arc<Object> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let event = Event {
            event_time: Some(micro_time(self.at)),
            series,
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(format!("{}-{}", self.component, self.host)),
            action: some(self.what.action),
            reason: some(&self.what.reason),
            involved_object: self.reference(),
            message: some(&self.message),
            type_: some(self.what.severity),
            ..Event::default()
        };
        self.object(&self.name(), event)
    }
}
