//! Where the API server can be dialled: at the newest address known of each server's node. Who it
//! is its certificate says, so a wrong address does no harm but to be tried.

use super::{Effect, Netd};
use crate::ports::api;
use kubesim_runtime::Context;
use std::net::Ipv4Addr;

#[derive(Clone, Debug, Default)]
pub(super) struct Dial {
    /// Something about the servers' addresses may have changed.
    pub outdated: bool,
    /// The newest address of each server, as last dialled.
    newest: Vec<Ipv4Addr>,
    /// All that were dialled: the newest first, then, with the API away, older ones.
    dialled: Vec<Ipv4Addr>,
}

impl Dial {
    /// Where the API is looked for.
    pub fn dialled(&self) -> &[Ipv4Addr] {
        &self.dialled
    }
    /// A command of an earlier life may have landed late: say it again.
    pub fn repeat(&mut self) {
        self.outdated = true;
        self.dialled.clear();
    }
}

impl Netd {
    pub(super) fn sync_dial(&mut self, ctx: &mut Context<'_, Self>) {
        if !self.dial.outdated && !self.dial.dialled.is_empty() {
            return;
        }
        self.dial.outdated = false;
        let mut newest: Vec<Ipv4Addr> = Vec::new();
        for (server, configured) in &self.config.servers {
            let address = match *server == self.config.node {
                true => Ipv4Addr::LOCALHOST,
                false => self.place_of(server).and_then(|p| p.locator).unwrap_or(*configured),
            };
            if !newest.contains(&address) {
                newest.push(address);
            }
        }
        let mut all = newest.clone();
        // An address that is not listed loses its connection, so older ones are listed only when
        // there is none to lose, and stay until a server is known to be elsewhere.
        if self.announce.api_lost {
            for (server, configured) in &self.config.servers {
                let former = self.told.former.get(server).into_iter().flatten();
                let hints = self.announce.hints.get(server).into_iter().flatten();
                for address in [configured].into_iter().chain(former).chain(hints) {
                    if !all.contains(address) && *server != self.config.node {
                        all.push(*address);
                    }
                }
            }
        } else if newest == self.dial.newest && !self.dial.dialled.is_empty() {
            return;
        }
        if all == self.dial.dialled || all.is_empty() {
            return;
        }
        if newest != self.dial.newest {
            self.memory.changed = true;
        }
        self.dial.newest = newest;
        self.dial.dialled.clone_from(&all);
        ctx.perform(Effect::Api(api::Effect::Dial { addresses: all }));
    }
}
