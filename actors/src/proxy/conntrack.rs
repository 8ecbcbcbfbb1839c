//! Connections the kernel remembers are state to reconcile: after the rules are in place, none
//! may lead to what is no endpoint any more, and those whose endpoint stayed are left alone.
//!
//! UDP as upstream does it (pkg/proxy/conntrack/cleanup.go): a flow belongs to its Service and
//! may lead only to endpoints that serve. TCP flows may go on to an endpoint that terminates, as
//! long as any Service lists it; an address that none lists may be another pod's next.

use super::compile::Compiled;
use super::piece::{Backend, Front};
use crate::ports::rules::{CtEntry, CtFilter, Protocol};
use imbl::ordmap::DiffItem;
use kubesim_runtime::Hasher;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Backends = Arc<[Backend]>;

/// What has to go after `new` replaced `old`. Computed once for all nodes that make this step.
pub fn stale(old: &Compiled, new: &Compiled) -> Arc<[CtFilter]> {
    let mut key = Hasher::default();
    key.u64(old.chains.history());
    key.u64(old.chains.version());
    let found = new.chains.memo(key.finish(), || Stale(stale_anew(old, new)));
    Arc::clone(&found.0)
}

struct Stale(Arc<[CtFilter]>);

fn stale_anew(old: &Compiled, new: &Compiled) -> Arc<[CtFilter]> {
    let mut fronts: BTreeMap<Front, (Option<Backends>, Option<Backends>)> = BTreeMap::new();
    let mut gone: BTreeSet<Backend> = BTreeSet::new();
    for item in old.pieces.diff(&new.pieces) {
        let (was, is) = match item {
            DiffItem::Add(_, is) => (None, Some(is)),
            DiffItem::Update { old: (_, was), new: (_, is) } => (Some(was), Some(is)),
            DiffItem::Remove(_, was) => (Some(was), None),
        };
        for (front, backends) in was.into_iter().flat_map(|piece| &piece.fronts) {
            fronts.entry(*front).or_default().0 = Some(Arc::clone(backends));
        }
        for (front, backends) in is.into_iter().flat_map(|piece| &piece.fronts) {
            fronts.entry(*front).or_default().1 = Some(Arc::clone(backends));
        }
        let listed = was.into_iter().flat_map(|piece| &piece.backends);
        gone.extend(listed.filter(|one| is_gone(one, new)).copied());
    }
    let mut filters = Vec::new();
    for (front, (was, is)) in fronts.iter().filter(|(front, _)| front.protocol == Protocol::Udp) {
        udp(*front, was.as_deref(), is.as_deref(), &mut filters);
    }
    filters.extend(gone.into_iter().map(to_backend));
    filters.into()
}

/// A TCP or SCTP address that no Service lists any more.
fn is_gone(backend: &Backend, new: &Compiled) -> bool {
    backend.protocol != Protocol::Udp && !new.backends.contains_key(backend)
}

fn udp(front: Front, was: Option<&[Backend]>, is: Option<&[Backend]>, filters: &mut Vec<CtFilter>) {
    let (old, new) = (was.unwrap_or_default(), is.unwrap_or_default());
    if old.is_empty() && new.is_empty() {
        return;
    }
    if old.is_empty() || new.is_empty() {
        // To the first endpoint: flows that began before it was there are not rewritten at all,
        // and would never be (kubernetes/kubernetes#48370). After the last: all of them.
        filters.push(to_front(front));
        return;
    }
    for backend in old.iter().filter(|one| !new.contains(one)) {
        let rewritten = CtFilter { dnat_to: Some(backend.ip), ..to_front(front) };
        filters.push(CtFilter { dnat_port: Some(backend.port), ..rewritten });
    }
}

fn to_front(front: Front) -> CtFilter {
    CtFilter {
        protocol: Some(front.protocol),
        original_dst: front.ip,
        original_dport: Some(front.port),
        ..CtFilter::default()
    }
}

fn to_backend(backend: Backend) -> CtFilter {
    CtFilter {
        protocol: Some(backend.protocol),
        dnat_to: Some(backend.ip),
        dnat_port: Some(backend.port),
        ..CtFilter::default()
    }
}

/// What has to go of the entries found at start, when nobody knows what the rules were before.
/// An entry that leads neither from a Service nor to a pod is somebody else's.
pub fn stale_entries(compiled: &Compiled, entries: &[CtEntry]) -> Vec<CtFilter> {
    let fronts = compiled.chains.memo(0, || Fronts::of(compiled));
    let stale = entries.iter().filter(|entry| fronts.is_stale(compiled, entry));
    let filter = |entry: &CtEntry| CtFilter {
        protocol: Some(entry.protocol),
        original_dst: Some(entry.original_dst),
        original_dport: Some(entry.original_dport),
        dnat_to: Some(entry.dnat_to),
        dnat_port: Some(entry.dnat_port),
    };
    let mut filters: Vec<CtFilter> = Vec::new();
    for filter in stale.map(filter) {
        if !filters.contains(&filter) {
            filters.push(filter);
        }
    }
    filters
}

/// UDP flows to a Service that has endpoints and that were nevertheless not rewritten: the answer
/// is expected from the very address the client wrote. They began while the rules were missing.
pub fn never_rewritten(compiled: &Compiled) -> Vec<CtFilter> {
    let fronts = compiled.chains.memo(0, || Fronts::of(compiled));
    let of = |(front, backends): (&Front, &Backends)| {
        let ip = front.ip.filter(|_| front.protocol == Protocol::Udp && !backends.is_empty())?;
        Some(CtFilter { dnat_to: Some(ip), dnat_port: Some(front.port), ..to_front(*front) })
    };
    fronts.0.iter().filter_map(of).collect()
}

/// Every front of a version, built only where a proxy starts.
struct Fronts(BTreeMap<Front, Backends>);

impl Fronts {
    fn of(compiled: &Compiled) -> Self {
        let pieces = compiled.pieces.values();
        let fronts = pieces.flat_map(|piece| &piece.fronts);
        Fronts(fronts.map(|(front, backends)| (*front, Arc::clone(backends))).collect())
    }

    fn backends(&self, entry: &CtEntry) -> Option<&Backends> {
        let (protocol, port) = (entry.protocol, entry.original_dport);
        let exact = Front { protocol, ip: Some(entry.original_dst), port };
        self.0.get(&exact).or_else(|| self.0.get(&Front { protocol, ip: None, port }))
    }

    fn is_stale(&self, compiled: &Compiled, entry: &CtEntry) -> bool {
        let protocol = entry.protocol;
        let backend = Backend { protocol, ip: entry.dnat_to, port: entry.dnat_port };
        match (self.backends(entry), protocol) {
            (Some(allowed), Protocol::Udp) => !allowed.contains(&backend),
            (Some(_), _) => !compiled.backends.contains_key(&backend),
            (None, _) => {
                compiled.shape.cluster_cidr.contains(&entry.dnat_to)
                    && !compiled.backends.contains_key(&backend)
            }
        }
    }
}
