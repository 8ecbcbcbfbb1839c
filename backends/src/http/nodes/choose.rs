//! Which container of a pod is meant (kubernetes `pkg/registry/core/pod/strategy.go`,
//! `validateContainer`), and what is known of it.

use crate::http::status::Failure;
use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec, PodStatus};
use kubesim_actors::objects::{MIRROR, Object};

/// The name of the one that was asked for, or of the only one.
pub fn container(pod: &str, spec: &PodSpec, asked: &str) -> Result<String, Failure> {
    let init = || spec.init_containers.iter().flatten().map(|one| one.name.as_str());
    let main = || spec.containers.iter().map(|one| one.name.as_str());
    let later = || spec.ephemeral_containers.iter().flatten().map(|one| one.name.as_str());
    if !asked.is_empty() {
        return match init().chain(main()).chain(later()).any(|name| name == asked) {
            true => Ok(asked.to_owned()),
            false => {
                let why = format!("container {asked} is not valid for pod {pod}");
                Err(Failure::bad_request(why))
            }
        };
    }
    if let [only] = &spec.containers[..] {
        return Ok(only.name.clone());
    }
    let list = |names: Vec<&str>| names.join(" ");
    let mut why = format!("a container name must be specified for pod {pod}");
    if !spec.containers.is_empty() {
        why += &format!(", choose one of: [{}]", list(main().collect()));
        if init().next().is_some() {
            why += &format!(" or one of the init containers: [{}]", list(init().collect()));
        }
    }
    Err(Failure::bad_request(why))
}

/// By which uid its node knows a pod: a mirror stands for a pod of the node's own
/// (`TranslatePodUID`, pkg/kubelet/pod/pod_manager.go).
pub fn uid(pod: &Object) -> String {
    let mirrored = pod.annotation(MIRROR);
    mirrored.map_or_else(|| pod.uid.to_string(), str::to_owned)
}

/// What its node last said of it.
pub fn status<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let all = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    all.into_iter().flatten().flatten().find(|one| one.name == container)
}

/// The node that a pod is on (`streamLocation` there).
pub fn node<'a>(pod: &str, spec: &'a PodSpec) -> Result<&'a str, Failure> {
    let node = spec.node_name.as_deref().filter(|node| !node.is_empty());
    let why = || Failure::bad_request(format!("pod {pod} does not have a host assigned"));
    node.ok_or_else(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_the_only_one_or_the_one_that_is_named() {
        let spec = |containers: &[&str], init: &[&str]| -> PodSpec {
            let named = |names: &[&str]| -> Vec<_> {
                names.iter().map(|name| json!({"name": name})).collect()
            };
            let spec = json!({"containers": named(containers), "initContainers": named(init)});
            serde_json::from_value(spec).expect("a spec")
        };
        let chosen = |spec: &PodSpec, asked: &str| {
            container("p", spec, asked).map_err(|failure| failure.message)
        };
        assert_eq!(chosen(&spec(&["a"], &["i"]), ""), Ok("a".to_owned()));
        assert_eq!(chosen(&spec(&["a"], &["i"]), "i"), Ok("i".to_owned()));
        let invalid = "container c is not valid for pod p".to_owned();
        assert_eq!(chosen(&spec(&["a"], &["i"]), "c"), Err(invalid));
        let many = "a container name must be specified for pod p, choose one of: [a b]";
        assert_eq!(chosen(&spec(&["a", "b"], &[]), ""), Err(many.to_owned()));
        let with_init = format!("{many} or one of the init containers: [i]");
        assert_eq!(chosen(&spec(&["a", "b"], &["i"]), ""), Err(with_init));
    }
}
