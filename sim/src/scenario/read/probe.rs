use super::super::fields::Fields;
use super::super::keys;
use super::super::model::{Probe, ProbeFrom, ProbeKind, ProbeTarget, RecordType, ServiceVia};
use super::super::tree::Item;
use super::Reader;
use kubesim_actors::objects::Name;
use std::net::Ipv4Addr;
use std::time::Duration;

impl Reader<'_> {
    pub fn probes(&self, top: Fields<'_>) -> Vec<Probe> {
        let mut names = Vec::new();
        let mut probes = Vec::new();
        for item in top.tables("probe") {
            let sections = [&keys::PROBE, &keys::PROBE_HTTP, &keys::PROBE_DIG];
            let word = item.table().and_then(|t| t.get("kind")).and_then(Item::text);
            let f = match word {
                Some("http") => Fields::open(self.log, item, &sections[..2]),
                Some("dig") => Fields::open(self.log, item, &[sections[0], sections[2]]),
                Some("ping" | "tcp-stream") => Fields::open(self.log, item, &sections[..1]),
                // Its kind is not known: the keys of every kind are let through.
                _ => Fields::open(self.log, item, &sections),
            };
            let name = f.required_name("name");
            self.unique(&mut names, "probe", &name, f.place("name"));
            if let Some(probe) = self.probe(f, name) {
                probes.push(probe);
            }
        }
        probes
    }

    fn probe(&self, f: Fields<'_>, name: Name) -> Option<Probe> {
        f.required("kind");
        let from = f.required("from").and_then(|item| self.probe_from(item));
        let to = f.item("to").map(|item| self.probe_to(item));
        let path = if matches!(to, Some(Some(ProbeTarget::Api))) { "/readyz" } else { "/" };
        let kind = self.probe_kind(f, path)?;
        let stream = kind == ProbeKind::TcpStream;
        let dig = matches!(kind, ProbeKind::Dig { .. });
        let to = match to {
            Some(to) => to,
            None if dig => Some(ProbeTarget::ClusterDns),
            None => f.required("to").and_then(|item| self.probe_to(item)),
        };
        let start = self.time(f, "start").unwrap_or_default();
        let until = self.time(f, "until").unwrap_or(self.duration);
        if until < start {
            f.error("until", "the probe ends before it starts", "");
        }
        let every =
            f.duration("every").unwrap_or(Duration::from_millis(if stream { 100 } else { 1000 }));
        self.often(f, every);
        let once = f.bool("once", false);
        let timeout = f.duration("timeout").unwrap_or(Duration::from_secs(1));
        if timeout.is_zero() {
            f.error(
                "timeout",
                "`timeout` must be longer than nothing",
                "a probe's usual one is 1s",
            );
        }
        let every = (!once).then_some(every);
        Some(Probe { name, kind, from: from?, to: to?, start, until, every, timeout })
    }

    fn probe_kind(&self, f: Fields<'_>, path: &str) -> Option<ProbeKind> {
        #[derive(Clone, Copy)]
        enum Word {
            Http,
            TcpStream,
            Ping,
            Dig,
        }
        let words = &[
            ("http", Word::Http),
            ("tcp-stream", Word::TcpStream),
            ("ping", Word::Ping),
            ("dig", Word::Dig),
        ];
        Some(match f.word("kind", words)? {
            Word::TcpStream => ProbeKind::TcpStream,
            Word::Ping => ProbeKind::Ping,
            Word::Http => ProbeKind::Http {
                path: Name::from(f.text("path").unwrap_or(path)),
                status: f.int("status", 100..=599).map_or(200, |status| status as u16),
            },
            Word::Dig => ProbeKind::Dig {
                query: self.dns_name(f, "query"),
                record: f.word("record", RECORDS).unwrap_or(RecordType::A),
                tcp: f.bool("tcp", false),
            },
        })
    }

    /// A name that a query can hold: labels of 1 to 63 bytes, 253 at most with the dots between
    /// (RFC 1035, 2.3.4: 255 on the wire).
    fn dns_name(&self, f: Fields<'_>, key: &str) -> Name {
        f.required(key);
        let Some(text) = f.text(key) else { return Name::default() };
        let name = text.strip_suffix('.').unwrap_or(text);
        let long = |label: &str| label.len() > 63;
        let wrong = if name.is_empty() {
            Some("has no label")
        } else if name.split('.').any(str::is_empty) {
            Some("has an empty label")
        } else if name.split('.').any(long) {
            Some("has a label of more than 63 bytes")
        } else if name.len() > 253 {
            Some("is longer than 253 bytes")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            f.error(key, format!("the name `{text}` {wrong}"), "write it like web.default.svc");
        }
        Name::from(text)
    }

    /// At most one of what is given.
    fn only_one(&self, f: Fields<'_>, what: &str, given: &[&str]) {
        if let [first, .., last] = given {
            let message = format!("{what} is both `{first}` and `{last}`");
            f.error(last, message, "give one of them, and a probe each");
        }
    }

    fn probe_from(&self, item: &Item) -> Option<ProbeFrom> {
        let f = Fields::open(self.log, item, &[&keys::FROM]);
        let node = self.node(f, "node").map(ProbeFrom::Node);
        let client = self.reference(f, "client", "client", &self.names.clients);
        let pod = f.has("pod") || f.has("name");
        let pod = pod.then(|| ProbeFrom::Pod(self.pods(f, "name")));
        let mut given: Vec<&str> = ["node", "client"].into_iter().filter(|k| f.has(k)).collect();
        given.extend(["pod", "name"].into_iter().find(|key| f.has(key)));
        self.only_one(f, "where the probe is from", &given);
        let from = node.or(client.map(ProbeFrom::Client)).or(pod);
        if from.is_none() && !["node", "client", "pod", "name"].iter().any(|key| f.has(key)) {
            self.log.error(item.at, "from where?", "give one of `node`, `client`, `pod` or `name`");
        }
        from
    }

    fn probe_to(&self, item: &Item) -> Option<ProbeTarget> {
        let f = Fields::open(self.log, item, &[&keys::TO]);
        let port = f.port("port").unwrap_or(80);
        // `api = false` is as good as none.
        let flag = |key: &str| ["api", "dns"].contains(&key);
        let told = |key: &&str| if flag(key) { f.bool(key, false) } else { f.has(key) };
        let single = ["api", "dns", "service", "node", "host", "address"];
        let mut given: Vec<&str> = single.into_iter().filter(told).collect();
        given.extend(["pod", "name"].into_iter().find(|key| f.has(key)));
        self.only_one(f, "where the probe goes", &given);
        let api = f.bool("api", false).then_some(ProbeTarget::Api);
        let dns = || f.bool("dns", false).then_some(ProbeTarget::ClusterDns);
        let service = || self.service(f, port);
        let pod = || {
            let given = f.has("pod") || f.has("name");
            given.then(|| ProbeTarget::Pod { pod: self.pods(f, "name"), port })
        };
        let node = || self.node(f, "node").map(|node| ProbeTarget::Node { node, port });
        let address = || f.address("address").map(|a: Ipv4Addr| (a, port));
        let host =
            || f.has("host").then(|| ProbeTarget::Host { host: self.dns_name(f, "host"), port });
        let to = api.or_else(dns).or_else(service).or_else(pod).or_else(node).or_else(host);
        let address = || address().map(|(address, port)| ProbeTarget::Address { address, port });
        let to = to.or_else(address);
        let keys = ["api", "dns", "service", "pod", "name", "node", "host", "address"];
        if to.is_none() && !keys.iter().any(|key| f.has(key)) {
            self.log.error(item.at, "to where?", format!("give one of {}", keys.join(", ")));
        }
        to
    }

    fn service(&self, f: Fields<'_>, port: u16) -> Option<ProbeTarget> {
        let (namespace, name) = self.namespaced(f.text("service")?);
        let via = match f.text("via") {
            None | Some("cluster-ip") => ServiceVia::ClusterIp,
            Some("external-ip") => ServiceVia::ExternalIp,
            Some(_) => ServiceVia::NodePort(self.node(f, "via")?),
        };
        Some(ProbeTarget::Service { namespace, name, port, via })
    }

    /// `name` or `namespace/name`.
    pub fn namespaced(&self, text: &str) -> (Name, Name) {
        match text.split_once('/') {
            Some((namespace, name)) => (Name::from(namespace), Name::from(name)),
            None => (Name::new_static("default"), Name::from(text)),
        }
    }
}

const RECORDS: &[(&str, RecordType)] = &[
    ("A", RecordType::A),
    ("AAAA", RecordType::Aaaa),
    ("SRV", RecordType::Srv),
    ("PTR", RecordType::Ptr),
];
