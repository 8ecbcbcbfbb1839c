//! The machine as the simulator models it.

use crate::world::{World, mac};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{
    Errno, FdbEntry, Mac, Neighbour, Proto, Reply, Request, Route, State,
};
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::kernel::{Kernel, NeighbourState, NsId, Output};
use std::sync::Arc;

pub struct Model {
    kernel: Kernel,
    told: Arc<State>,
    macs: u8,
}

impl Model {
    pub fn new() -> Model {
        let kernel =
            Kernel::new(Rng::new(Stream { seed: 1, label: "kernel", index: 0, incarnation: 0 }));
        Model { told: Arc::new(kernel.state()), kernel, macs: 100 }
    }

    /// Acts, and hears whether that was news.
    fn act<R>(&mut self, act: impl FnOnce(&mut Kernel, Time, &mut Vec<Output>) -> R) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.kernel, Time::ZERO, &mut out);
        if out.iter().any(|output| matches!(output, Output::Changed { .. })) {
            self.told = Arc::new(self.kernel.state());
        }
        result
    }

    fn index(&self, name: &str) -> u32 {
        self.kernel.link(NsId::HOST, name).expect("a link").index
    }
}

impl World for Model {
    fn ask(&mut self, request: Request) -> Reply {
        self.act(|kernel, now, out| kernel.network(now, &request, out))
    }

    fn until(&mut self, what: &str, fits: impl Fn(&State) -> bool) -> Arc<State> {
        assert!(fits(&self.told), "{what}: {:#?}", self.told);
        Arc::clone(&self.told)
    }

    fn settled(&mut self) -> Arc<State> {
        Arc::clone(&self.told)
    }

    fn restart(&mut self) {
        self.told = Arc::new(self.kernel.state());
    }

    fn add_veth(&mut self, a: &str, b: &str) {
        self.macs += 2;
        let (first, second) = (mac(self.macs), mac(self.macs + 1));
        let ends = ((NsId::HOST, a, first), (NsId::HOST, b, second));
        self.act(|kernel, now, out| {
            let made = kernel.add_veth(ends.0, ends.1, 1500).expect("new names");
            for index in [made.0, made.1] {
                kernel.set_up(now, NsId::HOST, index, true, out).expect("a link");
            }
        });
    }

    fn del_link(&mut self, name: &str) {
        let index = self.index(name);
        self.act(|kernel, now, out| kernel.del_link(now, NsId::HOST, index, out)).expect("a link");
    }

    fn set_up(&mut self, name: &str, up: bool) {
        let index = self.index(name);
        let done = self.act(|kernel, now, out| kernel.set_up(now, NsId::HOST, index, up, out));
        done.expect("a link");
    }

    fn set_master(&mut self, port: &str, bridge: Option<&str>) {
        let (port, bridge) = (self.index(port), bridge.map(|name| self.index(name)));
        let done =
            self.act(|kernel, now, out| kernel.set_master(now, NsId::HOST, port, bridge, out));
        done.expect("a port and a bridge");
    }

    fn set_mtu(&mut self, name: &str, mtu: u32) {
        let index = self.index(name);
        let done = self.act(|kernel, now, out| kernel.set_mtu(now, NsId::HOST, index, mtu, out));
        done.expect("a link");
    }

    fn add_address(&mut self, link: &str, address: Ipv4Net) -> Result<(), Errno> {
        let index = self.index(link);
        self.act(|kernel, now, out| kernel.add_address(now, NsId::HOST, index, address, out))
    }

    fn del_address(&mut self, link: &str, address: Ipv4Net) -> Result<(), Errno> {
        let index = self.index(link);
        self.act(|kernel, now, out| kernel.del_address(now, NsId::HOST, index, address, out))
    }

    fn add_route(&mut self, route: &Route, proto: Proto) -> Result<(), Errno> {
        self.act(|kernel, now, out| kernel.add_route(now, NsId::HOST, route, proto, out))
    }

    fn del_route(&mut self, route: &Route, proto: Proto) -> Result<(), Errno> {
        self.act(|kernel, now, out| kernel.del_route(now, NsId::HOST, route, proto, out))
    }

    fn write_sysctl(&mut self, key: &str, value: &str) {
        let done = self.act(|kernel, now, out| kernel.set_sysctl(now, NsId::HOST, key, value, out));
        done.expect("a key");
    }

    fn routes(&mut self) -> Vec<(Route, Proto)> {
        self.kernel.routes(NsId::HOST).collect()
    }

    fn neighbours(&mut self, link: &str) -> Vec<Neighbour> {
        let index = self.index(link);
        let all = self.kernel.neighbours(NsId::HOST);
        let ours = all.filter(|n| n.dev == index && n.state == NeighbourState::Permanent);
        let mut found: Vec<Neighbour> =
            ours.filter_map(|n| Some(Neighbour { ip: n.ip, mac: n.mac? })).collect();
        found.sort_by_key(|neighbour| neighbour.ip);
        found
    }

    fn fdb(&mut self, link: &str) -> Vec<FdbEntry> {
        let text = self.kernel.bridge_fdb(NsId::HOST);
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let of_link = lines.filter_map(|words| match words[..] {
            [mac, "dev", dev, "dst", remote, ..] if dev == link => {
                let mac = Mac::parse(mac)?;
                Some(FdbEntry { mac, remote: remote.parse().ok()? })
            }
            _ => None,
        });
        let mut found: Vec<FdbEntry> = of_link.collect();
        found.sort_by_key(|entry| entry.mac);
        found
    }
}
