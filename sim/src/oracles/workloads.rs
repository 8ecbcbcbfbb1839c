//! What makes pods: how many it may have (I11), and what it has to come to (I18).

use crate::world::World;
use kubesim_actors::objects::{Kind, Name, Object, Uid};
use serde_json::Value;
use std::collections::BTreeMap;

/// A number of the object's status; 0 if it is not there.
fn count(object: &Object, name: &str) -> i64 {
    let status = object.plain().map(|plain| &plain.status);
    status.and_then(|status| status.get(name)?.as_i64()).unwrap_or(0)
}

fn number(object: &Object, path: &str) -> Option<i64> {
    object.plain()?.fields.number(path)
}

/// Those that have more active pods than they may have now: which, by how many, and in words.
pub fn surplus(world: &World) -> Vec<(Uid, i64, String)> {
    let mut active: BTreeMap<Uid, i64> = BTreeMap::new();
    let mut on_node: BTreeMap<(Uid, Name), i64> = BTreeMap::new();
    for pod in world.objects(Kind::Pod) {
        let Some(facts) = pod.pod_facts().filter(|facts| !facts.phase.ended()) else { continue };
        let Some((_, owner)) = pod.controller().filter(|_| !pod.deleting()) else { continue };
        *active.entry(owner).or_default() += 1;
        if let Some(node) = facts.node() {
            *on_node.entry((owner, node.clone())).or_default() += 1;
        }
    }
    let has = |object: &Object| active.get(&object.uid).copied().unwrap_or(0);
    let mut found = Vec::new();
    let mut check = |object: &Object, most: i64| {
        let extra = has(object) - most;
        if extra > 0 {
            found.push((object.uid, extra, format!("{} {}", object.kind(), object.key)));
        }
    };
    for set in world.objects(Kind::ReplicaSet) {
        let wanted = set.replica_set().and_then(|(spec, _)| spec.replicas).unwrap_or(1);
        check(set, i64::from(wanted));
    }
    for job in world.objects(Kind::Job) {
        check(job, number(job, "spec.parallelism").unwrap_or(1));
    }
    for set in world.objects(Kind::StatefulSet) {
        check(set, number(set, "spec.replicas").unwrap_or(1));
    }
    for set in world.objects(Kind::DaemonSet) {
        // While it surges, a node has an old pod and a new one.
        let surge = set.plain().and_then(|plain| {
            plain.fields.at("spec.updateStrategy.rollingUpdate.maxSurge").cloned()
        });
        let surges = surge.is_some_and(|surge| surge != 0 && surge != "0%");
        let most = 1 + i64::from(surges);
        let of = on_node.range((set.uid, Name::default())..);
        let mut own = of.take_while(|((owner, _), _)| *owner == set.uid);
        if let Some(((_, node), pods)) = own.find(|(_, pods)| **pods > most) {
            found.push((set.uid, pods - most, format!("DaemonSet {} on {node}", set.key)));
        }
    }
    found
}

/// The first that has not come to what it asks for, in words.
pub fn pending(world: &World) -> Option<String> {
    let jobs = world.objects(Kind::Job).find_map(|job| {
        let suspended = job.plain().is_some_and(|plain| plain.fields.flag("spec.suspend"));
        let (active, done) = (count(job, "active"), count(job, "succeeded"));
        (!suspended && !is_over(job))
            .then(|| format!("Job {} is not over: {active} active, {done} succeeded", job.key))
    });
    let daemons = || {
        world.objects(Kind::DaemonSet).find_map(|set| {
            let lack = count(set, "numberUnavailable");
            let wanted = count(set, "desiredNumberScheduled");
            (lack > 0).then(|| {
                format!("DaemonSet {} has no available pod on {lack} of {wanted} nodes", set.key)
            })
        })
    };
    let stateful = || {
        world.objects(Kind::StatefulSet).find_map(|set| {
            let wanted = number(set, "spec.replicas").unwrap_or(1);
            let (is, ready) = (count(set, "replicas"), count(set, "readyReplicas"));
            (is != wanted || ready != wanted).then(|| {
                format!("StatefulSet {} has {ready} of {wanted} pods ready, {is} in all", set.key)
            })
        })
    };
    jobs.or_else(daemons).or_else(stateful)
}

fn is_over(job: &Object) -> bool {
    let conditions = job.plain().map(|plain| &plain.status["conditions"]);
    let all = conditions.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.iter().any(|one| {
        one["status"] == "True" && ["Complete", "Failed"].iter().any(|kind| one["type"] == *kind)
    })
}
