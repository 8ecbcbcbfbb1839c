//! The namespaces and the service that are there from the start, and the emptying of a namespace
//! that is being deleted.

use super::admission::SYSTEM_CLASSES;
use super::pending::Job;
use super::{ApiServer, errors};
use crate::objects::kinds::Fields;
use crate::objects::{
    Body, Key, Kind, Name, Object, ObjectMeta, Plain, ServiceSpec, ServiceStatus,
};
use crate::ports::api::{DeleteOptions, Request};
use crate::storage;
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubesim_runtime::Context;
use serde_json::Map;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Its uid is the cluster's.
pub const SYSTEM: &str = "kube-system";
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", SYSTEM];

type Ctx<'a> = Context<'a, ApiServer>;

fn kubernetes() -> Key {
    Key::new("default", "kubernetes")
}

impl ApiServer {
    /// Creates what is missing, at start and when somebody deleted it; once all is there, the
    /// server opens and takes what waited.
    pub(super) fn bootstrap(&mut self, ctx: &mut Ctx<'_>) {
        let Some(address) = self.services.first_address() else {
            return ctx.fail("the service network has no address to give");
        };
        let namespaces = NAMESPACES.map(|name| Object::new(Key::cluster(name), namespace()));
        let classes = SYSTEM_CLASSES.map(|(name, value, text)| priority_class(name, value, text));
        let wanted = namespaces.into_iter().chain([kubernetes_service(&address.to_string())]);
        let wanted = wanted.chain(classes).chain(self.storage_class());
        let mut coming = false;
        for object in wanted {
            let key = (object.kind(), object.key.clone());
            if self.cache.object(key.0, &key.1).is_some() {
                continue;
            }
            if !self.busy(&key) {
                self.submit_own(Request::Create { object: Arc::new(object) }, ctx);
            }
            // One that was refused (a service holds the address since the range was changed) is
            // left to people: the rest of the API must not wait for it.
            coming |= self.busy(&key);
        }
        if coming || self.open {
            return;
        }
        self.open = true;
        ctx.note(|| format!("serving from revision {}", self.cache.revision));
        for job in std::mem::take(&mut self.waiting) {
            self.request(job, ctx);
        }
    }

    /// The class of storage that is made where there is none of any name: people's own, and that
    /// they want none while they have another, are left alone.
    fn storage_class(&self) -> Option<Object> {
        let classes = self.cache.views.get(&Kind::StorageClass);
        let none = classes.is_none_or(|classes| classes.iter().next().is_none());
        (self.config.volumes && none && !self.open).then(storage_class)
    }

    fn submit_own(&mut self, request: Request, ctx: &mut Ctx<'_>) {
        self.submit(Job::of(None, Arc::new(request)), ctx);
    }

    /// What a published write means for the server itself.
    pub(super) fn after_write(&mut self, kind: Kind, key: &Key, ctx: &mut Ctx<'_>) {
        let gone = matches!(kind, Kind::Namespace | Kind::Service)
            && self.cache.object(kind, key).is_none();
        if !self.open || gone {
            self.bootstrap(ctx);
        }
        if kind == Kind::Event {
            self.event_written(key, ctx);
        }
        if kind == Kind::Namespace {
            let deleting = self.cache.object(kind, key).is_some_and(|object| object.deleting());
            if deleting {
                self.terminating.insert(key.name.clone());
                self.sweep(&key.name, ctx);
            } else {
                self.terminating.remove(&key.name);
            }
        } else if !self.terminating.is_empty() && self.terminating.contains(&key.namespace) {
            match self.cache.object(kind, key) {
                // Its creation was under way when the namespace was marked.
                Some(object) if !object.deleting() => self.delete_own(kind, key.clone(), ctx),
                Some(_) => {}
                None if self.cache.namespace_is_empty(&key.namespace) => {
                    self.delete_own(Kind::Namespace, Key::cluster(key.namespace.clone()), ctx);
                }
                None => {}
            }
        }
    }

    /// Deletes everything in a namespace that is being deleted, or an empty one itself.
    pub(super) fn sweep(&mut self, namespace: &Name, ctx: &mut Ctx<'_>) {
        let content = self.cache.in_namespace(namespace);
        if content.is_empty() {
            return self.delete_own(Kind::Namespace, Key::cluster(namespace.clone()), ctx);
        }
        for (kind, key) in content {
            if self.cache.object(kind, &key).is_some_and(|object| !object.deleting()) {
                self.delete_own(kind, key, ctx);
            }
        }
    }

    pub(super) fn delete_own(&mut self, kind: Kind, key: Key, ctx: &mut Ctx<'_>) {
        // By uid: a namespace of the same name that comes later is not meant.
        let uid = self.cache.object(kind, &key).map(|object| object.uid);
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        self.submit_own(Request::Delete { kind, key, options }, ctx);
    }

    pub(super) fn refusal(&self) -> Option<crate::ports::api::Error> {
        self.refused.as_ref().map(errors::internal)
    }
}

fn namespace() -> Body {
    Body::Namespace { spec: Arc::default(), status: Arc::default() }
}

fn priority_class(name: &str, value: i32, text: &str) -> Object {
    let mut fields = Fields(Map::new());
    fields.set("value", value);
    fields.set("description", text);
    let (kind, fields) = (Kind::PriorityClass, Arc::new(fields));
    Object::new(Key::cluster(name), Body::Plain(Plain { kind, fields, status: Arc::default() }))
}

fn storage_class() -> Object {
    let mut fields = Fields(Map::new());
    fields.set("provisioner", storage::PROVISIONER);
    fields.set("volumeBindingMode", "WaitForFirstConsumer");
    fields.set("reclaimPolicy", "Delete");
    let (kind, fields) = (Kind::StorageClass, Arc::new(fields));
    let body = Body::Plain(Plain { kind, fields, status: Arc::default() });
    let annotations = BTreeMap::from([(storage::IS_DEFAULT.to_owned(), "true".to_owned())]);
    let meta = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
    Object::new(Key::cluster(storage::CLASS), body).with_meta(meta)
}

/// The API server's own service, at the first address of the range.
fn kubernetes_service(address: &str) -> Object {
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    let labels: BTreeMap<_, _> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let port = ServicePort {
        name: Some("https".to_owned()),
        port: 443,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(6443)),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        cluster_ip: Some(address.to_owned()),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    let body = Body::Service { spec: Arc::new(spec), status: Arc::new(ServiceStatus::default()) };
    Object::new(kubernetes(), body)
        .with_meta(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() })
}
