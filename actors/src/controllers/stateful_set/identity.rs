//! A StatefulSet's pod number n: its name, its place in DNS, its revision and its volumes
//! (pkg/controller/statefulset/stateful_set_utils.go).

use super::claims;
use crate::controllers::{history, template};
use crate::objects::{Key, Name, Object};
use k8s_openapi::api::apps::v1::StatefulSetSpec;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Volume};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub fn key(set: &Object, ordinal: i32) -> Key {
    Key::new(set.key.namespace.clone(), Name::from(format!("{}-{ordinal}", set.key.name)))
}

/// The pod's number; `None` if its name is not one that the set gives.
pub fn ordinal(set: &Object, pod: &Object) -> Option<i32> {
    let digits = pod.key.name.strip_prefix(set.key.name.as_str())?.strip_prefix('-')?;
    let number = digits.parse::<i32>().ok()?;
    (number >= 0 && number.to_string() == digits).then_some(number)
}

/// The name of the pod's revision.
pub fn revision(pod: &Object) -> Option<&str> {
    pod.label(history::HASH)
}

/// `newStatefulSetPod`, of the template that this revision keeps.
pub fn pod(set: &Object, spec: &StatefulSetSpec, ordinal: i32, of: &Object) -> Object {
    let key = key(set, ordinal);
    let (mut meta, mut pod) = template::parts(set, history::template(of));
    meta.generate_name = None;
    let labels = meta.labels.get_or_insert_default();
    for (label, value) in [
        (POD_NAME, key.name.to_string()),
        (POD_INDEX, ordinal.to_string()),
        (history::HASH, of.key.name.to_string()),
    ] {
        labels.insert(label.to_owned(), value);
    }
    pod.hostname = Some(key.name.to_string());
    pod.subdomain = spec.service_name.clone();
    let volumes = pod.volumes.get_or_insert_default();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let name = claim.metadata.name.clone().unwrap_or_default();
        volumes.retain(|volume| volume.name != name);
        let claim_name = claims::key(set, &name, ordinal).name.to_string();
        let source = PersistentVolumeClaimVolumeSource { claim_name, read_only: Some(false) };
        let persistent_volume_claim = Some(source);
        volumes.push(Volume { name, persistent_volume_claim, ..Volume::default() });
    }
    pod.volumes.take_if(|volumes| volumes.is_empty());
    template::pod(key, meta, pod)
}
