//! Two machines with a cable between them.

use ipnet::Ipv4Net;
use kubesim_actors::netd::wireguard;
use kubesim_actors::ports::network::{
    Errno, PrivateKey, Proto, PublicKey, Reply, Request, Route, RouteSet, State, Wireguard,
    WireguardPeer,
};
use kubesim_backends::network::Network;
use kubesim_backends::network::wireguard::{Device, device};
use kubesim_backends::port::{Answer, Closed, Port};
use nix::sched::{CloneFlags, setns};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

pub const DEV: &str = "flannel-wg";
pub const PORT: u16 = 51_820;
/// Code runs slowly in the machine, and the first handshake may be lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// One machine: a network namespace with `eth0`, and a driver.
pub struct Machine {
    name: &'static str,
    space: File,
    number: u8,
    driver: Network,
    runtime: Runtime,
}

/// `ip …`: what it prints.
#[track_caller]
pub fn ip(words: &str) -> String {
    let done = Command::new("ip").args(words.split_whitespace()).output().expect("ip runs");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {words}: {error}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

pub fn net(text: &str) -> Ipv4Net {
    text.parse().expect("a network")
}

/// Machines 1 and 2 at `192.168.0.<number>`.
pub fn two() -> (Machine, Machine) {
    let machines = (Machine::new("one", 1), Machine::new("two", 2));
    ip("-n one link add eth0 type veth peer name eth0 netns two");
    for machine in [&machines.0, &machines.1] {
        let Machine { name, number, .. } = machine;
        ip(&format!("-n {name} addr add 192.168.0.{number}/16 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
    }
    (machines.0, machines.1)
}

impl Machine {
    fn new(name: &'static str, number: u8) -> Machine {
        ip(&format!("netns add {name}"));
        Machine::in_space(name, number)
    }

    /// Somebody else who asks of the same machine.
    pub fn another(&self) -> Machine {
        Machine::in_space(self.name, self.number)
    }

    fn in_space(name: &'static str, number: u8) -> Machine {
        let space = File::open(format!("/run/netns/{name}")).expect("a namespace");
        setns(&space, CloneFlags::CLONE_NEWNET).expect("a namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let driver = Network::open().expect("a netlink socket");
        Machine { name, space, number, driver, runtime: runtime.expect("a runtime") }
    }

    /// What follows happens in this machine.
    pub fn enter(&self) {
        setns(&self.space, CloneFlags::CLONE_NEWNET).expect("a namespace");
    }

    /// Whoever asked is gone; somebody new asks, whose memory is empty.
    pub fn restart(&mut self) {
        self.enter();
        self.driver = Network::open().expect("a netlink socket");
    }

    pub fn state(&self) -> Arc<State> {
        self.enter();
        self.driver.state().expect("a state")
    }

    pub fn ask(&self, request: Request) -> Reply {
        self.enter();
        let replies = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&replies);
        let answer = Answer::new(move |reply| {
            kept.borrow_mut().push(reply);
            async { Ok::<(), Closed>(()) }
        });
        self.runtime.block_on(self.driver.perform(request, answer));
        let mut replies = replies.take();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    pub fn done(&self, request: Request) -> Result<(), Errno> {
        match self.ask(request) {
            Reply::Done { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn pair(&self) -> (PrivateKey, PublicKey) {
        wireguard::pair(&[self.number; 32]).expect("a pair of keys")
    }

    /// As a peer would know it: out of the lease's public key.
    pub fn key(&self) -> PublicKey {
        self.pair().1
    }

    /// `10.244.<number>.0/24`
    pub fn subnet(&self) -> Ipv4Net {
        net(&format!("10.244.{}.0/24", self.number))
    }

    pub fn spec(&self) -> Wireguard {
        Wireguard {
            private_key: self.pair().0,
            port: PORT,
            mtu: 1420,
            address: Ipv4Net::new(self.subnet().network(), 32).expect("a prefix length"),
        }
    }

    pub fn peer_at(&self, locator: &str) -> WireguardPeer {
        let endpoint = SocketAddrV4::new(locator.parse().expect("an address"), PORT);
        WireguardPeer { public_key: self.key(), endpoint, allowed: self.subnet() }
    }

    pub fn ensure(&self, spec: &Wireguard) -> Result<(), Errno> {
        self.done(Request::EnsureWireguard { name: DEV.into(), spec: spec.clone() })
    }

    pub fn set_peers(&self, peers: &[WireguardPeer]) -> Result<(), Errno> {
        self.done(Request::SetWireguardPeers { dev: DEV.into(), peers: peers.into() })
    }

    /// As netd does it: device, peers, and a route to the other's subnet.
    pub fn join(&self, other: &Machine, peers: &[WireguardPeer]) {
        self.ensure(&self.spec()).expect("a device");
        self.set_peers(peers).expect("peers");
        let route =
            Route { to: other.subnet(), via: None, dev: DEV.into(), onlink: false, metric: 0 };
        let routes = RouteSet { shared: Arc::new([route]), except: None };
        match self.ask(Request::SetRoutes { proto: Proto::NETD, routes }) {
            Reply::RoutesSet { refused, .. } => assert_eq!(refused, []),
            other => panic!("{other:?}"),
        }
    }

    /// It has another address from now on, and tells nobody.
    pub fn move_to(&self, from: &str, to: &str) {
        ip(&format!("-n {} addr del {from}/16 dev eth0", self.name));
        ip(&format!("-n {} addr add {to}/16 dev eth0", self.name));
    }

    pub fn index(&self) -> u32 {
        self.enter();
        let links = ip("-o link show dev flannel-wg");
        let index = links.split(':').next().and_then(|word| word.trim().parse().ok());
        index.expect("a number")
    }

    pub fn device(&self) -> Device {
        let index = self.index();
        device(index).expect("a device")
    }

    pub fn endpoint_of(&self, other: &Machine) -> Option<SocketAddrV4> {
        self.device().peers.get(&other.key()).and_then(|peer| peer.endpoint)
    }

    /// A socket on the device's own address, as a pod's packets have one of the subnet.
    pub fn socket(&self) -> UdpSocket {
        self.enter();
        let socket = UdpSocket::bind((self.subnet().network(), 7000)).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
        socket
    }

    pub fn locator(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 0, self.number)
    }
}

/// Sends until something arrives at the other end. False: nothing does.
pub fn arrives(from: &UdpSocket, to: &UdpSocket, within: Duration) -> bool {
    let target = to.local_addr().expect("an address");
    let begun = Instant::now();
    let mut number = 0_u32;
    while begun.elapsed() < within {
        number += 1;
        let sent = from.send_to(&number.to_be_bytes(), target);
        assert!(sent.is_ok(), "{sent:?}");
        let mut bytes = [0; 8];
        match to.recv_from(&mut bytes) {
            Ok((4, _)) => return true,
            Ok(other) => panic!("{other:?}"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    false
}

#[track_caller]
pub fn both_ways(a: &UdpSocket, b: &UdpSocket) {
    assert!(arrives(a, b, PATIENCE), "{a:?} reaches {b:?}");
    assert!(arrives(b, a, PATIENCE), "{b:?} reaches {a:?}");
}
