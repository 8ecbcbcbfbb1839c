//! Which service holds which ClusterIP and node port. Allocation happens in the API server, as
//! upstream's `pkg/registry/core/service` does it.
//!
//! A dynamic choice prefers the upper band of its range, so that the lower one stays free for
//! addresses chosen by hand (KEP-3070 for addresses, KEP-3668 for node ports).

use crate::objects::{Key, ServiceSpec};
use ipnet::Ipv4Net;
use kubesim_runtime::Rng;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Holders of numbers out of one inclusive range.
#[derive(Clone, Debug)]
struct Pool {
    first: u32,
    last: u32,
    /// The first number of the upper band.
    band: u32,
    held: BTreeMap<u32, Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Another service has it.
    Allocated,
    OutOfRange,
}

impl Pool {
    fn new(first: u32, last: u32, band_size: u32) -> Self {
        Pool { first, last, band: first.saturating_add(band_size), held: BTreeMap::new() }
    }

    fn claim(&mut self, number: u32, by: &Key) -> Result<(), Taken> {
        if number < self.first || number > self.last {
            return Err(Taken::OutOfRange);
        }
        let holder = self.held.entry(number).or_insert_with(|| by.clone());
        if holder == by { Ok(()) } else { Err(Taken::Allocated) }
    }

    /// It is stored, so whoever else had it has not.
    fn stands(&mut self, number: u32, by: &Key) {
        if (self.first..=self.last).contains(&number) {
            self.held.insert(number, by.clone());
        }
    }

    fn draw(&mut self, by: &Key, rng: &mut Rng) -> Option<u32> {
        let bands = [(self.band, self.last), (self.first, self.band.saturating_sub(1))];
        for (first, last) in bands {
            if let Some(number) = self.free_in(first, last.min(self.last), rng) {
                self.held.insert(number, by.clone());
                return Some(number);
            }
        }
        None
    }

    /// The first free number at or after a random one, going round.
    fn free_in(&self, first: u32, last: u32, rng: &mut Rng) -> Option<u32> {
        let size = u64::from(last.checked_sub(first)?) + 1;
        let offset = rng.below(size) as u32;
        let from = first + offset;
        self.gap(from, last).or_else(|| self.gap(first, from.checked_sub(1)?))
    }

    fn gap(&self, first: u32, last: u32) -> Option<u32> {
        let mut candidate = first;
        for held in self.held.range(first..).map(|(number, _)| *number) {
            if held != candidate {
                break;
            }
            candidate = candidate.checked_add(1)?;
        }
        (candidate <= last && first <= last).then_some(candidate)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Allocations {
    addresses: Pool,
    node_ports: Pool,
    by_service: BTreeMap<Key, (Vec<u32>, Vec<u32>)>,
    network: Ipv4Net,
}

impl Allocations {
    pub fn new(network: Ipv4Net, node_ports: (u16, u16)) -> Self {
        // Neither the network's own address nor its broadcast address is ever given.
        let base = u32::from(network.network());
        let top = u32::from(network.broadcast());
        let (first, last) = (base.saturating_add(1), top.saturating_sub(1));
        let size = u32::try_from(u64::from(top) - u64::from(base) + 1).unwrap_or(u32::MAX);
        let ports = (u32::from(node_ports.0), u32::from(node_ports.1));
        let port_count = (ports.1 + 1).saturating_sub(ports.0);
        Allocations {
            addresses: Pool::new(first, last, band_size(size, 16, 256)),
            node_ports: Pool::new(ports.0, ports.1, band_size(port_count, 32, 128)),
            by_service: BTreeMap::new(),
            network,
        }
    }

    /// The address of the `kubernetes` service; `None` if the range has none to give.
    pub fn first_address(&self) -> Option<Ipv4Addr> {
        let pool = &self.addresses;
        (pool.first <= pool.last).then(|| Ipv4Addr::from(pool.first))
    }
    pub fn network(&self) -> Ipv4Net {
        self.network
    }

    pub fn claim_address(&mut self, address: Ipv4Addr, by: &Key) -> Result<(), Taken> {
        self.addresses.claim(address.into(), by)?;
        self.note(by).0.push(address.into());
        Ok(())
    }
    pub fn draw_address(&mut self, by: &Key, rng: &mut Rng) -> Option<Ipv4Addr> {
        let number = self.addresses.draw(by, rng)?;
        self.note(by).0.push(number);
        Some(Ipv4Addr::from(number))
    }
    /// One service may hold a port number once per protocol, so a second claim by it is granted.
    pub fn claim_port(&mut self, port: u32, by: &Key) -> Result<(), Taken> {
        self.node_ports.claim(port, by)?;
        self.note(by).1.push(port);
        Ok(())
    }
    pub fn draw_port(&mut self, by: &Key, rng: &mut Rng) -> Option<u32> {
        let number = self.node_ports.draw(by, rng)?;
        self.note(by).1.push(number);
        Some(number)
    }

    fn note(&mut self, by: &Key) -> &mut (Vec<u32>, Vec<u32>) {
        if !self.by_service.contains_key(by) {
            self.by_service.insert(by.clone(), Default::default());
        }
        self.by_service.get_mut(by).expect("it was put there")
    }

    /// Makes this service hold exactly what its stored spec says (`None`: it is gone).
    /// Called when no write of the service is under way any more. What another one drew that is
    /// not stored yet it will not get: that another server gave it was not known then.
    pub fn settle(&mut self, service: &Key, stored: Option<&ServiceSpec>) {
        let (addresses, ports) = self.by_service.remove(service).unwrap_or_default();
        for number in addresses {
            release(&mut self.addresses, number, service);
        }
        for number in ports {
            release(&mut self.node_ports, number, service);
        }
        let Some(spec) = stored else { return };
        if let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) {
            // Out of range after the range was changed: nobody else can draw it.
            let address: Ipv4Addr = address;
            self.addresses.stands(address.into(), service);
            self.note(service).0.push(address.into());
        }
        for port in spec.ports.iter().flatten().filter_map(|port| port.node_port) {
            let port = u32::try_from(port).unwrap_or(0);
            self.node_ports.stands(port, service);
            self.note(service).1.push(port);
        }
    }
}

fn release(pool: &mut Pool, number: u32, by: &Key) {
    if pool.held.get(&number) == Some(by) {
        pool.held.remove(&number);
    }
}

/// `min(max(16, size / divisor), ceiling)`; no band at all in a range that it would fill.
fn band_size(size: u32, divisor: u32, ceiling: u32) -> u32 {
    let band = (size / divisor).clamp(16, ceiling);
    if size <= 16 { 0 } else { band }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_runtime::Stream;

    fn rng() -> Rng {
        Rng::new(Stream { seed: 1, label: "ip", index: 0, incarnation: 0 })
    }
    fn pool() -> Allocations {
        Allocations::new("10.96.0.0/27".parse().unwrap(), (30000, 32767))
    }

    #[test]
    fn a_drawn_address_comes_from_the_upper_band_until_that_is_full() {
        let (mut pool, mut rng) = (pool(), rng());
        let mut drawn = Vec::new();
        while let Some(ip) =
            pool.draw_address(&Key::new("n", format!("s{}", drawn.len())), &mut rng)
        {
            drawn.push(ip);
        }
        // 32 addresses less network and broadcast; the band of 16 leaves .17 to .30 on top.
        assert_eq!(drawn.len(), 30);
        assert!(drawn[..14].iter().all(|ip| ip.octets()[3] >= 17), "{drawn:?}");
        assert!(drawn[14..].iter().all(|ip| ip.octets()[3] < 17), "{drawn:?}");
    }

    #[test]
    fn a_claim_is_refused_while_another_service_holds_the_address() {
        let mut pool = pool();
        let (a, b) = (Key::new("n", "a"), Key::new("n", "b"));
        let ip = Ipv4Addr::new(10, 96, 0, 5);
        assert_eq!(pool.claim_address(ip, &a), Ok(()));
        assert_eq!(pool.claim_address(ip, &b), Err(Taken::Allocated));
        pool.settle(&a, None);
        assert_eq!(pool.claim_address(ip, &b), Ok(()));
        let outside = Ipv4Addr::new(10, 97, 0, 5);
        assert_eq!(pool.claim_address(outside, &b), Err(Taken::OutOfRange));
    }

    #[test]
    fn what_is_stored_is_taken_from_who_drew_it_meanwhile() {
        let (mut pool, mut rng) = (pool(), rng());
        let (a, b) = (Key::new("n", "a"), Key::new("n", "b"));
        let ip = pool.draw_address(&a, &mut rng).expect("a free one");
        let spec = ServiceSpec { cluster_ip: Some(ip.to_string()), ..ServiceSpec::default() };
        pool.settle(&b, Some(&spec));
        pool.settle(&a, None);
        assert_eq!(pool.claim_address(ip, &a), Err(Taken::Allocated));
        pool.settle(&b, None);
        assert_eq!(pool.claim_address(ip, &a), Ok(()));
    }

    #[test]
    fn node_ports_leave_the_first_86_of_the_default_range_for_people() {
        let (mut pool, mut rng) = (pool(), rng());
        for n in 0..50 {
            let port = pool.draw_port(&Key::new("n", format!("s{n}")), &mut rng).unwrap();
            assert!((30086..=32767).contains(&port), "{port}");
        }
    }
}
