//! The rules port on Linux: chains through iptables' own programs, connections over netlink.

mod conntrack;
pub mod iptables;

use crate::netlink::{Netlink, Refusal};
use crate::port::{Answer, Local, Port};
use crate::turn::Turns;
use iptables::{Iptables, Programs};
use kubesim_actors::ports::rules::{Reply, Request};
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
    /// Opened by the first request, so that it is in the namespace of whoever performs.
    netlink: Option<Netlink>,
}

impl Rules {
    pub fn new(settings: Settings) -> Self {
        Rules(Turns::new(Driver { iptables: Iptables::new(settings.programs), netlink: None }))
    }

    /// After all that has been asked so far.
    pub async fn written(&self) -> Written {
        self.0.take().await.iptables.written()
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
            Request::ReadBase { table, chain } => {
                asked = "reading a built-in chain".into();
                self.iptables.read_base(table, chain).await
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
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open().map_err(|error| {
                format!("a netfilter netlink socket cannot be opened: {error}; is this root?")
            })?),
        };
        act(netlink).map_err(|refused| {
            format!(
                "ctnetlink refused: {refused}; the kernel needs nf_conntrack_netlink, and this \
                 process CAP_NET_ADMIN"
            )
        })
    }
}
