//! flannel's `net-conf.json`: the pod network and how packets for it travel.
//!
//! Shape: flannel's Documentation/configuration.md. Keys of other backends and of IPv6 are left
//! alone, as flannel does.

use ipnet::Ipv4Net;
use serde_json::Value;
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
}

/// VNI and port of the vxlan device where the file does not choose them (flannel's defaults).
pub const VNI: u32 = 1;
pub const PORT: u16 = 8472;

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
}

fn in_backend(error: String) -> String {
    format!("Backend.{error}")
}

fn backend(section: &Value) -> Result<Backend, String> {
    let expected = "expected \"host-gw\" or \"vxlan\"";
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
        _ => Err(format!("Type: {expected}, found {kind}")),
    }
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
            "Backend.Type: expected \"host-gw\" or \"vxlan\", found \"udp\""
        );
        let conf = NetConf::parse(
            r#"{"Network": "10.244.0.0/16", "EnableIPv4": true, "Backend": {"Type": "vxlan",
                "DirectRouting": true}}"#,
        );
        let conf = conf.unwrap();
        assert_eq!(conf.backend, Backend::Vxlan { direct: true, vni: 1, port: 8472 });
        assert_eq!((conf.subnet_len, conf.network), (24, "10.244.0.0/16".parse().unwrap()));
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
