//! A pod's /etc/resolv.conf (pkg/kubelet/network/dns).

use crate::objects::PodSpec;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// glibc reads three name servers (`MAXNS`); upstream cuts there and at 32 search domains of
/// 2,048 characters.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_DOMAINS: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// The cluster's DNS, as the kubelet is told.
#[derive(Clone, Copy, Debug)]
pub struct ClusterDns<'a> {
    pub server: Ipv4Addr,
    pub domain: &'a str,
}

/// The text for a pod of `namespace`; `host` is the node's own resolv.conf.
pub fn resolv_conf(spec: &PodSpec, namespace: &str, host: &str, dns: ClusterDns<'_>) -> Arc<str> {
    let host = parse(host);
    let host_network = spec.host_network == Some(true);
    let mut resolver = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Resolver::default(),
        "Default" => host,
        "ClusterFirst" if host_network => host,
        _ => cluster_first(namespace, host, dns),
    };
    if let Some(config) = &spec.dns_config {
        append(&mut resolver.nameservers, config.nameservers.as_deref().unwrap_or_default());
        append(&mut resolver.searches, config.searches.as_deref().unwrap_or_default());
        for option in config.options.as_deref().unwrap_or_default() {
            let Some(name) = &option.name else { continue };
            let text = match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            let same = |old: &String| old.split(':').next() == Some(name);
            resolver.options.retain(|old| !same(old));
            resolver.options.push(text);
        }
    }
    print(&resolver).into()
}

fn cluster_first(namespace: &str, host: Resolver, dns: ClusterDns<'_>) -> Resolver {
    let domain = dns.domain;
    let mut searches =
        vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    append(&mut searches, &host.searches);
    Resolver {
        nameservers: vec![dns.server.to_string()],
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn append(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// resolv.conf(5): the last `search` wins, `domain` is a search list of one, comments start with
/// `#` or `;`.
fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => resolver.searches = words.map(str::to_owned).collect(),
            Some("options") => resolver.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    resolver
}

fn print(resolver: &Resolver) -> String {
    let mut text = String::new();
    let mut searches = resolver.searches.clone();
    searches.truncate(MAX_SEARCH_DOMAINS);
    while searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        searches.pop();
    }
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in resolver.nameservers.iter().take(MAX_NAMESERVERS) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodDNSConfig, PodDNSConfigOption};

    const HOST: &str = "# by DHCP\nsearch lan\nnameserver 192.168.1.1\noptions edns0\n";

    fn text(spec: &PodSpec) -> String {
        let dns = ClusterDns { server: Ipv4Addr::new(10, 96, 0, 10), domain: "cluster.local" };
        resolv_conf(spec, "apps", HOST, dns).to_string()
    }

    fn policy(policy: &str) -> PodSpec {
        PodSpec { dns_policy: Some(policy.to_owned()), ..PodSpec::default() }
    }

    #[test]
    fn cluster_first_asks_the_cluster_and_searches_its_domains_first() {
        let expected = "search apps.svc.cluster.local svc.cluster.local cluster.local lan\n\
                        nameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(text(&PodSpec::default()), expected);
        let hosted = PodSpec { host_network: Some(true), ..policy("ClusterFirstWithHostNet") };
        assert_eq!(text(&hosted), expected);
    }

    #[test]
    fn the_nodes_own_resolver_for_default_and_for_host_network() {
        let expected = "search lan\nnameserver 192.168.1.1\noptions edns0\n";
        assert_eq!(text(&policy("Default")), expected);
        let hosted = PodSpec { host_network: Some(true), ..policy("ClusterFirst") };
        assert_eq!(text(&hosted), expected);
    }

    #[test]
    fn none_takes_the_pods_own_and_an_option_replaces_its_namesake() {
        let option = |name: &str, value: &str| PodDNSConfigOption {
            name: Some(name.to_owned()),
            value: Some(value.to_owned()),
        };
        let config = PodDNSConfig {
            nameservers: Some(vec!["1.1.1.1".to_owned()]),
            searches: None,
            options: Some(vec![option("ndots", "2"), option("use-vc", "")]),
        };
        let spec = PodSpec { dns_config: Some(config.clone()), ..policy("None") };
        assert_eq!(text(&spec), "nameserver 1.1.1.1\noptions ndots:2 use-vc\n");
        let spec = PodSpec { dns_config: Some(config), ..policy("ClusterFirst") };
        assert!(text(&spec).ends_with("nameserver 1.1.1.1\noptions ndots:2 use-vc\n"));
    }
}
