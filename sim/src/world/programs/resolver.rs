//! The stub resolver of a process (resolv.conf(5)): nameservers, search list and ndots.

use kubesim_actors::dns::message::{Data, Message, Rcode, Type};
use smol_str::SmolStr;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// `RES_TIMEOUT` (resolv.h).
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// `RES_DFLRETRY`: rounds over all nameservers.
const ATTEMPTS: usize = 2;

/// One look-up of an A record under way.
#[derive(Clone, Debug)]
pub struct Lookup {
    servers: Vec<Ipv4Addr>,
    names: Vec<SmolStr>,
    name: usize,
    attempt: usize,
    id: u16,
}

/// What to do after an answer or a timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Found(Ipv4Addr),
    /// Send [`Lookup::query`] again: it is about the next name or goes to the next server.
    Ask,
    Failed(&'static str),
}

impl Lookup {
    pub fn new(resolv_conf: &str, host: &str, id: u16) -> Self {
        let conf = ResolvConf::parse(resolv_conf);
        Lookup { names: conf.candidates(host), servers: conf.nameservers, name: 0, attempt: 0, id }
    }

    /// The query to send now and where to; `None` without a nameserver.
    pub fn query(&self) -> Option<(SocketAddrV4, Message)> {
        let server = *self.servers.get(self.attempt % self.servers.len().max(1))?;
        let message = Message {
            id: self.id,
            response: false,
            authoritative: false,
            truncated: false,
            recursion_desired: true,
            rcode: Rcode::NoError,
            name: self.names.get(self.name)?.clone(),
            qtype: Type::A,
            answers: Vec::new(),
            additional: Vec::new(),
            udp_size: 512,
        };
        Some((SocketAddrV4::new(server, 53), message))
    }

    pub fn answered(&mut self, message: &Message) -> Next {
        if message.id != self.id || self.names.get(self.name) != Some(&message.name) {
            return Next::Failed("an answer to another question");
        }
        let address = message.answers.iter().find_map(|record| match record.data {
            Data::A(ip) => Some(ip),
            _ => None,
        });
        match (message.rcode, address) {
            (Rcode::NoError, Some(ip)) => Next::Found(ip),
            (Rcode::NoError | Rcode::NxDomain, _) => self.next_name(),
            _ => self.timed_out(),
        }
    }

    pub fn timed_out(&mut self) -> Next {
        self.attempt += 1;
        self.id = self.id.wrapping_add(1);
        if self.attempt < ATTEMPTS * self.servers.len() {
            Next::Ask
        } else {
            Next::Failed("no nameserver answered")
        }
    }

    fn next_name(&mut self) -> Next {
        self.name += 1;
        self.id = self.id.wrapping_add(1);
        if self.name < self.names.len() { Next::Ask } else { Next::Failed("no such host") }
    }
}

struct ResolvConf {
    nameservers: Vec<Ipv4Addr>,
    search: Vec<SmolStr>,
    ndots: usize,
}

impl ResolvConf {
    fn parse(text: &str) -> Self {
        let mut conf = ResolvConf { nameservers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    conf.nameservers
                        .extend(words.next().and_then(|ip| ip.parse::<Ipv4Addr>().ok()));
                }
                Some("search") => conf.search = words.map(SmolStr::from).collect(),
                Some("options") => {
                    for option in words {
                        if let Some(n) = option.strip_prefix("ndots:") {
                            conf.ndots = n.parse().unwrap_or(1);
                        }
                    }
                }
                _ => {}
            }
        }
        conf.nameservers.truncate(3);
        conf
    }

    /// The names tried, in order: as it is first when it has `ndots` dots, else last.
    fn candidates(&self, host: &str) -> Vec<SmolStr> {
        let host = host.to_lowercase();
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.into()];
        }
        let dots = host.matches('.').count();
        let mut names: Vec<SmolStr> =
            self.search.iter().map(|domain| SmolStr::from(format!("{host}.{domain}"))).collect();
        let place = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(place, host.into());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:5\n";

    fn names(host: &str) -> Vec<SmolStr> {
        Lookup::new(POD, host, 1).names
    }

    #[test]
    fn few_dots_go_through_the_search_list_first() {
        let expected = ["a.default.svc.cluster.local", "a.svc.cluster.local", "a"];
        assert_eq!(names("a"), expected);
        assert_eq!(names("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(names("example.org."), ["example.org"]);
    }
}
