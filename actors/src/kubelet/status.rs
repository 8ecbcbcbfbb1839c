//! How a pod is, in the words of the API (pkg/kubelet/kubelet_pods.go, status/generate.go).

use super::Kubelet;
use super::confine;
use super::container_state::{Ctr, Role, State, container_id};
use super::containers::container_specs;
use super::local::{Call, Local};
use super::pod::{Pod, Sandbox};
use crate::objects::{Body, Object, PodSpec, PodStatus, time};
use crate::ports::api;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP,
};
use kubesim_runtime::{Context, Time, Wall};
use std::net::Ipv4Addr;
use std::sync::Arc;

impl Kubelet {
    /// What could not be told while the API was not reached is told now.
    pub(super) fn on_connected(&mut self, up: bool, ctx: &mut Context<'_, Kubelet>) {
        if !up {
            return;
        }
        self.node.on_connected(&mut self.local, ctx);
        self.sync_node(ctx);
        let mut waiting = Vec::new();
        for pod in self.pods.values_mut().filter(|pod| pod.report.retry.at > Time::ZERO) {
            pod.report.retry.reset();
            waiting.push(pod.uid);
        }
        for uid in waiting {
            self.sync(uid, ctx);
        }
    }
}

impl Pod {
    /// Tells the API how the pod is, if that differs from what it knows. At most one write is
    /// under way; what happens meanwhile goes with the next one.
    pub fn write_status(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let report = self.report;
        let busy = report.status_in_flight || report.delete_in_flight || report.deleted;
        if !report.dirty || !self.wanted || busy || ctx.now() < report.retry.at {
            return;
        }
        let Some(record) = &self.record else { return };
        let Some(before) = record.pod_body() else { return };
        let told = before.status();
        if self.holds_back(record, told) {
            return;
        }
        let status = self.status(told, k.address, ctx.wall());
        self.report.dirty = false;
        if status == **told {
            return;
        }
        let after = before.with_status(Arc::new(status));
        let (was, is) = (before.facts(), after.facts());
        if is.ready != was.ready || is.phase != was.phase {
            let phase = after.status().phase.as_deref().unwrap_or_default();
            let ready = if is.ready { ", ready" } else { "" };
            ctx.note(|| format!("pod {} is {phase}{ready}", record.key));
        }
        let body = Body::Pod(after);
        let object = Arc::new(Object { body, ..(**record).clone() });
        self.report.status_in_flight = true;
        k.call(Call::Status(self.uid), api::Request::UpdateStatus { object }, ctx);
    }

    /// Upstream's status is made between the steps of `syncPod`, not within: one write says that
    /// the pod was taken on, the next one how its containers stand. One that is being deleted is
    /// told of by its final delete.
    fn holds_back(&self, record: &Object, told: &PodStatus) -> bool {
        // Why the start before this one failed is said at once.
        let starting = |ctr: &Ctr| ctr.is_starting() && (ctr.is_running() || ctr.blame.is_none());
        let stepping = matches!(self.sandbox, Sandbox::Creating | Sandbox::Removing)
            || self.containers.iter().any(starting);
        record.deleting() || stepping && told.start_time.is_some()
    }

    fn status(&self, told: &PodStatus, node: Option<Ipv4Addr>, now: Wall) -> PodStatus {
        let spec = self.spec();
        if let Some(rejection) = &self.rejected {
            return PodStatus {
                phase: Some("Failed".to_owned()),
                reason: Some(rejection.reason.clone()),
                message: Some(rejection.message.clone()),
                start_time: told.start_time.clone().or_else(|| Some(time(now))),
                ..told.clone()
            };
        }
        let phase = self.phase();
        let address = self.address(node);
        let terminal = self.outcome.is_some();
        // A pod that ended keeps the addresses it had.
        let pod_ip =
            address.map(|ip| ip.to_string()).or_else(|| told.pod_ip.clone().filter(|_| terminal));
        let Statuses { inits, mains, ephemerals } = self.statuses(&spec, told, terminal);
        let host = node.map(|ip| ip.to_string()).or_else(|| told.host_ip.clone());
        PodStatus {
            conditions: Some(self.conditions(&spec, told, phase, now)),
            container_statuses: (!mains.is_empty()).then_some(mains),
            init_container_statuses: (!inits.is_empty()).then_some(inits),
            host_ips: host.clone().map(|ip| vec![HostIP { ip }]),
            host_ip: host,
            pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
            pod_ip,
            phase: Some(phase.to_owned()),
            qos_class: told
                .qos_class
                .clone()
                .or_else(|| Some(confine::qos(&spec).name().to_owned())),
            start_time: told.start_time.clone().or_else(|| Some(time(now))),
            reason: told.reason.clone().filter(|_| terminal),
            message: told.message.clone().filter(|_| terminal),
            ephemeral_container_statuses: (!ephemerals.is_empty()).then_some(ephemerals),
            nominated_node_name: None,
            // What others say of the pod stays.
            observed_generation: told.observed_generation,
            resize: told.resize.clone(),
            resource_claim_statuses: told.resource_claim_statuses.clone(),
        }
    }

    /// `getPhase`.
    fn phase(&self) -> &'static str {
        if let Some(outcome) = self.outcome {
            return outcome;
        }
        let mut mains = self.containers.iter().filter(|ctr| ctr.role == Role::Main);
        let ran = |ctr: &Ctr| ctr.is_running() || ctr.exit_code().is_some() || ctr.last.is_some();
        if self.initialized() && mains.all(ran) { "Running" } else { "Pending" }
    }

    fn initialized(&self) -> bool {
        self.containers.iter().all(|ctr| match ctr.role {
            Role::Init => ctr.exit_code() == Some(0),
            Role::Sidecar => ctr.started(),
            Role::Main | Role::Ephemeral => true,
        })
    }

    fn statuses(&self, spec: &PodSpec, told: &PodStatus, terminal: bool) -> Statuses {
        let is_init = |ctr: &Ctr| matches!(ctr.role, Role::Init | Role::Sidecar);
        let has_inits = self.containers.iter().any(is_init);
        let creating = if has_inits { "PodInitializing" } else { "ContainerCreating" };
        let forgotten = terminal && self.containers.iter().all(|ctr| ctr.next == 0);
        if forgotten {
            let old = |list: &Option<Vec<ContainerStatus>>| list.clone().unwrap_or_default();
            return Statuses {
                inits: old(&told.init_container_statuses),
                mains: old(&told.container_statuses),
                ephemerals: old(&told.ephemeral_container_statuses),
            };
        }
        let policy = self.policy();
        // A container's status takes a kilobyte: room for no more than there are.
        let mains = spec.containers.len();
        let inits = container_specs(spec).count() - mains;
        let mut all = Statuses {
            inits: Vec::with_capacity(inits),
            mains: Vec::with_capacity(mains),
            ephemerals: Vec::with_capacity(self.containers.len() - inits - mains),
        };
        for (index, ctr) in self.containers.iter().enumerate() {
            let Some(wanted) = self.wanted(index, spec) else { continue };
            let status = container_status(ctr, &wanted.container, creating, ctr.is_final(&policy));
            match ctr.role {
                Role::Init | Role::Sidecar => all.inits.push(status),
                Role::Main => all.mains.push(status),
                Role::Ephemeral => {
                    all.ephemerals.push(ContainerStatus { ready: false, started: None, ..status })
                }
            }
        }
        all
    }

    /// The kubelet's conditions as they are now, and those of others as they were.
    fn conditions(
        &self,
        spec: &PodSpec,
        told: &PodStatus,
        phase: &str,
        now: Wall,
    ) -> Vec<PodCondition> {
        let old = told.conditions.as_deref().unwrap_or_default();
        let completed = match phase {
            "Succeeded" => Some("PodCompleted"),
            "Failed" => Some("PodFailed"),
            _ => None,
        };
        let verdict = |ok: bool, reason: &'static str, message: String| match (ok, completed) {
            (true, None) => (true, None, None),
            (_, Some(reason)) => (false, Some(reason), None),
            (false, None) => (false, Some(reason), Some(message)),
        };
        let names = |list: Vec<&Ctr>| {
            list.iter().map(|ctr| ctr.name.as_str()).collect::<Vec<_>>().join(" ")
        };
        let uninitialized: Vec<_> = self
            .containers
            .iter()
            .filter(|ctr| match ctr.role {
                Role::Init => ctr.exit_code() != Some(0),
                Role::Sidecar => !ctr.started(),
                Role::Main | Role::Ephemeral => false,
            })
            .collect();
        let initialized = uninitialized.is_empty() || phase == "Succeeded";
        let incomplete = format!("containers with incomplete status: [{}]", names(uninitialized));
        let serves = |ctr: &&Ctr| matches!(ctr.role, Role::Main | Role::Sidecar);
        let unready: Vec<_> =
            self.containers.iter().filter(serves).filter(|ctr| !ctr.ready()).collect();
        let all_ready = unready.is_empty() && self.sandbox == Sandbox::Up;
        let not_ready = format!("containers with unready status: [{}]", names(unready));
        let gate = |name: &str| old.iter().any(|c| c.type_ == name && c.status == "True");
        let gates = spec.readiness_gates.as_deref().unwrap_or_default();
        let closed = gates.iter().find(|g| !gate(&g.condition_type));
        let ready = match closed {
            Some(closed) if all_ready && completed.is_none() => {
                let name = &closed.condition_type;
                let message = format!(
                    "corresponding condition of pod readiness gate {name:?} does not exist."
                );
                (false, Some("ReadinessGatesNotReady"), Some(message))
            }
            _ => verdict(all_ready, "ContainersNotReady", not_ready.clone()),
        };
        let init_reason = (!initialized).then_some("ContainersNotInitialized");
        let ours = [
            ("PodReadyToStartContainers", (self.sandbox == Sandbox::Up, None, None)),
            ("Initialized", (initialized, init_reason, (!initialized).then_some(incomplete))),
            ("Ready", ready),
            ("ContainersReady", verdict(all_ready, "ContainersNotReady", not_ready)),
            ("PodScheduled", (true, None, None)),
        ];
        let mut conditions: Vec<_> = ours
            .into_iter()
            .map(|(name, (ok, reason, message))| condition(name, ok, reason, message, old, now))
            .collect();
        let is_ours = |c: &&PodCondition| conditions.iter().any(|own| own.type_ == c.type_);
        let foreign: Vec<_> = old.iter().filter(|c| !is_ours(c)).cloned().collect();
        conditions.extend(foreign);
        conditions
    }
}

/// Of all its containers.
struct Statuses {
    inits: Vec<ContainerStatus>,
    mains: Vec<ContainerStatus>,
    ephemerals: Vec<ContainerStatus>,
}

/// The time of the last change of status stays while the status does.
fn condition(
    name: &str,
    ok: bool,
    reason: Option<&str>,
    message: Option<String>,
    old: &[PodCondition],
    now: Wall,
) -> PodCondition {
    let status = if ok { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == name);
    let since = before.filter(|condition| condition.status == status);
    PodCondition {
        last_probe_time: before.and_then(|condition| condition.last_probe_time.clone()),
        last_transition_time: since
            .and_then(|condition| condition.last_transition_time.clone())
            .or_else(|| Some(time(now))),
        message,
        observed_generation: before.and_then(|condition| condition.observed_generation),
        reason: reason.map(str::to_owned),
        status: status.to_owned(),
        type_: name.to_owned(),
    }
}

fn container_status(
    ctr: &Ctr,
    spec: &Container,
    creating: &'static str,
    ended: bool,
) -> ContainerStatus {
    let mut state = ContainerState::default();
    let mut last = ctr.last.as_deref().cloned();
    match &ctr.state {
        State::Running { since } if !ctr.is_starting() => {
            state.running = Some(ContainerStateRunning { started_at: Some(time(*since)) });
        }
        State::Exited { how, .. } if ended => state.terminated = Some((**how).clone()),
        waiting => {
            let (reason, message) = ctr.waiting_reason(creating);
            let message = (!message.is_empty()).then_some(message);
            state.waiting =
                Some(ContainerStateWaiting { message, reason: Some(reason.to_owned()) });
            if let State::Exited { how, .. } = waiting {
                last = Some((**how).clone());
            }
        }
    }
    let image = spec.image.clone().unwrap_or_default();
    let known = !ctr.id.is_empty();
    ContainerStatus {
        container_id: known.then(|| container_id(&ctr.id)),
        image_id: if known { image.clone() } else { String::new() },
        image,
        last_state: Some(ContainerState { terminated: last, ..ContainerState::default() }),
        name: spec.name.clone(),
        ready: ctr.ready(),
        restart_count: i32::try_from(ctr.restart_count()).unwrap_or(i32::MAX),
        started: Some(ctr.started()),
        state: Some(state),
        ..ContainerStatus::default()
    }
}
