//! Quantities, and what a pod asks for (upstream apimachinery `resource.Quantity` and
//! `component-helpers/resource/helpers.go`).

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

/// A quantity in thousandths, rounded up; `None` if it is none.
pub fn thousandths(quantity: &str) -> Option<i64> {
    let text = quantity.trim();
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: f64 = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            10f64.powi(power)
        }
    };
    // Whole numbers, the common case, stay exact.
    if let Ok(whole) = number.parse::<i64>()
        && factor >= 1.0
    {
        return Some(whole.saturating_mul(factor as i64).saturating_mul(1000));
    }
    let value = number.parse::<f64>().ok()? * factor * 1000.0;
    // 0.1 * 1000 must not become 101.
    Some((value - 1e-6).ceil() as i64)
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
        let all = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
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
    fn quantities_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("100m", 100),
            ("1", 1000),
            ("0.1", 100),
            ("1.5", 1500),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("1e3", 1_000_000),
            ("128974848", 128_974_848_000),
            ("1n", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(thousandths(text), Some(expected), "{text}");
        }
        assert_eq!(thousandths("many"), None);
    }

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
