//! What a pod template makes. A ReplicaSet's is built once per version of it: its pods share one
//! metadata and one spec.

use crate::objects::pod_spec::admitted;
use crate::objects::{Body, Key, Object, ObjectMeta, PodBody, PodSpec, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Template {
    source: Arc<ReplicaSetSpec>,
    meta: Arc<ObjectMeta>,
    body: PodBody,
}

impl Template {
    /// The template of this ReplicaSet; the one before is kept where it says the same.
    pub fn of(before: Option<Template>, object: &Object, source: &Arc<ReplicaSetSpec>) -> Self {
        if let Some(before) = before {
            if Arc::ptr_eq(&before.source, source) {
                return before;
            }
            if before.source.template == source.template {
                return Template { source: Arc::clone(source), ..before };
            }
        }
        let (meta, spec) = parts(object, source.template.clone().unwrap_or_default());
        let body = PodBody::new(Arc::new(admitted(spec)), Arc::default());
        Template { source: Arc::clone(source), meta: Arc::new(meta), body }
    }

    pub fn pod(&self, key: Key) -> Object {
        let mut pod = Object::new(key, Body::Pod(self.body.clone()));
        pod.meta = Arc::clone(&self.meta);
        pod
    }
}

/// Metadata and spec of a pod that this owner makes of a template (`GetPodFromTemplate`).
pub fn parts(owner: &Object, template: PodTemplateSpec) -> (ObjectMeta, PodSpec) {
    let labelled = template.metadata.unwrap_or_default();
    let meta = ObjectMeta {
        generate_name: Some(format!("{}-", owner.key.name)),
        labels: labelled.labels,
        annotations: labelled.annotations,
        finalizers: labelled.finalizers,
        owner_references: Some(vec![owner.as_controller()]),
        ..ObjectMeta::default()
    };
    (meta, template.spec.unwrap_or_default())
}

/// A pod of these parts.
pub fn pod(key: Key, meta: ObjectMeta, spec: PodSpec) -> Object {
    let body = PodBody::new(Arc::new(admitted(spec)), Arc::default());
    Object::new(key, Body::Pod(body)).with_meta(meta)
}
