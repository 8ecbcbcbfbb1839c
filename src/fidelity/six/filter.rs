//! What both sides of a router with rules of ip6tables have in common.

use super::{ip, net};
use ipnet::Ipv6Net;
use kubesim_sim::kernel::Route6;

/// By the first leg.
const GATEWAY: &str = "fd00:1::9";

/// Its way to everybody who is on no leg.
pub fn default_route() -> Route6 {
    let (to, via): (Ipv6Net, _) = (net("::/0"), Some(ip(GATEWAY)));
    let dev = crate::fidelity::step::LEGS[0].into();
    Route6 { to, via, dev, onlink: false, metric: 1024 }
}
