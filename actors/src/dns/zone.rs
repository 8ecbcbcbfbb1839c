//! The cluster zone as an index over Services and EndpointSlices, made once per version for all
//! nodes and brought from one version to the next by what differs.

use crate::objects::{Body, Key, Name, Object, View};
use crate::proxy::ByService;
use imbl::OrdMap;
use kubesim_runtime::Hasher;
use smol_str::{SmolStr, ToSmolStr, format_smolstr};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Zone {
    services: OrdMap<Key, Arc<Entry>>,
    /// How many Services a namespace has: a namespace with none has no name.
    namespaces: OrdMap<Name, u32>,
    /// Who has an address, for PTR: the Service and the host within it (empty: itself).
    reverse: OrdMap<Ipv4Addr, Arc<[(Key, SmolStr)]>>,
    slices: ByService,
}

/// A zone and the views it was made of.
#[derive(Clone, Debug)]
pub struct Basis {
    pub services: View,
    pub slices: View,
    pub zone: Arc<Zone>,
}

impl Basis {
    pub fn is_at(&self, services: &View, slices: &View) -> bool {
        let same = |a: &View, b: &View| (a.history(), a.version()) == (b.history(), b.version());
        same(&self.services, services) && same(&self.slices, slices)
    }
}

/// What a Service's name stands for. Names are lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Cluster { ip: Ipv4Addr, ports: Vec<Port> },
    Headless { hosts: Vec<Host> },
    External { target: SmolStr },
}

/// A named port; unnamed ones have no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: SmolStr,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: SmolStr,
    pub number: u16,
}

/// A ready endpoint: its `hostname`, or its address with dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: SmolStr,
    pub ip: Ipv4Addr,
    pub ports: Vec<Port>,
}

/// The zone at these versions, computed by whoever asks first. The result does not depend on
/// `basis`, only its cost does.
pub fn zone(services: &View, slices: &View, basis: Option<&Basis>) -> Arc<Zone> {
    let mut key = Hasher::default();
    key.u64(services.history());
    key.u64(services.version());
    slices.memo(key.finish(), || zone_anew(services, slices, basis))
}

/// [`zone`] without the memo.
pub fn zone_anew(services: &View, slices: &View, basis: Option<&Basis>) -> Zone {
    let same = |old: &View, new: &View| old.history() == new.history();
    let usable = basis.filter(|b| same(&b.services, services) && same(&b.slices, slices));
    match usable {
        Some(basis) => {
            let mut zone = (*basis.zone).clone();
            zone.advance((&basis.services, &basis.slices), (services, slices));
            zone
        }
        None => {
            let mut zone = Zone::default();
            let (none, nothing) = (View::empty(services.history()), View::empty(slices.history()));
            zone.advance((&none, &nothing), (services, slices));
            zone
        }
    }
}

impl Zone {
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.services.get(key).map(|entry| &**entry)
    }
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }
    pub fn holders(&self, ip: Ipv4Addr) -> &[(Key, SmolStr)] {
        self.reverse.get(&ip).map_or(&[], |holders| holders)
    }

    fn advance(&mut self, old: (&View, &View), new: (&View, &View)) {
        for key in self.slices.advance(old, new) {
            let slices = self.slices.get(&key);
            let entry = new.0.get(&key).and_then(|service| Entry::of(service, slices));
            self.put(key, entry);
        }
    }

    fn put(&mut self, key: Key, entry: Option<Entry>) {
        let old = self.services.get(&key).cloned();
        if old.as_deref() == entry.as_ref() {
            return;
        }
        let addresses = |entry: Option<&Entry>| entry.map(Entry::addresses).unwrap_or_default();
        let (was, is) = (addresses(old.as_deref()), addresses(entry.as_ref()));
        for (ip, _) in was.difference(&is) {
            self.hold(*ip, &key, &is);
        }
        for (ip, _) in is.difference(&was) {
            self.hold(*ip, &key, &is);
        }
        self.count(&key.namespace, old.is_some(), entry.is_some());
        match entry {
            Some(entry) => drop(self.services.insert(key, Arc::new(entry))),
            None => drop(self.services.remove(&key)),
        }
    }

    /// Makes `key`'s part in an address what `is` says.
    fn hold(&mut self, ip: Ipv4Addr, key: &Key, is: &BTreeSet<(Ipv4Addr, SmolStr)>) {
        let others = self.holders(ip).iter().filter(|(holder, _)| holder != key).cloned();
        let own = is.iter().filter(|(address, _)| *address == ip);
        let own = own.map(|(_, host)| (key.clone(), host.clone()));
        let mut holders: Vec<_> = others.chain(own).collect();
        holders.sort();
        if holders.is_empty() {
            self.reverse.remove(&ip);
        } else {
            self.reverse.insert(ip, holders.into());
        }
    }

    fn count(&mut self, namespace: &Name, was: bool, is: bool) {
        let count = self.namespaces.get(namespace).copied().unwrap_or_default();
        match (count + u32::from(is)).saturating_sub(u32::from(was)) {
            0 => drop(self.namespaces.remove(namespace)),
            count => drop(self.namespaces.insert(namespace.clone(), count)),
        }
    }
}

impl Entry {
    fn of(service: &Object, slices: &[Arc<Object>]) -> Option<Entry> {
        let Body::Service { spec, .. } = &service.body else { return None };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref()?.trim_end_matches('.');
            return Some(Entry::External { target: target.to_lowercase().into() });
        }
        match spec.cluster_ip.as_deref() {
            Some("None") => {
                let unready = spec.publish_not_ready_addresses == Some(true);
                Some(Entry::Headless { hosts: hosts(slices, unready) })
            }
            ip => {
                let ip = ip?.parse().ok()?;
                let ports = spec.ports.iter().flatten().filter_map(|port| {
                    named_port(port.name.as_deref(), port.protocol.as_deref(), Some(port.port))
                });
                Some(Entry::Cluster { ip, ports: ports.collect() })
            }
        }
    }

    fn addresses(&self) -> BTreeSet<(Ipv4Addr, SmolStr)> {
        match self {
            Entry::Cluster { ip, .. } => [(*ip, SmolStr::default())].into(),
            Entry::Headless { hosts } => {
                hosts.iter().map(|host| (host.ip, host.name.clone())).collect()
            }
            Entry::External { .. } => BTreeSet::new(),
        }
    }
}

fn hosts(slices: &[Arc<Object>], unready: bool) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    let slices = slices.iter().filter_map(|object| object.endpoint_slice());
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let ports: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                named_port(port.name.as_deref(), port.protocol.as_deref(), port.port)
            })
            .collect();
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            if !ready && !unready {
                continue;
            }
            let name = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<Ipv4Addr>().ok()) {
                let name = match name {
                    Some(name) => name.to_lowercase().into(),
                    None => ip.to_smolstr().replace('.', "-").into(),
                };
                hosts.push(Host { name, ip, ports: ports.clone() });
            }
        }
    }
    hosts.sort_by(|a, b| (a.ip, &a.name).cmp(&(b.ip, &b.name)));
    // While an endpoint moves from one slice to another, both show it.
    hosts.dedup_by(|a, b| (a.ip, &a.name) == (b.ip, &b.name));
    hosts
}

fn named_port(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
    Some(Port {
        name: name.filter(|name| !name.is_empty())?.to_lowercase().into(),
        protocol: format_smolstr!("{}", protocol.unwrap_or("TCP").to_lowercase()),
        number: u16::try_from(number?).ok()?,
    })
}

#[cfg(test)]
impl Zone {
    /// All it says, for comparison.
    pub fn contents(&self) -> String {
        format!("{:?} {:?} {:?}", self.services, self.namespaces, self.reverse)
    }
}
