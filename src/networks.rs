//! The networks that a server gives addresses of, for who comes by its data directory.

use ipnet::Ipv4Net;
#[cfg(feature = "server")]
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

// Of pods and of Services, as a `kubesim server` was told them when it was started last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Networks {
    /// What pods' addresses are of.
    #[arg(long = "pod-network", value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub pods: Ipv4Net,
    /// What Services' addresses are of. The tenth is that of DNS.
    #[arg(long = "service-network", value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub services: Ipv4Net,
}

/// Its file: a line a network, its option's name and it.
const NAME: &str = "networks";
const PODS: &str = "pod-network";
const SERVICES: &str = "service-network";

/// The prefix length of a node's share of the pod network (upstream's `--node-cidr-mask-size`, 24
/// for IPv4: cmd/kube-controller-manager/app/core.go).
const SHARE: u8 = 24;

impl Networks {
    /// The prefix length of each node's share of the pods' network.
    pub fn share(&self) -> u8 {
        // Wider than the network itself, a share is all of it.
        self.pods.prefix_len().max(SHARE)
    }

    #[cfg(any(feature = "server", test))]
    pub fn write(&self, data_dir: &Path) -> Result<(), String> {
        let Networks { pods, services } = self;
        let text = format!("{PODS} {pods}\n{SERVICES} {services}\n");
        crate::pki::write(&data_dir.join(NAME), &text)
    }

    #[cfg(feature = "lab")]
    pub fn read(data_dir: &Path) -> Result<Networks, String> {
        let path = data_dir.join(NAME);
        let at = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!(
                    "{} says nothing of its networks: its server is of an older version, or was \
                     never started",
                    data_dir.display()
                ));
            }
            Err(error) => return Err(format!("reading {at}: {error}")),
        };
        let of = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let (_, net) = lines.find(|(key, _)| *key == name)?;
            net.parse().ok()
        };
        let both = of(PODS).zip(of(SERVICES));
        let (pods, services) = both.ok_or_else(|| format!("{at} names no {PODS} or {SERVICES}"))?;
        Ok(Networks { pods, services })
    }
}

/// The address from which this machine reaches others, by its default route. Nothing is sent: a
/// socket that is connected has the address that the kernel would send from.
#[cfg(feature = "server")]
pub fn outward() -> Option<Ipv4Addr> {
    /// Of a network that no machine is on (TEST-NET-1: RFC 5737).
    const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
