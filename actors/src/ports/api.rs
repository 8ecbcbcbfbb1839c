//! The API, from both sides: the requests a client makes and the answers it gets.

use crate::objects::{Key, Kind, Name, Object, Uid, View, digest_of};
use kubesim_runtime::{Answers, Digest, Hasher, Wall};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a component asks of its API client.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answered once, by [`Event::Answer`] with the same tag.
    Call { tag: u64, request: Arc<Request> },
    /// Opens an informer: a stream of [`Event::News`] until its `Closed`. Asking again for the
    /// same kind and scope replaces the stream.
    Watch { kind: Kind, scope: Scope },
    /// Where the API server can be dialled, best first; who it is, its certificate says.
    /// The client drops connections to addresses not listed and dials anew.
    Dial { addresses: Vec<std::net::Ipv4Addr> },
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Call { .. } => Answers::One,
            Effect::Watch { .. } => Answers::Stream,
            Effect::Dial { .. } => Answers::None,
        }
    }
}

/// What a component hears from its API client.
#[derive(Clone, Debug)]
pub enum Event {
    Answer(Answer),
    News(News),
    /// A connection to the API came up (`true`) or was lost.
    Connected(bool),
}

/// Which objects of a kind an informer shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    All,
    /// All of them, of which nothing need be shown but their metadata ([`Object::bare`]). A client
    /// that has the whole objects at hand may show them.
    Metadata,
    /// Pods bound to this node (`spec.nodeName`), or the Node, Lease or Subnet of this name.
    Node(Name),
}

/// An informer's view has moved on. Late views skip versions: only the newest one is told.
#[derive(Clone, Debug)]
pub enum News {
    /// Everything in scope as of one version.
    View { kind: Kind, scope: Scope, view: View },
    /// The stream ended (connection lost, server restarted, version compacted). The client
    /// re-opens it by itself and a `View` follows; the last view is stale until then.
    Closed { kind: Kind, scope: Scope },
}

#[derive(Clone, Debug)]
pub enum Request {
    Get {
        kind: Kind,
        key: Key,
    },
    /// All of a kind, in one namespace or (empty) in all.
    List {
        kind: Kind,
        namespace: Name,
    },
    /// With an empty name and `meta.generate_name` set, the server makes up the name.
    Create {
        object: Arc<Object>,
    },
    /// Replaces spec and metadata; the object's `version`, if not 0, must be the stored one's.
    Update {
        object: Arc<Object>,
    },
    /// Replaces status only, under the same rule.
    UpdateStatus {
        object: Arc<Object>,
    },
    /// Replaces a pod's ephemeral containers only, under the same rule
    /// (`pods/ephemeralcontainers`).
    UpdateEphemeralContainers {
        object: Arc<Object>,
    },
    /// RFC 7386 merge patch. A patch may name `metadata.uid` and `metadata.resourceVersion` as
    /// preconditions, as upstream allows.
    Patch {
        kind: Kind,
        key: Key,
        subresource: Subresource,
        patch: Value,
    },
    Delete {
        kind: Kind,
        key: Key,
        options: DeleteOptions,
    },
    /// `serviceaccounts/token`: a token of an account, for a pod. It is not kept.
    Token(TokenRequest),
    /// `pods/binding`: puts a pod on a node.
    Bind {
        pod: Key,
        uid: Uid,
        node: Name,
    },
}

/// `authentication.k8s.io/v1.TokenRequest`, bound to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    pub account: Key,
    /// A pod of the account's namespace, and which of that name.
    pub pod: Name,
    pub uid: Uid,
    /// For whom it is; empty: for the API server.
    pub audience: String,
    /// How long it is to be good for.
    pub seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    Main,
    Status,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Only if the object still is this one.
    pub uid: Option<Uid>,
    /// Only if this still is the stored version.
    pub version: Option<u64>,
    /// Overrides the pod's own grace period; zero removes it at once.
    pub grace: Option<Duration>,
    /// `None`: as the object's finalizers say, or in the background.
    pub propagation: Option<Propagation>,
}

/// What becomes of what an object owns (`metav1.DeletionPropagation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// It is deleted after its owner.
    Background,
    /// It is deleted first, as far as it blocks its owner's deletion.
    Foreground,
    /// It stays, and has no such owner any more.
    Orphan,
}

impl Propagation {
    pub const ALL: [Propagation; 3] =
        [Propagation::Background, Propagation::Foreground, Propagation::Orphan];

    /// As upstream writes it.
    pub fn name(self) -> &'static str {
        match self {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        }
    }
    /// The finalizer that holds an object until the garbage collector has seen to what it owns.
    pub fn finalizer(self) -> Option<&'static str> {
        match self {
            Propagation::Background => None,
            Propagation::Foreground => Some("foregroundDeletion"),
            Propagation::Orphan => Some("orphan"),
        }
    }
    /// The one that an object's finalizers ask for.
    pub fn of(finalizers: &[String]) -> Option<Propagation> {
        finalizers.iter().find_map(|name| {
            Propagation::ALL.into_iter().find(|one| one.finalizer() == Some(name.as_str()))
        })
    }
}

/// The answer to the call with this tag.
#[derive(Clone, Debug)]
pub struct Answer {
    pub tag: u64,
    pub result: Result<Reply, Error>,
}

#[derive(Clone, Debug)]
pub enum Reply {
    /// The object as stored (for a delete: as last seen).
    Object(Arc<Object>),
    List(View),
    /// A token, and until when it is good.
    Token {
        text: Arc<str>,
        ends: Wall,
    },
}

/// `metav1.Status` of a failed call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Error {
    pub reason: Reason,
    /// As upstream words it: `pods "a" not found`.
    pub message: String,
}

/// `metav1.StatusReason`, and two that only a client can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    BadRequest,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    /// A resource version older than the last compaction: 410.
    Expired,
    Invalid,
    TooManyRequests,
    InternalError,
    /// The request never reached a server: nothing happened.
    Unreachable,
    /// It was sent and no answer came in time: it may have happened.
    Unknown,
}

impl Error {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Error { reason, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.reason, self.message)
    }
}
impl std::error::Error for Error {}

impl Request {
    /// The kind and key it is about; a List's key has an empty name.
    pub fn subject(&self) -> (Kind, Key) {
        match self {
            Request::Get { kind, key }
            | Request::Patch { kind, key, .. }
            | Request::Delete { kind, key, .. } => (*kind, key.clone()),
            Request::List { kind, namespace } => (*kind, Key::new(namespace.clone(), "")),
            Request::Create { object }
            | Request::Update { object }
            | Request::UpdateStatus { object }
            | Request::UpdateEphemeralContainers { object } => (object.kind(), object.key.clone()),
            Request::Token(asked) => (Kind::ServiceAccount, asked.account.clone()),
            Request::Bind { pod, .. } => (Kind::Pod, pod.clone()),
        }
    }
    /// Answered from the current snapshot, without entering the actor.
    pub fn is_read(&self) -> bool {
        matches!(self, Request::Get { .. } | Request::List { .. } | Request::Token(_))
    }
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Get { .. } => "get",
            Request::List { .. } => "list",
            Request::Create { .. } => "create",
            Request::Update { .. } => "update",
            Request::UpdateStatus { .. } => "update status of",
            Request::UpdateEphemeralContainers { .. } => "update ephemeral containers of",
            Request::Patch { .. } => "patch",
            Request::Delete { .. } => "delete",
            Request::Token(_) => "create token of",
            Request::Bind { .. } => "bind",
        }
    }
}

impl Digest for Request {
    fn digest(&self, hasher: &mut Hasher) {
        hasher.str(self.verb());
        let (kind, key) = self.subject();
        hasher.u64(kind.number());
        hasher.str(&key.namespace);
        hasher.str(&key.name);
        match self {
            Request::Get { .. } | Request::List { .. } => {}
            Request::Token(asked) => std::hash::Hash::hash(asked, hasher),
            Request::Create { object }
            | Request::Update { object }
            | Request::UpdateEphemeralContainers { object } => object.digest_content(hasher),
            Request::UpdateStatus { object } => object.digest_status(hasher),
            Request::Patch { subresource, patch, .. } => {
                hasher.u64(*subresource as u64);
                digest_of(patch, hasher);
            }
            Request::Delete { options, .. } => options.digest(hasher),
            Request::Bind { uid, node, .. } => {
                uid.digest(hasher);
                hasher.str(node);
            }
        }
    }
}

impl Digest for DeleteOptions {
    fn digest(&self, hasher: &mut Hasher) {
        let DeleteOptions { uid, version, grace, propagation } = self;
        std::hash::Hash::hash(&(uid, grace), hasher);
        if let Some(version) = version {
            hasher.u64(*version);
        }
        if let Some(propagation) = propagation {
            hasher.str(propagation.name());
        }
    }
}

impl Digest for Answer {
    fn digest(&self, hasher: &mut Hasher) {
        hasher.u64(self.tag);
        match &self.result {
            Ok(Reply::Object(object)) => object.digest(hasher),
            Ok(Reply::List(view)) => hasher.u64(view.version()),
            Ok(Reply::Token { text, ends }) => {
                hasher.str(text);
                hasher.u64(ends.unix_secs() as u64);
            }
            Err(error) => std::hash::Hash::hash(error, hasher),
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Answer(answer) => answer.digest(hasher),
            Event::News(News::View { kind, view, .. }) => {
                hasher.u64(kind.number());
                hasher.u64(view.version());
            }
            Event::News(News::Closed { kind, .. }) => hasher.u64(1 << 32 | kind.number()),
            Event::Connected(up) => hasher.u64(1 << 33 | u64::from(*up)),
        }
    }
}
