//! Probes: what the scenario tries again and again, from pods, nodes and outside, and what came
//! of every try.

use super::external::{self, Destination, Order};
use super::programs::resolver::{Lookup, Next};
use super::{Due, Owner, Role, World};
use crate::body::Body;
use crate::kernel::{NsId, SocketEvent, SocketId};
use crate::models::connections::framed_len;
use crate::scenario::{self, PodRef, ProbeFrom, ProbeKind, ProbeTarget, RecordType, ServiceVia};
use k8s_openapi::api::core::v1::ServiceSpec;
use kubesim_actors::dns::message::{Data, Message, Rcode, Type};
use kubesim_actors::objects::{Key, Kind as ObjectKind, Object, PodStatus};
use kubesim_runtime::{Rng, Stream, Time};
use rustc_hash::FxHashMap;
use smol_str::{SmolStr, format_smolstr};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// A probe and everything it saw.
pub struct Probe {
    pub spec: scenario::Probe,
    pub tries: Vec<Try>,
    sockets: FxHashMap<SocketId, u32>,
    lookups: FxHashMap<u32, (Lookup, u16)>,
    stream: Option<SocketId>,
    stream_machine: Option<u32>,
    /// An external machine opens the connection or has it.
    opening: bool,
    connected: bool,
    /// When the stream's connection was lost.
    pub broken: Option<Time>,
    rng: Rng,
}

/// One try, or one message of a stream.
#[derive(Clone, Debug)]
pub struct Try {
    pub began: Time,
    pub ended: Option<Time>,
    pub result: Result<(), SmolStr>,
    /// A dig's addresses, sorted.
    pub answer: Vec<Ipv4Addr>,
    /// There are more, which the answer says it has no room for (RFC 2181, 9).
    pub cut: bool,
    socket: Option<SocketId>,
    place: Option<(u32, NsId)>,
}

impl Try {
    pub fn succeeded(&self) -> bool {
        self.ended.is_some() && self.result.is_ok()
    }
}

/// Where a probe is made from: a machine, a namespace, and its resolver's configuration.
struct Place {
    machine: u32,
    ns: NsId,
    resolv_conf: Arc<str>,
}

impl World {
    pub(super) fn plan_probes(&mut self) {
        let scenario = self.scenario.clone();
        for (index, spec) in scenario.probes.iter().enumerate() {
            let stream = Stream {
                seed: self.knobs.seed,
                label: "probe",
                index: index as u64,
                incarnation: 0,
            };
            self.probes.push(Probe {
                spec: spec.clone(),
                tries: Vec::new(),
                sockets: FxHashMap::default(),
                lookups: FxHashMap::default(),
                stream: None,
                stream_machine: None,
                opening: false,
                connected: false,
                broken: None,
                rng: Rng::new(stream),
            });
            self.queue.push(Time::ZERO + spec.start, Due::Probe { slot: index as u32 });
        }
    }

    pub(super) fn probe_due(&mut self, slot: usize) {
        let spec = &self.probes[slot].spec;
        if self.now.since(Time::ZERO) > spec.until {
            return;
        }
        if let Some(every) = spec.every {
            self.queue.push(self.now + every, Due::Probe { slot: slot as u32 });
        }
        if spec.kind == ProbeKind::TcpStream {
            return self.stream_due(slot);
        }
        let number = self.probes[slot].tries.len() as u32;
        let timeout = self.probes[slot].spec.timeout;
        self.probes[slot].tries.push(Try {
            began: self.now,
            ended: None,
            result: Ok(()),
            answer: Vec::new(),
            cut: false,
            socket: None,
            place: None,
        });
        self.queue.push(self.now + timeout, Due::ProbeEnds { slot: slot as u32, number });
        if let Err(why) = self.probe_begin(slot, number) {
            self.probe_done(slot, number, Err(why));
        }
    }

    fn probe_begin(&mut self, slot: usize, number: u32) -> Result<(), SmolStr> {
        let spec = self.probes[slot].spec.clone();
        if let Some((machine, pod)) = self.external_place(&spec.from)? {
            let to = match self.probe_target(&spec.to)? {
                Ok(target) if matches!(spec.to, ProbeTarget::Api) => Destination::Api(target),
                Ok(target) => Destination::Address(target),
                Err((host, port)) => Destination::Host(host, port),
            };
            let (kind, timeout) = (spec.kind, spec.timeout);
            let order = external::Try { slot, number, pod, kind, to, timeout };
            self.ordered(machine, || Order::Try(order));
            return Ok(());
        }
        let place = self.probe_place(&spec.from)?;
        self.probes[slot].tries[number as usize].place = Some((place.machine, place.ns));
        let target = match self.probe_target(&spec.to)? {
            Ok(target) => target,
            Err((host, port)) => return self.probe_lookup(slot, number, &place, &host, port),
        };
        self.probe_at(slot, number, &place, target)
    }

    fn probe_at(
        &mut self,
        slot: usize,
        number: u32,
        place: &Place,
        target: SocketAddrV4,
    ) -> Result<(), SmolStr> {
        let owner = Owner::Probe(slot as u32).pack();
        let (machine, ns) = (place.machine, place.ns);
        let refuse = |errno| format_smolstr!("{target}: {errno}");
        match self.probes[slot].spec.kind.clone() {
            ProbeKind::Ping => {
                let (id, seq) = (slot as u16 + 1, number as u16);
                self.kernel(machine, |k, now, out| {
                    k.ping(now, ns, *target.ip(), id, seq, 84, owner, out)
                })
                .map_err(refuse)
            }
            ProbeKind::Http { .. } | ProbeKind::TcpStream => {
                let opened =
                    self.kernel(machine, |k, now, out| k.tcp_connect(now, ns, target, owner, out));
                self.probe_opened(slot, number, opened.map_err(refuse)?);
                Ok(())
            }
            ProbeKind::Dig { query, record, tcp } => {
                let id = self.probes[slot].rng.u64() as u16;
                let message = question(&query, record, id);
                if !tcp {
                    return self.probe_ask(slot, number, (machine, ns), target, message);
                }
                let opened =
                    self.kernel(machine, |k, now, out| k.tcp_connect(now, ns, target, owner, out));
                let socket = opened.map_err(refuse)?;
                self.probe_opened(slot, number, socket);
                let len = framed_len(&message);
                let body = Body::Dns(Arc::new(message));
                self.kernel(machine, |k, now, out| k.tcp_send(now, socket, body, len, out))
                    .map_err(refuse)
            }
        }
    }

    fn probe_opened(&mut self, slot: usize, number: u32, socket: SocketId) {
        self.probes[slot].sockets.insert(socket, number);
        self.probes[slot].tries[number as usize].socket = Some(socket);
    }

    fn probe_ask(
        &mut self,
        slot: usize,
        number: u32,
        (machine, ns): (u32, NsId),
        to: SocketAddrV4,
        message: Message,
    ) -> Result<(), SmolStr> {
        let owner = Owner::Probe(slot as u32).pack();
        let refuse = |errno| format_smolstr!("{to}: {errno}");
        let socket = match self.probes[slot].tries[number as usize].socket {
            Some(socket) => socket,
            None => {
                let any = Ipv4Addr::UNSPECIFIED;
                let bound = self.kernel(machine, |k, _, _| k.udp_bind(ns, any, 0, owner));
                let socket = bound.map_err(refuse)?;
                self.probe_opened(slot, number, socket);
                socket
            }
        };
        let len = message.wire_len() as u32;
        let body = Body::Dns(Arc::new(message));
        self.kernel(machine, |k, now, out| k.udp_send(now, socket, None, to, body, len, out))
            .map_err(refuse)
    }

    fn probe_lookup(
        &mut self,
        slot: usize,
        number: u32,
        place: &Place,
        host: &str,
        port: u16,
    ) -> Result<(), SmolStr> {
        let id = self.probes[slot].rng.u64() as u16;
        let lookup = Lookup::new(&place.resolv_conf, host, id);
        let (to, message) = lookup.query().ok_or("resolv.conf names no nameserver")?;
        self.probes[slot].lookups.insert(number, (lookup, port));
        self.probe_ask(slot, number, (place.machine, place.ns), to, message)
    }

    pub(super) fn probe_ends(&mut self, slot: usize, number: u32) {
        let open = self.probes[slot].tries[number as usize].ended.is_none();
        if open {
            let timeout = self.probes[slot].spec.timeout;
            let why = format_smolstr!("no answer within {} s", timeout.as_secs_f64());
            self.probe_done(slot, number, Err(why));
        }
    }

    pub(super) fn probe_done(&mut self, slot: usize, number: u32, result: Result<(), SmolStr>) {
        let probe = &mut self.probes[slot];
        let attempt = &mut probe.tries[number as usize];
        if attempt.ended.is_some() {
            return;
        }
        attempt.ended = Some(self.now);
        attempt.result = result;
        probe.lookups.remove(&number);
        let (socket, place) = (attempt.socket.take(), attempt.place);
        if let (Some(socket), Some((machine, _))) = (socket, place) {
            probe.sockets.remove(&socket);
            self.kernel(machine, |k, now, out| k.close(now, socket, out));
        }
        let (failed, name) = (
            self.probes[slot].tries[number as usize].result.clone(),
            self.probes[slot].spec.name.clone(),
        );
        if let Err(why) = failed
            && number > 0
            && self.probes[slot].tries[number as usize - 1].succeeded()
        {
            self.line(&format!("probe {name}"), || format!("fails: {why}"));
        }
    }

    pub(super) fn probe_socket(&mut self, slot: u32, socket: SocketId, event: SocketEvent) {
        let slot = slot as usize;
        if self.probes[slot].stream == Some(socket) {
            return self.stream_event(slot, event);
        }
        if let SocketEvent::EchoReply { seq, .. } = event {
            let wanted = |t: &Try| t.ended.is_none();
            let number = u32::from(seq);
            if self.probes[slot].tries.get(number as usize).is_some_and(wanted) {
                self.probe_done(slot, number, Ok(()));
            }
            return;
        }
        let Some(&number) = self.probes[slot].sockets.get(&socket) else { return };
        match event {
            SocketEvent::Connected => {
                if let ProbeKind::Http { path, .. } = self.probes[slot].spec.kind.clone()
                    && let Some((machine, _)) = self.probes[slot].tries[number as usize].place
                {
                    let body = Body::HttpRequest { path };
                    let _ =
                        self.kernel(machine, |k, now, out| k.tcp_send(now, socket, body, 120, out));
                }
            }
            SocketEvent::Received { body: Body::HttpResponse { status, text }, .. } => {
                let result = self.judge_status(slot, status, &text);
                self.probe_done(slot, number, result);
            }
            SocketEvent::Datagram { body: Body::Dns(message), .. }
            | SocketEvent::Received { body: Body::Dns(message), .. } => {
                self.probe_dns(slot, number, &message);
            }
            SocketEvent::Failed(errno) => {
                self.probe_done(slot, number, Err(format_smolstr!("{errno}")))
            }
            SocketEvent::Icmp { kind, .. } => {
                self.probe_done(slot, number, Err(format_smolstr!("{kind}")))
            }
            SocketEvent::PeerClosed | SocketEvent::Closed => {
                self.probe_done(slot, number, Err("the connection was closed".into()));
            }
            _ => {}
        }
    }

    pub(super) fn judge_status(&self, slot: usize, status: u16, text: &str) -> Result<(), SmolStr> {
        match self.probes[slot].spec.kind {
            ProbeKind::Http { status: wanted, .. } if status != wanted => {
                Err(format_smolstr!("status {status} ({text}), not {wanted}"))
            }
            _ => Ok(()),
        }
    }

    fn probe_dns(&mut self, slot: usize, number: u32, message: &Message) {
        let looking = self.probes[slot].lookups.get_mut(&number);
        let Some((lookup, port)) = looking else {
            let mut answer: Vec<Ipv4Addr> = message
                .answers
                .iter()
                .filter_map(|r| if let Data::A(ip) = r.data { Some(ip) } else { None })
                .collect();
            answer.sort_unstable();
            let attempt = &mut self.probes[slot].tries[number as usize];
            (attempt.answer, attempt.cut) = (answer, message.truncated);
            let result = match message.rcode {
                Rcode::NoError if !message.answers.is_empty() => Ok(()),
                Rcode::NoError => Err("no records".into()),
                rcode => Err(format_smolstr!("{rcode}")),
            };
            return self.probe_done(slot, number, result);
        };
        let (next, port) = (lookup.answered(message), *port);
        let again = lookup.query();
        let Some(place) = self.probes[slot].tries[number as usize].place else { return };
        let result = match next {
            Next::Found(ip) => {
                self.probes[slot].lookups.remove(&number);
                if let Some(socket) = self.probes[slot].tries[number as usize].socket.take() {
                    self.probes[slot].sockets.remove(&socket);
                    self.kernel(place.0, |k, now, out| k.close(now, socket, out));
                }
                let place = Place { machine: place.0, ns: place.1, resolv_conf: "".into() };
                self.probe_at(slot, number, &place, SocketAddrV4::new(ip, port))
            }
            Next::Ask => match again {
                Some((to, message)) => self.probe_ask(slot, number, place, to, message),
                None => Err("resolv.conf names no nameserver".into()),
            },
            Next::Failed(why) => Err(why.into()),
        };
        if let Err(why) = result {
            self.probe_done(slot, number, Err(why));
        }
    }

    // Streams.

    fn stream_due(&mut self, slot: usize) {
        if self.probes[slot].broken.is_some() {
            return;
        }
        let probe = &self.probes[slot];
        if probe.stream.is_none() && !probe.opening {
            return self.stream_open(slot);
        }
        if !probe.connected {
            return;
        }
        let (socket, number) = (probe.stream, probe.tries.len() as u64);
        let Some((machine, _)) = probe.place_of_stream() else { return };
        self.probes[slot].tries.push(Try {
            began: self.now,
            ended: None,
            result: Ok(()),
            answer: Vec::new(),
            cut: false,
            socket: None,
            place: Some((machine, NsId::HOST)),
        });
        let seq = (slot as u64) << 32 | number;
        if self.ordered(machine, || Order::SendStream { slot, seq }) {
            return;
        }
        let Some(socket) = socket else { return };
        let body = Body::Stream { seq };
        let _ = self.kernel(machine, |k, now, out| k.tcp_send(now, socket, body, 64, out));
    }

    fn stream_open(&mut self, slot: usize) {
        let spec = self.probes[slot].spec.clone();
        let Ok(external) = self.external_place(&spec.from) else { return };
        let Ok(Ok(target)) = self.probe_target(&spec.to) else { return };
        if let Some((machine, pod)) = external {
            self.probes[slot].opening = true;
            self.probes[slot].stream_machine = Some(machine);
            self.ordered(machine, || Order::OpenStream { slot, pod, to: target });
            return;
        }
        let Ok(place) = self.probe_place(&spec.from) else { return };
        let owner = Owner::Probe(slot as u32).pack();
        let (machine, ns) = (place.machine, place.ns);
        if let Ok(socket) =
            self.kernel(machine, |k, now, out| k.tcp_connect(now, ns, target, owner, out))
        {
            self.probes[slot].stream = Some(socket);
            self.probes[slot].stream_machine = Some(machine);
        }
    }

    fn stream_event(&mut self, slot: usize, event: SocketEvent) {
        match event {
            SocketEvent::Connected => self.stream_is_up(slot),
            SocketEvent::Failed(_) | SocketEvent::PeerClosed | SocketEvent::Closed => {
                self.stream_is_down(slot);
            }
            _ => {}
        }
    }

    pub(super) fn stream_is_up(&mut self, slot: usize) {
        self.probes[slot].connected = true;
    }

    /// One that never came up is tried again.
    pub(super) fn stream_is_down(&mut self, slot: usize) {
        let (now, probe) = (self.now, &mut self.probes[slot]);
        if probe.connected {
            probe.broken = Some(now);
            let name = probe.spec.name.clone();
            self.line(&format!("probe {name}"), || "the stream broke".to_owned());
        } else {
            probe.stream = None;
            probe.opening = false;
        }
    }

    /// A program read a numbered message of a stream.
    pub(super) fn stream_read(&mut self, seq: u64) {
        let (slot, number) = ((seq >> 32) as usize, seq as u32 as usize);
        let now = self.now;
        if let Some(attempt) =
            self.probes.get_mut(slot).and_then(|probe| probe.tries.get_mut(number))
        {
            attempt.ended = attempt.ended.or(Some(now));
        }
    }

    // Who and where.

    fn probe_place(&self, from: &ProbeFrom) -> Result<Place, SmolStr> {
        match from {
            ProbeFrom::Node(name) | ProbeFrom::Client(name) => {
                let machine = self.machine_named(name).ok_or("no such machine")?;
                if !self.machines[machine as usize].on {
                    return Err(format_smolstr!("{name} is off"));
                }
                let resolv_conf = self.machines[machine as usize]
                    .files
                    .read("/etc/resolv.conf")
                    .unwrap_or_default();
                Ok(Place { machine, ns: NsId::HOST, resolv_conf })
            }
            ProbeFrom::Pod(pods) => {
                let pod = self.find_pod(pods).ok_or("no ready pod to probe from")?;
                let space = pod.pod().and_then(|(spec, _)| {
                    let machine = self.machine_named(spec.node_name.as_deref()?)?;
                    let space = self.machines[machine as usize].pods.get(&pod.uid)?;
                    Some(Place { machine, ns: space.ns, resolv_conf: space.resolv_conf.clone() })
                });
                space.ok_or_else(|| format_smolstr!("pod {} has no sandbox", pod.key))
            }
        }
    }

    /// An address and port, or a name that has to be looked up first.
    #[allow(clippy::type_complexity)]
    fn probe_target(
        &self,
        to: &ProbeTarget,
    ) -> Result<Result<SocketAddrV4, (SmolStr, u16)>, SmolStr> {
        let target = match to {
            ProbeTarget::Pod { pod, port } => {
                let pod = self.find_pod(pod).ok_or("no ready pod to probe")?;
                let ip =
                    pod.pod().and_then(|(_, status)| pod_ip(status)).ok_or("the pod has no IP")?;
                SocketAddrV4::new(ip, *port)
            }
            ProbeTarget::Service { namespace, name, port, via } => {
                self.service_target(&Key::new(namespace.clone(), name.clone()), *port, via)?
            }
            ProbeTarget::Node { node, port } => {
                SocketAddrV4::new(self.address_of(node).ok_or("the node has no address")?, *port)
            }
            ProbeTarget::Address { address, port } => SocketAddrV4::new(*address, *port),
            ProbeTarget::Host { host, port } => return Ok(Err((host.clone(), *port))),
            ProbeTarget::Api => {
                let server = &self.machines[self.front.machine as usize].name;
                let ip = self.address_of(server).ok_or("the server has no address")?;
                SocketAddrV4::new(ip, super::api::PORT)
            }
            ProbeTarget::ClusterDns => SocketAddrV4::new(self.scenario.cluster.dns_address, 53),
        };
        Ok(Ok(target))
    }

    fn service_target(
        &self,
        key: &Key,
        port: u16,
        via: &ServiceVia,
    ) -> Result<SocketAddrV4, SmolStr> {
        let missing = || format_smolstr!("no service {key}");
        let service = self.object(ObjectKind::Service, key).ok_or_else(missing)?;
        let (spec, _) = service.service().ok_or_else(missing)?;
        let (ip, port) = match via {
            ServiceVia::ClusterIp => (spec.cluster_ip.clone(), port),
            ServiceVia::ExternalIp => {
                (spec.external_ips.as_ref().and_then(|ips| ips.first().cloned()), port)
            }
            ServiceVia::NodePort(node) => {
                (self.address_of(node).map(|ip| ip.to_string()), node_port(spec, port)?)
            }
        };
        let ip = ip.and_then(|ip| ip.parse().ok()).ok_or("the service has no such address")?;
        Ok(SocketAddrV4::new(ip, port))
    }

    /// What the API says of an object now.
    pub fn object(&self, kind: ObjectKind, key: &Key) -> Option<&Arc<Object>> {
        self.front.cache()?.views.get(&kind)?.get(key)
    }

    /// All objects of a kind as the API has them now.
    pub fn objects(&self, kind: ObjectKind) -> impl Iterator<Item = &Arc<Object>> {
        self.front
            .cache()
            .and_then(|cache| cache.views.get(&kind))
            .into_iter()
            .flat_map(|view| view.values())
    }

    /// The machine's present address on its first card.
    pub fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        let machine = &self.machines[self.machine_named(name)? as usize];
        let (index, _) = machine.first_port()?;
        let state = machine.kernel.state();
        let link = state.links.iter().find(|link| link.index == index)?;
        link.addresses.first().map(|net| net.addr())
    }

    /// The first ready pod, by name, that fits.
    pub fn find_pod(&self, pods: &PodRef) -> Option<&Arc<Object>> {
        self.pods(pods).find(|pod| is_ready(pod) && !pod.deleting())
    }

    /// The pods that fit, in the order of their names.
    pub fn pods(&self, pods: &PodRef) -> impl Iterator<Item = &Arc<Object>> + use<'_> {
        let pods = pods.clone();
        self.objects(ObjectKind::Pod).filter(move |pod| fits(&pods, pod))
    }

    /// Whether a machine is a node of the scenario.
    pub fn is_node(&self, machine: u32) -> bool {
        matches!(self.machines[machine as usize].role, Role::Node(_))
    }
}

/// The node port of a Service's port.
fn node_port(spec: &ServiceSpec, port: u16) -> Result<u16, SmolStr> {
    let ports = spec.ports.iter().flatten();
    let known: Vec<_> = ports
        .filter_map(|p| Some((p.port, u16::try_from(p.node_port.filter(|n| *n != 0)?).ok()?)))
        .collect();
    if let Some((_, number)) = known.iter().find(|(of, _)| *of == i32::from(port)) {
        return Ok(*number);
    }
    if known.is_empty() {
        return Err("the service has no node port".into());
    }
    let there = super::words::list(known.iter().map(|(of, number)| format!("{of} ({number})")));
    Err(format_smolstr!("the service has no node port of its port {port}, only of {there}"))
}

/// Whether a pod is one of these.
pub fn fits(pods: &PodRef, pod: &Object) -> bool {
    let Some((spec, _)) = pod.pod() else { return false };
    (pods.namespace.is_empty() || pod.key.namespace == pods.namespace)
        && pods.name.as_ref().is_none_or(|name| pod.key.name == *name)
        && pods.node.as_ref().is_none_or(|node| spec.node_name.as_deref() == Some(node))
        && pods.labels.iter().all(|(name, value)| pod.label(name) == Some(value))
}

impl Probe {
    fn place_of_stream(&self) -> Option<(u32, NsId)> {
        self.stream_machine.map(|machine| (machine, NsId::HOST))
    }

    /// When tries succeeded, in order.
    pub fn successes(&self) -> impl Iterator<Item = Time> + '_ {
        self.tries.iter().filter(|t| t.succeeded()).filter_map(|t| t.ended)
    }

    /// The first success after a moment, and how long it took.
    pub fn resumed_after(&self, moment: Time) -> Option<Duration> {
        self.successes().filter(|at| *at >= moment).min().map(|at| at.since(moment))
    }
}

pub fn pod_ip(status: &PodStatus) -> Option<Ipv4Addr> {
    status.pod_ip.as_ref()?.parse().ok()
}

/// The pod's Ready condition is true.
pub fn is_ready(pod: &Object) -> bool {
    pod.pod_facts().is_some_and(|facts| facts.ready)
}

fn question(name: &str, record: RecordType, id: u16) -> Message {
    let qtype = match record {
        RecordType::A => Type::A,
        RecordType::Aaaa => Type::Aaaa,
        RecordType::Srv => Type::Srv,
        RecordType::Ptr => Type::Ptr,
    };
    Message {
        id,
        response: false,
        authoritative: false,
        truncated: false,
        recursion_desired: true,
        rcode: Rcode::NoError,
        name: name.trim_end_matches('.').to_lowercase().into(),
        qtype,
        answers: Vec::new(),
        additional: Vec::new(),
        udp_size: 1232,
    }
}

#[cfg(test)]
mod tests {
    use super::node_port;
    use k8s_openapi::api::core::v1::ServiceSpec;
    use serde_json::json;

    #[test]
    fn which_port_has_no_node_port_is_said_and_which_have() {
        let spec = |ports: serde_json::Value| -> ServiceSpec {
            serde_json::from_value(json!({ "ports": ports })).expect("a spec")
        };
        let two = spec(json!([{"port": 80, "nodePort": 30080}, {"port": 443, "nodePort": 30443},
                              {"port": 8080}]));
        assert_eq!(node_port(&two, 443), Ok(30443));
        let said = "the service has no node port of its port 8080, only of 80 (30080), 443 (30443)";
        assert_eq!(node_port(&two, 8080), Err(said.into()));
        let none = spec(json!([{"port": 80}]));
        assert_eq!(node_port(&none, 80), Err("the service has no node port".into()));
    }
}
