//! Visitors: clients from outside of the world, a person's `kubectl` above all.
//!
//! They stand where the person stands who applies a scenario's workloads (`operator`), at the API
//! server itself, so none of their bytes is a packet of the world. What they read is served by
//! whoever hosts the world, from what the API server published ([`Told`]): that changes nothing
//! here. What they write comes in by [`World::visit`] at an instant of the host's choice, and the
//! world follows from the writes and their instants (`crate::visits`).

use super::{Cell, Kind, World};
use kubesim_actors::apiserver::{self, ApiServer, Cache, RequestId};
use kubesim_actors::ports::api::{Error, Reply, Request};
use std::sync::Arc;

/// What the API server tells whoever serves visitors.
#[derive(Clone, Debug)]
pub enum Told {
    /// What reads and watches are served from, from now on.
    Published(Cache),
    /// The answer to the write of this number.
    Answered { call: u64, result: Result<Reply, Error> },
    /// Its process ended: nothing is served until another one publishes, and no write that was not
    /// answered will be.
    Ended,
}

#[derive(Debug, Default)]
pub(super) struct Visitors {
    /// Somebody hears what is told.
    heard: bool,
    told: Vec<Told>,
    writes: u64,
}

/// The connection number of all visitors.
pub(super) const VISITOR: u64 = u64::MAX - 1;

impl World {
    /// What the API server tells is kept from now on, for [`World::take_told`].
    pub fn expect_visitors(&mut self) {
        self.visitors.heard = true;
    }

    /// A visitor's write comes in, now. Its number; `None`, and nothing happens, while no API
    /// server takes writes.
    pub fn visit(&mut self, request: Arc<Request>, dry_run: bool) -> Option<u64> {
        self.front.cache()?;
        let call = self.visitors.writes;
        self.visitors.writes += 1;
        self.counts.api_writes += 1;
        self.trace_call(VISITOR, call, &request);
        let life = self.life(Cell { kind: Kind::ApiServer, index: 0 });
        let id = RequestId { connection: VISITOR, call };
        let event = apiserver::Event::Request { id, request, dry_run };
        self.send::<ApiServer>(life, self.now, None, event);
        Some(call)
    }

    /// What was told since the last time, oldest first.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.visitors.told)
    }

    pub(super) fn tell_visitors(&mut self, told: impl FnOnce() -> Told) {
        if self.visitors.heard {
            self.visitors.told.push(told());
        }
    }
}
