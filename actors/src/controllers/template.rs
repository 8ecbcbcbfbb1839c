//! A ReplicaSet's pod template, built once per version of it: its pods share one metadata and one
//! spec.

use crate::objects::pod_spec::admitted;
use crate::objects::{Body, Key, Object, ObjectMeta, PodBody, ReplicaSetSpec};
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
        let template = source.template.clone().unwrap_or_default();
        let labelled = template.metadata.unwrap_or_default();
        let meta = ObjectMeta {
            generate_name: Some(format!("{}-", object.key.name)),
            labels: labelled.labels,
            annotations: labelled.annotations,
            finalizers: labelled.finalizers,
            owner_references: Some(vec![object.as_controller()]),
            ..ObjectMeta::default()
        };
        Template {
            source: Arc::clone(source),
            meta: Arc::new(meta),
            body: PodBody::new(
                Arc::new(admitted(template.spec.unwrap_or_default())),
                Arc::default(),
            ),
        }
    }

    pub fn pod(&self, key: Key) -> Object {
        let mut pod = Object::new(key, Body::Pod(self.body.clone()));
        pod.meta = Arc::clone(&self.meta);
        pod
    }
}
