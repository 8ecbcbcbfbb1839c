//! The device that holds the fronts' addresses, the node's own addresses, and sysctls.

use crate::network::admin::Admin;
use crate::network::sysctl;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::Errno;
use kubesim_actors::ports::rules::virtuals::{DEVICE, SYSCTLS};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Addresses by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Those of the device; `None` if there is no device.
    pub device: Option<BTreeSet<Ipv4Addr>>,
    /// Those a node port is on, with their networks.
    pub node: Vec<Ipv4Net>,
}

pub fn addresses(admin: &mut Admin) -> Result<Addresses, String> {
    let unread = |errno| format!("addresses cannot be listed: {errno}");
    let device = match admin.link(DEVICE) {
        Ok(link) => Some(link),
        Err(Errno::Enodev) => None,
        Err(errno) => return Err(unread(errno)),
    };
    let mut found = Addresses { device: device.map(|_| BTreeSet::new()), ..Addresses::default() };
    for (link, net) in admin.addresses().map_err(unread)? {
        match &mut found.device {
            Some(held) if Some(link) == device => drop(held.insert(net.addr())),
            _ if net.addr().is_loopback() => {}
            _ => found.node.push(net),
        }
    }
    Ok(found)
}

/// Adds what is wanted and not held, the device included.
pub fn hold(
    admin: &mut Admin,
    found: &Addresses,
    wanted: &BTreeSet<Ipv4Addr>,
) -> Result<(), String> {
    if found.device.is_none() {
        admin.add_dummy(DEVICE).map_err(|errno| {
            format!(
                "the device {DEVICE} cannot be made: {errno}; the kernel needs the module dummy"
            )
        })?;
    }
    let held = found.device.clone().unwrap_or_default();
    change(admin, wanted.difference(&held), |admin, link, net| match admin.add_address(link, net) {
        Err(Errno::Eexist) => Ok(()),
        done => done,
    })
}

/// Takes away what is held and not wanted.
pub fn release(
    admin: &mut Admin,
    found: &Addresses,
    wanted: &BTreeSet<Ipv4Addr>,
) -> Result<(), String> {
    let held = found.device.clone().unwrap_or_default();
    change(admin, held.difference(wanted), |admin, link, net| match admin.del_address(link, net) {
        Err(Errno::Eaddrnotavail) => Ok(()),
        done => done,
    })
}

fn change<'a>(
    admin: &mut Admin,
    addresses: impl Iterator<Item = &'a Ipv4Addr>,
    act: impl Fn(&mut Admin, u32, Ipv4Net) -> Result<(), Errno>,
) -> Result<(), String> {
    let mut addresses = addresses.peekable();
    if addresses.peek().is_none() {
        return Ok(());
    }
    let link = admin.link(DEVICE).map_err(|errno| format!("the device {DEVICE}: {errno}"))?;
    for ip in addresses {
        act(admin, link, Ipv4Net::from(*ip))
            .map_err(|errno| format!("address {ip} of {DEVICE}: {errno}"))?;
    }
    Ok(())
}

/// Keys that do not have the value they should.
pub fn unset_sysctls() -> Vec<(&'static str, &'static str)> {
    let differs = |(key, value): &(&str, &str)| sysctl::get(key).as_deref() != Some(value);
    SYSCTLS.into_iter().filter(differs).collect()
}

pub fn set_sysctls() -> Result<(), String> {
    for (key, value) in unset_sysctls() {
        sysctl::set(key, value).map_err(|errno| format!("sysctl {key} = {value}: {errno}"))?;
    }
    Ok(())
}
