//! The container port: sandboxes become namespaces with a veth, containers become programs; and
//! the kubelet's probes of them.

use super::machine::PodSpace;
use super::ports::Work;
use super::programs::{Container, Task};
use super::{Cell, Due, Kind, Life, Machine, Owner, World};
use crate::body::Body;
use crate::kernel::{NsId, SocketEvent, SocketId};
use crate::models::runtime::{Delays, Step};
use crate::scenario::{Image, Span};
use ipnet::Ipv4Net;
use kubesim_actors::containers::commands;
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{self, Exit, PodNetwork, Sandbox};
use kubesim_actors::ports::network::{Mac, Proto, Route};
use kubesim_actors::ports::probe;
use kubesim_runtime::Ticket;
use smol_str::{SmolStr, format_smolstr};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

impl Life {
    /// One number for one life, as the models know their watchers and askers.
    pub(super) fn pack(self) -> u64 {
        let incarnation = u64::from(self.incarnation) & 0xff_ffff;
        (self.cell.kind as u64) << 56 | u64::from(self.cell.index) << 24 | incarnation
    }

    pub(super) fn unpack(packed: u64) -> Option<Life> {
        const KINDS: [Kind; 9] = [
            Kind::ApiServer,
            Kind::Controllers,
            Kind::Scheduler,
            Kind::Kubelet,
            Kind::Netd,
            Kind::Flannel,
            Kind::Proxy,
            Kind::Dns,
            Kind::KubeDns,
        ];
        let kind = *KINDS.get((packed >> 56) as usize)?;
        let cell = Cell { kind, index: (packed >> 24) as u32 };
        Some(Life { cell, incarnation: packed as u32 & 0xff_ffff })
    }
}

/// A probe of the kubelet under way.
#[derive(Debug)]
pub struct ProbeRun {
    life: Life,
    ticket: Ticket,
    request: probe::Request,
    machine: u32,
    socket: Option<SocketId>,
    generation: u32,
}

impl World {
    pub(super) fn do_container(
        &mut self,
        life: Life,
        ticket: Ticket,
        request: &container::Request,
    ) {
        let machine = self.machine_of(life.cell);
        // The runtime answers by subject, and a stop by the exit that every observer hears.
        self.kubelets.forgive(life.cell.index, life.incarnation, ticket);
        if !self.machines[machine as usize].on {
            return;
        }
        let delays = self.delays(machine, request);
        let steps = self.machines[machine as usize].runtime.request(request, life.pack(), &delays);
        self.take_steps(machine, steps);
    }

    /// How long things take on this machine now; pulls are drawn per image.
    fn delays(&mut self, machine: u32, request: &container::Request) -> Delays {
        let mut delays = Delays::default();
        if let container::Request::StartContainer { spec, .. } = request {
            let pull = self.scenario.images.get(&spec.image).map(|image| image.pull);
            delays.pull = super::programs::draw(&mut self.rng, pull.unwrap_or_default());
            if !self.scenario.images.contains_key(&spec.image) {
                self.machines[machine as usize].runtime.set_pullable(&spec.image, false);
            }
        }
        delays
    }

    fn take_steps(&mut self, machine: u32, steps: Vec<Step>) {
        let boots = self.machines[machine as usize].boots;
        for step in steps {
            match step {
                Step::Later { after, .. } => {
                    let step = Box::new(step);
                    self.later(after, Work::Step { machine, boots, step });
                }
                step => self.do_step(machine, boots, step),
            }
        }
    }

    pub(super) fn do_step(&mut self, machine: u32, boots: u32, step: Step) {
        let host = &mut self.machines[machine as usize];
        if !host.on || host.boots != boots {
            return;
        }
        match step {
            Step::Later { job, .. } => {
                let steps = host.runtime.finish(&job, &Delays::default());
                self.take_steps(machine, steps);
            }
            Step::CreateNamespace { pod, spec } => self.create_namespace(machine, pod, &spec),
            Step::StartProgram { pod, spec, .. } => self.start_container(machine, pod, &spec),
            Step::KillProgram { pod, name, attempt, grace } => {
                self.kill_container(machine, pod, &name, attempt, grace);
            }
            Step::RemoveNamespace { pod } => self.remove_namespace(machine, pod),
            Step::Reply { to, reply } => {
                if let Some(life) = Life::unpack(to) {
                    self.tell_container(life, None, reply);
                }
            }
        }
    }

    /// A veth into the bridge, the pod's address and its default route, as the CNI bridge plugin
    /// makes them.
    fn create_namespace(&mut self, machine: u32, pod: Uid, spec: &Sandbox) {
        let mut space = PodSpace {
            ns: NsId::HOST,
            host_network: true,
            resolv_conf: spec.resolv_conf.clone(),
            programs: Vec::new(),
        };
        if let PodNetwork::Bridge { bridge, address, gateway, mtu } = &spec.network {
            let host_name = format_smolstr!("veth{:08x}", (pod.0 >> 96) as u32);
            let mac = Mac::from_ip(address.addr());
            let (address, gateway, mtu) = (*address, *gateway, *mtu);
            space.host_network = false;
            space.ns = self.kernel(machine, |k, now, out| {
                let ns = k.add_namespace();
                let outer = Mac([0xfe, mac.0[1], mac.0[2], mac.0[3], mac.0[4], mac.0[5]]);
                let veth = k.add_veth((NsId::HOST, &host_name, outer), (ns, "eth0", mac), mtu);
                let bridge = k.link(NsId::HOST, bridge).map(|link| link.index);
                if let Ok((outside, inside)) = veth {
                    let _ = k.set_master(now, NsId::HOST, outside, bridge, out);
                    // A pod that is its own Service's endpoint is answered at the bridge.
                    let _ = k.set_hairpin(NsId::HOST, outside, true);
                    let _ = k.set_up(now, NsId::HOST, outside, true, out);
                    let _ = k.set_up(now, ns, inside, true, out);
                    let _ = k.add_address(now, ns, inside, address, out);
                    let default = Route {
                        to: Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0),
                        via: Some(gateway),
                        dev: "eth0".into(),
                        onlink: false,
                        metric: 0,
                    };
                    let _ = k.add_route(now, ns, &default, Proto::BOOT, out);
                }
                ns
            });
        }
        self.machines[machine as usize].pods.insert(pod, space);
    }

    fn remove_namespace(&mut self, machine: u32, pod: Uid) {
        let Some(space) = self.machines[machine as usize].pods.remove(&pod) else { return };
        for program in space.programs {
            self.end_program(program);
        }
        if !space.host_network {
            self.kernel(machine, |k, now, out| k.remove_namespace(now, space.ns, out));
        }
    }

    fn start_container(&mut self, machine: u32, pod: Uid, spec: &Arc<container::Container>) {
        let image = self.image(&spec.image);
        let host = &self.machines[machine as usize];
        let Some(space) = host.pods.get(&pod) else { return };
        let (ns, resolv_conf) = (space.ns, space.resolv_conf.clone());
        let container = Container::new(pod, spec.clone(), image, resolv_conf);
        let slot = self.spawn(machine, ns, Task::Container(container));
        if let Some(space) = self.machines[machine as usize].pods.get_mut(&pod) {
            space.programs.push(slot);
        }
    }

    fn image(&mut self, name: &str) -> Arc<Image> {
        if let Some(image) = self.images.get(name) {
            return image.clone();
        }
        let known = self.scenario.images.get(name).cloned();
        let image = Arc::new(known.unwrap_or_else(|| idle(name)));
        self.images.insert(name.into(), image.clone());
        image
    }

    fn kill_container(
        &mut self,
        machine: u32,
        pod: Uid,
        name: &str,
        attempt: u32,
        grace: Duration,
    ) {
        let Some(space) = self.machines[machine as usize].pods.get(&pod) else { return };
        for slot in space.programs.clone() {
            let is_it = self.container_mut(slot).is_some_and(|c| c.is(name, attempt));
            if is_it {
                self.run_program(slot, |world, seat, task| {
                    if let Task::Container(container) = task {
                        container.terminate(world, seat, grace);
                    }
                });
            }
        }
    }

    /// A container's process ended; its sockets close after it.
    pub(super) fn container_exited(
        &mut self,
        machine: u32,
        slot: u32,
        pod: Uid,
        name: &str,
        attempt: u32,
        code: i32,
    ) {
        if let Some(space) = self.machines[machine as usize].pods.get_mut(&pod) {
            space.programs.retain(|known| *known != slot);
        }
        self.end_program(slot);
        let exit = Exit::of(code);
        let steps = self.machines[machine as usize].runtime.exited(pod, name, attempt, exit);
        self.take_steps(machine, steps);
    }

    // The kubelet's probes.

    pub(super) fn kubelet_probe(&mut self, life: Life, ticket: Ticket, request: probe::Request) {
        let machine = self.machine_of(life.cell);
        if !self.machines[machine as usize].on {
            return;
        }
        let target = match &request.check {
            // Models speak TLS where they are asked to.
            probe::Check::Http { ip, get } => match (get.host.as_str(), get.host.parse()) {
                ("", _) => SocketAddrV4::new(*ip, get.port),
                (_, Ok(host)) => SocketAddrV4::new(host, get.port),
                (name, Err(_)) => {
                    let why = format_smolstr!("dial tcp: lookup {name}: no such host");
                    let reply = reply_to(&request, Err(why));
                    return self.tell_probe(life, ticket, reply);
                }
            },
            probe::Check::Tcp { ip, port } => SocketAddrV4::new(*ip, *port),
            probe::Check::Exec { command } if request.purpose.is_hook() => {
                let takes = commands::play(command).takes;
                let generation = self.program_generation;
                self.program_generation += 1;
                let run = ProbeRun { life, ticket, request, machine, socket: None, generation };
                let slot = self.kubelet_probes.insert(run) as u32;
                self.queue.push(self.now + takes, Due::KubeletProbe { slot, generation });
                return;
            }
            probe::Check::Exec { .. } => {
                let result = self.exec_probe(machine, &request);
                let reply = reply_to(&request, result);
                return self.tell_probe(life, ticket, reply);
            }
        };
        let generation = self.program_generation;
        self.program_generation += 1;
        let timeout = request.timeout;
        let run = ProbeRun { life, ticket, request, machine, socket: None, generation };
        let slot = self.kubelet_probes.insert(run) as u32;
        let owner = Owner::KubeletProbe(slot).pack();
        let opened =
            self.kernel(machine, |k, now, out| k.tcp_connect(now, NsId::HOST, target, owner, out));
        match opened {
            Ok(socket) => {
                self.kubelet_probes[slot as usize].socket = Some(socket);
                if let Some(timeout) = timeout {
                    self.queue.push(self.now + timeout, Due::KubeletProbe { slot, generation });
                }
            }
            Err(errno) => {
                self.kubelet_probe_done(slot, Err(format_smolstr!("dial tcp {target}: {errno}")))
            }
        }
    }

    /// `exec` in a container that runs and has opened its ports succeeds: what the command would
    /// see is that the program answers.
    fn exec_probe(&mut self, machine: u32, request: &probe::Request) -> Result<(), SmolStr> {
        let space = self.machines[machine as usize].pods.get(&request.pod);
        let programs = space.map(|space| space.programs.clone()).unwrap_or_default();
        for slot in programs {
            let open = self
                .container_mut(slot)
                .filter(|c| c.name() == request.container)
                .map(|c| c.is_open());
            match open {
                Some(true) => return Ok(()),
                Some(false) => return Err("command exited with 1".into()),
                None => {}
            }
        }
        Err("container not running".into())
    }

    /// What a hook's command came to in its container, which may have ended under it.
    fn exec_hook(&mut self, machine: u32, request: &probe::Request) -> Result<(), SmolStr> {
        let probe::Check::Exec { command } = &request.check else { return Ok(()) };
        let (probe::Purpose::PostStart { attempt } | probe::Purpose::PreStop { attempt }) =
            request.purpose
        else {
            return Ok(());
        };
        let space = self.machines[machine as usize].pods.get(&request.pod);
        let programs = space.map(|space| space.programs.clone()).unwrap_or_default();
        let mut own = programs.into_iter().filter_map(|slot| {
            self.container_mut(slot).map(|container| container.is(&request.container, attempt))
        });
        let code = if own.any(|is_it| is_it) { commands::play(command).code } else { 137 };
        if code == 0 {
            return Ok(());
        }
        let command = command.join(" ");
        Err(format_smolstr!("command '{command}' exited with {code}: , message: \"\""))
    }

    pub(super) fn kubelet_probe_ends(&mut self, slot: u32, generation: u32) {
        let run = self.kubelet_probes.get(slot as usize);
        let run = run.filter(|run| run.generation == generation);
        if let Some(run) = run
            && run.request.purpose.is_hook()
        {
            let (machine, request) = (run.machine, run.request.clone());
            let result = self.exec_hook(machine, &request);
            self.kubelet_probe_done(slot, result);
        } else if run.is_some() {
            let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            self.kubelet_probe_done(slot, Err(why.into()));
        } else {
            self.counts.events -= 1;
        }
    }

    fn kubelet_probe_done(&mut self, slot: u32, result: Result<(), SmolStr>) {
        let Some(run) = self.kubelet_probes.try_remove(slot as usize) else { return };
        if let Some(socket) = run.socket
            && self.machines[run.machine as usize].on
        {
            self.kernel(run.machine, |k, now, out| k.tcp_close(now, socket, out));
        }
        self.tell_probe(run.life, run.ticket, reply_to(&run.request, result));
    }

    pub(super) fn kubelet_probe_socket(&mut self, slot: u32, socket: SocketId, event: SocketEvent) {
        let Some(run) = self.kubelet_probes.get(slot as usize) else { return };
        if run.socket.is_some_and(|known| known != socket) {
            return;
        }
        let machine = run.machine;
        match (event, &run.request.check) {
            (SocketEvent::Connected, probe::Check::Tcp { .. }) => {
                self.kubelet_probe_done(slot, Ok(()))
            }
            (SocketEvent::Connected, probe::Check::Http { get, .. }) => {
                let body = Body::HttpRequest { path: get.path.clone() };
                let _ = self.kernel(machine, |k, now, out| k.tcp_send(now, socket, body, 150, out));
            }
            (SocketEvent::Received { body: Body::HttpResponse { status, .. }, .. }, _) => {
                // 200..400 is success (pkg/probe/http/http.go).
                let hook = run.request.purpose.is_hook();
                let ok = hook || (200..400).contains(&status);
                let result = if ok {
                    Ok(())
                } else {
                    Err(format_smolstr!("HTTP probe failed with statuscode: {status}"))
                };
                self.kubelet_probe_done(slot, result);
            }
            (SocketEvent::Failed(errno), _) => {
                self.kubelet_probe_done(slot, Err(format_smolstr!("dial tcp: connect: {errno}")));
            }
            (SocketEvent::PeerClosed | SocketEvent::Closed, _) => {
                self.kubelet_probe_done(slot, Err("EOF".into()))
            }
            _ => {}
        }
    }
}

fn reply_to(request: &probe::Request, result: Result<(), SmolStr>) -> probe::Reply {
    let (pod, container, purpose) = (request.pod, request.container.clone(), request.purpose);
    probe::Reply { pod, container, purpose, result }
}

/// What an image does that no file describes: it runs and listens nowhere.
fn idle(name: &str) -> Image {
    Image {
        name: name.into(),
        pull: Span::default(),
        start: Span::default(),
        stop: Span::default(),
        tcp: Vec::new(),
        udp: Vec::new(),
        http: Vec::new(),
        streams: Vec::new(),
        crash: None,
    }
}

impl Machine {
    /// Addresses that live sandboxes hold.
    pub fn sandbox_addresses(&self) -> Vec<Ipv4Addr> {
        match &self.sandboxes {
            Some(pictured) => pictured.iter().map(|(ip, _)| *ip).collect(),
            None => self.runtime.addresses().filter_map(|(_, ip)| ip).collect(),
        }
    }

    /// The MTUs of the cards of pods that have a network of their own.
    pub fn pod_mtus(&self) -> Vec<u32> {
        if let Some(pictured) = &self.sandboxes {
            return pictured.iter().map(|(_, mtu)| *mtu).collect();
        }
        let own = self.pods.values().filter(|pod| !pod.host_network);
        own.filter_map(|pod| self.kernel.mtu(pod.ns, "eth0")).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::world::testing;
    use kubesim_actors::objects::Kind;

    /// The code with which a container went that a probe had the kubelet end within a second.
    fn code(stop: &str) -> i32 {
        let more = format!(
            r#"
[image."app:1"]
tcp = [80]
stop = "{stop}"
[[workload]]
name = "app"
[workload.object]
apiVersion = "v1"
kind = "Pod"
metadata = {{ name = "app" }}
[workload.object.spec]
terminationGracePeriodSeconds = 1
[[workload.object.spec.containers]]
name = "main"
image = "app:1"
livenessProbe = {{ tcpSocket = {{ port = 81 }}, periodSeconds = 5 }}
"#
        );
        let world = testing::world_after(testing::scenario("", &more));
        let pod = world.objects(Kind::Pod).next().expect("the pod");
        let status = pod.to_json()["status"]["containerStatuses"][0].clone();
        let code = status["lastState"]["terminated"]["exitCode"].as_i64();
        code.unwrap_or_else(|| panic!("{status}")) as i32
    }

    #[test]
    fn a_container_that_outlives_its_grace_is_killed() {
        assert_eq!(code("100ms"), 128 + 15, "SIGTERM");
        assert_eq!(code("10s"), 128 + 9, "SIGKILL");
    }
}
