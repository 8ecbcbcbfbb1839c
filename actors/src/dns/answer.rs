//! Answers out of the cluster zone: Kubernetes DNS-Based Service Discovery, version 1.1.0
//! (kubernetes/dns, docs/specification.md).

use super::Config;
use super::message::{Data, Message, Rcode, Record, Type};
use super::zone::{Entry, Host, Port, Zone};
use crate::objects::Key;
use smol_str::{SmolStr, format_smolstr};
use std::net::Ipv4Addr;

/// Seconds; CoreDNS' kubernetes plugin has 5.
pub const TTL: u32 = 5;
const SCHEMA: &str = "1.1.0";

/// What the zone says about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not ours: ask upstream.
    Elsewhere,
    NxDomain,
    /// The name exists; no records means it has none of that type.
    Records {
        answers: Vec<Record>,
        additional: Vec<Record>,
    },
    /// Another name stands for it, which has to be looked up as well.
    Alias {
        cname: Record,
        target: SmolStr,
    },
}

impl Answer {
    /// Into the reply to a query. Negative ones carry a SOA, whose TTL says how long they hold.
    pub fn into_reply(self, query: &Message, domain: &str) -> Message {
        let mut reply = query.reply(Rcode::NoError);
        reply.authoritative = true;
        match self {
            Answer::NxDomain => reply.rcode = Rcode::NxDomain,
            Answer::Records { answers, additional } => {
                reply.answers = answers;
                reply.additional = additional;
            }
            Answer::Alias { cname, .. } => reply.answers = vec![cname],
            Answer::Elsewhere => reply.rcode = Rcode::Refused,
        }
        if reply.answers.is_empty() {
            reply.additional.push(record(domain.into(), Data::Soa));
        }
        reply
    }
}

/// Looks `name` up, which is lower case and without the final dot.
pub fn answer(zone: &Zone, config: &Config, name: &str, qtype: Type) -> Answer {
    let domain = config.cluster_domain.as_str();
    if let Some(within) = below(name, domain) {
        return Lookup { zone, config, name, qtype }.within(within);
    }
    match below(name, "in-addr.arpa") {
        Some(octets) => reverse(zone, config, name, qtype, octets),
        None => Answer::Elsewhere,
    }
}

/// `a.b` of `a.b.zone`; empty of `zone` itself.
fn below<'a>(name: &'a str, zone: &str) -> Option<&'a str> {
    let rest = name.strip_suffix(zone)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

struct Lookup<'a> {
    zone: &'a Zone,
    config: &'a Config,
    name: &'a str,
    qtype: Type,
}

impl Lookup<'_> {
    fn within(&self, within: &str) -> Answer {
        let labels: Vec<&str> = within.split('.').filter(|label| !label.is_empty()).collect();
        match labels[..] {
            [] => self.records(vec![Data::Soa]),
            ["dns-version"] => self.records(vec![Data::Txt(SCHEMA.into())]),
            ["svc"] => self.records(Vec::new()),
            ["pod"] if self.config.pod_records => self.records(Vec::new()),
            [namespace, "pod"] if self.config.pod_records => self.namespace(namespace),
            [namespace, "svc"] => self.namespace(namespace),
            [ip, _, "pod"] if self.config.pod_records => self.pod(ip),
            [ref rest @ .., service, namespace, "svc"] => {
                let key = Key::new(namespace, service);
                match self.zone.entry(&key) {
                    Some(entry) => self.service(entry, rest, &key),
                    None => Answer::NxDomain,
                }
            }
            _ => Answer::NxDomain,
        }
    }

    fn namespace(&self, namespace: &str) -> Answer {
        match self.zone.has_namespace(namespace) {
            true => self.records(Vec::new()),
            false => Answer::NxDomain,
        }
    }

    /// `1-2-3-4.namespace.pod`: any address, as CoreDNS' `pods insecure` and kube-dns have it.
    fn pod(&self, label: &str) -> Answer {
        match label.replace('-', ".").parse::<Ipv4Addr>() {
            Ok(ip) => self.records(vec![Data::A(ip)]),
            Err(_) => Answer::NxDomain,
        }
    }

    fn service(&self, entry: &Entry, rest: &[&str], key: &Key) -> Answer {
        match (entry, rest) {
            (Entry::External { target }, []) => Answer::Alias {
                cname: record(self.name.into(), Data::Cname(target.clone())),
                target: target.clone(),
            },
            (Entry::Cluster { ip, .. }, []) => self.records(vec![Data::A(*ip)]),
            (Entry::Headless { hosts }, []) => self.hosts(hosts.iter()),
            (Entry::Headless { hosts }, [name]) if !name.starts_with('_') => {
                self.hosts(hosts.iter().filter(|host| host.name == *name))
            }
            (_, [protocol]) => self.ports(entry, None, protocol, key),
            (_, [port, protocol]) => self.ports(entry, Some(port), protocol, key),
            _ => Answer::NxDomain,
        }
    }

    /// A headless Service without ready endpoints does not exist (2.4.1), nor does a host that is
    /// not ready.
    fn hosts<'a>(&self, hosts: impl Iterator<Item = &'a Host>) -> Answer {
        let addresses: Vec<_> = hosts.map(|host| Data::A(host.ip)).collect();
        if addresses.is_empty() { Answer::NxDomain } else { self.records(addresses) }
    }

    /// `_port._protocol`; without the port it is only a node on the way to such names.
    fn ports(&self, entry: &Entry, port: Option<&str>, protocol: &str, key: &Key) -> Answer {
        let wanted = |one: &&Port| {
            protocol.strip_prefix('_') == Some(&one.protocol)
                && port.is_none_or(|port| port.strip_prefix('_') == Some(&one.name))
        };
        let service =
            format_smolstr!("{}.{}.svc.{}", key.name, key.namespace, self.config.cluster_domain);
        let mut found: Vec<(SmolStr, Ipv4Addr, u16)> = Vec::new();
        match entry {
            Entry::Cluster { ip, ports } => {
                let ports = ports.iter().filter(wanted);
                found.extend(ports.map(|port| (service.clone(), *ip, port.number)));
            }
            Entry::Headless { hosts } => {
                for host in hosts {
                    let target = format_smolstr!("{}.{service}", host.name);
                    let ports = host.ports.iter().filter(wanted);
                    found.extend(ports.map(|port| (target.clone(), host.ip, port.number)));
                }
            }
            Entry::External { .. } => {}
        }
        if found.is_empty() {
            return Answer::NxDomain;
        }
        if port.is_none() {
            return self.records(Vec::new());
        }
        self.srv(found)
    }

    fn srv(&self, found: Vec<(SmolStr, Ipv4Addr, u16)>) -> Answer {
        // As CoreDNS: equal shares of 100, of the same priority.
        let weight = (100 / found.len()).max(1) as u16;
        let mut additional: Vec<Record> = Vec::new();
        let mut answers = Vec::new();
        for (target, ip, port) in found {
            let address = record(target.clone(), Data::A(ip));
            if !additional.contains(&address) {
                additional.push(address);
            }
            answers.push(Data::Srv { priority: 0, weight, port, target });
        }
        match self.records(answers) {
            Answer::Records { answers, .. } if !answers.is_empty() => {
                Answer::Records { answers, additional }
            }
            other => other,
        }
    }

    /// Those of the type that was asked for.
    fn records(&self, data: Vec<Data>) -> Answer {
        let wanted = |data: &Data| self.qtype == Type::Any || data.rtype() == self.qtype;
        let answers =
            data.into_iter().filter(wanted).map(|data| record(self.name.into(), data)).collect();
        Answer::Records { answers, additional: Vec::new() }
    }
}

/// `4.3.2.1.in-addr.arpa`. Addresses of the service and pod networks are ours alone; others
/// (endpoints on the nodes' own) only if we know them.
fn reverse(zone: &Zone, config: &Config, name: &str, qtype: Type, octets: &str) -> Answer {
    let forward: Vec<&str> = octets.rsplit('.').collect();
    let Ok(ip) = forward.join(".").parse::<Ipv4Addr>() else { return Answer::Elsewhere };
    let holders = zone.holders(ip);
    let ours = config.service_network.contains(&ip) || config.pod_network.contains(&ip);
    match (holders.is_empty(), ours) {
        (true, true) => return Answer::NxDomain,
        (true, false) => return Answer::Elsewhere,
        (false, _) => {}
    }
    let domain = &config.cluster_domain;
    let answers = holders.iter().map(|(key, host)| {
        let dot = if host.is_empty() { "" } else { "." };
        format_smolstr!("{host}{dot}{}.{}.svc.{domain}", key.name, key.namespace)
    });
    let wanted = matches!(qtype, Type::Ptr | Type::Any);
    let answers = answers.filter(|_| wanted).map(|name_of| record(name.into(), Data::Ptr(name_of)));
    Answer::Records { answers: answers.collect(), additional: Vec::new() }
}

fn record(name: SmolStr, data: Data) -> Record {
    Record { name, ttl: TTL, data }
}
