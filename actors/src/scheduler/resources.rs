//! What a pod asks for (upstream `component-helpers/resource/helpers.go`).

use crate::objects::quantity::thousandths;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// What the scoring assumes of a container that asks for nothing: 100 millicores and 200 MB.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type Quantities = BTreeMap<String, Quantity>;

/// Amounts: CPU in millicores, memory in bytes, all others in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu: i64,
    pub memory: i64,
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    pub fn of(quantities: Option<&Quantities>) -> Self {
        let mut all = Resources::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            let amount = thousandths(&quantity.0).unwrap_or(0);
            let whole = amount / 1000 + i64::from(amount % 1000 > 0);
            match name.as_str() {
                "cpu" => all.cpu = amount,
                "memory" => all.memory = whole,
                "pods" => {}
                _ => _ = all.other.insert(name.clone(), whole),
            }
        }
        all
    }

    pub fn add(&mut self, more: &Resources, sign: i64) {
        self.cpu += sign * more.cpu;
        self.memory += sign * more.memory;
        for (name, amount) in &more.other {
            *self.other.entry(name.clone()).or_default() += sign * amount;
        }
    }

    fn at_least(&mut self, least: &Resources) {
        self.cpu = self.cpu.max(least.cpu);
        self.memory = self.memory.max(least.memory);
        for (name, amount) in &least.other {
            let mine = self.other.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}

/// What a pod takes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub requests: Resources,
    /// CPU and memory with the defaults for containers that ask for none: for scoring only.
    pub assumed: (i64, i64),
    /// Protocol, host address (empty: any) and port.
    pub ports: Vec<(String, String, i32)>,
}

impl Load {
    pub fn of(spec: &PodSpec) -> Self {
        let overhead = Resources::of(spec.overhead.as_ref());
        let (mut requests, mut assumed) = (total(spec, requests_of), total(spec, assumed_of));
        requests.add(&overhead, 1);
        assumed.add(&overhead, 1);
        // `GetHostPorts` of pkg/scheduler/util/utils.go.
        let sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
        let all = spec.containers.iter().chain(sidecars);
        let all = all.flat_map(|container| container.ports.iter().flatten());
        let host = spec.host_network == Some(true);
        let ports = all.filter_map(|port| {
            let number = port.host_port.or(host.then_some(port.container_port))?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let ip = port.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default();
            (number > 0).then_some((protocol, ip, number))
        });
        Load { requests, assumed: (assumed.cpu, assumed.memory), ports: ports.collect() }
    }
}

fn requests_of(container: &Container) -> Resources {
    Resources::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn assumed_of(container: &Container) -> Resources {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut all = Resources::of(requests);
    let asks = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
    if !asks("cpu") {
        all.cpu = DEFAULT_CPU;
    }
    if !asks("memory") {
        all.memory = DEFAULT_MEMORY;
    }
    all
}

/// `AggregateContainerRequests`: containers and sidecars together, or what the start needs: each
/// init container beside the sidecars that were started before it.
fn total(spec: &PodSpec, of: fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    spec.containers.iter().for_each(|container| running.add(&of(container), 1));
    let (mut sidecars, mut start) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&now, 1);
            sidecars.add(&now, 1);
            start.at_least(&sidecars);
        } else {
            now.add(&sidecars, 1);
            start.at_least(&now);
        }
    }
    running.at_least(&start);
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_as_upstream_counts_them() {
        let cpu =
            |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = cpu("s", "300m");
        sidecar["restartPolicy"] = "Always".into();
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [cpu("a", "200m"), cpu("b", "100m")],
            "initContainers": [cpu("i", "500m"), sidecar, cpu("j", "400m")],
        }))
        .unwrap();
        // Running: 200 + 100 + 300; starting: max(500, 300 + 400).
        assert_eq!(Load::of(&spec).requests.cpu, 700);
    }
}
