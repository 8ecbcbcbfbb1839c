//! Debian's containerd as a machine's runtime: the driver by CRI, in a network namespace, and
//! images of busybox.

#[cfg(feature = "node")]
mod churn;
#[cfg(feature = "node")]
mod claims;
#[cfg(feature = "node")]
mod cluster;
#[cfg(feature = "node")]
mod freezer;
#[cfg(feature = "node")]
mod guestbook;
#[cfg(feature = "node")]
mod hooks;
mod hosts;
mod image;
#[cfg(feature = "node")]
mod joins;
#[cfg(feature = "node")]
mod kills;
#[cfg(feature = "node")]
mod ledger;
mod machine;
mod node;
#[cfg(feature = "node")]
mod packages;
#[cfg(feature = "node")]
mod ports;
mod registry;
#[cfg(feature = "node")]
mod reset;
#[cfg(feature = "node")]
mod roams;
mod stories;
#[cfg(feature = "node")]
mod top;
#[cfg(feature = "node")]
mod trio;
#[cfg(feature = "node")]
mod tunnel;
#[cfg(feature = "node")]
mod up;
#[cfg(feature = "node")]
mod volumes;

use self::machine::Machine;
use crate::World;
use crate::driven::{Driven, Pace};
use crate::namespace::ip;
use kubesim_actors::ports::container::{Reply, Request};
use kubesim_backends::cri::{Cri, Settings};
use std::net::Ipv4Addr;
use std::time::Duration;

const PACE: Pace = Pace { soon: Duration::from_secs(30), quiet: Duration::from_secs(3) };

pub struct Containerd {
    driven: Driven<Cri>,
    machine: Machine,
}

impl Containerd {
    /// In the calling thread's namespace.
    pub fn new() -> Containerd {
        ip("link add cni0 type bridge");
        ip("link set cni0 up");
        ip("addr add 10.244.1.1/24 dev cni0");
        let machine = Machine::start();
        let driven = Driven::new(driver(&machine), PACE);
        Containerd { driven, machine }
    }

    /// The driver ends, and another one begins.
    fn restart_driver(&mut self) {
        self.driven = Driven::new(driver(&self.machine), PACE);
    }
}

/// It looks more often than outside of tests, and waits less.
fn driver(machine: &Machine) -> Cri {
    Cri::new(Settings {
        logs: machine.logs(),
        pods: machine.pods(),
        hosts: machine.hosts(),
        cgroup: machine.cgroup(),
        patience: Duration::from_secs(10),
        relist: Duration::from_millis(100),
        away: Duration::from_secs(2),
        ..Settings::new(machine.socket())
    })
}

impl World for Containerd {
    fn ask(&mut self, request: Request) -> Vec<Reply> {
        self.driven.ask(request)
    }
    fn news(&mut self) -> Vec<Reply> {
        self.driven.news()
    }
    fn accepts(&mut self, ip: Ipv4Addr, port: u16) -> bool {
        self.driven.accepts(ip, port)
    }
}

/// `body`, if there is a containerd.
pub fn on_containerd(body: fn(&mut Containerd)) {
    if let Some(what) = machine::missing() {
        return crate::namespace::skip::skipped(what);
    }
    crate::namespace::in_namespace(move || body(&mut Containerd::new()));
}
