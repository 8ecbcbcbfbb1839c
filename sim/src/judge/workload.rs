//! Expectations of pods, probes, names and words.

use super::{History, Verdict, anchor, deadline, next_fault};
use crate::scenario::{ActorName, Anchor, Deadline, PodRef, ProbeKind};
use crate::world::probes::{fits, is_ready};
use crate::world::{Kind, World, words};
use kubesim_actors::objects::{Key, Kind as ObjectKind, Name, Object};
use kubesim_runtime::Time;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

pub fn pods_ready(world: &World, pods: &PodRef, count: Option<u32>) -> Result<String, String> {
    let (mut all, mut ready, mut waiting) = (0, 0, None);
    for pod in world.pods(pods) {
        all += 1;
        if is_ready(pod) {
            ready += 1;
        } else {
            waiting = waiting.or(Some(pod));
        }
    }
    let wanted = count.unwrap_or(all).max(1);
    if ready >= wanted && ready == all {
        return Ok(format!("{ready} ready"));
    }
    let example =
        waiting.map(|pod| format!("; {} is {}", pod.key, why_waiting(pod))).unwrap_or_default();
    Err(format!("{ready} of {} pods ready{example}", wanted.max(all)))
}

/// A pod's state in a word, with the first reason found.
pub fn why_waiting(pod: &Object) -> String {
    let Some((spec, status)) = pod.pod() else { return String::new() };
    if spec.node_name.is_none() {
        let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled");
        let why = scheduled.and_then(|c| c.message.clone()).unwrap_or_default();
        return if why.is_empty() {
            "not scheduled".into()
        } else {
            format!("not scheduled: {why}")
        };
    }
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let not_ready = || {
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready")?;
        let why = ready.message.clone().or(ready.reason.clone());
        why.filter(|why| !why.is_empty() && ready.status != "True")
    };
    let phase = status.phase.as_deref().unwrap_or_default();
    let node = spec.node_name.as_deref().unwrap_or_default();
    match waiting.or_else(not_ready) {
        Some(why) => format!("{phase} on {node}: {why}"),
        None => format!("{phase} on {node}"),
    }
}

pub fn nodes_ready(world: &World, nodes: &[Name]) -> Result<String, String> {
    let mut missing = Vec::new();
    let mut ready = 0;
    let all: Vec<Name> = if nodes.is_empty() {
        world.scenario.nodes.iter().filter(|node| !node.off).map(|node| node.name.clone()).collect()
    } else {
        nodes.to_vec()
    };
    for name in all {
        let node = world.object(ObjectKind::Node, &Key::cluster(name.clone()));
        let condition = node.and_then(|node| node.node()).and_then(|(_, status)| {
            status.conditions.iter().flatten().find(|c| c.type_ == "Ready").cloned()
        });
        match condition {
            Some(condition) if condition.status == "True" => ready += 1,
            Some(condition) => {
                missing.push(format!("{name}: {}", condition.message.unwrap_or_default()))
            }
            None => missing.push(format!("{name}: not registered")),
        }
    }
    match missing.first() {
        None => Ok(format!("{ready} ready")),
        Some(first) => Err(format!("{} not ready; {first}", missing.len())),
    }
}

pub fn replicas(world: &World, key: &Key, wanted: u32) -> Result<String, String> {
    let deployment = world.object(ObjectKind::Deployment, key).and_then(|d| d.deployment());
    let set = world.object(ObjectKind::ReplicaSet, key).and_then(|d| d.replica_set());
    let ready = match (deployment, set) {
        (Some((_, status)), _) => status.ready_replicas,
        (None, Some((_, status))) => status.ready_replicas,
        (None, None) => return Err(format!("no Deployment or ReplicaSet {key}")),
    };
    let ready = ready.unwrap_or(0);
    if ready == wanted as i32 {
        Ok(format!("{ready} ready"))
    } else {
        Err(format!("{ready} ready, not {wanted}"))
    }
}

pub fn rollout(world: &World, labels: &BTreeMap<String, String>) -> Result<String, String> {
    let mut done = 0;
    for object in world.objects(ObjectKind::Deployment) {
        if !labels.iter().all(|(name, value)| object.label(name) == Some(value)) {
            continue;
        }
        let Some((spec, status)) = object.deployment() else { continue };
        let wanted = spec.replicas.unwrap_or(1);
        let observed = status.observed_generation >= object.meta.generation;
        let numbers = [status.updated_replicas, status.available_replicas, status.replicas];
        if !observed || numbers.iter().any(|n| n.unwrap_or(0) != wanted) {
            let [updated, available, all] = numbers.map(|n| n.unwrap_or(0));
            return Err(format!(
                "{}: {updated} updated, {available} available, {all} in all of {wanted}",
                object.key
            ));
        }
        done += 1;
    }
    if done > 0 {
        Ok(format!("{done} rolled out"))
    } else {
        Err("no Deployment has these labels".to_owned())
    }
}

/// Why pods of machines that are off are not elsewhere, where so many are off that Kubernetes
/// suspects itself (upstream `--unhealthy-zone-threshold`, `--large-cluster-size-threshold`).
pub fn too_many_off(world: &World) -> String {
    const UNHEALTHY_PERCENT: usize = 55;
    let nodes = world.objects(ObjectKind::Node);
    let nodes: Vec<_> = nodes.filter_map(|node| world.machine_named(&node.key.name)).collect();
    let off = nodes.iter().filter(|machine| !world.machines[**machine as usize].on).count();
    if off == 0 || off * 100 < nodes.len() * UNHEALTHY_PERCENT {
        return String::new();
    }
    format!(
        "; {off} of {} nodes are off: from {UNHEALTHY_PERCENT} % on their pods are evicted late or \
         never; set a larger `count` or a smaller `rack-size` of the nodes",
        nodes.len()
    )
}

pub fn restarts(world: &World, history: &History, pods: &PodRef, at_most: u32) -> Verdict {
    let (mut restarts, mut most, mut seen) = (0, 0, 0);
    let mut example = None;
    for pod in world.pods(pods) {
        seen += 1;
        let Some((_, status)) = pod.pod() else { continue };
        for container in status.container_statuses.iter().flatten() {
            let count = container.restart_count.unsigned_abs();
            restarts += count;
            if count > most {
                most = count;
                example =
                    Some(format!("{} of {} restarted {count} times", container.name, pod.key));
            }
        }
    }
    let alive: std::collections::BTreeSet<_> =
        world.objects(ObjectKind::Pod).map(|p| p.uid).collect();
    let gone = history.pods.iter().filter(|(uid, pod)| !alive.contains(uid) && fits(pods, pod));
    let replaced: Vec<String> = gone.map(|(_, pod)| pod.key.to_string()).collect();
    let measured = format!("{restarts} restarts, {} replaced, of {seen} pods", replaced.len());
    if most > at_most {
        Verdict::broken(measured, example.unwrap_or_default())
    } else if at_most == 0 && !replaced.is_empty() {
        Verdict::broken(measured, format!("{} is gone", replaced[0]))
    } else {
        Verdict::held(measured)
    }
}

pub fn probe(
    world: &World,
    name: &str,
    (from, until): (Duration, Duration),
    fails: bool,
    last: bool,
) -> Verdict {
    let Some(probe) = world.probes.iter().find(|probe| probe.spec.name == name) else {
        return Verdict::broken("", format!("no probe {name}"));
    };
    let (start, end) = (Time::ZERO + from, Time::ZERO + until);
    if !last && world.now <= end + probe.spec.timeout {
        return Verdict::Open;
    }
    let tries: Vec<_> = probe.tries.iter().filter(|t| t.began >= start && t.began <= end).collect();
    // A try of the last moments may have had no time to end.
    let judged: Vec<_> = tries
        .iter()
        .filter(|t| t.ended.is_some() || world.now > t.began + probe.spec.timeout)
        .collect();
    let good = judged.iter().filter(|t| t.succeeded()).count();
    let measured = format!("{good} of {} succeeded", judged.len());
    if judged.is_empty() {
        return Verdict::lacking(measured, "it was never tried in that time");
    }
    let wanted = if fails { 0 } else { judged.len() };
    if good == wanted {
        return Verdict::held(measured);
    }
    let odd = judged.iter().find(|t| t.succeeded() == fails);
    let reason = odd.map_or_else(String::new, |t| match &t.result {
        Ok(()) if t.ended.is_none() => format!("at {} nothing arrived", t.began),
        Ok(()) => format!("at {} it succeeded", t.began),
        Err(why) => format!("at {}: {why}", t.began),
    });
    let cause = super::network::cause(world).filter(|_| !fails);
    let reason = cause.map_or_else(|| reason.clone(), |cause| format!("{reason}; {cause}"));
    Verdict::broken(measured, reason)
}

pub fn max_gap(world: &World, name: &str, within: Duration) -> Verdict {
    let Some(probe) = world.probes.iter().find(|probe| probe.spec.name == name) else {
        return Verdict::broken("", format!("no probe {name}"));
    };
    let mut times: Vec<Time> = probe.successes().collect();
    times.sort_unstable();
    let Some(&first) = times.first() else {
        return Verdict::lacking("never", "it never succeeded");
    };
    let end = world.now.min(Time::ZERO + probe.spec.until);
    let (mut longest, mut at, mut before) = (Duration::ZERO, first, first);
    for time in times.into_iter().chain([end]) {
        if time.since(before) > longest {
            (longest, at) = (time.since(before), before);
        }
        before = time;
    }
    let measured = format!("{:.3} s", longest.as_secs_f64());
    if longest <= within {
        Verdict::held(measured)
    } else {
        Verdict::broken(measured, format!("nothing came for so long from {at} on"))
    }
}

/// Since a moment.
pub fn refused(
    world: &World,
    actor: ActorName,
    texts: &[String],
    since: &Anchor,
) -> Result<String, String> {
    let since = anchor(world, since).unwrap_or(Time::ZERO);
    let of = world.refusals.iter().filter(|(cell, _, at)| is(cell.kind, actor) && *at >= since);
    let mut seen = None;
    if actor == ActorName::Apiserver {
        let has = |text: &str| texts.iter().all(|wanted| text.contains(wanted));
        let mut writes = world.refused_writes.iter().filter(|refusal| refusal.at >= since);
        match writes.clone().find(|refusal| has(&refusal.text)) {
            Some(refusal) => return Ok(refusal.text.clone()),
            None => seen = writes.next_back().map(|refusal| refusal.text.clone()),
        }
    }
    for (_, why, _) in of {
        if texts.iter().all(|text| why.contains(text)) {
            // The one clause that says it, where there is one.
            let mut clauses = why.split("; ");
            let clause = clauses.find(|clause| texts.iter().all(|text| clause.contains(text)));
            return Ok(clause.unwrap_or(why).to_owned());
        }
        seen = Some(why.clone());
    }
    Err(seen.map_or_else(
        || format!("the {} did not refuse: it runs{}", words::actor(actor), first_wrong(world)),
        |why| format!("it refused with other words: {why}"),
    ))
}

/// Where overlapping networks were accepted: the first address that two of them claim.
fn first_wrong(world: &World) -> String {
    let overlap = crate::oracles::first_clash(world);
    overlap.map(|text| format!("; {text}")).unwrap_or_default()
}

fn is(kind: Kind, actor: ActorName) -> bool {
    match actor {
        ActorName::Apiserver => kind == Kind::ApiServer,
        ActorName::Controllers => kind == Kind::Controllers,
        ActorName::Scheduler => kind == Kind::Scheduler,
        ActorName::Kubelet => kind == Kind::Kubelet,
        ActorName::Netd => matches!(kind, Kind::Netd | Kind::Flannel),
        ActorName::Proxy => kind == Kind::Proxy,
        ActorName::Dns => matches!(kind, Kind::Dns | Kind::KubeDns),
    }
}

pub fn says(
    world: &World,
    actor: Option<ActorName>,
    node: Option<&Name>,
    texts: &[String],
    after: Time,
) -> Result<String, String> {
    let mut last = None;
    for (at, cell, text) in &world.notes {
        let named = node.is_none_or(|node| world.who(*cell).ends_with(&format!("@{node}")));
        if *at < after || !named || !actor.is_none_or(|actor| is(cell.kind, actor)) {
            continue;
        }
        if texts.iter().all(|wanted| text.contains(wanted)) {
            return Ok(text.clone());
        }
        last = Some(text.clone());
    }
    Err(last.map_or_else(|| "it said nothing".to_owned(), |text| format!("it said last: {text}")))
}

pub fn dns_answer(
    world: &World,
    name: &str,
    answer: &[Ipv4Addr],
    by: Option<Time>,
    last: bool,
) -> Verdict {
    let Some(probe) = world.probes.iter().find(|probe| probe.spec.name == name) else {
        return Verdict::broken("", format!("no probe {name}"));
    };
    let Some(by) = by else {
        return if last { Verdict::broken("", "the moment never came") } else { Verdict::Open };
    };
    if !last && world.now < by {
        return Verdict::Open;
    }
    debug_assert!(
        matches!(probe.spec.kind, ProbeKind::Dig { .. }),
        "the scenario's reader checks it"
    );
    let mut wanted = answer.to_vec();
    wanted.sort_unstable();
    let found = probe.tries.iter().rev().find(|t| t.ended.is_some_and(|ended| ended <= by));
    match found {
        Some(t) if t.answer == wanted => {
            Verdict::held(format!("{} at {}", words::list(&t.answer), t.began))
        }
        Some(t) => {
            let why = t.result.as_ref().err().map(|why| format!(" ({why})")).unwrap_or_default();
            let (got, wanted) = (words::list(&t.answer), words::list(&wanted));
            Verdict::broken(format!("{got}{why}"), format!("{wanted} was expected"))
        }
        None => Verdict::broken("", "no query was answered before"),
    }
}

/// `first (192.168.7.31)`
fn named(world: &World, address: Ipv4Addr) -> String {
    let known = world.scenario.upstreams.iter().find(|u| u.address == address);
    known.map_or_else(|| address.to_string(), |u| format!("{} ({address})", u.name))
}

pub fn upstream_used(
    world: &World,
    node: &str,
    upstream: &str,
    by: &Deadline,
    last: bool,
) -> Verdict {
    let Some(start) = anchor(world, &by.after) else {
        return if last { Verdict::broken("", "the moment never came") } else { Verdict::Open };
    };
    let due = deadline(world, by).unwrap_or(start);
    let until = next_fault(world, start).unwrap_or(Time::NEVER);
    if !last && world.now < until {
        return Verdict::Open;
    }
    let address = world.scenario.upstreams.iter().find(|u| u.name == upstream).map(|u| u.address);
    let queries: Vec<_> = world
        .forwarded
        .iter()
        .filter(|(at, cell, _)| {
            *at >= start && *at < until && world.who(*cell).ends_with(&format!("@{node}"))
        })
        .collect();
    let first = queries.iter().find(|(_, _, to)| Some(*to) == address).map(|(at, _, _)| *at);
    let stray = queries.iter().find(|(at, _, to)| *at > due && Some(*to) != address);
    match (first, stray) {
        (Some(first), None) if first <= due => {
            Verdict::held(format!("after {:.3} s", first.since(start).as_secs_f64()))
        }
        (Some(first), None) => Verdict::broken(
            format!("after {:.3} s", first.since(start).as_secs_f64()),
            format!("more than {} s", by.within.as_secs_f64()),
        ),
        (_, Some((at, _, to))) => Verdict::broken(
            format!("{to} still asked at {at}"),
            format!("{} is still asked at {at}, not {upstream}", named(world, *to)),
        ),
        (None, None) => Verdict::broken("never", "no query was sent on"),
    }
}

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Trace};
    use crate::world::testing;

    /// Why a rollout is not whole after so many of ten machines were lost.
    fn why(lost: usize) -> String {
        let names: Vec<String> = (1..=lost).map(|number| format!("\"w{number}\"")).collect();
        let names = names.join(", ");
        let more = format!(
            r#"
[[node]]
name = "w"
count = 9
network = "lan"
address = "192.168.1.21"
[image."app:1"]
tcp = [80]
[[workload]]
name = "app"
generate = {{ deployments = 1, replicas = 18, image = "app:1", labels = {{ fleet = "app" }} }}
[[fault]]
name = "lost"
kind = "power-off"
at = "30s"
nodes = [{names}]
[[expect]]
name = "they run elsewhere"
kind = "rollout"
labels = {{ fleet = "app" }}
after = "lost"
within = "120s"
"#
        );
        let (report, _) = testing::play(&testing::scenario("", &more), Trace::default());
        assert_eq!(report.expectations[0].outcome, Outcome::Failed);
        report.expectations[0].reason.clone()
    }

    #[test]
    fn a_rollout_that_waits_for_an_eviction_says_what_to_set() {
        let many = why(6);
        assert!(many.contains("; 6 of 10 nodes are off: from 55 % on"), "{many}");
        assert!(many.contains("set a larger `count` or a smaller `rack-size`"), "{many}");
        let few = why(5);
        assert!(few.contains(" available, ") && !few.contains("nodes are off"), "{few}");
    }

    #[test]
    fn a_pod_that_runs_and_is_not_ready_says_why() {
        let more = r#"
[image."app:1"]
[[workload]]
name = "app"
yaml = """
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  containers:
  - {name: main, image: "app:1", readinessProbe: {httpGet: {port: 9}}}
"""
[[expect]]
name = "it is ready"
kind = "pods-ready"
pod-name = "app"
by = "30s"
"#;
        let (report, _) = testing::play(&testing::scenario("", more), Trace::default());
        let why = &report.expectations[0].reason;
        let said = "default/app is Running on n1: containers with unready status: [main]";
        assert!(why.contains(said), "{why}");
    }
}
