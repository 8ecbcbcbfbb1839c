//! Services as virtual services of IPVS, over its generic netlink family, beside the chains that
//! masquerade (see `kubesim_actors::ports::rules::virtuals`).
//!
//! A change is what two versions differ in, without a look at IPVS but for the connections of
//! endpoints that go. The kernel is read where it may differ from what is known: at an owner's
//! first Apply, after a refusal or a Verify that missed something, and where an owner applies again
//! what it has applied. Then too, only what differs is written.
//!
//! Whose a service is, the service says itself: one of ours has a scheduler's flag that `rr` has no
//! use for (see `message`). So what a former life left is adopted or taken away, and what somebody
//! else made is left alone; upstream takes that away unless its address is excluded.

mod device;
mod message;
mod plan;

use super::Written;
use crate::netlink::{Messages, Netlink, Refusal};
use crate::network::admin::Admin;
use device::Addresses;
use kubesim_actors::ports::rules::Chains;
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::virtuals::{DEVICE, Virtual, VirtualSet};
pub use message::{At, Endpoint, Standing};
use plan::{Change, Found, Wanted};
use smol_str::SmolStr;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Messages of one send. Their answers have to fit into the receive buffer.
const BATCH: usize = 64;

/// The virtual services of the one owner that has some: they have one device.
#[derive(Default)]
pub struct Ipvs {
    sockets: Option<Sockets>,
    owner: Option<Owner>,
    written: Written,
}

struct Sockets {
    generic: Netlink,
    /// IPVS' number.
    family: u16,
    admin: Admin,
}

/// What an owner has applied, or wants to.
struct Owner {
    name: SmolStr,
    chains: Chains,
    shared: VirtualSet,
    local: Arc<[(Front, Arc<Virtual>)]>,
    /// What stands, as far as this driver knows; `None`: it has to look.
    known: Option<Found>,
}

impl Ipvs {
    pub fn written(&self) -> Written {
        self.written
    }

    pub fn has(&self, owner: &SmolStr) -> bool {
        self.owner.as_ref().is_some_and(|known| known.name == *owner)
    }

    /// Whether an owner's chains are these already, and something else of its has changed: then
    /// nobody doubts that they stand.
    pub fn leaves_chains(
        &self,
        owner: &SmolStr,
        chains: &Chains,
        shared: &VirtualSet,
        local: &[(Front, Arc<Virtual>)],
    ) -> bool {
        let known = self.owner.as_ref().filter(|known| known.name == *owner);
        known.is_some_and(|known| {
            let same = known.local[..] == *local && known.shared.diff(shared).next().is_none();
            known.known.is_some() && !same && known.chains.same(chains)
        })
    }

    /// The chains are there.
    pub fn apply(
        &mut self,
        name: &SmolStr,
        chains: Chains,
        shared: VirtualSet,
        local: Arc<[(Front, Arc<Virtual>)]>,
    ) -> Result<(), String> {
        let mut before = self.owner.take();
        if let Some(other) = before.take_if(|other| other.name != *name) {
            let why = format!("{DEVICE} and its services are {}'s", other.name);
            self.owner = Some(other);
            return Err(format!("the services of {name} were not set: {why}"));
        }
        let same = before
            .as_ref()
            .is_some_and(|old| old.local == local && old.shared.diff(&shared).next().is_none());
        let known = before.and_then(|old| old.known).filter(|_| !same);
        let mut wanted = Owner { name: name.clone(), chains, shared, local, known };
        let mut result = self.reconcile(&mut wanted);
        if result.is_err() && wanted.known.take().is_some() {
            // Perhaps what was there is no more.
            result = self.reconcile(&mut wanted);
        }
        if result.is_err() {
            wanted.known = None;
        }
        self.owner = Some(wanted);
        result.map_err(|why| format!("the services of {name} were not set: {why}"))
    }

    fn reconcile(&mut self, owner: &mut Owner) -> Result<(), String> {
        let Ipvs { sockets, written, .. } = self;
        let sockets = Sockets::opened(sockets)?;
        let addresses = device::addresses(&mut sockets.admin)?;
        let wanted = owner.wanted(&addresses);
        let mut found = match &owner.known {
            Some(known) => known.clone(),
            None => {
                device::set_sysctls()?;
                sockets.list(written)?
            }
        };
        let listed = owner.known.is_none();
        let changes = loop {
            let changes = plan::difference(&found, &wanted);
            if listed || !sockets.count_connections(&mut found, &changes)? {
                break changes;
            }
        };
        let (gone, put): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| matches!(change, Change::NoService(_)));
        let held = owner.held(&addresses);
        sockets.write(&mut found, &put, written)?;
        device::hold(&mut sockets.admin, &addresses, &held)?;
        sockets.write(&mut found, &gone, written)?;
        device::release(&mut sockets.admin, &addresses, &held)?;
        owner.known = Some(found);
        Ok(())
    }

    /// What is not as applied. What has drained meanwhile goes.
    pub fn verify(&mut self) -> Result<Vec<String>, String> {
        let Ipvs { sockets, owner, written } = self;
        let Some(owner) = owner else { return Ok(Vec::new()) };
        let sockets = Sockets::opened(sockets)?;
        let addresses = device::addresses(&mut sockets.admin)?;
        let mut found = sockets.list(written)?;
        let changes = plan::difference(&found, &owner.wanted(&addresses));
        let (drained, other): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.ends_draining(&found));
        sockets.write(&mut found, &drained, written)?;
        let mut missing: Vec<String> = other.iter().map(Change::to_string).collect();
        let held = owner.held(&addresses);
        match &addresses.device {
            None => missing.push(format!("the device {DEVICE} is gone")),
            Some(have) => {
                let lacks = held.difference(have).map(|ip| format!("{DEVICE}: {ip} is gone"));
                missing.extend(lacks);
                let strange = have.difference(&held);
                missing.extend(strange.map(|ip| format!("{DEVICE}: {ip} is no service's")));
            }
        }
        let unset = device::unset_sysctls().into_iter();
        missing.extend(unset.map(|(key, value)| format!("sysctl {key} is not {value}")));
        owner.known = Some(found);
        Ok(missing)
    }

    /// Something of the owner's is not as applied: the next Apply looks at all of it.
    pub fn doubt(&mut self) {
        if let Some(owner) = &mut self.owner {
            owner.known = None;
        }
    }
}

impl Owner {
    fn all(&self) -> impl Iterator<Item = (&Front, &Arc<Virtual>)> {
        let own = self.local.iter().map(|(front, service)| (front, service));
        self.shared.iter().chain(own)
    }

    fn wanted(&self, addresses: &Addresses) -> Wanted {
        plan::expand(self.all(), &addresses.node)
    }

    /// The addresses of the device.
    fn held(&self, addresses: &Addresses) -> BTreeSet<Ipv4Addr> {
        let held = self.all().filter(|(front, service)| service.is_held(front, &addresses.node));
        held.map(|(front, _)| front.ip).collect()
    }
}

impl Sockets {
    fn opened(sockets: &mut Option<Sockets>) -> Result<&mut Sockets, String> {
        match sockets {
            Some(sockets) => Ok(sockets),
            none => Ok(none.insert(Sockets::open()?)),
        }
    }

    fn open() -> Result<Sockets, String> {
        let unopened = |error| format!("a netlink socket cannot be opened: {error}; is this root?");
        let mut generic = Netlink::open_generic().map_err(unopened)?;
        let family =
            crate::netlink::family(&mut generic, "IPVS").map_err(|refused| {
                match refused.is_absent() {
                true => {
                    "the kernel has no IPVS: load the modules ip_vs and ip_vs_rr, or use another \
                     proxy mode"
                        .to_owned()
                }
                false => format!("the kernel does not say IPVS' number: {refused}"),
            }
            })?;
        Ok(Sockets { generic, family, admin: Admin::open().map_err(unopened)? })
    }

    fn list(&mut self, written: &mut Written) -> Result<Found, String> {
        written.reads += 1;
        message::list(&mut self.generic, self.family)
            .map_err(|refused| format!("IPVS cannot be read: {refused}"))
    }

    /// Learns how many connections the endpoints have that are to go, and are not known to be
    /// drained. True: it has learned something.
    fn count_connections(&mut self, found: &mut Found, changes: &[Change]) -> Result<bool, String> {
        let mut learned = false;
        for at in changes.iter().filter_map(Change::takes_from) {
            let now = message::endpoints(&mut self.generic, self.family, at)
                .map_err(|refused| format!("IPVS cannot be read: {refused}"))?;
            let Some(standing) = found.get_mut(&at) else { continue };
            for (endpoint, now) in now {
                if let Some(known) = standing.endpoints.get_mut(&endpoint) {
                    learned |= known.connections != now.connections;
                    known.connections = now.connections;
                }
            }
        }
        Ok(learned)
    }

    fn write(
        &mut self,
        found: &mut Found,
        changes: &[Change],
        written: &mut Written,
    ) -> Result<(), String> {
        written.transactions += u64::from(!changes.is_empty());
        let mut messages = Messages::default();
        for some in changes.chunks(BATCH) {
            messages.clear();
            let first = messages.sequence().wrapping_add(1);
            some.iter().for_each(|change| change.put(&mut messages, self.family));
            written.bytes += messages.bytes().len() as u64;
            self.generic.request(&messages, |_| {}).map_err(|refusal: Refusal| {
                let at = refusal.sequence.wrapping_sub(first) as usize;
                let what = some.get(at).map(Change::to_string).unwrap_or_default();
                format!("IPVS refused to mend \"{what}\": {refusal}")
            })?;
            some.iter().for_each(|change| plan::learn(found, *change));
        }
        Ok(())
    }
}

impl Change {
    fn put(&self, messages: &mut Messages, family: u16) {
        match *self {
            Change::Service { at, sticky, new } => {
                message::put_service(messages, family, at, sticky, new);
            }
            Change::NoService(at) => message::delete_service(messages, family, at),
            Change::Endpoint { at, endpoint, write } => {
                message::put_endpoint(messages, family, at, endpoint, write);
            }
        }
    }

    /// The service whose endpoint would go.
    fn takes_from(&self) -> Option<At> {
        match self {
            Change::Endpoint { at, write: message::Write::Del, .. } => Some(*at),
            _ => None,
        }
    }
}

/// Every service of the calling thread's network namespace, with how many connections it has
/// had, and each endpoint's.
pub fn services() -> Result<std::collections::BTreeMap<At, Standing>, String> {
    Sockets::open()?.list(&mut Written::default())
}
