//! The rules port on Linux: chains through iptables' own programs, flat elements, virtual services
//! and connections over netlink.

mod conntrack;
pub mod iptables;
pub mod ipvs;
pub mod nftables;

use crate::netlink::{Netlink, Refusal};
use crate::port::{Answer, Local, Port};
use crate::turn::Turns;
use iptables::{Iptables, Programs};
use ipvs::Ipvs;
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::virtuals::{Virtual, VirtualSet};
use kubesim_actors::ports::rules::{Chains, Reply, Request};
use nftables::Nftables;
use smol_str::SmolStr;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub programs: Programs,
}

/// What has been done to the kernel's rules so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Times that all rules were read.
    pub reads: u64,
    /// Changes that were written, each by one program or one batch.
    pub transactions: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// The rules of the network namespace in which its requests are performed.
pub struct Rules(Turns<Driver>);

struct Driver {
    iptables: Iptables,
    nftables: Nftables,
    ipvs: Ipvs,
    /// Opened by the first request, so that it is in the namespace of whoever performs.
    netlink: Option<Netlink>,
}

impl Rules {
    pub fn new(settings: Settings) -> Self {
        let iptables = Iptables::new(settings.programs);
        let (nftables, ipvs) = (Nftables::default(), Ipvs::default());
        Rules(Turns::new(Driver { iptables, nftables, ipvs, netlink: None }))
    }

    /// After all that has been asked so far.
    pub async fn written(&self) -> Written {
        let driver = self.0.take().await;
        let all = [driver.iptables.written(), driver.nftables.written(), driver.ipvs.written()];
        let sum = |of: fn(&Written) -> u64| all.iter().map(of).sum();
        Written {
            reads: sum(|w| w.reads),
            transactions: sum(|w| w.transactions),
            bytes: sum(|w| w.bytes),
        }
    }
}

impl Port for Rules {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let turn = self.0.take();
        Box::pin(async move {
            let reply = turn.await.perform(request).await;
            // Nobody may be waiting any more; what was asked is done all the same.
            let _ = answer.send(reply).await;
        })
    }
}

impl Driver {
    async fn perform(&mut self, request: Request) -> Reply {
        let asked: SmolStr;
        let done = match request {
            Request::Apply { owner, base, shared, local } => {
                let version = shared.version();
                let (missing, result) = self.iptables.apply(&owner, base, shared, local).await;
                return Reply::Applied { owner, version, missing, result };
            }
            Request::ApplyFlat { owner, settings, shared, local } => {
                let version = shared.version();
                let Driver { nftables, netlink, .. } = self;
                let (missing, result) = match opened(netlink) {
                    Ok(netlink) => nftables.apply(netlink, &owner, settings, shared, local),
                    Err(why) => (Vec::new(), Err(why)),
                };
                return Reply::Applied { owner, version, missing, result };
            }
            Request::ApplyVirtual { owner, chains, shared, local } => {
                let version = shared.version();
                let (missing, result) = self.apply_virtual(&owner, chains, shared, local).await;
                return Reply::Applied { owner, version, missing, result };
            }
            Request::ReadBase { table, chain } => {
                asked = "reading a built-in chain".into();
                self.iptables.read_base(table, chain).await
            }
            Request::Verify { owner } if self.nftables.has(&owner) => {
                asked = "verifying the rules".into();
                let Driver { nftables, netlink, .. } = self;
                opened(netlink).and_then(|netlink| nftables.verify(netlink, owner))
            }
            Request::Verify { owner } => {
                asked = "verifying the rules".into();
                self.verify(owner).await
            }
            Request::DeleteConntrack { filters } => {
                asked = "deleting connections".into();
                let deleted = self.conntrack(|netlink| conntrack::delete(netlink, &filters));
                deleted.map(|entries| Reply::ConntrackDeleted { entries })
            }
            Request::ListDnat => {
                asked = "listing connections".into();
                let found = self.conntrack(conntrack::list_dnat);
                found.map(|entries| Reply::Dnat { entries: entries.into() })
            }
        };
        done.unwrap_or_else(|why| Reply::Failed { doing: asked, why })
    }

    async fn apply_virtual(
        &mut self,
        owner: &SmolStr,
        chains: Chains,
        shared: VirtualSet,
        local: Arc<[(Front, Arc<Virtual>)]>,
    ) -> (Vec<String>, Result<(), String>) {
        let mut missing = Vec::new();
        if !self.ipvs.leaves_chains(owner, &chains, &shared, &local) {
            let Chains { base, shared, local } = chains.clone();
            let result;
            (missing, result) = self.iptables.apply(owner, base, shared, local).await;
            if result.is_err() {
                return (missing, result);
            }
        }
        (missing, self.ipvs.apply(owner, chains, shared, local))
    }

    /// Chains, and virtual services where the owner has some.
    async fn verify(&mut self, owner: SmolStr) -> Result<Reply, String> {
        let has = self.ipvs.has(&owner);
        let reply = self.iptables.verify(owner).await?;
        match reply {
            Reply::Verified { owner, mut missing, .. } if has => {
                missing.extend(self.ipvs.verify()?);
                if !missing.is_empty() {
                    self.ipvs.doubt();
                }
                Ok(Reply::Verified { owner, intact: missing.is_empty(), missing })
            }
            other => Ok(other),
        }
    }

    fn conntrack<T>(
        &mut self,
        act: impl FnOnce(&mut Netlink) -> Result<T, Refusal>,
    ) -> Result<T, String> {
        act(opened(&mut self.netlink)?).map_err(|refused| {
            format!(
                "ctnetlink refused: {refused}; the kernel needs nf_conntrack_netlink, and this \
                 process CAP_NET_ADMIN"
            )
        })
    }
}

fn opened(netlink: &mut Option<Netlink>) -> Result<&mut Netlink, String> {
    match netlink {
        Some(netlink) => Ok(netlink),
        none => {
            let opened = Netlink::open().map_err(|error| {
                format!("a netfilter netlink socket cannot be opened: {error}; is this root?")
            })?;
            Ok(none.insert(opened))
        }
    }
}
