//! What each namespace has from the start: its ServiceAccount `default` (upstream
//! `pkg/controller/serviceaccount/serviceaccounts_controller.go`) and the ConfigMap
//! `kube-root-ca.crt` (`pkg/controller/certificates/rootcacertpublisher/publisher.go`).
//!
//! Nothing is made in a namespace that is being deleted. A ServiceAccount that is there is
//! people's; a ConfigMap whose data is another is put right.

use super::client::{Client, Loop, Subject};
use super::world::{Desk, ObjectChange, sides};
use crate::objects::{Body, ConfigMap, Key, Kind, Name, Object, ObjectMeta};
use crate::ports::api::Request;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The kinds that are watched for this besides those that the controllers watch anyway.
pub const WATCHED: [Kind; 3] = [Kind::Namespace, Kind::ServiceAccount, Kind::ConfigMap];

const ACCOUNT: &str = "default";
const MAP: &str = "kube-root-ca.crt";
const ENTRY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
     guaranteed across distributions of Kubernetes clusters.",
);

#[derive(Clone, Debug)]
pub struct Namespaces {
    /// PEM.
    authority: Arc<str>,
}

impl Namespaces {
    pub fn new(authority: Arc<str>) -> Self {
        Namespaces { authority }
    }

    pub fn observe(&self, kind: Kind, change: &ObjectChange<'_>, client: &mut Client) {
        let (key, _, _) = sides(change);
        let name = match kind {
            Kind::Namespace => &key.name,
            Kind::ServiceAccount if key.name == ACCOUNT => &key.namespace,
            Kind::ConfigMap if key.name == MAP => &key.namespace,
            _ => return,
        };
        let namespace = Key::cluster(name.clone());
        client.mark(Subject::new(Loop::Namespaces, Kind::Namespace, &namespace));
    }

    pub fn sync(&self, key: &Key, desk: &mut Desk<'_, '_>) {
        let there = desk.world.get(Kind::Namespace, key);
        if there.is_none_or(|namespace| namespace.deleting()) {
            return;
        }
        let mut ask = |request| desk.client.ask(subject(key), request);
        let name = Key::new(key.name.clone(), ACCOUNT);
        if desk.world.get(Kind::ServiceAccount, &name).is_none() {
            ask(Request::Create { object: Arc::new(account(&key.name)) });
        }
        let name = Key::new(key.name.clone(), MAP);
        let data = BTreeMap::from([(ENTRY.to_owned(), self.authority.to_string())]);
        match desk.world.get(Kind::ConfigMap, &name) {
            None => ask(Request::Create { object: Arc::new(map(name, data)) }),
            // One that goes comes back when it is gone.
            Some(object) if object.deleting() => {}
            Some(object) => {
                let Some(held) = object.config_map() else { return };
                if held.data.as_ref() != Some(&data) {
                    let body = ConfigMap { data: Some(data), ..(**held).clone() };
                    let object =
                        Object { body: Body::ConfigMap(Arc::new(body)), ..(**object).clone() };
                    ask(Request::Update { object: Arc::new(object) });
                }
            }
        }
    }
}

fn subject(namespace: &Key) -> Subject {
    Subject::new(Loop::Namespaces, Kind::Namespace, namespace)
}

fn account(namespace: &Name) -> Object {
    let meta = json!({"metadata": {"name": ACCOUNT, "namespace": namespace}});
    let account = Object::from_json_of(Kind::ServiceAccount, meta);
    account.expect("a ServiceAccount needs no more than its metadata")
}

fn map(key: Key, data: BTreeMap<String, String>) -> Object {
    let body = Body::ConfigMap(Arc::new(ConfigMap { data: Some(data), ..ConfigMap::default() }));
    let (name, text) = DESCRIPTION;
    let annotations = Some(BTreeMap::from([(name.to_owned(), text.to_owned())]));
    Object::new(key, body).with_meta(ObjectMeta { annotations, ..ObjectMeta::default() })
}
