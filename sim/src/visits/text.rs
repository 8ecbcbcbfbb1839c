//! Records as text: a JSON object a line. The first says which run it is of, the last where it was
//! left, and between them is a line for each write, in the order in which they came in. A record is
//! written as the run goes on, so of one whose process was killed only the end is missing.

use super::{End, Of, Record, Visit};
use kubesim_actors::objects::kinds::{Interner, Names};
use kubesim_actors::objects::{Key, Kind, Name, Object, Uid};
use kubesim_actors::ports::api::{DeleteOptions, Propagation, Request, Subresource};
use kubesim_runtime::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Of the form of these lines.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    record: u32,
    scenario: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    seed: u64,
}

/// Times are nanoseconds since the run began.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Came {
    at: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    request: Written,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    end: u64,
    digest: String,
}

/// A request. Objects are written as a store keeps them, and their version beside.
#[derive(Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Written {
    Create(Whole),
    Update(Whole),
    UpdateStatus(Whole),
    UpdateEphemeralContainers(Whole),
    Patch {
        of: Subject,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        status: bool,
        patch: Value,
    },
    Delete {
        of: Subject,
        #[serde(skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        grace: Option<Duration>,
        #[serde(skip_serializing_if = "Option::is_none")]
        propagation: Option<String>,
    },
    Bind {
        namespace: Name,
        name: Name,
        uid: String,
        node: Name,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    kind: Called,
    version: u64,
    object: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    kind: Called,
    namespace: Name,
    name: Name,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Called {
    api_version: String,
    name: String,
    /// Of a kind that a definition declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<Declared>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    plural: String,
    namespaced: bool,
}

impl Of {
    /// The first line of a record.
    pub fn line(&self) -> String {
        let Of { scenario, profile, seed } = self.clone();
        text(&Head { record: FORMAT, scenario, profile, seed })
    }
}

impl Visit {
    /// Its line; `None` of a read, which is none of a visit's.
    pub fn line(&self) -> Option<String> {
        let Visit { at, request, dry_run } = self;
        let request = written(request)?;
        Some(text(&Came { at: at.as_nanos(), dry_run: *dry_run, request }))
    }
}

impl End {
    /// The last line of a record.
    pub fn line(&self) -> String {
        let digest = format!("{:016x}", self.digest);
        text(&Left { end: self.at.as_nanos(), digest })
    }
}

fn text(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("texts, numbers and objects with texts as names are JSON")
}

impl Record {
    /// Reads what the lines say; an error says where it is, for people.
    pub fn read(text: &str) -> Result<Record, String> {
        // Whoever wrote it was killed in the middle of a line.
        let whole = text.rfind('\n').map_or("", |last| &text[..last]);
        let mut lines = whole.lines().enumerate();
        let wrong = |line: usize, why: &str| format!("line {}: {why}", line + 1);
        let (_, first) = lines.next().ok_or("it is no record of a run: it is empty")?;
        let head: Head = serde_json::from_str(first)
            .map_err(|error| wrong(0, &format!("it is no record of a run: {error}")))?;
        if head.record != FORMAT {
            return Err(wrong(0, &format!("a record of form {}: known is {FORMAT}", head.record)));
        }
        let of = Of { scenario: head.scenario, profile: head.profile, seed: head.seed };
        let mut record = Record { of, visits: Vec::new(), end: None };
        let mut kinds = Interner::default();
        for (number, line) in lines {
            let came = record.add(line, &mut kinds);
            came.map_err(|why| wrong(number, &why))?;
        }
        Ok(record)
    }

    fn add(&mut self, line: &str, kinds: &mut Interner) -> Result<(), String> {
        if self.end.is_some() {
            return Err("it is behind the end".to_owned());
        }
        let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if line.get("end").is_some() {
            let Left { end, digest } = read(line)?;
            let digest = u64::from_str_radix(&digest, 16).map_err(|_| "its digest is none")?;
            self.end = Some(End { at: Time::from_nanos(end), digest });
            return Ok(());
        }
        let Came { at, dry_run, request } = read(line)?;
        let at = Time::from_nanos(at);
        if self.visits.last().is_some_and(|before| at < before.at) {
            return Err("it is of an earlier time than the line before".to_owned());
        }
        let request = Arc::new(request.read(kinds)?);
        self.visits.push(Visit { at, request, dry_run });
        Ok(())
    }
}

fn read<T: DeserializeOwned>(line: Value) -> Result<T, String> {
    serde_json::from_value(line).map_err(|error| error.to_string())
}

fn written(request: &Request) -> Option<Written> {
    Some(match request {
        Request::Get { .. } | Request::List { .. } | Request::Token(_) => return None,
        Request::Create { object } => Written::Create(Whole::of(object)),
        Request::Update { object } => Written::Update(Whole::of(object)),
        Request::UpdateStatus { object } => Written::UpdateStatus(Whole::of(object)),
        Request::UpdateEphemeralContainers { object } => {
            Written::UpdateEphemeralContainers(Whole::of(object))
        }
        Request::Patch { kind, key, subresource, patch } => Written::Patch {
            of: Subject::of(*kind, key),
            status: *subresource == Subresource::Status,
            patch: patch.clone(),
        },
        Request::Delete { kind, key, options } => Written::Delete {
            of: Subject::of(*kind, key),
            uid: options.uid.map(|uid| uid.to_string()),
            version: options.version,
            grace: options.grace,
            propagation: options.propagation.map(|one| one.name().to_owned()),
        },
        Request::Bind { pod, uid, node } => Written::Bind {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: uid.to_string(),
            node: node.clone(),
        },
    })
}

impl Written {
    fn read(self, kinds: &mut Interner) -> Result<Request, String> {
        Ok(match self {
            Written::Create(whole) => Request::Create { object: whole.read(kinds)? },
            Written::Update(whole) => Request::Update { object: whole.read(kinds)? },
            Written::UpdateStatus(whole) => Request::UpdateStatus { object: whole.read(kinds)? },
            Written::UpdateEphemeralContainers(whole) => {
                Request::UpdateEphemeralContainers { object: whole.read(kinds)? }
            }
            Written::Patch { of, status, patch } => {
                let (kind, key) = of.read(kinds)?;
                let subresource = if status { Subresource::Status } else { Subresource::Main };
                Request::Patch { kind, key, subresource, patch }
            }
            Written::Delete { of, uid: id, version, grace, propagation: how } => {
                let (kind, key) = of.read(kinds)?;
                let uid = id.as_deref().map(uid).transpose()?;
                let propagation = how.as_deref().map(propagation).transpose()?;
                let options = DeleteOptions { uid, version, grace, propagation };
                Request::Delete { kind, key, options }
            }
            Written::Bind { namespace, name, uid: id, node } => {
                Request::Bind { pod: Key { namespace, name }, uid: uid(&id)?, node }
            }
        })
    }
}

fn uid(text: &str) -> Result<Uid, String> {
    Uid::parse(text).ok_or_else(|| format!("{text:?} is no uid"))
}

fn propagation(text: &str) -> Result<Propagation, String> {
    let known = Propagation::ALL.into_iter().find(|one| one.name() == text);
    known.ok_or_else(|| format!("{text:?} is no propagation of a deletion"))
}

impl Whole {
    fn of(object: &Object) -> Whole {
        let kept = serde_json::from_slice(&object.to_bytes());
        let object_text = kept.expect("an object is kept as JSON");
        Whole { kind: Called::of(object.kind()), version: object.version, object: object_text }
    }

    fn read(self, kinds: &mut Interner) -> Result<Arc<Object>, String> {
        let kind = self.kind.read(kinds)?;
        let object = Object::from_bytes(kind, self.object.to_string().as_bytes(), self.version);
        object.map(Arc::new).map_err(|error| format!("reading a {kind}: {error}"))
    }
}

impl Subject {
    fn of(kind: Kind, key: &Key) -> Subject {
        let Key { namespace, name } = key.clone();
        Subject { kind: Called::of(kind), namespace, name }
    }

    fn read(self, kinds: &mut Interner) -> Result<(Kind, Key), String> {
        let Subject { kind, namespace, name } = self;
        Ok((kind.read(kinds)?, Key { namespace, name }))
    }
}

impl Called {
    fn of(kind: Kind) -> Called {
        let declared = match kind {
            Kind::Custom(custom) => Some(Declared {
                plural: custom.names().plural.to_owned(),
                namespaced: custom.names().namespaced,
            }),
            _ => None,
        };
        Called {
            api_version: kind.api_version().to_owned(),
            name: kind.name().to_owned(),
            declared,
        }
    }

    fn read(&self, kinds: &mut Interner) -> Result<Kind, String> {
        let Called { api_version, name, declared } = self;
        let unknown = || format!("no kind {name:?} in version {api_version:?}");
        let Some(Declared { plural, namespaced }) = declared else {
            return Kind::of(api_version, name).ok_or_else(unknown);
        };
        let (group, version) = api_version.split_once('/').ok_or_else(unknown)?;
        let names = Names { group, plural, kind: name, namespaced: *namespaced };
        Ok(kinds.kind(names, version))
    }
}
