//! Whether a pod fits the node (pkg/kubelet/lifecycle/predicate.go).

use super::Config;
use crate::objects::PodSpec;
use crate::objects::quantity::thousandths;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Requests in thousandths of a CPU and bytes, and how many pods make them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub pods: u32,
}

impl Demand {
    /// What one pod asks for: the sum of its containers and sidecars, or its largest init
    /// container if that is more, and its overhead (`resource.PodRequests`).
    pub fn of(spec: &PodSpec) -> Demand {
        let ask = |container: &Container, name: &str| {
            let resources = container.resources.as_ref();
            let request = resources.and_then(|r| r.requests.as_ref()?.get(name));
            request.map_or(0, milli)
        };
        let total = |name: &str| {
            let mut sum: u64 = spec.containers.iter().map(|c| ask(c, name)).sum();
            let (mut sidecars, mut largest) = (0, 0);
            for init in spec.init_containers.as_deref().unwrap_or_default() {
                if init.restart_policy.as_deref() == Some("Always") {
                    sidecars += ask(init, name);
                    largest = largest.max(sidecars);
                } else {
                    largest = largest.max(sidecars + ask(init, name));
                }
            }
            sum = (sum + sidecars).max(largest);
            sum + spec.overhead.as_ref().and_then(|o| o.get(name)).map_or(0, milli)
        };
        Demand { cpu_millis: total("cpu"), memory_bytes: total("memory").div_ceil(1000), pods: 1 }
    }

    pub fn add(&mut self, other: Demand) {
        self.cpu_millis += other.cpu_millis;
        self.memory_bytes += other.memory_bytes;
        self.pods += other.pods;
    }
    pub fn take(&mut self, other: Demand) {
        self.cpu_millis = self.cpu_millis.saturating_sub(other.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
        self.pods = self.pods.saturating_sub(other.pods);
    }
}

/// Why a pod was refused: the status' reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

/// `Err` if the pod does not fit beside what is used.
pub fn admit(config: &Config, used: Demand, pod: Demand) -> Result<(), Rejection> {
    let full = |resource: &str, requested: u64, used: u64, capacity: u64| Rejection {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: \
             {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    if used.pods + pod.pods > config.max_pods {
        return Err(full("pods", 1, used.pods.into(), config.max_pods.into()));
    }
    if pod.cpu_millis > 0 && used.cpu_millis + pod.cpu_millis > config.cpu_millis {
        return Err(full("cpu", pod.cpu_millis, used.cpu_millis, config.cpu_millis));
    }
    if pod.memory_bytes > 0 && used.memory_bytes + pod.memory_bytes > config.memory_bytes {
        return Err(full("memory", pod.memory_bytes, used.memory_bytes, config.memory_bytes));
    }
    Ok(())
}

/// In thousandths; 0 for what is none.
fn milli(quantity: &Quantity) -> u64 {
    thousandths(&quantity.0).and_then(|amount| u64::try_from(amount).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_every_notation() {
        let read = |text: &str| milli(&Quantity(text.to_owned()));
        assert_eq!(read("1"), 1_000);
        assert_eq!(read("250m"), 250);
        assert_eq!(read("0.5"), 500);
        assert_eq!(read("64Mi"), 64 * 1_048_576_000);
        assert_eq!(read("1e3"), 1_000_000);
        assert_eq!(read("lots"), 0);
    }
}
