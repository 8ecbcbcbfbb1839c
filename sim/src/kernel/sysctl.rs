//! `/proc/sys/net`, as much of it as the model acts on.

use super::ip6::Key6;
use super::link::Link;
use super::mutants::{Mutant, mutated};
use super::{Cx, Errno, Kernel, Namespace, NsId, Output};
use kubesim_runtime::Time;
use smol_str::SmolStr;

#[derive(Clone, Debug, Default)]
pub(super) struct Sysctls {
    /// `net.ipv4.conf.all.forwarding`, which is `net.ipv4.ip_forward`.
    pub forwarding_all: bool,
    /// What links made from now on start with.
    pub forwarding_default: bool,
    pub rp_filter_all: u8,
    pub rp_filter_default: u8,
    /// `route_localnet`: 127.0.0.0/8 may come from and go to the network.
    pub localnet_all: bool,
    pub localnet_default: bool,
    /// `net.ipv4.conf.all.arp_ignore` and `arp_announce`, 0 to 2.
    pub arp_ignore: u8,
    pub arp_announce: u8,
    /// `net.bridge.bridge-nf-call-iptables`. Linux starts with 1 once br_netfilter is loaded,
    /// which happens when somebody needs it; 0 here stands for "not loaded".
    pub bridge_nf_call_iptables: bool,
    /// `net.ipv4.icmp_ratelimit` is 0; else it is its default of a second.
    pub icmp_unlimited: bool,
    /// Values written to keys that exist and change nothing here. Sorted.
    inert: Vec<(SmolStr, SmolStr)>,
}

/// Variables of `net.ipv4.conf.<x>` that the model knows and does not act on, with their
/// defaults: it sends no redirects and minds none.
const INERT: [(&str, &str); 6] = [
    ("accept_redirects", "1"),
    ("accept_source_route", "1"),
    ("log_martians", "0"),
    ("secure_redirects", "1"),
    ("send_redirects", "1"),
    ("shared_media", "1"),
];

/// Variables of IPVS, without whose being 1 the model would have to act otherwise; all are 0 at
/// first (Documentation/networking/ipvs-sysctl.rst).
const IPVS: [&str; 3] = ["conntrack", "expire_nodest_conn", "expire_quiescent_template"];

/// Which `conf` directory.
enum Conf<'a> {
    All,
    Default,
    Link(&'a str),
}

enum Key<'a> {
    Forwarding(Conf<'a>),
    RpFilter(Conf<'a>),
    RouteLocalnet(Conf<'a>),
    ArpIgnore,
    ArpAnnounce,
    BridgeCall,
    IcmpRatelimit,
    Ip6(Key6<'a>),
    /// With its default.
    Inert(Conf<'a>, &'static str),
}

fn parse(key: &str) -> Option<Key<'_>> {
    if key == "net.ipv4.ip_forward" {
        return Some(Key::Forwarding(Conf::All));
    }
    if key == "net.bridge.bridge-nf-call-iptables" {
        return Some(Key::BridgeCall);
    }
    if key == "net.ipv4.icmp_ratelimit" {
        return Some(Key::IcmpRatelimit);
    }
    if key == "net.ipv4.conf.all.arp_ignore" {
        return Some(Key::ArpIgnore);
    }
    if key == "net.ipv4.conf.all.arp_announce" {
        return Some(Key::ArpAnnounce);
    }
    if let Some(rest) = key.strip_prefix("net.ipv6.") {
        return Key6::parse(rest).map(Key::Ip6);
    }
    if let Some(variable) = key.strip_prefix("net.ipv4.vs.") {
        return IPVS.contains(&variable).then_some(Key::Inert(Conf::All, "0"));
    }
    // A link's name may hold dots: the variable is what follows the last one.
    let (name, variable) = key.strip_prefix("net.ipv4.conf.")?.rsplit_once('.')?;
    let conf = match name {
        "all" => Conf::All,
        "default" => Conf::Default,
        name => Conf::Link(name),
    };
    match variable {
        "forwarding" => Some(Key::Forwarding(conf)),
        "rp_filter" => Some(Key::RpFilter(conf)),
        "route_localnet" => Some(Key::RouteLocalnet(conf)),
        _ => {
            let (_, default) = INERT.iter().find(|(name, _)| *name == variable)?;
            Some(Key::Inert(conf, default))
        }
    }
}

/// Whether the model has such a key; a link's name in it may be of no link.
pub fn is_known(key: &str) -> bool {
    parse(key).is_some()
}

/// Whether a value can be written to a known key, or what can.
pub fn takes(key: &str, value: i64) -> Result<(), &'static str> {
    match parse(key) {
        Some(Key::IcmpRatelimit) if value != 0 => Err("the model takes 0, no limit, and no other"),
        Some(Key::ArpIgnore | Key::ArpAnnounce) if !(0..=2).contains(&value) => {
            Err("the model takes 0 to 2")
        }
        Some(Key::Ip6(key)) if value != 0 && key.takes_only_zero() => {
            Err("the model takes 0 and no other")
        }
        _ if !(0..=255).contains(&value) => Err("the model takes 0 to 255"),
        _ => Ok(()),
    }
}

/// The keys that there are, of links those of the one that `key` names.
pub fn like(key: &str) -> Vec<String> {
    let rest = ["net.ipv4.conf.", "net.ipv6.conf."]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix))
        .and_then(|rest| rest.rsplit_once('.'));
    let link = rest.map_or("all", |(link, _)| link);
    let variables = ["forwarding", "rp_filter", "route_localnet"].into_iter();
    let variables = variables.chain(INERT.map(|(variable, _)| variable));
    let of_link = variables.map(|variable| format!("net.ipv4.conf.{link}.{variable}"));
    let of_all = ["arp_ignore", "arp_announce"].map(|v| format!("net.ipv4.conf.all.{v}"));
    let others = ["ip_forward", "icmp_ratelimit"].map(|variable| format!("net.ipv4.{variable}"));
    let ipvs = IPVS.map(|variable| format!("net.ipv4.vs.{variable}"));
    let bridge = "net.bridge.bridge-nf-call-iptables".to_owned();
    let ipv4 = others.into_iter().chain([bridge]).chain(of_link).chain(of_all).chain(ipvs);
    ipv4.chain(Key6::all(link)).collect()
}

impl Sysctls {
    /// A link of this name is gone, and its directory with it.
    pub(super) fn forget_link(&mut self, name: &str) {
        let is_its = |key: &str| {
            key.strip_prefix("net.ipv4.conf.")
                .and_then(|rest| rest.rsplit_once('.'))
                .is_some_and(|(link, _)| link == name)
        };
        self.inert.retain(|(key, _)| !is_its(key));
    }

    fn write_inert(&mut self, key: &str, value: &str) {
        let value = SmolStr::new(value);
        match self.inert.binary_search_by(|(written, _)| written.as_str().cmp(key)) {
            Ok(at) => self.inert[at].1 = value,
            Err(at) => self.inert.insert(at, (SmolStr::new(key), value)),
        }
    }
}

impl Namespace {
    pub(super) fn sysctl(&self, key: &str) -> Option<String> {
        let link = |name: &str| self.links.named(name);
        let number: u8 = match parse(key)? {
            Key::Forwarding(Conf::All) => self.sysctls.forwarding_all.into(),
            Key::Forwarding(Conf::Default) => self.sysctls.forwarding_default.into(),
            Key::Forwarding(Conf::Link(name)) => link(name)?.forwarding.into(),
            Key::RpFilter(Conf::All) => self.sysctls.rp_filter_all,
            Key::RpFilter(Conf::Default) => self.sysctls.rp_filter_default,
            Key::RpFilter(Conf::Link(name)) => link(name)?.rp_filter,
            Key::RouteLocalnet(Conf::All) => self.sysctls.localnet_all.into(),
            Key::RouteLocalnet(Conf::Default) => self.sysctls.localnet_default.into(),
            Key::RouteLocalnet(Conf::Link(name)) => link(name)?.route_localnet.into(),
            Key::ArpIgnore => self.sysctls.arp_ignore,
            Key::ArpAnnounce => self.sysctls.arp_announce,
            Key::BridgeCall => self.sysctls.bridge_nf_call_iptables.into(),
            Key::IcmpRatelimit => {
                return Some(if self.sysctls.icmp_unlimited { "0" } else { "1000" }.to_owned());
            }
            Key::Ip6(key) => return self.sysctl6(key).map(|value| value.to_string()),
            Key::Inert(conf, default) => {
                if let Conf::Link(name) = conf {
                    link(name)?;
                }
                let written = self.sysctls.inert.iter().find(|(written, _)| written == key);
                return Some(written.map_or(default, |(_, value)| value).to_string());
            }
        };
        Some(number.to_string())
    }

    /// `EINVAL` for a value that is no small number, `ENODEV` for a key that does not exist.
    pub(super) fn set_sysctl(
        &mut self,
        cx: &mut Cx<'_>,
        key: &str,
        value: &str,
    ) -> Result<(), Errno> {
        let number: u8 = value.trim().parse().map_err(|_| Errno::Einval)?;
        let on = number != 0;
        let before = self.sysctl(key);
        match parse(key).ok_or(Errno::Enodev)? {
            Key::Forwarding(Conf::All) => self.set_forwarding(on),
            Key::Forwarding(Conf::Default) => self.sysctls.forwarding_default = on,
            Key::Forwarding(Conf::Link(name)) => self.link_named(name)?.forwarding = on,
            Key::RpFilter(Conf::All) => self.sysctls.rp_filter_all = number,
            Key::RpFilter(Conf::Default) => self.sysctls.rp_filter_default = number,
            Key::RpFilter(Conf::Link(name)) => self.link_named(name)?.rp_filter = number,
            Key::RouteLocalnet(Conf::All) => self.sysctls.localnet_all = on,
            Key::RouteLocalnet(Conf::Default) => self.sysctls.localnet_default = on,
            Key::RouteLocalnet(Conf::Link(name)) => self.link_named(name)?.route_localnet = on,
            Key::ArpIgnore | Key::ArpAnnounce if number > 2 => return Err(Errno::Einval),
            Key::ArpIgnore => self.sysctls.arp_ignore = number,
            Key::ArpAnnounce => self.sysctls.arp_announce = number,
            Key::BridgeCall => self.sysctls.bridge_nf_call_iptables = on,
            Key::IcmpRatelimit if on => return Err(Errno::Einval),
            Key::IcmpRatelimit => self.sysctls.icmp_unlimited = true,
            Key::Ip6(key) => self.set_sysctl6(key, on)?,
            Key::Inert(conf, _) => {
                if let Conf::Link(name) = conf {
                    self.link_named(name)?;
                }
                self.sysctls.write_inert(key, value.trim());
            }
        }
        if self.sysctl(key) != before {
            cx.changed(self.id);
        }
        Ok(())
    }

    /// devinet_sysctl_forward: a change of `all` is carried to `default` and to every link; to
    /// write what is there already carries nothing, whatever a link was set to since.
    fn set_forwarding(&mut self, on: bool) {
        if self.sysctls.forwarding_all == on {
            return;
        }
        self.sysctls.forwarding_all = on;
        self.sysctls.forwarding_default = on;
        if !mutated(Mutant::ForwardingForNewLinks) {
            self.links.iter_mut().for_each(|link| link.forwarding = on);
        }
    }

    fn link_named(&mut self, name: &str) -> Result<&mut Link, Errno> {
        self.links.iter_mut().find(|link| link.name == name).ok_or(Errno::Enodev)
    }
}

/// `sysctl`.
impl Kernel {
    /// Known keys: `net.ipv4.ip_forward`, `net.ipv4.conf.{all,default,<link>}.{forwarding,
    /// rp_filter,route_localnet}`, `net.ipv4.conf.all.{arp_ignore,arp_announce}`,
    /// `net.bridge.bridge-nf-call-iptables`, `net.ipv4.icmp_ratelimit` (only 0 can be written: no
    /// limit), and some that are only remembered, such as `send_redirects`;
    /// `net.ipv6.conf.{all,default,<link>}.{disable_ipv6,forwarding}`, and some of IPv6 that can
    /// only be 0.
    pub fn sysctl(&self, ns: NsId, key: &str) -> Option<String> {
        self.namespace(ns)?.sysctl(key)
    }

    /// `ENODEV` for an unknown key or link, `EINVAL` for a value that is no small number.
    pub fn set_sysctl(
        &mut self,
        now: Time,
        ns: NsId,
        key: &str,
        value: &str,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| space.set_sysctl(cx, key, value))
    }
}
