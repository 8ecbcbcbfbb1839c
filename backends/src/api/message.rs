//! What travels on a connection, and its bytes.

use kubesim_actors::objects::{Key, Kind, Name, Object, Uid, View};
use kubesim_actors::ports::api::{
    DeleteOptions, Error, Propagation, Reason, Reply, Request, Scope, Subresource,
};
use kubesim_runtime::Change;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::LengthDelimitedCodec;

/// No message is larger: a list of all that a cluster of a few hundred nodes has is far less.
const LARGEST: usize = 256 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    Hello {
        node: Name,
    },
    /// The uid of the store it tells of: `Cache::identity`.
    Welcome {
        store: Option<String>,
    },
    Call {
        id: u64,
        request: Called,
    },
    Answer {
        id: u64,
        result: Answered,
    },
    Open {
        stream: u64,
        kind: String,
        scope: Option<Name>,
        from: Option<u64>,
    },
    News(News),
    Expired {
        stream: u64,
    },
    Ping,
    Pong,
}

/// How a watcher's view has changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct News {
    pub stream: u64,
    pub history: u64,
    pub version: u64,
    /// Everything in scope; else differences to the view told last.
    pub whole: bool,
    pub put: Vec<Value>,
    /// Namespace and name.
    pub gone: Vec<(Name, Name)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Called {
    Get {
        kind: String,
        key: (Name, Name),
    },
    List {
        kind: String,
        namespace: Name,
    },
    Create {
        object: Value,
    },
    Update {
        object: Value,
    },
    UpdateStatus {
        object: Value,
    },
    Patch {
        kind: String,
        key: (Name, Name),
        status: bool,
        patch: Value,
    },
    Delete {
        kind: String,
        key: (Name, Name),
        uid: Option<String>,
        version: Option<u64>,
        grace: Option<Duration>,
        propagation: Option<String>,
    },
    Bind {
        pod: (Name, Name),
        uid: String,
        node: Name,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answered {
    Object(Value),
    List { kind: String, history: u64, version: u64, objects: Vec<Value> },
    Error { reason: String, message: String },
}

/// Why bytes are no message, in words for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a message of the API cannot be read: {}", self.0)
    }
}
impl std::error::Error for Malformed {}

pub fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(LARGEST).new_codec()
}

pub fn to_bytes(message: &Message) -> bytes::Bytes {
    // Names and numbers: no map with other keys than texts, which is all that JSON refuses.
    serde_json::to_vec(message).unwrap_or_default().into()
}

pub fn from_bytes(bytes: &[u8]) -> Result<Message, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| Malformed(error.to_string()))
}

fn propagation(text: &str) -> Result<Propagation, Malformed> {
    let found = Propagation::ALL.into_iter().find(|one| one.name() == text);
    found.ok_or_else(|| Malformed(format!("{text:?} is no way to delete what is owned")))
}

fn pair(key: &Key) -> (Name, Name) {
    (key.namespace.clone(), key.name.clone())
}

fn key((namespace, name): (Name, Name)) -> Key {
    Key { namespace, name }
}

pub fn kind(name: &str) -> Result<Kind, Malformed> {
    let found = Kind::ALL.iter().find(|kind| kind.name() == name);
    found.copied().ok_or_else(|| Malformed(format!("no kind {name:?}")))
}

fn uid(text: &str) -> Result<Uid, Malformed> {
    Uid::parse(text).ok_or_else(|| Malformed(format!("{text:?} is no uid")))
}

fn object(value: Value) -> Result<Arc<Object>, Malformed> {
    Object::from_json(value).map(Arc::new).map_err(|error| Malformed(error.0))
}

pub fn scope(node: Option<Name>) -> Scope {
    node.map_or(Scope::All, Scope::Node)
}

pub fn node_of(scope: &Scope) -> Option<Name> {
    match scope {
        Scope::All => None,
        Scope::Node(node) => Some(node.clone()),
    }
}

impl Called {
    pub fn of(request: &Request) -> Called {
        match request {
            Request::Get { kind, key } => Called::Get { kind: kind.name().into(), key: pair(key) },
            Request::List { kind, namespace } => {
                Called::List { kind: kind.name().into(), namespace: namespace.clone() }
            }
            Request::Create { object } => Called::Create { object: object.to_json() },
            Request::Update { object } => Called::Update { object: object.to_json() },
            Request::UpdateStatus { object } => Called::UpdateStatus { object: object.to_json() },
            Request::Patch { kind, key, subresource, patch } => Called::Patch {
                kind: kind.name().into(),
                key: pair(key),
                status: *subresource == Subresource::Status,
                patch: patch.clone(),
            },
            Request::Delete { kind, key, options } => Called::Delete {
                kind: kind.name().into(),
                key: pair(key),
                uid: options.uid.map(|uid| uid.to_string()),
                version: options.version,
                grace: options.grace,
                propagation: options.propagation.map(|one| one.name().to_owned()),
            },
            Request::Bind { pod, uid, node } => {
                Called::Bind { pod: pair(pod), uid: uid.to_string(), node: node.clone() }
            }
        }
    }

    pub fn request(self) -> Result<Request, Malformed> {
        Ok(match self {
            Called::Get { kind: of, key: at } => Request::Get { kind: kind(&of)?, key: key(at) },
            Called::List { kind: of, namespace } => Request::List { kind: kind(&of)?, namespace },
            Called::Create { object: value } => Request::Create { object: object(value)? },
            Called::Update { object: value } => Request::Update { object: object(value)? },
            Called::UpdateStatus { object: value } => {
                Request::UpdateStatus { object: object(value)? }
            }
            Called::Patch { kind: of, key: at, status, patch } => {
                let subresource = if status { Subresource::Status } else { Subresource::Main };
                Request::Patch { kind: kind(&of)?, key: key(at), subresource, patch }
            }
            Called::Delete { kind: of, key: at, uid: only, version, grace, propagation } => {
                let uid = only.as_deref().map(uid).transpose()?;
                let options = DeleteOptions {
                    uid,
                    version,
                    grace,
                    propagation: propagation.map(|text| self::propagation(&text)).transpose()?,
                };
                Request::Delete { kind: kind(&of)?, key: key(at), options }
            }
            Called::Bind { pod, uid: only, node } => {
                Request::Bind { pod: key(pod), uid: uid(&only)?, node }
            }
        })
    }
}

impl Answered {
    /// `of`: the kind that was listed, if one was.
    pub fn of(of: Kind, result: &Result<Reply, Error>) -> Answered {
        match result {
            Ok(Reply::Object(object)) => Answered::Object(object.to_json()),
            Ok(Reply::List(view)) => Answered::List {
                kind: of.name().into(),
                history: view.history(),
                version: view.version(),
                objects: view.values().map(|object| object.to_json()).collect(),
            },
            Err(error) => Answered::Error {
                reason: format!("{:?}", error.reason),
                message: error.message.clone(),
            },
        }
    }

    pub fn result(self) -> Result<Result<Reply, Error>, Malformed> {
        Ok(match self {
            Answered::Object(value) => Ok(Reply::Object(object(value)?)),
            Answered::List { kind: of, history, version, objects } => {
                kind(&of)?;
                let mut view = View::empty(history);
                for value in objects {
                    let object = object(value)?;
                    view.insert(object.key.clone(), object, version);
                }
                view.advance(version);
                Ok(Reply::List(view))
            }
            Answered::Error { reason: name, message } => {
                Err(Error { reason: reason(&name)?, message })
            }
        })
    }
}

fn reason(name: &str) -> Result<Reason, Malformed> {
    const ALL: [Reason; 11] = [
        Reason::BadRequest,
        Reason::Forbidden,
        Reason::NotFound,
        Reason::AlreadyExists,
        Reason::Conflict,
        Reason::Expired,
        Reason::Invalid,
        Reason::TooManyRequests,
        Reason::InternalError,
        Reason::Unreachable,
        Reason::Unknown,
    ];
    let found = ALL.into_iter().find(|reason| format!("{reason:?}") == name);
    found.ok_or_else(|| Malformed(format!("no reason {name:?}")))
}

impl News {
    /// From the view that was told last to the newest one.
    pub fn between(stream: u64, before: Option<&View>, view: &View) -> News {
        let (history, version) = (view.history(), view.version());
        let same = before.filter(|before| before.history() == history);
        let mut news =
            News { stream, history, version, whole: same.is_none(), put: vec![], gone: vec![] };
        let Some(before) = same else {
            news.put = view.values().map(|object| object.to_json()).collect();
            return news;
        };
        for change in before.diff(view) {
            match change {
                Change::Added(_, object) | Change::Changed { new: object, .. } => {
                    news.put.push(object.to_json());
                }
                Change::Removed(key, _) => news.gone.push(pair(key)),
            }
        }
        news
    }

    /// The newest view, from the one that was told last.
    pub fn after(self, before: Option<&View>) -> Result<View, Malformed> {
        let mut view = match before {
            Some(before) if !self.whole => before.clone(),
            None if !self.whole => return Err(Malformed("differences to nothing".to_owned())),
            _ => View::empty(self.history),
        };
        if self.version < view.version() || self.history != view.history() {
            return Err(Malformed("news from the past".to_owned()));
        }
        for at in self.gone {
            view.remove(&key(at), self.version);
        }
        for value in self.put {
            let object = object(value)?;
            view.insert(object.key.clone(), object, self.version);
        }
        view.advance(self.version);
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_actors::objects::{Body, ConfigMap};

    fn config_map(name: &str, version: u64) -> Arc<Object> {
        let key = Key::new("default", name);
        let mut object = Object::new(key, Body::ConfigMap(Arc::new(ConfigMap::default())));
        (object.uid, object.version) = (Uid(7), version);
        Arc::new(object)
    }

    fn over_the_wire(message: &Message) -> Message {
        from_bytes(&to_bytes(message)).expect("a message")
    }

    #[test]
    fn a_view_follows_its_news() {
        let mut server = View::empty(3);
        for name in ["a", "b", "c"] {
            let object = config_map(name, 5);
            server.insert(object.key.clone(), object, 5);
        }
        let first = News::between(1, None, &server);
        let Message::News(first) = over_the_wire(&Message::News(first)) else { panic!() };
        let client = first.after(None).expect("a view");
        let told = server.clone();
        server.remove(&Key::new("default", "b"), 6);
        let changed = config_map("c", 7);
        server.insert(changed.key.clone(), changed, 7);
        let next = News::between(1, Some(&told), &server);
        assert_eq!((next.put.len(), next.gone.len(), next.whole), (1, 1, false));
        let client = next.after(Some(&client)).expect("a view");
        assert_eq!(client.version(), 7);
        assert!(client.iter().eq(server.iter()));
    }

    #[test]
    fn requests_and_answers_come_back_as_they_went() {
        let options = DeleteOptions {
            uid: Some(Uid(9)),
            version: Some(7),
            grace: Some(Duration::ZERO),
            propagation: Some(Propagation::Orphan),
        };
        let request = Request::Delete { kind: Kind::Pod, key: Key::new("default", "a"), options };
        let Message::Call { request: again, .. } =
            over_the_wire(&Message::Call { id: 1, request: Called::of(&request) })
        else {
            panic!()
        };
        assert_eq!(format!("{:?}", again.request().expect("a request")), format!("{request:?}"));
        let error = Error::new(Reason::Conflict, "the object has been modified");
        let answered = Answered::of(Kind::Pod, &Err(error.clone()));
        assert_eq!(answered.result().expect("an answer").expect_err("an error"), error);
    }

    #[test]
    fn what_is_no_message_says_why() {
        assert!(from_bytes(b"{").is_err());
        let call = Called::Get { kind: "Pood".into(), key: Default::default() };
        assert!(call.request().expect_err("no kind").0.contains("Pood"));
    }
}
