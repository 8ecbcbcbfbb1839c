//! Rules as a table of flat maps, over nf_tables' netlink and without any program.
//!
//! A change is the elements in which two versions differ, in one transaction, without a look at
//! the kernel. The kernel is read where it may differ from what is known: at an owner's first
//! Apply, after a refusal or a Verify that missed something, and where an owner applies again what
//! it has applied. Then too, only what differs is written.

mod batch;
mod element;
mod expression;
mod kernel;
mod led;
mod plan;
mod schema;

use super::Written;
use crate::netlink::{Messages, NFPROTO_UNSPEC, Netlink};
use batch::Batch;
use kernel::Found;
pub use kernel::Table;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatSet, FlatValue};
use kubesim_actors::ports::rules::{FlatSettings, Reply};
use led::Led;
use plan::Plan;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables of all owners: each is called as its owner, in the family `ip`.
#[derive(Default)]
pub struct Nftables {
    owners: BTreeMap<SmolStr, Owner>,
    messages: Messages,
    written: Written,
    /// The kernel's count of transactions when all owners' tables were last known to stand.
    generation: Option<u32>,
}

/// What an owner has applied, or wants to.
#[derive(Clone)]
struct Owner {
    settings: FlatSettings,
    shared: FlatSet,
    /// In the order of their keys.
    local: Arc<[(FlatKey, FlatValue)]>,
    /// How many elements lead to a chain: it stands as long as there is one.
    users: BTreeMap<Led, u32>,
    /// The kernel holds it, as far as this driver knows.
    trusted: bool,
}

impl Nftables {
    pub fn written(&self) -> Written {
        self.written
    }

    pub fn has(&self, owner: &SmolStr) -> bool {
        self.owners.contains_key(owner)
    }

    pub fn apply(
        &mut self,
        netlink: &mut Netlink,
        name: &SmolStr,
        settings: FlatSettings,
        shared: FlatSet,
        local: Arc<[(FlatKey, FlatValue)]>,
    ) -> (Vec<String>, Result<(), String>) {
        let local = sorted(local);
        let mut wanted = Owner { settings, shared, local, users: BTreeMap::new(), trusted: true };
        let before = self.owners.remove(name);
        let known = before.as_ref().filter(|old| old.trusted && old.settings == settings);
        let change = known.map(|old| Plan::difference(old, &mut wanted));
        let written = match change.filter(|plan| !plan.is_empty()) {
            Some(plan) => self.write(netlink, name, &wanted, &plan).is_ok(),
            None => false,
        };
        // Not known, doubted, or refused: perhaps what was there is no more.
        let (missing, result) = match written {
            true => (Vec::new(), Ok(())),
            false => {
                let believed = before.as_ref().filter(|old| old.trusted);
                let plan = believed.map(|believed| self.compare(netlink, name, believed));
                let missing = plan.and_then(Result::ok).map(|plan| plan.missing(name));
                (missing.unwrap_or_default(), self.reconcile(netlink, name, &mut wanted))
            }
        };
        wanted.trusted = result.is_ok();
        self.owners.insert(name.clone(), wanted);
        (missing, result.map_err(|why| format!("the services of {name} were not set: {why}")))
    }

    fn reconcile(
        &mut self,
        netlink: &mut Netlink,
        name: &SmolStr,
        wanted: &mut Owner,
    ) -> Result<(), String> {
        wanted.users = wanted.count_users();
        let now = kernel::generation(netlink, &mut self.messages).map_err(unread)?;
        let plan = self.compare(netlink, name, wanted)?;
        // Only this owner's table was looked at.
        self.generation = Some(now).filter(|_| self.owners.values().all(|other| !other.trusted));
        if plan.is_empty() || self.write(netlink, name, wanted, &plan).is_ok() {
            return Ok(());
        }
        // Something stands in the way that was not seen: make the table anew.
        let anew = Plan::everything(wanted, Some(String::new()));
        self.write(netlink, name, wanted, &anew)
    }

    /// What of an owner's does not stand in the kernel.
    fn compare(
        &mut self,
        netlink: &mut Netlink,
        name: &str,
        wanted: &Owner,
    ) -> Result<Plan, String> {
        self.written.reads += 1;
        let found = Found::read(netlink, name).map_err(unread)?;
        plan::reconcile(netlink, name, &found, wanted).map_err(unread)
    }

    pub fn verify(&mut self, netlink: &mut Netlink, name: SmolStr) -> Result<Reply, String> {
        let now = kernel::generation(netlink, &mut self.messages).map_err(unread)?;
        let trusted = self.owners.get(&name).is_some_and(|owner| owner.trusted);
        let mut missing = Vec::new();
        if !trusted || self.generation != Some(now) {
            missing = match self.owners.remove(&name) {
                None => vec![format!("nothing of {name} is loaded")],
                Some(mut owner) => {
                    let plan = self.compare(netlink, &name, &owner);
                    let missing = plan.map(|plan| plan.missing(&name));
                    owner.trusted = missing.as_ref().is_ok_and(Vec::is_empty);
                    self.owners.insert(name.clone(), owner);
                    missing?
                }
            };
            if self.owners.len() == 1 && missing.is_empty() {
                self.generation = Some(now);
            }
        }
        Ok(Reply::Verified { owner: name, intact: missing.is_empty(), missing })
    }

    fn write(
        &mut self,
        netlink: &mut Netlink,
        name: &str,
        wanted: &Owner,
        plan: &Plan,
    ) -> Result<(), String> {
        plan.write(Batch::begin(&mut self.messages, name), wanted);
        self.written.transactions += 1;
        self.written.bytes += self.messages.bytes().len() as u64;
        if let Err(refusal) = netlink.request(&self.messages, |_| {}) {
            self.generation = None;
            return Err(format!("nf_tables refused {}", batch::refused(&self.messages, &refusal)));
        }
        // Ours is one transaction: if there were more, somebody else's is among them.
        let before = self.generation.take();
        let now = kernel::generation(netlink, &mut self.messages).ok();
        self.generation = now.filter(|now| before.is_some_and(|b| b.wrapping_add(1) == *now));
        Ok(())
    }
}

/// What stands of an owner's elements in the calling thread's network namespace, in the order of
/// their keys; empty where it has no table. What somebody else wrote into its sets is left out.
pub fn elements_of(name: &str) -> Result<Vec<(FlatKey, FlatValue)>, String> {
    let mut netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
    if Found::read(&mut netlink, name).map_err(unread)?.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for set in plan::FLAT_SETS {
        let mut each =
            |found: &mut Vec<_>, shown: element::Shown<'_>| found.extend(shown.read(set));
        all.extend(kernel::elements(&mut netlink, name, set, &mut each).map_err(unread)?);
    }
    all.sort_unstable_by_key(|(key, _)| *key);
    Ok(all)
}

/// How many transactions the calling thread's network namespace has seen: when it has not changed,
/// no rule has.
pub fn generation() -> Result<u32, String> {
    let mut netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
    kernel::generation(&mut netlink, &mut Messages::default()).map_err(unread)
}

/// Makes an owner's table, with these elements, in the calling thread's network namespace, as
/// [`Nftables::apply`] would: for who wants to see how it should stand.
pub fn make_table(
    name: &str,
    settings: FlatSettings,
    elements: Arc<[(FlatKey, FlatValue)]>,
) -> Result<(), String> {
    let mut netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
    let nothing = FlatSet::empty(0);
    Nftables::default().apply(&mut netlink, &name.into(), settings, nothing, elements).1
}

/// Every table of every family in the calling thread's network namespace.
pub fn tables() -> Result<Vec<Table>, String> {
    let mut netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
    kernel::tables(&mut netlink, NFPROTO_UNSPEC).map_err(unread)
}

/// The whole of an owner's table as one transaction, for who wants to know what it costs to send.
pub fn whole_table(
    name: &str,
    settings: FlatSettings,
    shared: FlatSet,
    local: Arc<[(FlatKey, FlatValue)]>,
) -> Messages {
    let local = sorted(local);
    let mut wanted = Owner { settings, shared, local, users: BTreeMap::new(), trusted: true };
    wanted.users = wanted.count_users();
    let mut messages = Messages::default();
    Plan::everything(&wanted, None).write(Batch::begin(&mut messages, name), &wanted);
    messages
}

fn unread(refusal: crate::netlink::Refusal) -> String {
    format!(
        "nf_tables cannot be read: {refusal}; the kernel needs nf_tables, and this process \
         CAP_NET_ADMIN"
    )
}

fn sorted(mut local: Arc<[(FlatKey, FlatValue)]>) -> Arc<[(FlatKey, FlatValue)]> {
    if !local.is_sorted_by_key(|(key, _)| *key) {
        Arc::make_mut(&mut local).sort_by_key(|(key, _)| *key);
    }
    local
}

impl Owner {
    fn get(&self, key: &FlatKey) -> Option<FlatValue> {
        match self.local.binary_search_by_key(key, |(key, _)| *key) {
            Ok(at) => Some(self.local[at].1),
            Err(_) => self.shared.get(key).copied(),
        }
    }

    /// All its elements in the order of their keys, local ones in place of shared ones.
    fn elements(&self) -> impl Iterator<Item = (FlatKey, FlatValue)> + '_ {
        let mut shared = self.shared.iter().map(|(key, value)| (*key, *value)).peekable();
        let mut local = self.local.iter().copied().peekable();
        std::iter::from_fn(move || match (shared.peek(), local.peek()) {
            (Some((theirs, _)), Some((own, _))) if theirs < own => shared.next(),
            (Some((theirs, _)), Some((own, _))) if theirs == own => {
                shared.next();
                local.next()
            }
            (_, Some(_)) => local.next(),
            (_, None) => shared.next(),
        })
    }

    fn count_users(&self) -> BTreeMap<Led, u32> {
        let mut users = BTreeMap::new();
        for (key, value) in self.elements() {
            if let Some(led) = Led::by(&key, &value) {
                *users.entry(led).or_default() += 1;
            }
        }
        users
    }
}
