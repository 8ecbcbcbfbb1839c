//! How many pods there should be for what they use: pure (`GetResourceReplicas` and
//! `calcPlainMetricReplicas` of upstream's replica_calculator.go, `GetResourceUtilizationRatio` of
//! metrics/utilization.go).

use crate::controllers::pods::condition;
use crate::objects::quantity::thousandths;
use crate::objects::{Name, Object, Phase, wall};
use crate::ports::metrics::Usage;
use k8s_openapi::api::core::v1::Container;
use kubesim_runtime::Wall;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// `--horizontal-pod-autoscaler-cpu-initialization-period`.
const INITIALIZATION: Duration = Duration::from_secs(300);
/// `--horizontal-pod-autoscaler-initial-readiness-delay`.
const READINESS_DELAY: Duration = Duration::from_secs(30);

/// What is looked at: a resource, of all of a pod or of the container of this name.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    pub name: &'a str,
    pub container: Option<&'a str>,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// So many hundredths of what is requested.
    Utilization(i32),
    /// So many thousandths a pod.
    Average(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub replicas: i32,
    /// In hundredths of what is requested, if that is what counts.
    pub utilization: Option<i32>,
    /// A pod's share, in thousandths.
    pub average: i64,
}

/// All that a calculation looks at.
pub struct Scene<'a> {
    pub current: i32,
    pub pods: &'a [&'a Arc<Object>],
    pub usage: &'a BTreeMap<Name, Usage>,
    pub now: Wall,
}

type Amounts<'a> = BTreeMap<&'a Name, i64>;

impl<'a> Scene<'a> {
    pub fn propose(&self, resource: Resource<'_>, target: Target) -> Result<Proposal, String> {
        let mut measured = self.measured(resource)?;
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let groups = self.group(&measured, resource.name);
        measured.retain(|name, _| !groups.ignored.contains(*name));
        let requests = match target {
            Target::Utilization(_) => self.requests(resource)?,
            Target::Average(_) => Amounts::new(),
        };
        if measured.is_empty() {
            return Err("did not receive metrics for any ready pods".to_owned());
        }
        let first = ratio(&measured, &requests, target)?;
        let told = |replicas| Proposal { replicas, ..first.told };
        let rebalances = !groups.ignored.is_empty() && first.ratio > 1.0;
        if !rebalances && groups.missing.is_empty() {
            let replicas = match (1.0 - first.ratio).abs() <= TOLERANCE {
                true => self.current,
                false => (first.ratio * groups.ready as f64).ceil() as i32,
            };
            return Ok(told(replicas));
        }
        // Those of which nothing is known must not be why it is scaled: on the way down they use
        // all that they may, on the way up nothing.
        for name in groups.missing {
            let all = match target {
                Target::Utilization(_) => requests.get(name).copied().unwrap_or(0),
                Target::Average(value) => value,
            };
            let used =
                if first.ratio < 1.0 { Some(all) } else { Some(0).filter(|_| first.ratio > 1.0) };
            if let Some(used) = used {
                measured.insert(name, used);
            }
        }
        if rebalances {
            measured.extend(groups.ignored.into_iter().map(|name| (name, 0)));
        }
        let second = ratio(&measured, &requests, target)?.ratio;
        let turned = first.ratio < 1.0 && second > 1.0 || first.ratio > 1.0 && second < 1.0;
        if (1.0 - second).abs() <= TOLERANCE || turned {
            return Ok(told(self.current));
        }
        let replicas = (second * measured.len() as f64).ceil() as i32;
        let against =
            second < 1.0 && replicas > self.current || second > 1.0 && replicas < self.current;
        Ok(told(if against { self.current } else { replicas }))
    }

    /// What the pods use; one that was not measured whole is left out (`getPodMetrics`).
    fn measured(&self, resource: Resource<'_>) -> Result<Amounts<'a>, String> {
        if self.usage.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let of = |usage: &Usage| match resource.container {
            Some(container) => usage.containers.get(container)?.get(resource.name).copied(),
            None => usage.containers.values().map(|all| all.get(resource.name)).sum(),
        };
        Ok(self.usage.iter().filter_map(|(name, usage)| Some((name, of(usage)?))).collect())
    }

    fn group(&self, measured: &Amounts<'a>, resource: &str) -> Groups<'a> {
        let mut groups = Groups { ready: 0, ignored: BTreeSet::new(), missing: BTreeSet::new() };
        for pod in self.pods {
            let (name, phase) = (&pod.key.name, pod.pod_facts().map(|facts| facts.phase));
            if pod.deleting() || phase == Some(Phase::Failed) {
                continue;
            }
            if phase == Some(Phase::Pending) {
                groups.ignored.insert(name);
            } else if !measured.contains_key(name) {
                groups.missing.insert(name);
            } else if resource == "cpu" && self.starts(pod) {
                groups.ignored.insert(name);
            } else {
                groups.ready += 1;
            }
        }
        groups
    }

    /// What a pod that starts uses says nothing of what it will.
    fn starts(&self, pod: &Object) -> bool {
        let Some((_, status)) = pod.pod() else { return true };
        let (Some(ready), Some(start)) = (condition(status, "Ready"), &status.start_time) else {
            return true;
        };
        let start = wall(start.0);
        let since = ready.last_transition_time.as_ref().map_or(start, |time| wall(time.0));
        let unready = ready.status == "False";
        if start + INITIALIZATION > self.now {
            let measured = self.usage.get(&pod.key.name);
            unready || measured.is_none_or(|usage| usage.at < since + usage.window)
        } else {
            // Unready, and it has never been ready.
            unready && start + READINESS_DELAY > since
        }
    }

    /// `calculatePodRequests`.
    fn requests(&self, resource: Resource<'_>) -> Result<Amounts<'a>, String> {
        let mut requests = Amounts::new();
        for pod in self.pods {
            let Some((spec, _)) = pod.pod() else { continue };
            let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
            let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
            let mut sum = 0;
            for container in spec.containers.iter().chain(sidecars) {
                if resource.container.is_some_and(|name| container.name != name) {
                    continue;
                }
                let of = container.resources.as_ref().and_then(|all| all.requests.as_ref());
                let Some(request) = of.and_then(|all| all.get(resource.name)) else {
                    let (name, of, pod) = (resource.name, &container.name, &pod.key.name);
                    return Err(format!(
                        "missing request for {name} in container {of} of Pod {pod}"
                    ));
                };
                sum += thousandths(&request.0).unwrap_or(0);
            }
            requests.insert(&pod.key.name, sum);
        }
        Ok(requests)
    }
}

struct Groups<'a> {
    ready: usize,
    ignored: BTreeSet<&'a Name>,
    missing: BTreeSet<&'a Name>,
}

struct Ratio {
    /// To the target.
    ratio: f64,
    told: Proposal,
}

fn ratio(measured: &Amounts<'_>, requests: &Amounts<'_>, target: Target) -> Result<Ratio, String> {
    let (mut used, mut requested, mut count) = (0, 0, 0);
    for (name, amount) in measured {
        if let Target::Utilization(_) = target {
            let Some(request) = requests.get(name) else { continue };
            requested += request;
        }
        used += amount;
        count += 1;
    }
    match target {
        Target::Utilization(_) if requested == 0 => {
            Err("no metrics returned matched known pods".to_owned())
        }
        Target::Utilization(target) => {
            let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            let ratio = f64::from(utilization) / f64::from(target);
            let (replicas, average) = (0, used / count);
            Ok(Ratio {
                ratio,
                told: Proposal { replicas, utilization: Some(utilization), average },
            })
        }
        Target::Average(target) => {
            let average = used / count.max(1);
            let ratio = average as f64 / target as f64;
            Ok(Ratio { ratio, told: Proposal { replicas: 0, utilization: None, average } })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_700_000_000;
    const CPU: Resource<'static> = Resource { name: "cpu", container: None };

    /// A pod that requests 1000m, is in this phase and was ready since so many seconds.
    fn pod(number: usize, phase: &str, ready: bool, age: i64) -> Arc<Object> {
        let at = |seconds: i64| crate::objects::time(Wall::from_unix_secs(NOW - seconds));
        Arc::new(
            Object::from_json(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{number}")},
                "spec": {"containers": [{"name": "c",
                    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
                "status": {"phase": phase, "startTime": at(age), "conditions": [
                    {"type": "Ready", "status": if ready { "True" } else { "False" },
                     "lastTransitionTime": at(age)}]},
            }))
            .expect("a pod"),
        )
    }

    fn usage(cpu: i64) -> Usage {
        let of = BTreeMap::from([("cpu".into(), cpu), ("memory".into(), cpu * 1000)]);
        let containers = BTreeMap::from([("c".into(), of)]);
        Usage { at: Wall::from_unix_secs(NOW), window: Duration::from_secs(30), containers }
    }

    /// `pods`, of which those with a number use so much.
    fn propose(pods: &[(Arc<Object>, Option<i64>)], target: Target) -> Result<Proposal, String> {
        let all: Vec<&Arc<Object>> = pods.iter().map(|(pod, _)| pod).collect();
        let measured =
            pods.iter().filter_map(|(pod, cpu)| Some((pod.key.name.clone(), usage((*cpu)?))));
        let (usage, now) = (measured.collect(), Wall::from_unix_secs(NOW));
        let current = i32::try_from(all.len()).expect("a few");
        Scene { current, pods: &all, usage: &usage, now }.propose(CPU, target)
    }

    fn old(cpu: &[i64]) -> Vec<(Arc<Object>, Option<i64>)> {
        let of = |(number, cpu): (usize, &i64)| (pod(number, "Running", true, 3600), Some(*cpu));
        cpu.iter().enumerate().map(of).collect()
    }

    #[test]
    fn replicas_follow_the_ratio_and_small_differences_do_not_count() {
        for (cpu, target, replicas, utilization) in [
            (&[300, 500, 700][..], 30, 5, 50),
            (&[300, 500, 700], 100, 2, 50),
            (&[1010, 1030, 1020], 100, 3, 102),
            (&[550, 540], 50, 2, 54),
            (&[550, 550], 50, 3, 55),
        ] {
            let proposal = propose(&old(cpu), Target::Utilization(target)).expect("a proposal");
            let told = (proposal.replicas, proposal.utilization);
            assert_eq!(told, (replicas, Some(utilization)), "{cpu:?} for {target}");
        }
        let average = propose(&old(&[300, 500, 700]), Target::Average(250)).expect("a proposal");
        assert_eq!(average, Proposal { replicas: 6, utilization: None, average: 500 });
    }

    #[test]
    fn who_starts_or_is_not_measured_does_not_drive_the_scale() {
        let mut pods = old(&[800, 800]);
        pods.push((pod(7, "Running", false, 60), Some(5000)));
        pods.push((pod(8, "Pending", false, 60), None));
        // 160 % of 50 %, but for the two that count as idle on the way up.
        let up = propose(&pods, Target::Utilization(50)).expect("a proposal");
        assert_eq!((up.replicas, up.utilization), (4, Some(80)));
        let mut pods = old(&[100, 100]);
        pods.push((pod(7, "Running", true, 3600), None));
        let down = propose(&pods, Target::Utilization(50)).expect("a proposal");
        assert_eq!((down.replicas, down.utilization), (3, Some(10)), "it may use all it requests");
        pods.push((pod(9, "Failed", false, 3600), None));
        let same = propose(&pods, Target::Utilization(50)).expect("a proposal");
        assert_eq!(same.utilization, Some(10));
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let none = propose(&[], Target::Utilization(50)).expect_err("nothing");
        assert_eq!(none, "no metrics returned from resource metrics API");
        let mut pods = old(&[100]);
        pods[0].1 = None;
        pods.push((pod(7, "Running", false, 60), Some(5000)));
        let unready = propose(&pods, Target::Utilization(50)).expect_err("none is ready");
        assert_eq!(unready, "did not receive metrics for any ready pods");
        let usage = BTreeMap::from([("p0".into(), usage(1))]);
        let bare = Object::from_json(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p0"}, "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Running", "startTime": "2023-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True",
                                "lastTransitionTime": "2023-01-01T00:00:00Z"}]}}));
        let bare = Arc::new(bare.expect("a pod"));
        let scene =
            Scene { current: 1, pods: &[&bare], usage: &usage, now: Wall::from_unix_secs(NOW) };
        let missing = scene.propose(CPU, Target::Utilization(50)).expect_err("no request");
        assert_eq!(missing, "missing request for cpu in container c of Pod p0");
        let one = Resource { name: "cpu", container: Some("other") };
        assert!(scene.propose(one, Target::Average(5)).is_err());
    }
}
