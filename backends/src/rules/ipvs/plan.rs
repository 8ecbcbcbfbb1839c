//! What has to be written: from what stands, or is known to, to what an owner wants.

use super::message::{At, Endpoint, Standing, Write};
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::Protocol;
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::virtuals::Virtual;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub type Found = BTreeMap<At, Standing>;
pub type Wanted = BTreeMap<At, Arc<Virtual>>;

/// One thing to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Service { at: At, sticky: Option<u32>, new: bool },
    NoService(At),
    Endpoint { at: At, endpoint: (Ipv4Addr, u16), write: Write },
}

/// The services an owner wants on a node with these addresses.
pub fn expand<'a>(
    all: impl Iterator<Item = (&'a Front, &'a Arc<Virtual>)>,
    node: &[Ipv4Net],
) -> Wanted {
    let mut wanted = Wanted::new();
    for (front, service) in all {
        let Front { ip, protocol, port } = *front;
        let at = |ip| At { protocol, ip, port };
        if front.is_node_port() {
            wanted.extend(node.iter().map(|net| (at(net.addr()), Arc::clone(service))));
        } else {
            wanted.insert(at(ip), Arc::clone(service));
        }
    }
    wanted
}

/// What makes the one the other. Services that are nobody's of ours are left alone, unless one is
/// in the way of what is wanted.
pub fn difference(found: &Found, wanted: &Wanted) -> Vec<Change> {
    let mut changes = Vec::new();
    for (at, service) in wanted {
        let standing = found.get(at);
        let stands = |s: &Standing| s.ours && s.round_robin && s.sticky == service.sticky;
        if !standing.is_some_and(stands) {
            let (sticky, new) = (service.sticky, standing.is_none());
            changes.push(Change::Service { at: *at, sticky, new });
        }
        let nothing = Standing::default();
        endpoints(*at, &standing.unwrap_or(&nothing).endpoints, service, &mut changes);
    }
    let gone = found.iter().filter(|(at, standing)| standing.ours && !wanted.contains_key(at));
    changes.extend(gone.map(|(at, _)| Change::NoService(*at)));
    changes
}

fn endpoints(
    at: At,
    found: &BTreeMap<(Ipv4Addr, u16), Endpoint>,
    service: &Virtual,
    changes: &mut Vec<Change>,
) {
    for endpoint in &service.endpoints {
        let write = match found.get(endpoint) {
            None => Write::New(Endpoint::FULL),
            Some(Endpoint { weight: 1, masq: true, .. }) => continue,
            Some(_) => Write::Set(Endpoint::FULL),
        };
        changes.push(Change::Endpoint { at, endpoint: *endpoint, write });
    }
    for (endpoint, known) in found {
        if service.endpoints.contains(endpoint) {
            continue;
        }
        let drains = at.protocol == Protocol::Tcp && known.connections > 0;
        let write = match known.weight {
            _ if !drains => Write::Del,
            0 => continue,
            _ => Write::Set(Endpoint::DRAINED),
        };
        changes.push(Change::Endpoint { at, endpoint: *endpoint, write });
    }
}

/// A change that was written, as what is known from now on.
pub fn learn(found: &mut Found, change: Change) {
    match change {
        Change::Service { at, sticky, .. } => {
            let standing = found.entry(at).or_default();
            (standing.ours, standing.round_robin, standing.sticky) = (true, true, sticky);
        }
        Change::NoService(at) => drop(found.remove(&at)),
        Change::Endpoint { at, endpoint, write } => {
            let endpoints = &mut found.entry(at).or_default().endpoints;
            match write {
                Write::New(now) => drop(endpoints.insert(endpoint, now)),
                Write::Set(now) => {
                    let known = endpoints.entry(endpoint).or_default();
                    *known = Endpoint { connections: known.connections, ..now };
                }
                Write::Del => drop(endpoints.remove(&endpoint)),
            }
        }
    }
}

impl Change {
    /// It only ends what is being drained: nothing that anybody would miss.
    pub fn ends_draining(&self, found: &Found) -> bool {
        let Change::Endpoint { at, endpoint, write: Write::Del } = self else { return false };
        let known = found.get(at).and_then(|standing| standing.endpoints.get(endpoint));
        known.is_some_and(|known| known.weight == 0)
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (at, what) = match self {
            Change::Service { at, new: true, .. } => (at, "virtual service is gone".to_owned()),
            Change::Service { at, .. } => (at, "virtual service is not as applied".to_owned()),
            Change::NoService(at) => (at, "virtual service is none of the owner's".to_owned()),
            Change::Endpoint { at, endpoint: (ip, port), write } => {
                let what = match write {
                    Write::New(_) => "is gone",
                    Write::Set(_) => "is not as applied",
                    Write::Del => "is none of the service's",
                };
                (at, format!("real server {ip}:{port} {what}"))
            }
        };
        let protocol = kubesim_actors::ports::rules::text::protocol_name(at.protocol);
        write!(f, "{protocol} {}:{}: {what}", at.ip, at.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 1, 0, 1), 80);
    const B: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 1, 0, 2), 80);

    fn front(ip: [u8; 4], protocol: Protocol) -> Front {
        Front { ip: ip.into(), protocol, port: 80 }
    }

    fn wanted(protocol: Protocol, endpoints: &[(Ipv4Addr, u16)]) -> Wanted {
        let service = Arc::new(Virtual { endpoints: endpoints.to_vec(), ..Virtual::default() });
        let all = [(front([10, 96, 0, 1], protocol), service)];
        expand(all.iter().map(|(front, service)| (front, service)), &[])
    }

    fn follow(found: &mut Found, wanted: &Wanted) -> Vec<Change> {
        let changes = difference(found, wanted);
        changes.iter().for_each(|change| learn(found, *change));
        changes
    }

    #[test]
    fn what_was_written_is_not_written_again() {
        let mut found = Found::new();
        let both = wanted(Protocol::Tcp, &[A, B]);
        assert_eq!(follow(&mut found, &both).len(), 3);
        assert_eq!(follow(&mut found, &both), []);
        assert_eq!(follow(&mut found, &Wanted::new()).len(), 1);
        assert!(found.is_empty());
    }

    #[test]
    fn tcp_is_drained_and_udp_is_not() {
        for (protocol, drains) in [(Protocol::Tcp, true), (Protocol::Udp, false)] {
            let mut found = Found::new();
            follow(&mut found, &wanted(protocol, &[A, B]));
            let standing = found.values_mut().next().expect("a service");
            standing.endpoints.get_mut(&B).expect("an endpoint").connections = 1;
            let one = wanted(protocol, &[A]);
            follow(&mut found, &one);
            let standing = found.values_mut().next().expect("a service");
            assert_eq!(standing.endpoints.get(&B).is_some_and(|known| known.weight == 0), drains);
            if let Some(known) = standing.endpoints.get_mut(&B) {
                known.connections = 0;
                let end = difference(&found, &one);
                assert!(end.iter().all(|change| change.ends_draining(&found)) && end.len() == 1);
            }
        }
    }

    #[test]
    fn a_node_port_is_on_every_address_and_strangers_are_left_alone() {
        let service = Arc::new(Virtual::default());
        let node = ["192.168.0.1/24", "172.17.0.1/16"].map(|net| net.parse().expect("a network"));
        let all = [(front([0, 0, 0, 0], Protocol::Tcp), service)];
        let wanted = expand(all.iter().map(|(front, service)| (front, service)), &node);
        assert_eq!(wanted.len(), 2);
        let foreign = At { protocol: Protocol::Tcp, ip: [203, 0, 113, 9].into(), port: 443 };
        let found = Found::from([(foreign, Standing::default())]);
        assert!(!difference(&found, &wanted).contains(&Change::NoService(foreign)));
    }
}
