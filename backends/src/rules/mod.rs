//! The rules port on Linux: chains through iptables' own programs, flat elements and connections
//! over netlink.

mod conntrack;
pub mod iptables;
pub mod nftables;

use crate::netlink::{Netlink, Refusal};
use crate::port::{Answer, Local, Port};
use crate::turn::Turns;
use iptables::{Iptables, Programs};
use kubesim_actors::ports::rules::{Reply, Request};
use nftables::Nftables;
use smol_str::SmolStr;

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
    /// Opened by the first request, so that it is in the namespace of whoever performs.
    netlink: Option<Netlink>,
}

impl Rules {
    pub fn new(settings: Settings) -> Self {
        let iptables = Iptables::new(settings.programs);
        Rules(Turns::new(Driver { iptables, nftables: Nftables::default(), netlink: None }))
    }

    /// After all that has been asked so far.
    pub async fn written(&self) -> Written {
        let driver = self.0.take().await;
        let (chains, flat) = (driver.iptables.written(), driver.nftables.written());
        Written {
            reads: chains.reads + flat.reads,
            transactions: chains.transactions + flat.transactions,
            bytes: chains.bytes + flat.bytes,
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
                let result = self.iptables.apply(&owner, base, shared, local).await;
                return Reply::Applied { owner, version, result };
            }
            Request::ApplyFlat { owner, settings, shared, local } => {
                let version = shared.version();
                let Driver { nftables, netlink, .. } = self;
                let result = opened(netlink)
                    .and_then(|netlink| nftables.apply(netlink, &owner, settings, shared, local));
                return Reply::Applied { owner, version, result };
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
                self.iptables.verify(owner).await
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
