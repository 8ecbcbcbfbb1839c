//! What netds tell each other, on the wire: JSON, so that tcpdump shows what they say and a newer
//! one may say more.

use kubesim_actors::netd::peer::{Ask, Signed, Statement};
use kubesim_actors::ports::network::Mac;
use serde::{Deserialize, Serialize};
use smol_str::{SmolStr, format_smolstr};
use std::net::Ipv4Addr;

/// Names of nodes are DNS subdomains (RFC 1123).
const LONGEST_NAME: usize = 253;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    node: SmolStr,
    locator: Ipv4Addr,
    prefix_length: u8,
    generation: u64,
    vtep_mac: SmolStr,
    ask: bool,
    /// To be passed on to the servers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pass_on: bool,
    heard: u64,
    /// 128 hex digits.
    signature: String,
}

pub fn encode(signed: &Signed) -> Vec<u8> {
    let Statement { node, locator, prefix_length, generation, vtep_mac, ask, heard } =
        &signed.statement;
    let digits = signed.signature.as_flattened().iter().map(|byte| format!("{byte:02x}"));
    let wire = Wire {
        node: node.clone(),
        locator: *locator,
        prefix_length: *prefix_length,
        generation: *generation,
        vtep_mac: format_smolstr!("{vtep_mac}"),
        ask: *ask != Ask::Nothing,
        pass_on: *ask == Ask::Servers,
        heard: *heard,
        signature: digits.collect(),
    };
    // Numbers, booleans and strings have a JSON each.
    serde_json::to_vec(&wire).unwrap_or_default()
}

/// `None` for what is no statement. Whether its signature is good is not looked at here.
pub fn decode(bytes: &[u8]) -> Option<Signed> {
    let wire: Wire = serde_json::from_slice(bytes).ok()?;
    let named = !wire.node.is_empty() && wire.node.len() <= LONGEST_NAME;
    if !named || wire.prefix_length > 32 {
        return None;
    }
    let statement = Statement {
        node: wire.node,
        locator: wire.locator,
        prefix_length: wire.prefix_length,
        generation: wire.generation,
        vtep_mac: Mac::parse(&wire.vtep_mac)?,
        ask: match (wire.ask, wire.pass_on) {
            (false, _) => Ask::Nothing,
            (true, false) => Ask::Back,
            (true, true) => Ask::Servers,
        },
        heard: wire.heard,
    };
    Some(Signed { statement, signature: signature(&wire.signature)? })
}

fn signature(digits: &str) -> Option<[[u8; 32]; 2]> {
    if digits.len() != 128 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [[0; 32]; 2];
    for (at, byte) in bytes.as_flattened_mut().iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Signed {
        let statement = Statement {
            node: "laptop".into(),
            locator: [10, 20, 0, 7].into(),
            prefix_length: 24,
            generation: u64::MAX,
            vtep_mac: Mac([2, 0, 0, 0, 0, 0xfe]),
            ask: Ask::Back,
            heard: 3,
        };
        let mut signature = [[7; 32]; 2];
        signature[1][31] = 0xab;
        Signed { statement, signature }
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        for ask in [Ask::Nothing, Ask::Back, Ask::Servers] {
            let mut said = signed();
            said.statement.ask = ask;
            let bytes = encode(&said);
            assert_eq!(decode(&bytes), Some(said));
            assert!(bytes.len() < 512, "{} bytes fit any path", bytes.len());
        }
    }

    #[test]
    fn what_is_no_statement_is_nothing() {
        let good = String::from_utf8(encode(&signed())).expect("JSON");
        assert!(decode(good.as_bytes()).is_some());
        for (old, new) in [
            ("\"laptop\"", "\"\""),
            (":24", ":33"),
            ("02:00", "02:zz"),
            ("10.20.0.7", "10.20.0"),
            ("0707", "07"),
            ("0707", "+7é7"),
            ("{", ""),
        ] {
            let bad = good.replacen(old, new, 1);
            assert_ne!(bad, good);
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        let more = good.replacen('{', "{\"later\":[1],", 1);
        assert_eq!(decode(more.as_bytes()), Some(signed()), "a newer one says more");
        assert_eq!(decode(&[0xff; 40]), None);
    }
}
