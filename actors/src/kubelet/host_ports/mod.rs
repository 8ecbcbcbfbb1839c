//! Ports of the node that lead to its pods (`hostPort`). Of pods on the pod network: those on the
//! node's own have theirs anyway.
//!
//! No container of such a pod is started before its ports lead to it. While no pod has one, there
//! is no rule, and nothing is asked for.

mod rules;

use super::local::Local;
use super::pod::{Pod, Sandbox};
use super::{Effect, Kubelet, Timer};
use crate::objects::{Key, PodSpec, Uid};
use crate::ports::network;
use crate::ports::rules::{Protocol, Reply, Request};
use k8s_openapi::api::core::v1::{Container, ContainerPort};
use kubesim_runtime::Context;
use smol_str::SmolStr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// How often the rules are compared with the kernel, as the proxy's are.
const VERIFY: Duration = Duration::from_secs(30);
/// After a refusal.
const AGAIN: Duration = Duration::from_secs(5);

/// A port as a pod asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub protocol: Protocol,
    /// On this address of the node; `None`: on all.
    pub ip: Option<Ipv4Addr>,
    pub number: u16,
    /// The pod's own.
    pub inside: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    pub uid: Uid,
    pub pod: Key,
    pub ip: Ipv4Addr,
    pub port: Port,
}

type Leads = Arc<[Lead]>;

/// What stands in the kernel, as far as this life knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Rules {
    /// What a former life left, if it left anything.
    #[default]
    Unknown,
    Nothing,
    Leads(Leads),
}

impl Rules {
    fn leads(&self) -> &[Lead] {
        if let Rules::Leads(leads) = self { leads } else { &[] }
    }
}

#[derive(Clone, Debug, Default)]
pub struct HostPorts {
    standing: Rules,
    in_flight: Option<Rules>,
    /// The last refusal was told.
    told: bool,
}

impl HostPorts {
    /// Whether all ports of a pod lead to it.
    pub fn lead_to(&self, pod: Uid) -> bool {
        self.standing.leads().iter().any(|lead| lead.uid == pod)
    }
}

/// The rules that lead nowhere: what takes the place of all that stand.
pub fn footing() -> Request {
    rules::apply(&[])
}

/// Of its containers and sidecars (`generatePodSandboxConfig`,
/// pkg/kubelet/kuberuntime/kuberuntime_sandbox.go). Those of IPv6 addresses lead nowhere.
pub fn of(spec: &PodSpec) -> Box<[Port]> {
    if spec.host_network == Some(true) {
        return Box::default();
    }
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let all = spec.containers.iter().chain(sidecars);
    all.flat_map(|container| container.ports.iter().flatten()).filter_map(port).collect()
}

fn port(port: &ContainerPort) -> Option<Port> {
    let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
    let ip = match port.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(ip) => Some(ip.parse::<Ipv4Addr>().ok()?).filter(|ip| !ip.is_unspecified()),
        None => None,
    };
    let protocol = match port.protocol.as_deref() {
        None | Some("" | "TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(_) => return None,
    };
    let (outside, inside) = (number(port.host_port?)?, number(port.container_port)?);
    Some(Port { protocol, ip, number: outside, inside })
}

impl Pod {
    fn leads(&self) -> impl Iterator<Item = Lead> {
        let ip = self.ip.filter(|_| self.sandbox == Sandbox::Up);
        let lead = |(ip, port): (Ipv4Addr, &Port)| {
            let pod = self.object.key.clone();
            Lead { uid: self.uid, pod, ip, port: *port }
        };
        ip.into_iter().flat_map(|ip| self.ports.iter().map(move |port| (ip, port))).map(lead)
    }

    /// What its containers are waiting for.
    pub fn waits_for_ports(&self, k: &Local) -> bool {
        !self.ports.is_empty() && !k.host_ports.lead_to(self.uid)
    }
}

impl Kubelet {
    /// Makes the rules what the pods ask for. Not before it is known whose each sandbox is: what a
    /// pod still uses that no API has shown yet is not taken away from it.
    pub(super) fn sync_host_ports(&mut self, ctx: &mut Context<'_, Kubelet>) {
        if !self.local.listed || !self.all_claimed() {
            return;
        }
        let leads: Leads = self.pods.values().flat_map(Pod::leads).collect();
        let sweeps = self.local.config.sweeps;
        let ports = &mut self.local.host_ports;
        if ports.in_flight.is_some() {
            return;
        }
        let wanted = match &ports.standing {
            Rules::Unknown if leads.is_empty() && !sweeps => return,
            Rules::Nothing if leads.is_empty() => return,
            Rules::Leads(_) if leads.is_empty() => Rules::Nothing,
            Rules::Leads(same) if *same == leads => return,
            _ => Rules::Leads(leads),
        };
        let request = match &wanted {
            Rules::Leads(leads) => rules::apply(leads),
            _ => rules::withdraw(),
        };
        if !wanted.leads().is_empty() {
            allow_loopback(ctx);
        }
        ports.in_flight = Some(wanted);
        ctx.perform(Effect::Rules(request));
    }

    pub(super) fn on_rules(&mut self, reply: Reply, ctx: &mut Context<'_, Kubelet>) {
        match reply {
            Reply::Applied { owner, result, .. } if owner == rules::OWNER => {
                self.on_ports_applied(result, ctx);
            }
            Reply::Verified { owner, intact: false, missing } if owner == rules::OWNER => {
                let some = missing.join("; ");
                ctx.note(|| format!("rules of host ports were gone and are put back: {some}"));
                self.put_back(ctx);
            }
            Reply::Failed { doing, why } => ctx.note(|| format!("{doing}: {why}")),
            _ => {}
        }
    }

    fn on_ports_applied(&mut self, result: Result<(), String>, ctx: &mut Context<'_, Kubelet>) {
        let Some(wanted) = self.local.host_ports.in_flight.take() else { return };
        if let Err(why) = result {
            ctx.note(|| format!("host ports: {why}"));
            if !std::mem::replace(&mut self.local.host_ports.told, true) {
                let waiting = self.pods.values().filter(|pod| pod.waits_for_ports(&self.local));
                let waiting: Vec<Uid> = waiting.map(|pod| pod.uid).collect();
                for pod in waiting.iter().filter_map(|uid| self.pods.get(uid)) {
                    pod.tell_no_sandbox(&format!("host ports: {why}"), &mut self.local);
                }
            }
            return ctx.set_timer(Timer::HostPorts, AGAIN);
        }
        self.local.host_ports.told = false;
        let before = std::mem::replace(&mut self.local.host_ports.standing, wanted);
        let now = self.local.host_ports.standing.leads();
        let filters = rules::stale(before.leads(), now);
        if !filters.is_empty() {
            ctx.perform(Effect::Rules(Request::DeleteConntrack { filters }));
        }
        match now.is_empty() {
            true => ctx.clear_timer(Timer::HostPorts),
            false => ctx.set_timer(Timer::HostPorts, VERIFY),
        }
        let known: Vec<Uid> = before.leads().iter().map(|lead| lead.uid).collect();
        let new = now.iter().map(|lead| lead.uid).filter(|uid| !known.contains(uid));
        let mut new: Vec<Uid> = new.collect();
        new.dedup();
        new.into_iter().for_each(|uid| self.sync(uid, ctx));
        self.sync_host_ports(ctx);
    }

    /// The time for it has come.
    pub(super) fn look_after_ports(&mut self, ctx: &mut Context<'_, Kubelet>) {
        if self.local.host_ports.in_flight.is_some() {
            return;
        }
        if self.local.host_ports.standing.leads().is_empty() {
            return self.sync_host_ports(ctx);
        }
        allow_loopback(ctx);
        ctx.set_timer(Timer::HostPorts, VERIFY);
        ctx.perform(Effect::Rules(Request::Verify { owner: rules::OWNER }));
        self.sync_host_ports(ctx);
    }

    /// The same again: the driver then looks at what is there.
    fn put_back(&mut self, ctx: &mut Context<'_, Kubelet>) {
        let ports = &mut self.local.host_ports;
        if let (Rules::Leads(leads), None) = (&ports.standing, &ports.in_flight) {
            let request = rules::apply(leads);
            ports.in_flight = Some(ports.standing.clone());
            ctx.perform(Effect::Rules(request));
        }
    }
}

/// What a program on the node sends to a port of 127.0.0.1 goes to the bridge with that as its
/// source, and its answer comes from there (`enableLocalnetRouting` of the plugin).
fn allow_loopback(ctx: &mut Context<'_, Kubelet>) {
    let key = SmolStr::new_static("net.ipv4.conf.cni0.route_localnet");
    let value = SmolStr::new_static("1");
    ctx.perform(Effect::Network(network::Request::SetSysctl { key, value }));
}
