//! resolv.conf(5).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// `MAXNS`: further name servers are ignored, as the resolver library does.
const MAX_SERVERS: usize = 3;
/// `RES_MAXRETRANS`, seconds.
const MAX_TIMEOUT: u64 = 30;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<SocketAddrV4>,
    /// `options timeout:n`.
    pub timeout: Option<Duration>,
    /// `options rotate`: each query begins with another server.
    pub rotate: bool,
}

impl ResolvConf {
    pub fn parse(text: &str) -> Self {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<Ipv4Addr>().ok());
                    let known = address.map(|ip| SocketAddrV4::new(ip, 53));
                    let known = known.filter(|server| !conf.servers.contains(server));
                    conf.servers.extend(known.filter(|_| conf.servers.len() < MAX_SERVERS));
                }
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf
    }

    fn option(&mut self, word: &str) {
        if let Some(seconds) = word.strip_prefix("timeout:").and_then(|n| n.parse::<u64>().ok()) {
            self.timeout = Some(Duration::from_secs(seconds.clamp(1, MAX_TIMEOUT)));
        }
        self.rotate |= word == "rotate";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_servers_and_the_options_count() {
        let conf = ResolvConf::parse(
            "# by hand\nsearch a.b\nnameserver 10.0.0.1\nnameserver fe80::1\n nameserver 10.0.0.1\n\
             nameserver 10.0.0.2 # two\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n\
             options ndots:2 timeout:99 rotate\nnameserver",
        );
        let ips: Vec<_> = conf.servers.iter().map(|server| server.ip().octets()[3]).collect();
        assert_eq!(ips, [1, 2, 3]);
        assert_eq!((conf.timeout, conf.rotate), (Some(Duration::from_secs(30)), true));
        assert_eq!(ResolvConf::parse("; nothing"), ResolvConf::default());
    }
}
