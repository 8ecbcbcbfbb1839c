//! Cluster IPs are handed out by the API server; this loop only checks that no two Services have
//! one address, as upstream's repair loop does
//! (`pkg/registry/core/service/ipallocator/controller`).

use super::Controllers;
use super::world::{ObjectChange, sides};
use crate::objects::{Key, Object};
use kubesim_runtime::Context;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub struct ServiceIps {
    holders: BTreeMap<String, BTreeSet<Key>>,
}

/// The addresses of a Service; none of a headless one.
fn addresses(service: &Object) -> BTreeSet<String> {
    let Some((spec, _)) = service.service() else { return BTreeSet::new() };
    let all = spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten());
    all.filter(|ip| !ip.is_empty() && *ip != "None").cloned().collect()
}

impl ServiceIps {
    pub fn observe(&mut self, change: &ObjectChange<'_>, ctx: &mut Context<'_, Controllers>) {
        let (key, old, new) = sides(change);
        let was = old.map(|service| addresses(service)).unwrap_or_default();
        let is = new.map(|service| addresses(service)).unwrap_or_default();
        for ip in was.difference(&is) {
            if let Some(holders) = self.holders.get_mut(ip) {
                holders.remove(key);
                if holders.is_empty() {
                    self.holders.remove(ip);
                }
            }
        }
        for ip in is.difference(&was) {
            let holders = self.holders.entry(ip.clone()).or_default();
            holders.insert(key.clone());
            if holders.len() > 1 {
                let names: Vec<_> = holders.iter().map(Key::to_string).collect();
                ctx.note(|| format!("cluster IP {ip} is held by {}", names.join(" and ")));
            }
        }
    }
}
