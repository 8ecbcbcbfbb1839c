//! Finding the API's servers when they are not where they were.
//!
//! First they are asked themselves, at every address they ever had. That is in vain if they moved
//! while this node could not hear it, or both moved at once: neither knows where the other is now,
//! but the rest of the cluster knows both. So after a while a few peers are asked as well, and
//! whoever of them has heard where the servers are passes the question on; they answer it directly.

use super::peer::{Ask, Signed, Statement};
use super::{Netd, Timer, plan};
use crate::objects::Name;
use kubesim_runtime::Context;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// The API may be away this long before its servers are asked where they are.
const PATIENCE: Duration = Duration::from_secs(1);
/// And this long before peers are asked too.
const PEERS_AFTER: Duration = Duration::from_secs(10);
/// And this long before netd says what it tries.
const REMARK_AFTER: Duration = Duration::from_secs(60);
/// As many of them a round, drawn by lot.
const PEERS: usize = 3;
/// As many addresses are remembered that a server without a proof is said to have.
const HINTS: usize = 4;

impl Netd {
    pub(super) fn is_server(&self) -> bool {
        self.config.servers.iter().any(|(name, _)| *name == self.config.node)
    }

    /// The API is away: its servers are asked where they are, if it stays away.
    pub(super) fn seek_servers(&mut self, ctx: &mut Context<'_, Self>) {
        // A server may be at telling peers, once a minute.
        if self.announce.untold.is_empty() || self.is_server() {
            self.announce.round = 0;
            let patience = ctx.rng().jitter(PATIENCE, 0.5);
            ctx.set_timer(Timer::Announce, patience);
        }
    }

    /// One round of asking peers for the servers. A server dials itself.
    pub(super) fn ask_to_pass_on(&mut self, ctx: &mut Context<'_, Self>) {
        let lost = self.announce.lost_at.filter(|_| self.announce.api_lost && !self.is_server());
        let Some(lost) = lost.map(|at| ctx.now().since(at)).filter(|lost| *lost >= PEERS_AFTER)
        else {
            return;
        };
        if lost >= REMARK_AFTER && !std::mem::replace(&mut self.announce.remarked, true) {
            self.remark_lost(ctx);
        }
        let Some(signed) = self.say(Ask::Servers, 0) else { return };
        let names: Vec<Name> = match &self.subnets {
            Some(view) => plan::peers_of(view).iter().map(|peer| peer.node.clone()).collect(),
            None => self.memory.peers.keys().cloned().collect(),
        };
        for _ in 0..PEERS {
            let Some(node) = ctx.rng().pick(&names) else { return };
            if *node != self.config.node {
                for locator in self.locators_of(node) {
                    self.send(locator, &signed, ctx);
                }
            }
        }
    }

    /// Whose Node was deleted is out of the cluster: its lease went too, and with it the key by
    /// which servers and peers would believe what it says. Once it reaches the API it registers
    /// anew; but where that is, if it moved meanwhile, nobody tells it.
    fn remark_lost(&self, ctx: &mut Context<'_, Self>) {
        let node = &self.config.node;
        let tried: Vec<String> = self.dial.dialled().iter().map(Ipv4Addr::to_string).collect();
        ctx.note(|| {
            format!(
                "no API server for {} s: none at {}, and no peer helped. If the Node {node} was \
                 deleted meanwhile and the servers moved, or the disk is a new one, netd has to \
                 be started with an address that a server has now",
                REMARK_AFTER.as_secs(),
                tried.join(", ")
            )
        });
    }

    /// A peer seeks the servers: they are told, if they are known to be elsewhere. What comes from
    /// where it says it is was not passed on before, so it goes in no circle.
    pub(super) fn pass_on(
        &self,
        from: Ipv4Addr,
        signed: &Arc<Signed>,
        ctx: &mut Context<'_, Self>,
    ) {
        let Statement { node, locator, ask, .. } = &signed.statement;
        if *ask != Ask::Servers || from != *locator || self.is_server() {
            return;
        }
        for (server, _) in self.config.servers.iter().filter(|(server, _)| server != node) {
            if let Some(at) = self.place_of(server).and_then(|place| place.locator) {
                self.send(at, signed, ctx);
            }
        }
    }

    /// Somebody says that a server is there, and nobody told us yet how to know it (its file was
    /// lost, or is older than the server's lease). The API server proves who it is when it is
    /// dialled, so this is good for that and for nothing else.
    pub(super) fn take_hint(&mut self, statement: &Statement, ctx: &mut Context<'_, Self>) {
        let Statement { node, locator, .. } = statement;
        if !self.config.servers.iter().any(|(server, _)| server == node) {
            return;
        }
        let hints = self.announce.hints.entry(node.clone()).or_default();
        if !hints.contains(locator) {
            hints.insert(0, *locator);
            hints.truncate(HINTS);
            self.dial.outdated = true;
            self.sync_dial(ctx);
        }
    }
}
