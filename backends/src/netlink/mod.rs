//! netfilter's and generic netlink: messages, and a socket whose answers are there when a request
//! returns.
//!
//! A request is carried out within `sendmsg` (`netlink_unicast_kernel`, net/netlink/af_netlink.c)
//! and a dump is written by each `recvmsg` (`netlink_dump`), so nothing here ever waits.

mod generic;
mod message;
mod socket;

pub use generic::family;
pub use message::{Attributes, Messages, Writer, be16, be32, be64, ne16, ne32, ne64};
pub use socket::{Incoming, Netlink, Refusal};

/// `NFNL_SUBSYS_*` (include/uapi/linux/netfilter/nfnetlink.h), the upper byte of a message's type.
pub const CTNETLINK: u16 = 1 << 8;
pub const NFTABLES: u16 = 10 << 8;

/// `NLM_F_*` (include/uapi/linux/netlink.h).
pub mod flag {
    pub const REQUEST: u16 = 0x1;
    pub const ACK: u16 = 0x4;
    pub const DUMP: u16 = 0x300;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
}

/// `NFPROTO_*` (include/uapi/linux/netfilter.h).
pub const NFPROTO_UNSPEC: u8 = 0;
pub const NFPROTO_IPV4: u8 = 2;
pub const NFPROTO_IPV6: u8 = 10;
