//! The metrics that an autoscaler goes by, each with what it comes to
//! (`computeReplicasForMetric` of upstream's horizontal.go).

use super::calculate::{Proposal, Resource, Scene, Target};
use crate::objects::quantity::thousandths;
use crate::objects::{Name, Object};
use crate::ports::metrics::Usage;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kubesim_runtime::Wall;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is told of all metrics.
pub type Measured = Result<Arc<BTreeMap<Name, Usage>>, String>;

/// A metric that says how many pods there should be.
pub struct Valid {
    pub replicas: i32,
    /// As people are told of it.
    pub name: String,
    pub status: MetricStatus,
}

/// One that cannot say it.
pub struct Invalid {
    /// `FailedGetResourceMetric`
    pub reason: &'static str,
    /// Why, by itself, and among other metrics.
    pub why: String,
    pub among: String,
}

pub struct Metrics<'a> {
    pub measured: &'a Measured,
    pub pods: &'a [&'a Arc<Object>],
    pub current: i32,
    pub now: Wall,
}

impl Metrics<'_> {
    pub fn judge(&self, spec: &MetricSpec) -> Result<Valid, Invalid> {
        match spec.type_.as_str() {
            "Resource" => self.resource(spec),
            "ContainerResource" => self.container(spec),
            // Whom these would be asked of (custom.metrics.k8s.io, external.metrics.k8s.io) is not
            // there.
            "Pods" => Err(unasked(
                "FailedGetPodsMetric",
                "failed to get pods metric value",
                spec.pods.as_ref().map(|of| &of.metric.name),
                "custom metrics API",
            )),
            "Object" => Err(unasked(
                "FailedGetObjectMetric",
                "failed to get object metric value",
                spec.object.as_ref().map(|of| &of.metric.name),
                "custom metrics API",
            )),
            "External" => Err(unasked(
                "FailedGetExternalMetric",
                "failed to get external metric value",
                spec.external.as_ref().map(|of| &of.metric.name),
                "external metrics API",
            )),
            other => {
                let why = format!("unknown metric source type {other:?}");
                Err(Invalid { reason: "InvalidMetricSourceType", among: why.clone(), why })
            }
        }
    }

    fn resource(&self, spec: &MetricSpec) -> Result<Valid, Invalid> {
        let Some(of) = &spec.resource else { return Err(no_target("FailedGetResourceMetric")) };
        let resource = Resource { name: &of.name, container: None };
        let proposal = self.propose(resource, &of.target).map_err(|why| Invalid {
            reason: "FailedGetResourceMetric",
            among: format!("failed to get {} resource metric value: {why}", of.name),
            why,
        })?;
        let name = match proposal.utilization {
            Some(_) => format!("{} resource utilization (percentage of request)", of.name),
            None => format!("{} resource", of.name),
        };
        let status = MetricStatus {
            type_: spec.type_.clone(),
            resource: Some(ResourceMetricStatus {
                name: of.name.clone(),
                current: value(&proposal),
            }),
            ..MetricStatus::default()
        };
        Ok(Valid { replicas: proposal.replicas, name, status })
    }

    fn container(&self, spec: &MetricSpec) -> Result<Valid, Invalid> {
        let reason = "FailedGetContainerResourceMetric";
        let Some(of) = &spec.container_resource else { return Err(no_target(reason)) };
        let resource = Resource { name: &of.name, container: Some(&of.container) };
        let proposal = self.propose(resource, &of.target).map_err(|why| Invalid {
            reason,
            among: format!("failed to get {} container metric value: {why}", of.name),
            why,
        })?;
        let name = match proposal.utilization {
            Some(_) => {
                format!("{} container resource utilization (percentage of request)", of.name)
            }
            None => format!("{} container resource", of.name),
        };
        let (container, name_of) = (of.container.clone(), of.name.clone());
        let current = value(&proposal);
        let told = ContainerResourceMetricStatus { container, current, name: name_of };
        let status = MetricStatus {
            type_: spec.type_.clone(),
            container_resource: Some(told),
            ..MetricStatus::default()
        };
        Ok(Valid { replicas: proposal.replicas, name, status })
    }

    fn propose(&self, resource: Resource<'_>, target: &MetricTarget) -> Result<Proposal, String> {
        let average = target.average_value.as_ref().and_then(|value| thousandths(&value.0));
        let goal = match (average, target.average_utilization) {
            (Some(value), _) => Target::Average(value),
            (None, Some(utilization)) => Target::Utilization(utilization),
            (None, None) => return Err(NO_TARGET.to_owned()),
        };
        let failed = |why: &str| format!("failed to get {} utilization: {why}", resource.name);
        let usage = self.measured.as_ref().map_err(|why| {
            let of = resource.name;
            failed(&format!(
                "unable to get metrics for resource {of}: unable to fetch metrics from resource \
                 metrics API: {why}"
            ))
        })?;
        let scene = Scene { current: self.current, pods: self.pods, usage, now: self.now };
        scene.propose(resource, goal).map_err(|why| failed(&why))
    }
}

const NO_TARGET: &str = "invalid resource metric source: neither an average utilization target nor an average value \
     (usage) target was set";

fn no_target(reason: &'static str) -> Invalid {
    Invalid { reason, why: NO_TARGET.to_owned(), among: NO_TARGET.to_owned() }
}

fn unasked(reason: &'static str, failed: &str, name: Option<&String>, api: &str) -> Invalid {
    let name = name.map(String::as_str).unwrap_or_default();
    let why = format!(
        "unable to get metric {name}: unable to fetch metrics from {api}: the server could not \
         find the requested resource"
    );
    Invalid { reason, among: format!("{failed}: {why}"), why }
}

fn value(proposal: &Proposal) -> MetricValueStatus {
    MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(Quantity(milli(proposal.average))),
        value: None,
    }
}

/// As `resource.NewMilliQuantity` is written.
fn milli(value: i64) -> String {
    if value % 1000 == 0 { (value / 1000).to_string() } else { format!("{value}m") }
}
