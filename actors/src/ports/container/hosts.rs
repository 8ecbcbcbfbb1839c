//! A pod's /etc/hosts, as each of its containers has it (hosts(5)).

use std::net::Ipv4Addr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hosts {
    /// What it begins with: all of it, unless it has the machine's own.
    pub head: Arc<str>,
    /// The machine's own stands between `head` and `tail`.
    pub machines: bool,
    pub tail: Arc<str>,
}

impl Hosts {
    /// All of it, where the machine's own is this.
    pub fn text(&self, machine: &str) -> String {
        let machine = if self.machines { machine } else { "" };
        [&*self.head, machine, &*self.tail].concat()
    }
}

/// The first address that a hosts file has for a name, whatever its case.
pub fn look_up(hosts: &str, name: &str) -> Option<Ipv4Addr> {
    let name = name.trim_end_matches('.');
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_address_of_its_first_line() {
        let hosts = "# 10.0.0.9 a\n127.0.0.1\tlocalhost\n::1\tip6 a\n10.0.0.1\tA.b\ta # c\n\
                     10.0.0.2 a\n";
        let of = |name| look_up(hosts, name).map(|ip| ip.to_string());
        assert_eq!(of("localhost").as_deref(), Some("127.0.0.1"));
        assert_eq!(of("a").as_deref(), Some("10.0.0.1"));
        assert_eq!(of("a.B.").as_deref(), Some("10.0.0.1"));
        assert_eq!(of("c"), None);
        assert_eq!(of("ip6"), None);
    }
}
