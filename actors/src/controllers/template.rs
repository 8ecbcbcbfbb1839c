//! A ReplicaSet's pod template, built once per version of it: its pods share one metadata and one
//! spec.

use crate::objects::{Body, Key, Object, ObjectMeta, PodBody, PodSpec, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Toleration;
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

/// What defaulting and the DefaultTolerationSeconds admission plugin (300 s for not-ready and
/// unreachable nodes) would write into each pod, written once into what they share.
fn admitted(mut spec: PodSpec) -> PodSpec {
    let set = |field: &mut Option<String>, value: &str| {
        field.get_or_insert_with(|| value.to_owned());
    };
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.dns_policy, "ClusterFirst");
    set(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = spec.tolerations.iter().flatten().any(|toleration| {
            toleration.key.as_deref().is_none_or(|k| k.is_empty() || k == key)
                && toleration.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoExecute")
        });
        if !tolerated {
            spec.tolerations.get_or_insert_default().push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(300),
                value: None,
            });
        }
    }
    spec
}
