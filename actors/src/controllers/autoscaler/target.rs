//! What an autoscaler scales: as many pods as it has and is to have, and which they are.

use crate::controllers::plain;
use crate::controllers::selectors::{labels, matches};
use crate::controllers::world::World;
use crate::objects::{Key, Kind, LabelSelector, Name, Object};
use crate::ports::api::{Request, Subresource};
use k8s_openapi::api::apps::v1::StatefulSetSpec;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use serde_json::json;
use std::sync::Arc;

pub struct Target<'w> {
    object: &'w Arc<Object>,
    pub replicas: i32,
    pub selector: LabelSelector,
}

/// Which kinds have a scale that is looked at here. A ReplicationController nobody works with, and
/// what a definition declares is not shown.
const SCALED: [Kind; 3] = [Kind::Deployment, Kind::ReplicaSet, Kind::StatefulSet];

/// The error is why there is none, as the API says it.
pub fn find<'w>(
    of: &CrossVersionObjectReference,
    namespace: &Name,
    world: &'w World,
) -> Result<Target<'w>, String> {
    let group = of.api_version.as_deref().unwrap_or_default();
    let group = group.rsplit_once('/').map_or("", |(group, _)| group);
    let named = |kind: &&Kind| kind.name() == of.kind && kind.group() == group;
    let Some(kind) = SCALED.iter().find(named) else {
        return Err(format!("no matches for kind \"{}\" in group \"{group}\"", of.kind));
    };
    let object = world.get(*kind, &Key::new(namespace.clone(), of.name.as_str()));
    let object = object
        .ok_or_else(|| format!("{}.{} \"{}\" not found", kind.plural(), kind.group(), of.name))?;
    let (replicas, selector) = match kind {
        Kind::Deployment => object.deployment().map(|(s, _)| (s.replicas, s.selector.clone())),
        Kind::ReplicaSet => object.replica_set().map(|(s, _)| (s.replicas, s.selector.clone())),
        _ => {
            let spec: StatefulSetSpec = plain::spec(object);
            Some((spec.replicas, spec.selector))
        }
    }
    .unwrap_or_default();
    Ok(Target { object, replicas: replicas.unwrap_or(1), selector })
}

impl Target<'_> {
    pub fn pods<'w>(&self, world: &'w World) -> Vec<&'w Arc<Object>> {
        let namespace = &self.object.key.namespace;
        let from = Key::new(namespace.clone(), "");
        let all = world.view(Kind::Pod).into_iter().flat_map(|pods| pods.iter_from(&from));
        all.take_while(|(key, _)| key.namespace == *namespace)
            .map(|(_, pod)| pod)
            .filter(|pod| matches(&self.selector, labels(pod.meta.labels.as_ref())))
            .collect()
    }

    /// Gives it another size, if it still is as it was seen.
    pub fn scale(&self, replicas: i32) -> Request {
        let Object { key, uid, version, .. } = &**self.object;
        let patch = json!({
            "metadata": {"uid": uid.to_string(), "resourceVersion": version.to_string()},
            "spec": {"replicas": replicas},
        });
        let (kind, key) = (self.object.kind(), key.clone());
        Request::Patch { kind, key, subresource: Subresource::Main, patch }
    }
}
