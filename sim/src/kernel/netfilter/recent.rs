//! `-m recent`: who was here lately (net/netfilter/xt_recent.c).

use super::family::Bits;
use crate::kernel::family::{Family, V4};
use kubesim_runtime::Time;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::time::Duration;

/// `ip_list_tot`: a list keeps this many addresses, and a new one displaces the one that was
/// seen longest ago. Session affinity forgets clients beyond it, as it does on Linux.
const LIST_TOTAL: usize = 100;

/// Lists by name. Within a list, addresses in order of their last stamp, oldest first.
///
/// Only the latest stamp of an address is kept: without `--hitcount` no other is looked at.
#[derive(Clone, Debug)]
pub(super) struct RecentLists<F: Family = V4>(BTreeMap<SmolStr, Vec<(Bits<F>, Time)>>);

impl<F: Family> Default for RecentLists<F> {
    fn default() -> Self {
        RecentLists(BTreeMap::new())
    }
}

impl<F: Family> RecentLists<F> {
    /// `--set --rsource`
    pub fn set(&mut self, name: &SmolStr, addr: Bits<F>, now: Time) {
        let list = match self.0.get_mut(name) {
            Some(list) => list,
            None => self.0.entry(name.clone()).or_default(),
        };
        if let Some(at) = list.iter().position(|(known, _)| *known == addr) {
            list.remove(at);
        } else if list.len() == LIST_TOTAL {
            list.remove(0);
        }
        list.push((addr, now));
    }

    /// `--rcheck --seconds s --reap --rsource`. Reaping looks at the oldest address only, and
    /// only when the packet's own address is known.
    pub fn check(&mut self, name: &SmolStr, addr: Bits<F>, seconds: u32, now: Time) -> bool {
        let Some(list) = self.0.get_mut(name) else {
            return false;
        };
        let Some((_, stamp)) = list.iter().find(|(known, _)| *known == addr) else {
            return false;
        };
        let window = Duration::from_secs(u64::from(seconds));
        let fresh = |stamp: Time| now.since(stamp) <= window;
        let recent = fresh(*stamp);
        if list.first().is_some_and(|(_, oldest)| !fresh(*oldest)) {
            list.remove(0);
        }
        recent
    }

    /// Drops the lists that no rule names any more (`recent_table_put`).
    pub fn retain(&mut self, mut named: impl FnMut(&SmolStr) -> bool) {
        self.0.retain(|name, _| named(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_recent_for_exactly_its_seconds() {
        let (mut lists, name) = (RecentLists::<V4>::default(), SmolStr::new("a"));
        assert!(!lists.check(&name, 1, 10, Time::ZERO));
        lists.set(&name, 1, Time::from_secs(5));
        assert!(lists.check(&name, 1, 10, Time::from_secs(15)));
        assert!(!lists.check(&name, 2, 10, Time::from_secs(15)));
        assert!(!lists.check(&name, 1, 10, Time::from_millis(15_001)));
        // That look reaped it.
        assert!(lists.0[&name].is_empty());
    }

    #[test]
    fn the_hundred_and_first_client_displaces_the_oldest() {
        let (mut lists, name) = (RecentLists::<V4>::default(), SmolStr::new("a"));
        for addr in 0..100 {
            lists.set(&name, addr, Time::from_secs(u64::from(addr)));
        }
        lists.set(&name, 0, Time::from_secs(100));
        lists.set(&name, 100, Time::from_secs(101));
        assert!(lists.check(&name, 0, 1_000, Time::from_secs(102)));
        assert!(!lists.check(&name, 1, 1_000, Time::from_secs(102)));
    }
}
