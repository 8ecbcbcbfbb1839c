//! The store in etcd (3.4 or later), with etcd-client.
//!
//! Objects are below `/registry` where upstream's API server has them, as JSON. One endpoint is
//! spoken to at a time, and the next one when it does not answer. A transaction without an answer
//! is never sent again: it may have happened. What only reads is asked again until the deadline.

mod compact;
mod connect;
mod range;
mod txn;
mod watch;

use self::connect::Connections;
use crate::port::{Answer, Local, Port};
use crate::store::ROOT;
use kubesim_actors::objects::Object;
use kubesim_actors::objects::kinds::Interner;
use kubesim_actors::ports::store::{self, Reply, Request, StoreKey, Under};
use smol_str::{SmolStr, format_smolstr};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    /// `https://10.0.0.1:2379`; `http://` without [`Options::tls`].
    pub endpoints: Vec<String>,
    pub tls: Option<Tls>,
    /// Name and password, where etcd asks for them and not for a certificate.
    pub user: Option<(String, String)>,
    /// What all paths begin with; upstream's `--etcd-prefix`.
    pub root: String,
    /// After so long without an answer a request's outcome is unknown.
    pub deadline: Duration,
}

/// PEM texts.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Who vouches for the servers.
    pub ca: Vec<u8>,
    /// Our certificate and its key, where etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// What the servers' certificate names, if that is not the endpoint's host.
    pub server_name: Option<String>,
}

impl Options {
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Options {
        Options {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            user: None,
            root: ROOT.to_owned(),
            // Upstream's client gives up a dial after 20 s and waits for a request as long as its
            // caller; ours is asked again.
            deadline: Duration::from_secs(5),
        }
    }
}

/// The driver. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Etcd(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: Connections,
    root: String,
    deadline: Duration,
    /// The newest compaction that was heard of.
    compacted: Cell<u64>,
    /// Kinds that definitions declare, as they are met.
    kinds: RefCell<Interner>,
}

impl Etcd {
    /// Nothing is dialled yet. Refuses options that cannot work, in words for their author.
    pub fn new(options: Options) -> Result<Etcd, String> {
        let (root, deadline) = (options.root.trim_end_matches('/').to_owned(), options.deadline);
        let connections = Connections::new(options)?;
        let (compacted, kinds) = (Cell::new(0), RefCell::default());
        Ok(Etcd(Rc::new(Inner { connections, root, deadline, compacted, kinds })))
    }
}

impl Port for Etcd {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            let reply = match request {
                Request::Txn { id, compare, then } => inner.txn(id, compare, then).await,
                Request::Range(range) => inner.range(range).await,
                Request::Compact { revision } => inner.compact(revision).await,
                Request::Watch { id, under, from } => {
                    let _ = inner.watch(id, under, from, answer).await;
                    return;
                }
            };
            // Nobody waits any more: it is done all the same.
            let _ = answer.send(reply).await;
        })
    }
}

impl Inner {
    fn path(&self, key: &StoreKey) -> String {
        format!("{}/{}", self.root, store::path(key))
    }

    fn prefix(&self, under: &Under) -> String {
        format!("{}/{}", self.root, store::below(under))
    }

    /// What has the path, and is there as `value`. `None`: no kind of ours has it; it is somebody
    /// else's.
    fn key_of(&self, path: &[u8], value: Option<&[u8]>) -> Option<StoreKey> {
        let path = std::str::from_utf8(path).ok()?;
        let path = path.strip_prefix(&self.root)?.strip_prefix('/')?;
        store::key_of(path, value, &mut self.kinds.borrow_mut())
    }

    fn object(&self, key: &StoreKey, value: &[u8], revision: u64) -> Result<Arc<Object>, SmolStr> {
        let at = |why: &dyn std::fmt::Display| {
            let path = self.path(key);
            format_smolstr!(
                "{path} at revision {revision} cannot be read: {why}: was it written by another \
                 program? (etcdctl get {path})"
            )
        };
        let object = Object::from_bytes(key.0, value, revision).map_err(|why| at(&why))?;
        if object.key != key.1 {
            return Err(at(&format_args!("it is an object named {}", object.key)));
        }
        Ok(Arc::new(object))
    }
}

/// The first key behind all that begin with this.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // A prefix ends with a slash.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// etcd counts with signs and never below 0.
fn to_etcd(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
fn of_etcd(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}
