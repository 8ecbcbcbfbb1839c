//! What an object uses, by the names of a quota (kubernetes pkg/quota/v1/evaluator/core).

use crate::objects::kinds::Fields;
use crate::objects::pod_resources::{self as resources, Amounts};
use crate::objects::quantity::Quantity;
use crate::objects::{Kind, Object, PodSpec, ServiceSpec};
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaimSpec};
use std::collections::BTreeMap;

/// `count/pods`, `count/deployments.apps`.
fn object_count(kind: Kind) -> String {
    match kind.group() {
        "" => format!("count/{}", kind.plural()),
        group => format!("count/{}.{group}", kind.plural()),
    }
}

/// Kinds that are counted by their plural alone too.
const BY_PLURAL: [Kind; 7] = [
    Kind::Pod,
    Kind::Service,
    Kind::ConfigMap,
    Kind::Secret,
    Kind::ReplicationController,
    Kind::ResourceQuota,
    Kind::PersistentVolumeClaim,
];

/// Whether a quota may ask about objects of this kind at all.
pub(super) fn names(kind: Kind, quota: &Fields) -> bool {
    let count = object_count(kind);
    quota.map("spec.hard").any(|(name, _)| {
        *name == count
            || match kind {
                Kind::Pod => is_of_pods(name),
                Kind::Service => name.starts_with("services"),
                Kind::PersistentVolumeClaim => is_of_claims(name),
                _ => BY_PLURAL.contains(&kind) && name == kind.plural(),
            }
    })
}

const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const STORAGE: &str = "requests.storage";
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

fn is_of_claims(name: &str) -> bool {
    name == STORAGE || name.contains(OF_CLASS) || name == Kind::PersistentVolumeClaim.plural()
}

fn is_of_pods(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").unwrap_or(name);
    let bare = bare.strip_prefix("limits.").unwrap_or(bare);
    name == "pods"
        || COMPUTE.contains(&bare)
        || bare.starts_with("hugepages-")
        || (name.starts_with("requests.") && !is_of_claims(name))
}

pub(super) fn of(object: &Object) -> Amounts {
    let kind = object.kind();
    let mut used = Amounts::from([(object_count(kind), Quantity::count(1))]);
    if BY_PLURAL.contains(&kind) && kind != Kind::Pod {
        used.insert(kind.plural().to_owned(), Quantity::count(1));
    }
    if let Some((spec, _)) = object.pod() {
        // Upstream also stops to count one whose grace is over and that is still there. What it
        // gives back is written together with a change of the object, and that is none.
        if !object.pod_facts().is_some_and(|facts| facts.phase.ended()) {
            used.extend(computed(&resources::requests(spec), &resources::limits(spec)));
        }
    } else if let Some((spec, _)) = object.service() {
        used.extend(service(spec));
    } else if kind == Kind::PersistentVolumeClaim
        && let Some(plain) = object.plain()
    {
        used.extend(claim(&plain.fields.part("spec")));
    }
    used
}

/// What a pod or a container asks for, by a quota's names (`podComputeUsageHelper`).
fn computed(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), Quantity::count(1))]);
    for (name, amount) in requests {
        let native = COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-");
        // An extended resource is known by its request alone.
        if native {
            used.insert(name.clone(), *amount);
        }
        if native || name.contains('/') {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        used.insert(format!("limits.{name}"), *amount);
    }
    used
}

/// What every container of a pod must ask for if a quota names it, and which do not: `cpu for: a`.
/// Of cpu and memory only; upstream calls it a mistake that it keeps (`validationSet`).
pub(super) fn unsaid(pod: &PodSpec, quota: &Fields) -> Option<String> {
    const ASKED: [&str; 6] =
        ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
    let wanted = ASKED.into_iter().filter(|name| quota.map("spec.hard").any(|(n, _)| n == name));
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in wanted {
        let all = pod.containers.iter().chain(pod.init_containers.iter().flatten());
        for container in all.filter(|container| !says(container, name)) {
            missing.entry(name).or_default().push(&container.name);
        }
    }
    let texts = missing.into_iter().map(|(name, mut containers)| {
        containers.sort_unstable();
        format!("{name} for: {}", containers.join(","))
    });
    let texts: Vec<_> = texts.collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn says(container: &Container, name: &str) -> bool {
    let own = container.resources.as_ref();
    let (part, name) = match name.split_once('.') {
        Some(("limits", name)) => (own.and_then(|own| own.limits.as_ref()), name),
        Some((_, name)) => (own.and_then(|own| own.requests.as_ref()), name),
        None => (own.and_then(|own| own.requests.as_ref()), name),
    };
    part.is_some_and(|part| part.contains_key(name))
}

fn service(spec: &ServiceSpec) -> Amounts {
    let ports = spec.ports.iter().flatten();
    let (balancers, node_ports) = match spec.type_.as_deref() {
        Some("NodePort") => (0, ports.count()),
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => {
            (1, ports.filter(|port| port.node_port.is_some_and(|number| number != 0)).count())
        }
        Some("LoadBalancer") => (1, ports.count()),
        _ => (0, 0),
    };
    let count = |of: usize| Quantity::count(i64::try_from(of).unwrap_or(i64::MAX));
    Amounts::from([
        ("services.loadbalancers".to_owned(), count(balancers)),
        ("services.nodeports".to_owned(), count(node_ports)),
    ])
}

fn claim(spec: &PersistentVolumeClaimSpec) -> Amounts {
    let mut used = Amounts::new();
    let class = spec.storage_class_name.as_deref().filter(|class| !class.is_empty());
    if let Some(class) = class {
        let name = format!("{class}{OF_CLASS}persistentvolumeclaims");
        used.insert(name, Quantity::count(1));
    }
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let Some(storage) = resources::amounts(requests).get("storage").copied() else { return used };
    used.insert(STORAGE.to_owned(), storage);
    if let Some(class) = class {
        used.insert(format!("{class}{OF_CLASS}{STORAGE}"), storage);
    }
    used
}
