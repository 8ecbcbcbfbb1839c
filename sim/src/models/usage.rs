//! What pods use, behind the port for metrics: a model of metrics-server.
//!
//! Programs of simulated pods use nothing, so it is said how much there is to do: by the
//! annotations `load.kubesim.dev/cpu` and `load.kubesim.dev/memory` of a pod, or of what controls
//! it, whose ready pods share it evenly. What nobody says is nothing. A pod that does not run is
//! not measured.

use kubesim_actors::apiserver::Cache;
use kubesim_actors::controllers::selectors::{labels, matches};
use kubesim_actors::objects::quantity::thousandths;
use kubesim_actors::objects::{Key, Kind, Name, Object, Phase};
use kubesim_actors::ports::metrics::{Request, Usage};
use kubesim_runtime::Wall;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often metrics-server asks the kubelets (`--metric-resolution`).
const RESOLUTION: Duration = Duration::from_secs(15);

const LOADS: [(&str, &str); 2] =
    [("cpu", "load.kubesim.dev/cpu"), ("memory", "load.kubesim.dev/memory")];

pub fn usage(
    cache: Option<&Cache>,
    request: &Request,
    now: Wall,
) -> Result<Arc<BTreeMap<Name, Usage>>, String> {
    let pods = cache.and_then(|cache| Some((cache, cache.views.get(&Kind::Pod)?)));
    let Some((cache, pods)) = pods else {
        let why = "the server is currently unable to handle the request (get pods.metrics.k8s.io)";
        return Err(why.to_owned());
    };
    let from = Key::new(request.namespace.clone(), "");
    let here = pods.iter_from(&from).take_while(|(key, _)| key.namespace == request.namespace);
    let here: Vec<&Arc<Object>> = here.map(|(_, pod)| pod).collect();
    let running =
        |pod: &&&Arc<Object>| pod.pod_facts().is_some_and(|facts| facts.phase == Phase::Running);
    let asked = here
        .iter()
        .filter(running)
        .filter(|pod| matches(&request.selector, labels(pod.meta.labels.as_ref())));
    let measured = asked.map(|pod| {
        let amounts = LOADS
            .map(|(resource, load)| (Name::new_static(resource), share(pod, load, &here, cache)));
        (pod.key.name.clone(), of_containers(pod, &BTreeMap::from(amounts), now))
    });
    Ok(Arc::new(measured.collect()))
}

/// All of it is the first container's.
fn of_containers(pod: &Object, amounts: &BTreeMap<Name, i64>, now: Wall) -> Usage {
    let containers = pod.pod().map(|(spec, _)| spec.containers.as_slice()).unwrap_or_default();
    let idle: BTreeMap<Name, i64> = amounts.keys().map(|name| (name.clone(), 0)).collect();
    let of = |(index, name): (usize, &String)| {
        (Name::from(name), if index == 0 { amounts.clone() } else { idle.clone() })
    };
    let containers = containers.iter().map(|container| &container.name).enumerate().map(of);
    Usage { at: now, window: RESOLUTION, containers: containers.collect() }
}

/// The pod's own load, or its share of that of the uppermost above it that has one: a Deployment's
/// annotations are its ReplicaSets' as well.
fn share(pod: &Arc<Object>, load: &str, here: &[&Arc<Object>], cache: &Cache) -> i64 {
    let said = |object: &Object| object.annotation(load).and_then(thousandths);
    if let Some(own) = said(pod) {
        return own;
    }
    let above = chain(pod, cache).filter_map(|owner| Some((owner.uid, said(owner)?)));
    let Some((uid, all)) = above.last() else { return 0 };
    let ready = |pod: &Object| pod.pod_facts().is_some_and(|facts| facts.ready);
    let below = |one: &&&Arc<Object>| ready(one) && chain(one, cache).any(|owner| owner.uid == uid);
    let count = i64::try_from(here.iter().filter(below).count()).unwrap_or(i64::MAX);
    if ready(pod) { all / count.max(1) } else { 0 }
}

/// What controls it, and what controls that.
fn chain<'a>(object: &'a Arc<Object>, cache: &'a Cache) -> impl Iterator<Item = &'a Arc<Object>> {
    let above = move |object: &&'a Arc<Object>| {
        let (owner, uid) = object.controller()?;
        let kind = Kind::of(&owner.api_version, &owner.kind)?;
        let key = Key::new(object.key.namespace.clone(), owner.name.as_str());
        cache.object(kind, &key).filter(|owner| owner.uid == uid)
    };
    std::iter::successors(above(&object), above)
}
