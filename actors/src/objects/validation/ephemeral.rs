//! Ephemeral containers (`validateEphemeralContainers` and `ValidatePodEphemeralContainersUpdate`
//! of pkg/apis/core/validation/validation.go): they are no part of what a pod is for, and stay as
//! they were put there.

use super::{Causes, container};
use crate::objects::{MIRROR, Object, PodSpec, ephemeral};
use k8s_openapi::api::core::v1::EphemeralContainer;
use std::collections::BTreeSet;

const NOT_SET: &str = "cannot be set for an Ephemeral Container";

/// `seen`: the names of the pod's other containers.
pub(super) fn list<'a>(
    field: &str,
    spec: &'a PodSpec,
    mut seen: BTreeSet<&'a str>,
    causes: &mut Causes,
) {
    let others = seen.clone();
    for (index, one) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let field = format!("{field}.ephemeralContainers[{index}]");
        // Its name is looked at here, beside those of the others.
        container(&field, &ephemeral::container(one), &mut BTreeSet::new(), causes);
        if !seen.insert(&one.name) {
            causes.duplicate(format_args!("{field}.name"), format_args!("{:?}", one.name));
        }
        let target = one.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !others.contains(target) {
            causes.not_found(format_args!("{field}.targetContainerName"), target);
        }
        for name in set(one) {
            causes.forbidden(format_args!("{field}.{name}"), NOT_SET);
        }
        for (index, mount) in one.volume_mounts.iter().flatten().enumerate() {
            let subs = [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)];
            for (name, _) in subs.into_iter().filter(|(_, sub)| sub.as_deref().is_some_and(said)) {
                causes.forbidden(format_args!("{field}.volumeMounts[{index}].{name}"), NOT_SET);
            }
        }
    }
}

fn said(text: &str) -> bool {
    !text.is_empty()
}

/// The fields that it has and may not have, in the order of upstream's struct.
fn set(one: &EphemeralContainer) -> impl Iterator<Item = &'static str> {
    let resources = one.resources.as_ref().is_some_and(|resources| {
        resources.claims.is_some() || resources.limits.is_some() || resources.requests.is_some()
    });
    let fields = [
        ("ports", one.ports.is_some()),
        ("resources", resources),
        ("resizePolicy", one.resize_policy.is_some()),
        ("restartPolicy", one.restart_policy.is_some()),
        ("livenessProbe", one.liveness_probe.is_some()),
        ("readinessProbe", one.readiness_probe.is_some()),
        ("startupProbe", one.startup_probe.is_some()),
        ("lifecycle", one.lifecycle.is_some()),
    ];
    fields.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name)
}

/// More of them may be put there, whatever their order is then.
pub(crate) fn update(pod: &Object, new: &PodSpec, old: &PodSpec, causes: &mut Causes) {
    if pod.annotation(MIRROR).is_some() {
        *causes = Causes::default();
        return causes.forbidden("[]", "static pods do not support ephemeral containers");
    }
    let now = new.ephemeral_containers.as_deref().unwrap_or_default();
    for old in old.ephemeral_containers.iter().flatten() {
        let became = match now.iter().find(|new| new.name == old.name) {
            None => "removed",
            // Upstream tells the difference as well, in no fixed form.
            Some(new) if new != old => "changed",
            Some(_) => continue,
        };
        let why =
            format_args!("existing ephemeral containers {:?} may not be {became}\n", old.name);
        causes.forbidden("spec.ephemeralContainers", why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::pod_spec;
    use serde_json::{Value, json};

    fn pod(ephemeral: Value) -> Object {
        let mut object = Object::from_json(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": "i"}], "ephemeralContainers": ephemeral},
        }))
        .expect("a pod");
        if let crate::objects::Body::Pod(pod) = &mut object.body {
            pod.edit(|spec, _| pod_spec::defaults(std::sync::Arc::make_mut(spec)));
        }
        object
    }

    fn spec(pod: &Object) -> &PodSpec {
        pod.pod().expect("a pod").0
    }

    #[test]
    fn they_have_names_of_their_own_and_nothing_a_pod_is_for() {
        let wrong = pod(json!([
            {"name": "c", "image": "i"},
            {"name": "d", "targetContainerName": "e", "ports": [{"containerPort": 1}],
             "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"tcpSocket": {"port": 1}},
             "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a"}]},
            {"name": "d", "targetContainerName": "c"},
        ]));
        let mut causes = Causes::default();
        super::super::pod_spec("spec", spec(&wrong), &mut causes);
        let list = "spec.ephemeralContainers";
        let not_set = |field: &str| format!("{list}[1].{field}: Forbidden: {NOT_SET}");
        let expected = [
            format!("{list}[0].name: Duplicate value: \"c\""),
            format!("{list}[1].targetContainerName: Not found: \"e\""),
            not_set("ports"),
            not_set("resources"),
            not_set("livenessProbe"),
            not_set("volumeMounts[0].subPath"),
            format!("{list}[2].image: Required value"),
            format!("{list}[2].name: Duplicate value: \"d\""),
        ];
        assert_eq!(causes.into_list(), expected);
    }

    #[test]
    fn what_was_put_there_stays_as_it_was() {
        let (one, two) = (json!({"name": "a", "image": "i"}), json!({"name": "b", "image": "i"}));
        let before = pod(json!([one]));
        let told = |now: Value, of: &Object| {
            let mut causes = Causes::default();
            update(of, spec(&pod(now)), spec(&before), &mut causes);
            causes.into_list()
        };
        assert!(told(json!([two, one]), &before).is_empty());
        let list = "spec.ephemeralContainers: Forbidden: existing ephemeral containers";
        assert_eq!(told(json!([two]), &before), [format!("{list} \"a\" may not be removed\n")]);
        let other = json!({"name": "a", "image": "j"});
        assert_eq!(told(json!([other]), &before), [format!("{list} \"a\" may not be changed\n")]);
        let mut mirror = before.clone();
        let annotations = [(MIRROR.to_owned(), "x".to_owned())];
        std::sync::Arc::make_mut(&mut mirror.meta).annotations = Some(annotations.into());
        let refused = "[]: Forbidden: static pods do not support ephemeral containers";
        assert_eq!(told(json!([one, two]), &mirror), [refused]);
    }
}
