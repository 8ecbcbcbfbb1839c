//! The machine as it is: the driver in a network namespace, and `ip` as the administrator.

use crate::namespace::ip as run_ip;
use crate::world::{World, mac};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{
    Errno, FdbEntry, Mac, Neighbour, Proto, Reply, Request, Route, State,
};
use kubesim_backends::network::Network;
use kubesim_backends::port::{Answer, Closed, Port};
use serde_json::Value;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

/// What is told is told soon.
const SOON: Duration = Duration::from_secs(5);
/// What is not told by then is not told.
const QUIET: Duration = Duration::from_millis(150);

pub struct Linux {
    runtime: Runtime,
    local: LocalSet,
    driver: Network,
    told: Rc<RefCell<Vec<Arc<State>>>>,
    macs: u8,
}

impl Linux {
    /// In the calling thread's namespace.
    pub fn new() -> Linux {
        Linux::with(|| Network::open().expect("a netlink socket"))
    }

    pub fn with(driver: impl FnOnce() -> Network) -> Linux {
        for (key, value) in [
            ("net.bridge.bridge-nf-call-iptables", "0"),
            ("net.ipv4.conf.default.forwarding", "0"),
            ("net.ipv4.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.forwarding", "0"),
            ("net.ipv4.conf.default.promote_secondaries", "0"),
        ] {
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut linux = Linux {
            runtime: runtime.expect("a runtime"),
            local: LocalSet::new(),
            driver: driver(),
            told: Rc::default(),
            macs: 100,
        };
        linux.observe();
        linux
    }

    fn observe(&mut self) {
        self.told = Rc::default();
        let told = Rc::clone(&self.told);
        let answer = Answer::new(move |reply| {
            let Reply::State(state) = reply else { panic!("{reply:?}") };
            told.borrow_mut().push(state);
            async { Ok(()) }
        });
        let _enter = self.runtime.enter();
        self.local.spawn_local(self.driver.perform(Request::Observe, answer));
        self.until("the first state", |_| true);
    }

    /// Waits for a state that fits, in vain if it does not come soon.
    pub fn comes(&mut self, fits: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + SOON;
        while !self.newest().is_some_and(|state| fits(&state)) {
            if Instant::now() > deadline {
                return false;
            }
            self.pass(Duration::from_millis(1));
        }
        true
    }

    fn pass(&self, time: Duration) {
        self.local.block_on(&self.runtime, async { sleep(time).await });
    }

    fn newest(&self) -> Option<Arc<State>> {
        self.told.borrow().last().cloned()
    }

    fn json(words: &str) -> Vec<Value> {
        serde_json::from_str(&run_ip(words)).expect("JSON")
    }

    /// `ip …` that may be refused.
    fn try_ip(words: &str) -> Result<(), Errno> {
        let done = Command::new("ip").args(words.split_whitespace()).output().expect("ip runs");
        if done.status.success() {
            return Ok(());
        }
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        let says = |words: &str| error.contains(words);
        Err(match () {
            () if says("File exists") || says("already assigned") => Errno::Eexist,
            () if says("Network is unreachable") || says("invalid gateway") => Errno::Enetunreach,
            () if says("No such process") => Errno::Esrch,
            () if says("Cannot assign") || says("Address not found") => Errno::Eaddrnotavail,
            () if says("Network is down") || says("is not up") => Errno::Enetdown,
            () if says("Invalid argument") => Errno::Einval,
            () => panic!("ip {words}: {error}"),
        })
    }
}

fn words(route: &Route, proto: Proto) -> String {
    let scope = if route.via.is_some() { "global" } else { "link" };
    format!("{} scope {scope} proto {}", crate::world::text(route), proto.0)
}

impl World for Linux {
    fn ask(&mut self, request: Request) -> Reply {
        let replies = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&replies);
        let answer = Answer::new(move |reply| {
            kept.borrow_mut().push(reply);
            async { Ok::<(), Closed>(()) }
        });
        let done = self.driver.perform(request, answer);
        self.local.block_on(&self.runtime, done);
        let mut replies = replies.take();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    fn until(&mut self, what: &str, fits: impl Fn(&State) -> bool) -> Arc<State> {
        assert!(self.comes(fits), "{what}: {:#?}", self.newest());
        self.newest().expect("one that fits")
    }

    fn settled(&mut self) -> Arc<State> {
        let mut seen = self.told.borrow().len();
        loop {
            self.pass(QUIET);
            let now = self.told.borrow().len();
            if now == seen {
                return self.newest().expect("a first state");
            }
            seen = now;
        }
    }

    fn restart(&mut self) {
        self.local = LocalSet::new();
        self.driver = Network::open().expect("a netlink socket");
        self.observe();
    }

    fn add_veth(&mut self, a: &str, b: &str) {
        self.macs += 2;
        let (first, second) = (mac(self.macs), mac(self.macs + 1));
        // The second end first, so that they are numbered as named.
        run_ip(&format!("link add {b} address {second} type veth peer name {a} address {first}"));
        for name in [a, b] {
            self.set_up(name, true);
        }
    }

    fn del_link(&mut self, name: &str) {
        run_ip(&format!("link del {name}"));
    }

    fn set_up(&mut self, name: &str, up: bool) {
        run_ip(&format!("link set {name} {}", if up { "up" } else { "down" }));
    }

    fn set_master(&mut self, port: &str, bridge: Option<&str>) {
        match bridge {
            Some(bridge) => run_ip(&format!("link set {port} master {bridge}")),
            None => run_ip(&format!("link set {port} nomaster")),
        };
    }

    fn set_mtu(&mut self, name: &str, mtu: u32) {
        run_ip(&format!("link set {name} mtu {mtu}"));
    }

    fn add_address(&mut self, link: &str, address: Ipv4Net) -> Result<(), Errno> {
        Linux::try_ip(&format!("addr add {address} brd + dev {link}"))
    }

    fn del_address(&mut self, link: &str, address: Ipv4Net) -> Result<(), Errno> {
        Linux::try_ip(&format!("addr del {address} dev {link}"))
    }

    fn add_route(&mut self, route: &Route, proto: Proto) -> Result<(), Errno> {
        Linux::try_ip(&format!("route add {}", words(route, proto)))
    }

    fn del_route(&mut self, route: &Route, proto: Proto) -> Result<(), Errno> {
        Linux::try_ip(&format!("route del {}", words(route, proto)))
    }

    fn write_sysctl(&mut self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    fn routes(&mut self) -> Vec<(Route, Proto)> {
        let routes = Linux::json("-j -N route show table main").into_iter().map(|line| {
            let word = |key: &str| line[key].as_str().map(str::to_owned);
            let to = match word("dst").as_deref().expect("a destination") {
                "default" => Ipv4Net::default(),
                one => one.parse().unwrap_or_else(|_| {
                    Ipv4Net::from(one.parse::<Ipv4Addr>().expect("an address"))
                }),
            };
            let flags = line["flags"].as_array().expect("flags");
            let route = Route {
                to,
                via: word("gateway").map(|via| via.parse().expect("an address")),
                dev: word("dev").expect("a device").into(),
                onlink: flags.contains(&"onlink".into()),
                metric: line["metric"].as_u64().unwrap_or_default() as u32,
            };
            let proto = word("protocol").map_or(Proto::BOOT, |n| Proto(n.parse().expect("u8")));
            (route, proto)
        });
        routes.collect()
    }

    fn neighbours(&mut self, link: &str) -> Vec<Neighbour> {
        let lines = Linux::json(&format!("-j -4 neigh show dev {link} nud permanent"));
        let parse = |line: &Value| Neighbour {
            ip: line["dst"].as_str().expect("dst").parse().expect("an address"),
            mac: Mac::parse(line["lladdr"].as_str().expect("lladdr")).expect("a MAC"),
        };
        let mut found: Vec<Neighbour> = lines.iter().map(parse).collect();
        found.sort_by_key(|neighbour| neighbour.ip);
        found
    }

    fn fdb(&mut self, link: &str) -> Vec<FdbEntry> {
        let out = Command::new("bridge").args(["-j", "fdb", "show", "dev", link]).output();
        let lines: Vec<Value> = serde_json::from_slice(&out.expect("bridge").stdout).expect("JSON");
        let parse = |line: &Value| {
            let mac = Mac::parse(line["mac"].as_str()?)?;
            Some(FdbEntry { mac, remote: line["dst"].as_str()?.parse().ok()? })
        };
        let mut found: Vec<FdbEntry> = lines.iter().filter_map(parse).collect();
        found.sort_by_key(|entry| entry.mac);
        found
    }
}
