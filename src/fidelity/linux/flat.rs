//! The elements of nftables mode, written by the project's own driver.

use crate::fidelity::step::{KEPT, OWNERS, flat_settings};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatSet, FlatValue};
use kubesim_backends::netlink::{Messages, NFPROTO_IPV4, NFPROTO_UNSPEC, NFTABLES, Netlink, flag};
use kubesim_backends::rules::nftables::Nftables;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`, `NFT_MSG_DELTABLE`
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const DELETE_TABLE: u16 = NFTABLES | 2;

pub struct Flat {
    netlink: Netlink,
    driver: Nftables,
    wanted: FlatSet,
    /// What was last written; `None`: it was changed in the middle of a case.
    written: Option<FlatSet>,
    /// Something has passed since the case began.
    begun: bool,
}

impl Flat {
    /// In the calling thread's network namespace.
    pub fn new() -> Result<Flat, String> {
        let netlink = Netlink::open().map_err(|error| format!("needs nf_tables: {error}"))?;
        let (driver, wanted) = (Nftables::default(), FlatSet::empty(1));
        let mut flat = Flat { netlink, driver, wanted, written: None, begun: false };
        let (keep, empty) = (OWNERS[1].into(), FlatSet::empty(2));
        let local = vec![KEPT].into();
        flat.driver.apply(&mut flat.netlink, &keep, flat_settings(), empty, local).1?;
        Ok(flat)
    }

    pub fn insert(&mut self, elements: &[(FlatKey, FlatValue)]) {
        let version = self.wanted.version() + 1;
        for (key, value) in elements {
            self.wanted.insert(*key, *value, version);
        }
    }

    pub fn remove(&mut self, keys: &[FlatKey]) {
        let version = self.wanted.version() + 1;
        for key in keys {
            self.wanted.remove(key, version);
        }
    }

    pub fn reset(&mut self) {
        (self.wanted, self.begun) = (FlatSet::empty(1), false);
    }

    /// The next case gets a table of its own, whatever it holds: who had which endpoint ends.
    pub fn forget(&mut self) {
        self.written = None;
    }

    /// Writes what has changed; where a case begins, into a new table.
    pub fn settle(&mut self) -> Result<(), String> {
        let begun = std::mem::replace(&mut self.begun, true);
        let alike = |written: &FlatSet| written.iter().eq(self.wanted.iter());
        if self.written.as_ref().is_some_and(alike) {
            return Ok(());
        }
        if !begun {
            self.begin_anew()?;
        }
        let (owner, local) = (OWNERS[0].into(), Vec::new().into());
        let (settings, wanted) = (flat_settings(), self.wanted.clone());
        self.driver.apply(&mut self.netlink, &owner, settings, wanted, local).1?;
        self.written = Some(self.wanted.clone()).filter(|_| !begun);
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<(), String> {
        self.driver = Nftables::default();
        let mut messages = Messages::default();
        let subsystem = NFTABLES >> 8;
        messages.push(BEGIN, flag::REQUEST, NFPROTO_UNSPEC, subsystem, |_| {});
        messages.push(DELETE_TABLE, flag::REQUEST, NFPROTO_IPV4, 0, |message| {
            message.str(1, OWNERS[0]);
        });
        messages.push(END, flag::REQUEST, NFPROTO_UNSPEC, subsystem, |_| {});
        match self.netlink.request(&messages, |_| {}) {
            Err(refused) if !refused.is_absent() => {
                Err(format!("deleting the table {}: {refused}", OWNERS[0]))
            }
            _ => Ok(()),
        }
    }
}
