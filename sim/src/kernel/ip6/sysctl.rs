//! `/proc/sys/net/ipv6`, as much of it as the model acts on.

use super::{Conf, Ip6};
use crate::kernel::link::Link;
use crate::kernel::mutants::{Mutant, mutated};
use crate::kernel::{Errno, Namespace};

/// A variable below `net.ipv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Key6<'a> {
    Conf(Of<'a>, Variable),
    IcmpRatelimit,
}

/// Which `conf` directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Of<'a> {
    All,
    Default,
    Link(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Variable {
    Forwarding,
    Disabled,
    /// The model acts as with 0, and can do no other.
    Zero,
}

const VARIABLES: [(&str, Variable); 5] = [
    ("forwarding", Variable::Forwarding),
    ("disable_ipv6", Variable::Disabled),
    ("accept_dad", Variable::Zero),
    ("accept_ra", Variable::Zero),
    ("accept_redirects", Variable::Zero),
];

impl<'a> Key6<'a> {
    /// `key` without its `net.ipv6.`
    pub fn parse(key: &'a str) -> Option<Key6<'a>> {
        if key == "icmp.ratelimit" {
            return Some(Key6::IcmpRatelimit);
        }
        // A link's name may hold dots: the variable is what follows the last one.
        let (name, variable) = key.strip_prefix("conf.")?.rsplit_once('.')?;
        let of = match name {
            "all" => Of::All,
            "default" => Of::Default,
            name => Of::Link(name),
        };
        let (_, variable) = VARIABLES.iter().find(|(name, _)| *name == variable)?;
        Some(Key6::Conf(of, *variable))
    }

    /// Whether only 0 can be written.
    pub fn takes_only_zero(&self) -> bool {
        matches!(self, Key6::IcmpRatelimit | Key6::Conf(_, Variable::Zero))
    }

    /// The keys of a link, and those that are of none.
    pub fn all(link: &str) -> impl Iterator<Item = String> {
        let of_link = VARIABLES.iter().map(move |(name, _)| format!("net.ipv6.conf.{link}.{name}"));
        of_link.chain(["net.ipv6.icmp.ratelimit".to_owned()])
    }
}

impl Conf {
    fn value(&self, variable: Variable) -> bool {
        match variable {
            Variable::Forwarding => self.forwarding,
            Variable::Disabled => self.disabled,
            Variable::Zero => false,
        }
    }
}

impl Namespace {
    /// `None` for a link that is not there.
    pub(in crate::kernel) fn sysctl6(&self, key: Key6<'_>) -> Option<u32> {
        let ip6 = self.ip6.as_deref();
        let conf = match key {
            Key6::IcmpRatelimit => {
                return Some(if ip6.is_some_and(|ip6| ip6.icmp_unlimited) { 0 } else { 1000 });
            }
            Key6::Conf(Of::All, _) => ip6.map(|ip6| ip6.all),
            Key6::Conf(Of::Default, _) => ip6.map(|ip6| ip6.default),
            Key6::Conf(Of::Link(name), _) => {
                let index = self.links.named(name)?.index;
                ip6.and_then(|ip6| ip6.interface(index)).map(|interface| interface.conf)
            }
        };
        let Key6::Conf(_, variable) = key else { return None };
        Some(conf.unwrap_or(Conf::OFF).value(variable).into())
    }

    /// `ENODEV` for a link that is not there, `EINVAL` for a value that the model cannot have.
    pub(in crate::kernel) fn set_sysctl6(&mut self, key: Key6<'_>, on: bool) -> Result<(), Errno> {
        if on && key.takes_only_zero() {
            return Err(Errno::Einval);
        }
        self.ip6_mut();
        let Namespace { ip6, links, .. } = self;
        let Some(ip6) = ip6.as_deref_mut() else { return Ok(()) };
        match key {
            Key6::IcmpRatelimit => ip6.icmp_unlimited = true,
            Key6::Conf(Of::Default, variable) => ip6.default.set(variable, on),
            Key6::Conf(Of::All, variable) => ip6.set_all(variable, on, links.iter()),
            Key6::Conf(Of::Link(name), variable) => {
                let link = links.named(name).ok_or(Errno::Enodev)?;
                ip6.set_of(variable, on, link);
            }
        }
        Ok(())
    }
}

impl Conf {
    fn set(&mut self, variable: Variable, on: bool) {
        match variable {
            Variable::Forwarding => self.forwarding = on,
            Variable::Disabled => self.disabled = on,
            Variable::Zero => {}
        }
    }
}

impl Ip6 {
    /// addrconf_fixup_forwarding, addrconf_disable_ipv6: what is written to `all` is carried to
    /// `default` and to every link, each time, also where `all` had it already; in IPv4 it is not.
    fn set_all<'a>(&mut self, variable: Variable, on: bool, links: impl Iterator<Item = &'a Link>) {
        let changes = self.all.value(variable) != on;
        self.all.set(variable, on);
        self.default.set(variable, on);
        if changes || !mutated(Mutant::SameForAllIsNoNews) {
            links.for_each(|link| self.set_of(variable, on, link));
        }
    }

    fn set_of(&mut self, variable: Variable, on: bool, link: &Link) {
        match variable {
            Variable::Forwarding => self.set_forwarding(link.index, on),
            Variable::Disabled => self.set_disabled(link, on),
            Variable::Zero => {}
        }
    }
}
