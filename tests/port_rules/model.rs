//! The modelled kernel: two machines on a cable, and programs on them.

use super::machine::{Answered, CLIENT, Machine, PORTS, SERVER, SERVERS};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Mac, Proto, Route};
use kubesim_actors::ports::rules::{Protocol, Reply, Request, Table};
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::netfilter::Netfilter;
use kubesim_sim::kernel::packet::Frame;
use kubesim_sim::kernel::{Kernel, NsId, Output, SocketEvent, SocketId};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

pub struct Model {
    now: Time,
    /// The client and the server.
    kernels: [Kernel; 2],
    flying: VecDeque<(usize, Frame)>,
    events: Vec<(usize, SocketId, SocketEvent)>,
    clients: BTreeMap<u16, SocketId>,
    link: u32,
}

impl Model {
    pub fn new() -> Self {
        let kernel =
            |index| Kernel::new(Rng::new(Stream { seed: 1, label: "t", index, incarnation: 0 }));
        let mut model = Model {
            now: Time::from_secs(1),
            kernels: [kernel(0), kernel(1)],
            flying: VecDeque::new(),
            events: Vec::new(),
            clients: BTreeMap::new(),
            link: 0,
        };
        for (index, address) in [CLIENT, SERVER].into_iter().enumerate() {
            let mac = Mac([2, 0, 0, 0, 0, index as u8]);
            let net = Ipv4Net::new(address, 24).expect("a length");
            model.link = model.with(index, |kernel, now, out| {
                let link = kernel.add_uplink("eth0", mac, 1500).expect("a free name");
                kernel.set_up(now, NsId::HOST, link, true, out).expect("a link");
                kernel.add_address(now, NsId::HOST, link, net, out).expect("a new address");
                link
            });
        }
        for address in &SERVERS[1..] {
            let net = Ipv4Net::new(*address, 24).expect("a length");
            let link = model.link;
            model.with(1, |kernel, now, out| {
                kernel.add_address(now, NsId::HOST, link, net, out).expect("a new address");
            });
        }
        let to = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
        let route = Route { to, via: Some(SERVER), dev: "eth0".into(), onlink: false, metric: 0 };
        model.with(0, |kernel, now, out| {
            kernel.add_route(now, NsId::HOST, &route, Proto::STATIC, out).expect("a gateway");
        });
        model.with(1, |kernel, _, _| {
            for port in PORTS {
                kernel.udp_bind(NsId::HOST, Ipv4Addr::UNSPECIFIED, port, 2).expect("a free port");
            }
            kernel.tcp_listen(NsId::HOST, Ipv4Addr::UNSPECIFIED, PORTS[0], 2).expect("a free port");
        });
        model.settle();
        model
    }

    fn with<R>(
        &mut self,
        machine: usize,
        act: impl FnOnce(&mut Kernel, Time, &mut Vec<Output>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.kernels[machine], self.now, &mut out);
        for output in out {
            match output {
                Output::Transmit { frame, .. } => self.flying.push_back((1 - machine, frame)),
                Output::Socket { socket, event, .. } => self.events.push((machine, socket, event)),
                Output::Changed { .. } => {}
            }
        }
        result
    }

    /// Until nothing flies; the server answers what reaches it.
    fn settle(&mut self) {
        let link = self.link;
        loop {
            while let Some((machine, frame)) = self.flying.pop_front() {
                self.with(machine, |kernel, now, out| kernel.receive(now, link, frame, out));
            }
            let asked = self.events.iter().position(|(machine, _, event)| {
                *machine == 1 && matches!(event, SocketEvent::Datagram { .. })
            });
            let Some(at) = asked else { return };
            let (_, socket, event) = self.events.remove(at);
            if let SocketEvent::Datagram { from, local, .. } = event {
                let body = Body::Stream { seq: u64::from(local.port()) };
                self.with(1, |kernel, now, out| {
                    kernel.udp_send(now, socket, Some(*local.ip()), from, body, 2, out)
                })
                .expect("a way back");
            }
        }
    }

    fn netfilter(&mut self) -> &mut Netfilter {
        self.kernels[0].netfilter_mut(NsId::HOST).expect("the host's")
    }
}

impl Machine for Model {
    fn ask(&mut self, request: Request) -> Reply {
        self.with(0, |kernel, now, out| kernel.rules(now, &request, out)).expect("the host's")
    }
    fn restart(&mut self) {}
    fn iptables(&mut self, command: &str) {
        self.netfilter().command(command).expect(command);
    }
    fn takes(&mut self, command: &str) -> bool {
        self.netfilter().command(command).is_ok()
    }
    fn delete_flat(&mut self, owner: &str) {
        self.netfilter().delete_flat(owner);
    }
    fn nft(&mut self, _command: &str) -> bool {
        false
    }
    fn ipvsadm(&mut self, command: &str) {
        let now = self.now;
        self.netfilter().ipvsadm(command, now).expect(command);
    }
    fn ipvs(&mut self) -> Vec<String> {
        self.netfilter().ipvsadm_save()
    }
    fn connections(&mut self, front: SocketAddrV4, endpoint: Ipv4Addr) -> u64 {
        let now = self.now;
        self.netfilter().ipvs_connections(Protocol::Udp, front, (endpoint, PORTS[0]), now)
    }
    fn delete_link(&mut self, name: &str) {
        self.with(0, |kernel, now, out| {
            let index = kernel.link(NsId::HOST, name).expect("a link").index;
            kernel.del_link(now, NsId::HOST, index, out).expect("it goes");
        });
    }
    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
    fn save(&mut self) -> String {
        self.netfilter().save(None)
    }
    fn transactions(&mut self) -> Option<u64> {
        None
    }
    fn packets(&mut self, table: Table, chain: &str, number: usize) -> u64 {
        self.netfilter().counter(table, chain, number).unwrap_or_default()
    }
    fn udp(&mut self, sport: u16, to: SocketAddrV4) -> Option<Answered> {
        self.now += Duration::from_millis(100);
        let socket = match self.clients.get(&sport) {
            Some(socket) => *socket,
            None => self
                .with(0, |kernel, _, _| kernel.udp_bind(NsId::HOST, CLIENT, sport, 1))
                .expect("a free port"),
        };
        self.clients.insert(sport, socket);
        self.events.clear();
        let body = Body::Stream { seq: 0 };
        // Refused by a rule: EPERM, as on Linux.
        self.with(0, |kernel, now, out| kernel.udp_send(now, socket, None, to, body, 2, out))
            .ok()?;
        self.settle();
        self.events.iter().find_map(|(machine, seen, event)| match event {
            SocketEvent::Datagram { from, body: Body::Stream { seq }, .. }
                if (*machine, *seen) == (0, socket) =>
            {
                Some(Answered { by: *from, at: *seq as u16 })
            }
            _ => None,
        })
    }
    fn tcp(&mut self, to: SocketAddrV4) -> bool {
        self.events.clear();
        self.with(0, |kernel, now, out| kernel.tcp_connect(now, NsId::HOST, to, 1, out))
            .expect("a route and a port");
        self.settle();
        self.events.iter().any(|event| matches!(event, (0, _, SocketEvent::Connected)))
    }
}
