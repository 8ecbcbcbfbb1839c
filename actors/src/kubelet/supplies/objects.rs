//! The ConfigMaps and Secrets that the node's pods use, as the API said them last. Each is asked
//! for when a pod comes that uses it, and again before what was made of it is looked at anew, as
//! upstream's managers do that get and do not watch
//! (pkg/kubelet/util/manager/cache_based_manager.go).

use crate::kubelet::Kubelet;
use crate::kubelet::local::{Call, Local, is_transient};
use crate::objects::{Key, Kind, Object};
use crate::ports::api;
use k8s_openapi::ByteString;
use kubesim_runtime::{Context, Time};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What could not be had is asked for again no sooner.
const AGAIN: Duration = Duration::from_secs(1);

/// What a ConfigMap or Secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// `data`: what environments are made of.
    pub data: Bytes,
    /// `binaryData`, which only files are made of.
    pub binary: Bytes,
    /// Of a Secret: what it says that it is for.
    pub secret_type: SmolStr,
    /// Of a claim or a volume: all of it.
    pub object: Option<Arc<Object>>,
}

pub type Bytes = BTreeMap<String, Arc<[u8]>>;

/// Why something cannot be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It was asked for.
    Coming,
    /// As people are told.
    Wrong(String),
}

#[derive(Clone, Debug, Default)]
pub struct Objects(BTreeMap<(Kind, Key), Known>);

#[derive(Clone, Debug, Default)]
struct Known {
    answer: Option<Result<Arc<Data>, Failure>>,
    /// When the answer came.
    at: Time,
    asked: bool,
    /// A pod came that must not be given what was known before it.
    stale: bool,
}

#[derive(Clone, Debug)]
struct Failure {
    why: String,
    not_found: bool,
}

impl Objects {
    /// A pod came that uses these.
    pub fn expect(&mut self, needs: &[(Kind, Key)]) {
        for need in needs {
            self.0.entry(need.clone()).or_default().stale = true;
        }
    }

    /// Nobody uses others any more.
    pub fn keep(&mut self, used: &BTreeSet<(Kind, Key)>) {
        self.0.retain(|need, _| used.contains(need));
    }

    /// Of these, which have to be asked for, so that what is known is not older than this. What
    /// was not there is asked for each time.
    fn due(&mut self, needs: &[(Kind, Key)], now: Time, age: Duration) -> Vec<(Kind, Key)> {
        let mut due = Vec::new();
        for need in needs {
            let known = self.0.entry(need.clone()).or_default();
            let fresh = match &known.answer {
                Some(Ok(_)) => !known.stale && now.since(known.at) < age,
                Some(Err(_)) => !known.stale && now.since(known.at) < AGAIN,
                None => false,
            };
            if !fresh && !known.asked {
                (known.asked, known.stale) = (true, false);
                due.push(need.clone());
            }
        }
        due
    }

    /// The object, if it has come; `None` if it is optional and there is none.
    pub fn get(&self, kind: Kind, key: &Key, optional: bool) -> Result<Option<Arc<Data>>, Lack> {
        let known = self.0.get(&(kind, key.clone())).filter(|known| !known.asked && !known.stale);
        match known.and_then(|known| known.answer.as_ref()) {
            None => Err(Lack::Coming),
            Some(Ok(data)) => Ok(Some(Arc::clone(data))),
            Some(Err(failure)) if failure.not_found && optional => Ok(None),
            Some(Err(failure)) => Err(Lack::Wrong(failure.why.clone())),
        }
    }

    /// False if nobody waits for it any more.
    pub fn answered(
        &mut self,
        need: &(Kind, Key),
        result: Result<api::Reply, api::Error>,
        now: Time,
    ) -> bool {
        let Some(known) = self.0.get_mut(need) else { return false };
        known.asked = false;
        known.at = now;
        match result {
            Ok(api::Reply::Object(object)) => known.answer = Some(Ok(Arc::new(read(&object)))),
            Ok(api::Reply::List(_) | api::Reply::Token { .. }) => {}
            // What is known is true enough until the API is heard again.
            Err(error) if is_transient(&error) && matches!(known.answer, Some(Ok(_))) => {}
            Err(error) => {
                let not_found = error.reason == api::Reason::NotFound;
                let (kind, key) = need;
                let why = match not_found {
                    true => format!("{} {:?} not found", word(*kind), key.name),
                    false => error.message,
                };
                known.answer = Some(Err(Failure { why, not_found }));
            }
        }
        true
    }
}

impl Local {
    /// Asks for what is not known, or is not known to be so any more.
    pub fn fetch(&mut self, needs: &[(Kind, Key)], age: Duration, ctx: &mut Context<'_, Kubelet>) {
        for (kind, key) in self.objects.due(needs, ctx.now(), age) {
            let request = api::Request::Get { kind, key: key.clone() };
            self.call(Call::Object(kind, key), request, ctx);
        }
    }
}

/// As upstream's managers call it (pkg/kubelet/configmap, pkg/kubelet/secret).
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => "secret",
        Kind::PersistentVolumeClaim => "persistentvolumeclaim",
        Kind::PersistentVolume => "persistentvolume",
        _ => "configmap",
    }
}

fn read(object: &Arc<Object>) -> Data {
    if matches!(object.kind(), Kind::PersistentVolumeClaim | Kind::PersistentVolume) {
        return Data { object: Some(Arc::clone(object)), ..Data::default() };
    }
    let bytes = |list: Option<&BTreeMap<String, ByteString>>| -> Bytes {
        let all = list.into_iter().flatten();
        all.map(|(key, value)| (key.clone(), Arc::from(&*value.0))).collect()
    };
    if let Some(map) = object.config_map() {
        let texts = map.data.iter().flatten();
        let data = texts.map(|(key, text)| (key.clone(), Arc::from(text.as_bytes()))).collect();
        let binary = bytes(map.binary_data.as_ref());
        return Data { data, binary, ..Data::default() };
    }
    let fields = object.plain().map(|plain| &plain.fields);
    let data = fields.map(|fields| fields.part::<BTreeMap<String, ByteString>>("data"));
    let secret_type = fields.map(|fields| fields.part::<SmolStr>("type")).unwrap_or_default();
    Data { data: bytes(data.as_ref()), secret_type, ..Data::default() }
}
