//! What this machine is: its card, and how much there is of it.

use super::hosts::OWN;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::IfName;
use kubesim_backends::network::admin::Admin;
use std::net::Ipv4Addr;

#[derive(Clone, Debug)]
pub struct Machine {
    pub address: Ipv4Addr,
    /// The link that has the address.
    pub interface: IfName,
    /// Thousandths of processors, and bytes.
    pub cpu_millis: u64,
    pub memory: u64,
}

impl Machine {
    pub fn of(address: Ipv4Addr) -> Result<Machine, String> {
        let refused = |why: String| format!("looking for the link of {address}: {why}");
        let mut admin = Admin::open().map_err(|error| refused(error.to_string()))?;
        let all = admin.addresses().map_err(|errno| refused(errno.to_string()))?;
        let (index, _) = all.iter().find(|(_, net)| net.addr() == address).ok_or_else(|| {
            refused("no link has it; --address names an address of this machine".to_owned())
        })?;
        let link = admin.find(|link| link.index == *index);
        let link = link.map_err(|errno| refused(errno.to_string()))?;
        let link = link.ok_or_else(|| refused("it went".to_owned()))?;
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = total(&memory).ok_or("reading how much memory there is: /proc/meminfo")?;
        Ok(Machine { address, interface: link.name, cpu_millis: cpus * 1000, memory })
    }
}

/// The networks that the machine is on, by its links, but for those that a node makes there itself.
pub fn networks() -> Result<Vec<(String, Ipv4Net)>, String> {
    let refused = |why: String| format!("looking for the machine's networks: {why}");
    let mut admin = Admin::open().map_err(|error| refused(error.to_string()))?;
    let all = admin.addresses().map_err(|errno| refused(errno.to_string()))?;
    let mut found = Vec::new();
    for (index, net) in all {
        let link = admin.find(|link| link.index == index);
        let link = link.map_err(|errno| refused(errno.to_string()))?;
        // One that went meanwhile has no network.
        let Some(name) = link.map(|link| link.name.to_string()) else { continue };
        // What loopback has is the machine itself, and of a node the address of DNS.
        if name != "lo" && !OWN.iter().any(|own| name.starts_with(own)) {
            found.push((name, net.trunc()));
        }
    }
    Ok(found)
}

/// Of /proc/meminfo (proc_meminfo(5)), which counts in KiB.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_counted_in_bytes() {
        assert_eq!(super::total("A: 1\nMemTotal:       16 kB\n"), Some(16384));
        assert_eq!(super::total(""), None);
    }
}
