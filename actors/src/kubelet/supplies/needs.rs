//! The ConfigMaps, Secrets and claims that a pod names, for what it is made of and for its images,
//! and no others: a node may read those only.

use crate::kubelet::containers::container_specs;
use crate::objects::{Key, Kind, PodSpec, ephemeral};
use std::borrow::Cow;

/// Each once.
pub fn of(spec: &PodSpec, namespace: &str) -> Vec<(Kind, Key)> {
    let mut needs: Vec<(Kind, Key)> = Vec::new();
    let mut add = |kind, name: &str| {
        let need = (kind, Key::new(namespace, name));
        if !name.is_empty() && !needs.contains(&need) {
            needs.push(need);
        }
    };
    for volume in spec.volumes.iter().flatten() {
        if let Some(map) = &volume.config_map {
            add(Kind::ConfigMap, &map.name);
        }
        if let Some(secret) = &volume.secret {
            add(Kind::Secret, secret.secret_name.as_deref().unwrap_or_default());
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            add(Kind::PersistentVolumeClaim, &claim.claim_name);
        }
        let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        for source in sources.into_iter().flatten() {
            if let Some(map) = &source.config_map {
                add(Kind::ConfigMap, &map.name);
            }
            if let Some(secret) = &source.secret {
                add(Kind::Secret, &secret.name);
            }
        }
    }
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(Kind::Secret, &secret.name);
    }
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(ephemeral::container);
    let all = container_specs(spec).map(Cow::Borrowed).chain(ephemeral.map(Cow::Owned));
    for container in all {
        for from in container.env_from.iter().flatten() {
            if let Some(map) = &from.config_map_ref {
                add(Kind::ConfigMap, &map.name);
            }
            if let Some(secret) = &from.secret_ref {
                add(Kind::Secret, &secret.name);
            }
        }
        let sources = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref());
        for source in sources {
            if let Some(key) = &source.config_map_key_ref {
                add(Kind::ConfigMap, &key.name);
            }
            if let Some(key) = &source.secret_key_ref {
                add(Kind::Secret, &key.name);
            }
        }
    }
    needs
}
