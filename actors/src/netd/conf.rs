//! flannel's `net-conf.json`: the pod network and how packets for it travel.
//!
//! Shape: flannel's Documentation/configuration.md. Keys of other backends and of IPv6 are left
//! alone, as flannel does.

use crate::ports::network::IfName;
use ipnet::Ipv4Net;
use serde_json::Value;
use smol_str::{SmolStr, format_smolstr};
use std::net::Ipv4Addr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetConf {
    pub network: Ipv4Net,
    /// Prefix length of a node's share; 24 if not given.
    pub subnet_len: u8,
    pub subnet_min: Option<Ipv4Addr>,
    pub subnet_max: Option<Ipv4Addr>,
    pub backend: Backend,
    /// Instead of what the link's MTU leaves.
    pub mtu: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Backend {
    /// Routes via peers on the same link; a vxlan for the peers that are not.
    HostGw,
    /// A vxlan for all, or with `direct` only for the peers that are not on the same link.
    Vxlan { direct: bool, vni: u32, port: u16 },
    /// WireGuard for all: peers are known by their keys and followed wherever they are.
    Wireguard { port: u16 },
}

/// VNI and port of the vxlan device where the file does not choose them (flannel's defaults).
pub const VNI: u32 = 1;
pub const PORT: u16 = 8472;
/// WireGuard's port where the file does not choose it (pkg/backend/wireguard).
pub const WIREGUARD_PORT: u16 = 51_820;
/// Bytes that IP, UDP, VXLAN and the inner Ethernet header take (RFC 7348).
pub(super) const VXLAN_OVERHEAD: u32 = 50;
/// Bytes that WireGuard takes at most: IPv6 40, UDP 8, its header 16 and its tag 16. As flannel
/// has it (pkg/backend/wireguard/wireguard_network.go) over IPv4 too, where it takes 60.
pub(super) const WIREGUARD_OVERHEAD: u32 = 80;

impl NetConf {
    /// Reads the file's text. An error names the key and what was expected there.
    pub fn parse(text: &str) -> Result<NetConf, String> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("expected a JSON object: {error}"))?;
        if !value.is_object() {
            return Err(format!("expected a JSON object, found {value}"));
        }
        let network: Ipv4Net = parsed(&value, "Network", "an IPv4 network such as 10.244.0.0/16")?
            .ok_or("Network: expected an IPv4 network such as 10.244.0.0/16, found nothing")?;
        let network = network.trunc();
        let subnet_len = number(&value, "SubnetLen", 1, 30)?.map_or(24, |len| len as u8);
        if subnet_len <= network.prefix_len() {
            return Err(format!(
                "SubnetLen: expected more than the {} of Network {network}, found {subnet_len}",
                network.prefix_len()
            ));
        }
        let within = |key: &str| -> Result<Option<Ipv4Addr>, String> {
            let expected = "an address within Network";
            match parsed::<Ipv4Addr>(&value, key, expected)? {
                Some(ip) if !network.contains(&ip) => {
                    Err(format!("{key}: expected {expected} {network}, found {ip}"))
                }
                ip => Ok(ip),
            }
        };
        let (subnet_min, subnet_max) = (within("SubnetMin")?, within("SubnetMax")?);
        let section = value.get("Backend").unwrap_or(&Value::Null);
        let mtu = number(section, "MTU", 576, 65_535).map_err(in_backend)?.map(|mtu| mtu as u32);
        let backend = backend(section).map_err(in_backend)?;
        Ok(NetConf { network, subnet_len, subnet_min, subnet_max, backend, mtu })
    }

    pub(super) fn vxlan(&self) -> (u32, u16) {
        match self.backend {
            Backend::Vxlan { vni, port, .. } => (vni, port),
            _ => (VNI, PORT),
        }
    }

    /// `kubesim.1`, or flannel's own name where it has one device only.
    pub(super) fn overlay_name(&self) -> IfName {
        if matches!(self.backend, Backend::Wireguard { .. }) {
            return SmolStr::new_static("flannel-wg");
        }
        format_smolstr!("kubesim.{}", self.vxlan().0)
    }

    /// The MTU of pods. With host-gw it stays the link's even where one peer is behind the vxlan:
    /// packets that do not fit there are answered with ICMP "fragmentation needed" (RFC 1191).
    pub(super) fn pod_mtu(&self, link: u32) -> u32 {
        let overhead = match self.backend {
            Backend::HostGw => 0,
            Backend::Vxlan { .. } => VXLAN_OVERHEAD,
            Backend::Wireguard { .. } => WIREGUARD_OVERHEAD,
        };
        self.mtu.unwrap_or(link.saturating_sub(overhead))
    }
}

fn in_backend(error: String) -> String {
    format!("Backend.{error}")
}

fn backend(section: &Value) -> Result<Backend, String> {
    let expected = "expected \"host-gw\", \"vxlan\" or \"wireguard\"";
    let kind = section.get("Type").ok_or_else(|| format!("Type: {expected}, found nothing"))?;
    match kind.as_str() {
        Some("host-gw") => Ok(Backend::HostGw),
        Some("vxlan") => Ok(Backend::Vxlan {
            direct: match section.get("DirectRouting") {
                None => false,
                Some(Value::Bool(direct)) => *direct,
                Some(other) => {
                    return Err(format!("DirectRouting: expected true or false, found {other}"));
                }
            },
            vni: number(section, "VNI", 1, (1 << 24) - 1)?.map_or(VNI, |vni| vni as u32),
            port: number(section, "Port", 1, 65_535)?.map_or(PORT, |port| port as u16),
        }),
        Some("wireguard") => wireguard(section),
        _ => Err(format!("Type: {expected}, found {kind}")),
    }
}

/// What would be passed over in silence and is not without consequence is refused.
fn wireguard(section: &Value) -> Result<Backend, String> {
    if section.get("PSK").is_some_and(|psk| psk != "") {
        return Err("PSK: preshared keys are not supported: leave it out".to_owned());
    }
    if let Some(interval) = section.get("PersistentKeepaliveInterval").filter(|n| **n != 0) {
        return Err(format!(
            "PersistentKeepaliveInterval: expected 0, found {interval}: nodes tell each other \
             where they are, and keepalives are not sent"
        ));
    }
    match section.get("Mode").unwrap_or(&Value::Null) {
        Value::Null => {}
        Value::String(mode) if ["separate", "auto", "ipv4"].contains(&mode.as_str()) => {}
        other => {
            return Err(format!(
                "Mode: expected \"separate\", \"auto\" or \"ipv4\", found {other}"
            ));
        }
    }
    let port = number(section, "ListenPort", 1, 65_535)?;
    Ok(Backend::Wireguard { port: port.map_or(WIREGUARD_PORT, |port| port as u16) })
}

fn parsed<T: std::str::FromStr>(
    value: &Value,
    key: &str,
    expected: &str,
) -> Result<Option<T>, String> {
    let Some(found) = value.get(key) else {
        return Ok(None);
    };
    let text = found.as_str().and_then(|text| text.parse().ok());
    text.map(Some).ok_or_else(|| format!("{key}: expected {expected}, found {found}"))
}

fn number(value: &Value, key: &str, min: u64, max: u64) -> Result<Option<u64>, String> {
    let Some(found) = value.get(key) else {
        return Ok(None);
    };
    let number = found.as_u64().filter(|n| (min..=max).contains(n));
    number.map(Some).ok_or_else(|| format!("{key}: expected {min} to {max}, found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannels_own_examples_are_read() {
        let conf = NetConf::parse(
            r#"{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0",
                "SubnetMax": "10.99.0.0", "Backend": {"Type": "udp", "Port": 7890}}"#,
        );
        assert_eq!(
            conf.unwrap_err(),
            "Backend.Type: expected \"host-gw\", \"vxlan\" or \"wireguard\", found \"udp\""
        );
        let conf = NetConf::parse(
            r#"{"Network": "10.244.0.0/16", "EnableIPv4": true, "Backend": {"Type": "vxlan",
                "DirectRouting": true}}"#,
        );
        let conf = conf.unwrap();
        assert_eq!(conf.backend, Backend::Vxlan { direct: true, vni: 1, port: 8472 });
        assert_eq!((conf.subnet_len, conf.network), (24, "10.244.0.0/16".parse().unwrap()));
        let wireguard = |more: &str| {
            let backend = format!(r#"{{"Type": "wireguard"{more}}}"#);
            NetConf::parse(&format!(r#"{{"Network": "10.244.0.0/16", "Backend": {backend}}}"#))
        };
        assert_eq!(wireguard("").unwrap().backend, Backend::Wireguard { port: 51_820 });
        let other = r#", "ListenPort": 4500, "PersistentKeepaliveInterval": 0, "Mode": "auto""#;
        assert_eq!(wireguard(other).unwrap().backend, Backend::Wireguard { port: 4500 });
        for (more, start) in [
            (r#", "PSK": "c2VjcmV0""#, "Backend.PSK: preshared keys are not supported"),
            (r#", "PersistentKeepaliveInterval": 25"#, "Backend.PersistentKeepaliveInterval"),
            (r#", "Mode": "ipv6""#, "Backend.Mode: expected"),
        ] {
            let error = wireguard(more).unwrap_err();
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("{", "expected a JSON object"),
            ("[]", "expected a JSON object"),
            ("{}", "Network: expected an IPv4 network"),
            (r#"{"Network": "10.244.0.0/33"}"#, "Network: expected an IPv4 network"),
            (r#"{"Network": "10.244.0.0/16", "SubnetLen": 16}"#, "SubnetLen: expected more than"),
            (r#"{"Network": "10.244.0.0/16", "SubnetMin": "10.0.0.1"}"#, "SubnetMin: expected an"),
            (r#"{"Network": "10.244.0.0/16"}"#, "Backend.Type: expected"),
            (
                r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 0}}"#,
                "Backend.VNI: expected 1 to 16777215, found 0",
            ),
        ];
        for (text, start) in wrong {
            let error = NetConf::parse(text).unwrap_err();
            assert!(error.starts_with(start), "{text}: {error}");
        }
    }
}
