//! Rules in nf_tables' own language: a row of expressions on registers of four bytes
//! (include/uapi/linux/netfilter/nf_tables.h). An expression that does not hold ends the rule.

use crate::netlink::Writer;
use kubesim_runtime::Hasher;

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`
const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`
pub const VALUE: u16 = 1;
pub const VERDICT: u16 = 2;
pub const CODE: u16 = 1;
pub const CHAIN: u16 = 2;

/// A register, from 0 (`NFT_REG32_00`) to 15.
pub type Register = u32;

/// `NF_DROP`, `NFT_JUMP`, `NFT_GOTO`
pub const DROP: i32 = 0;
pub const JUMP: i32 = -3;
pub const GOTO: i32 = -4;

#[derive(Clone, Copy)]
pub enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// `NFT_DYNSET_OP_*`
#[derive(Clone, Copy)]
pub enum Dynamic {
    Update = 1,
    Delete = 2,
}

/// A rule's expressions, as the value of `NFTA_RULE_EXPRESSIONS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule(Vec<u8>);

fn register(register: Register) -> u32 {
    register + 8
}

impl Rule {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What tells this rule from others: kept with it in the kernel, where a reader sees it as the
    /// rule's comment (`NFTNL_UDATA_RULE_COMMENT`).
    pub fn mark(&self) -> Vec<u8> {
        let mut hasher = Hasher::default();
        hasher.bytes(&self.0);
        let text = format!("{:016x}", hasher.finish());
        let mut mark = vec![0, text.len() as u8 + 1];
        mark.extend_from_slice(text.as_bytes());
        mark.push(0);
        mark
    }

    fn push(mut self, name: &str, write: impl FnOnce(&mut Writer<'_>)) -> Self {
        Writer::on(&mut self.0).nest(LIST_ELEMENT, |element| {
            element.str(NAME, name);
            element.nest(DATA, write);
        });
        self
    }

    fn payload(self, base: u32, offset: u32, length: u32, to: Register) -> Self {
        self.push("payload", |data| {
            data.be32(1, register(to));
            data.be32(2, base);
            data.be32(3, offset);
            data.be32(4, length);
        })
    }
    pub fn source(self, to: Register) -> Self {
        self.payload(1, 12, 4, to)
    }
    pub fn destination(self, to: Register) -> Self {
        self.payload(1, 16, 4, to)
    }
    pub fn destination_port(self, to: Register) -> Self {
        self.payload(2, 2, 2, to)
    }

    fn meta(self, key: u32, to: Register) -> Self {
        self.push("meta", |data| {
            data.be32(1, register(to));
            data.be32(2, key);
        })
    }
    /// `NFT_META_L4PROTO`
    pub fn protocol(self, to: Register) -> Self {
        self.meta(16, to)
    }
    /// `NFT_META_MARK`
    pub fn packet_mark(self, to: Register) -> Self {
        self.meta(3, to)
    }
    pub fn set_packet_mark(self, from: Register) -> Self {
        self.set_meta(3, from)
    }
    /// `NFT_META_PRIORITY`: a packet's number for queueing disciplines.
    pub fn priority(self, to: Register) -> Self {
        self.meta(2, to)
    }
    pub fn set_priority(self, from: Register) -> Self {
        self.set_meta(2, from)
    }
    fn set_meta(self, key: u32, from: Register) -> Self {
        self.push("meta", |data| {
            data.be32(2, key);
            data.be32(3, register(from));
        })
    }

    fn ct(self, key: u32, to: Register) -> Self {
        self.push("ct", |data| {
            data.be32(1, register(to));
            data.be32(2, key);
        })
    }
    /// `NFT_CT_STATE`, then only those with one of the bits.
    pub fn ct_state(self, bits: u32, to: Register) -> Self {
        self.ct(0, to).has_bits(bits, to)
    }
    /// `NFT_CT_STATUS`, likewise.
    pub fn ct_status(self, bits: u32, to: Register) -> Self {
        self.ct(2, to).has_bits(bits, to)
    }

    /// `NFT_CT_DST_IP` and `NFT_CT_PROTO_DST` of the original direction: what the client wrote.
    pub fn written_destination(self, to: Register) -> Self {
        self.ct_original(20, to)
    }
    pub fn written_port(self, to: Register) -> Self {
        self.ct_original(12, to)
    }
    fn ct_original(self, key: u32, to: Register) -> Self {
        self.push("ct", |data| {
            data.be32(1, register(to));
            data.be32(2, key);
            data.u8(3, 0);
        })
    }

    /// `at & mask ^ xor`, bytes as they stand in the register.
    pub fn bitwise(self, at: Register, mask: [u8; 4], xor: [u8; 4]) -> Self {
        self.push("bitwise", |data| {
            data.be32(1, register(at));
            data.be32(2, register(at));
            data.be32(3, 4);
            data.nest(4, |value| value.bytes(VALUE, &mask));
            data.nest(5, |value| value.bytes(VALUE, &xor));
        })
    }
    fn has_bits(self, bits: u32, at: Register) -> Self {
        self.bitwise(at, bits.to_ne_bytes(), [0; 4]).compare(at, Compare::NotEqual, [0; 4])
    }
    pub fn compare(self, at: Register, how: Compare, with: [u8; 4]) -> Self {
        self.push("cmp", |data| {
            data.be32(1, register(at));
            data.be32(2, how as u32);
            data.nest(3, |value| value.bytes(VALUE, &with));
        })
    }
    pub fn immediate(self, to: Register, bytes: [u8; 4]) -> Self {
        self.push("immediate", |data| {
            data.be32(1, register(to));
            data.nest(2, |value| value.bytes(VALUE, &bytes));
        })
    }
    pub fn verdict(self, code: i32, chain: &str) -> Self {
        self.push("immediate", |data| {
            data.be32(1, 0);
            data.nest(2, |value| write_verdict(value, code, chain));
        })
    }

    /// `NFT_FIB_RESULT_ADDRTYPE` of the source or destination: only `RTN_LOCAL`.
    pub fn only_local(self, destination: bool, at: Register) -> Self {
        let local = self.push("fib", |data| {
            data.be32(1, register(at));
            data.be32(2, 3);
            data.be32(3, if destination { 2 } else { 1 });
        });
        local.compare(at, Compare::Equal, 2u32.to_ne_bytes())
    }

    /// Goes on where the set has the key that begins in `key`; a map's value goes to `to`.
    pub fn lookup(self, set: &str, key: Register, to: Option<Register>) -> Self {
        self.push("lookup", |data| {
            data.str(1, set);
            data.be32(2, register(key));
            if let Some(to) = to {
                data.be32(3, register(to));
            }
        })
    }
    /// Goes on where it has not (`NFT_LOOKUP_F_INV`).
    pub fn lookup_not(self, set: &str, key: Register) -> Self {
        self.push("lookup", |data| {
            data.str(1, set);
            data.be32(2, register(key));
            data.be32(5, 1);
        })
    }
    /// Does what the map of verdicts says, where it has the key.
    pub fn lookup_verdict(self, map: &str, key: Register) -> Self {
        self.push("lookup", |data| {
            data.str(1, map);
            data.be32(2, register(key));
            data.be32(3, 0);
        })
    }

    /// A random number below `modulus` (`NFT_NG_RANDOM`).
    pub fn random(self, modulus: u32, to: Register) -> Self {
        self.push("numgen", |data| {
            data.be32(1, register(to));
            data.be32(2, modulus);
            data.be32(3, 1);
        })
    }

    /// Changes a map of the packet path: key and value begin in these registers.
    pub fn dynamic(
        self,
        how: Dynamic,
        map: &str,
        key: Register,
        value: Register,
        timeout_seconds: u32,
    ) -> Self {
        self.push("dynset", |data| {
            data.str(1, map);
            data.be32(3, how as u32);
            data.be32(4, register(key));
            data.be32(5, register(value));
            if timeout_seconds > 0 {
                data.be64(6, u64::from(timeout_seconds) * 1_000);
            }
        })
    }

    /// DNAT to the address and the port in two registers.
    pub fn dnat(self, address: Register, port: Register) -> Self {
        self.push("nat", |data| {
            data.be32(1, 1);
            data.be32(2, u32::from(crate::netlink::NFPROTO_IPV4));
            data.be32(3, register(address));
            data.be32(5, register(port));
        })
    }
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`, as iptables' `--random-fully`.
    pub fn masquerade(self) -> Self {
        self.push("masq", |data| data.be32(1, 1 << 4))
    }
    /// `NFT_REJECT_ICMP_UNREACH` with "port unreachable".
    pub fn reject(self) -> Self {
        self.push("reject", |data| {
            data.be32(1, 0);
            data.u8(2, 3);
        })
    }
}

pub fn write_verdict(value: &mut Writer<'_>, code: i32, chain: &str) {
    value.nest(VERDICT, |verdict| {
        verdict.be32(CODE, code as u32);
        if !chain.is_empty() {
            verdict.str(CHAIN, chain);
        }
    });
}
