//! A pod is plugged into the node's bridge, with the address that the kubelet gives it.
//!
//! Nothing is kept in files: the kernel is what remembers. A veth's outer end is named after the
//! pod's address, so that the kernel lets one pod at a time have it, and its MAC is made of whose
//! it is, by which a DEL finds it. Both come with the veth in one request, so no crash leaves one
//! without the other, and what a power failure takes is taken whole.

use super::call::Attachment;
use super::failure::{Code, Failure};
use crate::network::admin::{Admin, End, Link};
use crate::network::errno_of;
use crate::network::pod::{Plug, Refusal};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, LinkKind, Mac};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

pub fn add(at: &Attachment) -> Result<Value, Failure> {
    let network = at.configuration.pod_network()?;
    let space = at.space()?;
    let name = outer_name(network.address.addr());
    let plug = Plug {
        outer: End { name: &name, mac: owner(at) },
        bridge: &network.bridge,
        inner: &at.interface,
        address: network.address,
        gateway: network.gateway,
        mtu: network.mtu,
    };
    plug.put(&space).map_err(|refusal| refused(&refusal, &plug))?;
    Ok(result(at, &plug))
}

fn refused(refusal: &Refusal, plug: &Plug<'_>) -> Failure {
    if refusal.errno != Errno::Eexist {
        return Failure::new(Code::Refused, refusal.to_string());
    }
    match Admin::open().map(|mut admin| admin.link(plug.outer.name)) {
        // The sandbox that has it may be going.
        Ok(Ok(_)) => {
            let address = plug.address.addr();
            Failure::new(Code::TryAgain, format!("{address} is another sandbox's address"))
        }
        _ => {
            let message = format!("CNI_IFNAME {}: the pod has such an interface", plug.inner);
            Failure::new(Code::InvalidVariables, message)
        }
    }
}

/// Behind what the plugins before it in a list have returned.
fn result(at: &Attachment, plug: &Plug<'_>) -> Value {
    let mut result = at.configuration.prev_result.clone().unwrap_or_else(|| json!({}));
    let interfaces = list(&mut result, "interfaces");
    let inner = interfaces.len() + 1;
    let (outer, mac) = (plug.outer, plug.inner().mac);
    interfaces.push(json!({ "name": outer.name, "mac": outer.mac.to_string() }));
    interfaces.push(json!({ "name": plug.inner, "mac": mac.to_string(), "sandbox": at.netns }));
    let mut ip = json!({ "address": plug.address, "gateway": plug.gateway, "interface": inner });
    // 1.0.0 has it no more (SPEC.md of 0.4.0, "Result").
    if at.configuration.cni_version.starts_with("0.") {
        ip["version"] = json!("4");
    }
    list(&mut result, "ips").push(ip);
    list(&mut result, "routes").push(json!({ "dst": "0.0.0.0/0", "gw": plug.gateway }));
    result
}

fn list<'a>(result: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !result[key].is_array() {
        result[key] = Value::Array(Vec::new());
    }
    result[key].as_array_mut().expect("it is one")
}

/// What is not there is gone.
pub fn del(at: &Attachment) -> Result<(), Failure> {
    let failed =
        |errno: Errno| Failure::new(Code::Refused, format!("unplugging {}: {errno}", at.container));
    let mut admin = Admin::open().map_err(|error| failed(errno_of(&error)))?;
    let Some(outer) = outer(&mut admin, at).map_err(failed)? else { return Ok(()) };
    match admin.delete_link(outer.index) {
        Ok(()) | Err(Errno::Enodev) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// Whether the pod is still plugged in and has what the ADD has returned.
pub fn check(at: &Attachment) -> Result<(), Failure> {
    let damaged = |what: String| Failure::new(Code::Damaged, what);
    let result = at.configuration.result()?;
    let network = at.configuration.pod_network()?;
    let mut admin = Admin::open().map_err(|error| damaged(error.to_string()))?;
    let found = outer(&mut admin, at).map_err(|errno| damaged(errno.to_string()))?;
    let bridge = admin.link(&network.bridge).ok();
    match found {
        None => return Err(damaged(format!("{} is not plugged in", at.container))),
        Some(link) if !link.up || bridge.is_none() || link.master != bridge => {
            let Link { name, .. } = link;
            return Err(damaged(format!("{name} is no port of {} that is up", network.bridge)));
        }
        Some(_) => {}
    }
    let (addresses, routed) = (ours(result, at), default_route(result));
    let inner = at.space()?.run(|| {
        let mut admin = Admin::open()?;
        Ok(lacking(&mut admin, &at.interface, &addresses, routed))
    });
    match inner.unwrap_or_else(|error| Err(errno_of(&error))) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(damaged(format!("{} of the pod lacks {what}", at.interface))),
        Err(errno) => Err(damaged(format!("{} of the pod: {errno}", at.interface))),
    }
}

/// What the ADD has given the pod's end.
fn ours(result: &Value, at: &Attachment) -> Vec<Ipv4Net> {
    let interfaces = result["interfaces"].as_array().map_or(&[][..], Vec::as_slice);
    let is_ours = |ip: &&Value| {
        let of = ip["interface"].as_u64().and_then(|index| interfaces.get(index as usize));
        of.is_some_and(|of| of["name"] == *at.interface && of["sandbox"] == *at.netns)
    };
    let ips = result["ips"].as_array().into_iter().flatten().filter(is_ours);
    ips.filter_map(|ip| ip["address"].as_str()?.parse().ok()).collect()
}

/// By which gateway the ADD has led everything, unless a later plugin has taken that away.
fn default_route(result: &Value) -> Option<Ipv4Addr> {
    let mut routes = result["routes"].as_array()?.iter();
    routes.find(|route| route["dst"] == "0.0.0.0/0")?["gw"].as_str()?.parse().ok()
}

fn lacking(
    admin: &mut Admin,
    interface: &str,
    addresses: &[Ipv4Net],
    gateway: Option<Ipv4Addr>,
) -> Result<Option<String>, Errno> {
    let link = admin.link(interface)?;
    let held = admin.addresses()?;
    if let Some(gone) = addresses.iter().find(|net| !held.contains(&(link, **net))) {
        return Ok(Some(gone.to_string()));
    }
    let routes = admin.routes()?;
    let is_there = |via: &Ipv4Addr| {
        let leads = |route: &kubesim_actors::ports::network::Route| {
            route.to == Ipv4Net::default() && route.dev == interface && route.via == Some(*via)
        };
        routes.iter().any(|(route, _)| leads(route))
    };
    Ok(gateway.filter(|via| !is_there(via)).map(|via| format!("a default route by {via}")))
}

fn outer(admin: &mut Admin, at: &Attachment) -> Result<Option<Link>, Errno> {
    let owner = owner(at);
    admin.find(|link| link.kind == LinkKind::Veth && link.mac == owner)
}

/// `veth` and the address in hexadecimal digits.
fn outer_name(address: Ipv4Addr) -> String {
    format!("veth{:08x}", u32::from(address))
}

/// A MAC of which a bridge makes none of its own, as it takes the lowest: `fe`, and 40 bits of a
/// hash of what identifies an attachment (FNV-1a, of 64 bits: the same in all releases, as a DEL
/// may come from a later one).
fn owner(at: &Attachment) -> Mac {
    let identity = at.container.bytes().chain([0]).chain(at.interface.bytes());
    let hash = identity.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    Mac([0xfe, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::call::Configuration;

    fn attachment(container: &str, version: &str) -> Attachment {
        let configuration =
            Configuration { cni_version: version.to_owned(), ..Configuration::default() };
        let (container, netns) = (container.to_owned(), "/run/netns/a".to_owned());
        Attachment { container, netns, interface: "eth0".to_owned(), configuration }
    }

    #[test]
    fn a_veth_says_whose_it_is() {
        assert_eq!(outer_name([10, 244, 1, 2].into()), "veth0af40102");
        let of = |container| owner(&attachment(container, "1.0.0"));
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        // Locally administered, and one station's.
        assert_eq!(of("a").0[0] & 3, 2);
    }

    #[test]
    fn a_result_comes_behind_those_before_it() {
        let mut at = attachment("a", "0.4.0");
        let before = json!({ "name": "lo", "sandbox": "/run/netns/a" });
        at.configuration.prev_result = Some(json!({ "interfaces": [before] }));
        let plug = Plug {
            outer: End { name: "veth0af40102", mac: owner(&at) },
            bridge: "cni0",
            inner: "eth0",
            address: "10.244.1.2/24".parse().unwrap(),
            gateway: [10, 244, 1, 1].into(),
            mtu: 1400,
        };
        let whole = result(&at, &plug);
        assert_eq!(whole["interfaces"][0], before);
        assert_eq!(whole["ips"][0]["interface"], 2);
        assert_eq!(whole["ips"][0]["version"], "4");
        assert_eq!(whole["interfaces"][2]["mac"], "0a:58:0a:f4:01:02");
        assert_eq!(ours(&whole, &at), [plug.address]);
        assert_eq!(default_route(&whole), Some(plug.gateway));
        at.configuration.cni_version = "1.0.0".to_owned();
        assert_eq!(result(&at, &plug)["ips"][0].get("version"), None);
    }
}
