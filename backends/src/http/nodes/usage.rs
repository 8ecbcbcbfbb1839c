//! The resource metrics API, `metrics.k8s.io/v1beta1`, as metrics-server serves it
//! (kubernetes-sigs/metrics-server, pkg/api): what `kubectl top` shows and autoscalers go by. Nodes
//! measure, and are asked when somebody asks. Until one has dialled there is no such API, as in a
//! cluster without metrics-server.

use super::flow::{Flow, next};
use super::link::{Answered, Refused};
use crate::http::Inner;
use crate::http::body::Answer;
use crate::http::read;
use crate::http::resources;
use crate::http::route::{Query, Target};
use crate::http::selector::Selector;
use crate::http::status::Failure;
use hyper::{HeaderMap, Method};
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::objects::{Name, Object};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";
/// A node that has not answered after so long is left out.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of a node's answer.
const MOST: usize = 16 << 20;

/// What a path below `/apis/metrics.k8s.io` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    Group,
    Version,
    Of { of: Of, namespace: String, name: Option<String> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Nodes,
    Pods,
}

impl Of {
    const ALL: [Of; 2] = [Of::Nodes, Of::Pods];

    fn plural(self) -> &'static str {
        match self {
            Of::Nodes => "nodes",
            Of::Pods => "pods",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Of::Nodes => "NodeMetrics",
            Of::Pods => "PodMetrics",
        }
    }
}

impl Path {
    /// `None`: it names nothing.
    pub fn of(rest: &[&str]) -> Option<Path> {
        let (namespace, rest) = match rest {
            [] => return Some(Path::Group),
            [version] if *version == VERSION => return Some(Path::Version),
            [version, "namespaces", namespace, rest @ ..] if *version == VERSION => {
                (Some(*namespace), rest)
            }
            [version, rest @ ..] if *version == VERSION => (None, rest),
            _ => return None,
        };
        let (plural, name) = match rest {
            [plural] => (*plural, None),
            [plural, name] => (*plural, Some((*name).to_owned())),
            _ => return None,
        };
        let of = Of::ALL.into_iter().find(|of| of.plural() == plural)?;
        match (of, namespace, &name) {
            (Of::Nodes, Some(_), _) | (Of::Pods, None, Some(_)) => return None,
            _ => {}
        }
        let namespace = namespace.unwrap_or_default().to_owned();
        Some(Path::Of { of, namespace, name })
    }
}

/// As discovery tells the group, once there is one.
pub fn group() -> resources::Group {
    resources::Group { name: GROUP, versions: vec![VERSION] }
}

/// The group's resources, in the form of `meta.k8s.io/v1`.
fn resource_list() -> Value {
    let resources = Of::ALL.map(|of| {
        json!({"name": of.plural(), "singularName": "", "namespaced": of == Of::Pods,
               "kind": of.kind(), "verbs": ["get", "list"]})
    });
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION,
           "resources": resources})
}

/// And in that of `apidiscovery.k8s.io`.
pub fn aggregated() -> Value {
    let resources = Of::ALL.map(|of| {
        json!({"resource": of.plural(),
               "responseKind": {"group": GROUP, "version": VERSION, "kind": of.kind()},
               "scope": if of == Of::Pods { "Namespaced" } else { "Cluster" },
               "singularResource": "", "verbs": ["get", "list"]})
    });
    let version = json!({"version": VERSION, "resources": resources, "freshness": "Current"});
    json!({"metadata": {"name": GROUP, "creationTimestamp": null}, "versions": [version]})
}

pub async fn answer(
    inner: &Rc<Inner>,
    method: &Method,
    path: &Path,
    query: &Query,
) -> Result<Answer, Failure> {
    if !inner.links.measure() {
        return Err(Failure::no_such_resource());
    }
    if method != Method::GET {
        return Err(Failure::no_such_method());
    }
    match path {
        Path::Group => {
            let mut group = crate::http::discovery::group_of(&group());
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            Ok(Answer::json(&group))
        }
        Path::Version => Ok(Answer::json(&resource_list())),
        Path::Of { of, namespace, name } => {
            let all = objects(inner, *of, namespace, name.as_deref(), query)?;
            let measured = measured(inner, *of, &all).await;
            match name {
                None => Ok(Answer::json(&json!({"kind": format!("{}List", of.kind()),
                    "apiVersion": GROUP_VERSION, "metadata": {}, "items": measured}))),
                Some(name) => match measured.into_iter().next() {
                    Some(one) => Ok(Answer::json(&one)),
                    None => Err(not_found(*of, namespace, name)),
                },
            }
        }
    }
}

/// In metrics-server's words, which name a pod with its namespace.
fn not_found(of: Of, namespace: &str, name: &str) -> Failure {
    let (named, resource) = match of {
        Of::Nodes => (name.to_owned(), "nodemetrics"),
        Of::Pods => (format!("{namespace}/{name}"), "podmetrics"),
    };
    let what = format!("{resource}.{GROUP} {named:?} not found");
    let failure = Failure::new(404, "NotFound", what);
    let details = json!({"name": named, "group": GROUP, "kind": resource});
    Failure { details: Some(details), ..failure }
}

/// The nodes or pods that are asked about.
fn objects(
    inner: &Inner,
    of: Of,
    namespace: &str,
    name: Option<&str>,
    query: &Query,
) -> Result<Vec<Arc<Object>>, Failure> {
    let definitions = inner.definitions();
    let served = resources::find("", "v1", of.plural(), &definitions);
    let served = served.ok_or_else(Failure::no_such_resource)?;
    let selector =
        Selector::parse(&served, query.text("labelSelector"), query.text("fieldSelector"))?;
    let name = name.map(Name::from);
    let target = Target { served, namespace: Name::from(namespace), name, sub: None };
    let state = inner.state.borrow();
    let cache = state.history.cache().ok_or_else(read::initializing)?;
    Ok(read::list_all(cache, &target, &selector))
}

/// What there is to say of these, in their order. Of which nobody knows it, nothing is said.
async fn measured(inner: &Rc<Inner>, of: Of, all: &[Arc<Object>]) -> Vec<Value> {
    let node = |object: &Arc<Object>| match of {
        Of::Nodes => Some(object.key.name.to_string()),
        Of::Pods => object.pod().and_then(|(spec, _)| spec.node_name.clone()),
    };
    let nodes: BTreeSet<String> = all.iter().filter_map(node).collect();
    let mut asked = JoinSet::new();
    for node in nodes {
        let inner = Rc::clone(inner);
        asked.spawn_local(async move {
            let told = timeout(PATIENCE, ask(&inner, &node)).await.ok().flatten();
            (node, told)
        });
    }
    let (mut nodes, mut pods) = (BTreeMap::new(), BTreeMap::new());
    while let Some(answered) = asked.join_next().await {
        let Ok((node, Some(mut told))) = answered else { continue };
        for pod in told["pods"].as_array_mut().into_iter().flatten() {
            let uid = pod["uid"].as_str().unwrap_or_default().to_owned();
            pods.insert(uid, pod["containers"].take());
        }
        nodes.insert(node, told["node"].take());
    }
    let one = |object: &Arc<Object>| match of {
        Of::Nodes => node_metrics(object, nodes.get(&*object.key.name)?),
        Of::Pods => pod_metrics(object, pods.get(&object.uid.to_string())?),
    };
    all.iter().filter_map(one).collect()
}

/// `None`: it is not connected, or cannot say.
async fn ask(inner: &Inner, node: &str) -> Option<Value> {
    let asked = inner.ask(node, "/usage".to_owned(), HeaderMap::new(), Flow::none()).await;
    let Answered { response, open: _open, .. } = match asked {
        Ok(answered) => answered,
        Err(Refused::Node(..) | Refused::Unasked(_)) => return None,
    };
    let (mut body, mut text) = (response.into_body(), Vec::new());
    while let Some(piece) = next(&mut body).await {
        text.extend_from_slice(&piece.ok()?);
        if text.len() > MOST {
            return None;
        }
    }
    serde_json::from_slice(&text).ok()
}

fn node_metrics(node: &Object, used: &Value) -> Option<Value> {
    let (timestamp, window) = time(used)?;
    Some(json!({"kind": "NodeMetrics", "apiVersion": GROUP_VERSION, "metadata": meta(node),
                "timestamp": timestamp, "window": window, "usage": usage(used)?}))
}

/// As old as the oldest of what its containers say.
fn pod_metrics(pod: &Object, containers: &Value) -> Option<Value> {
    let all = containers.as_array()?;
    let (timestamp, window) = time(all.iter().min_by_key(|one| one["at"].as_i64())?)?;
    let one = |one: &Value| Some(json!({"name": one["name"].as_str()?, "usage": usage(one)?}));
    let containers: Vec<Value> = all.iter().map(one).collect::<Option<_>>()?;
    Some(json!({"kind": "PodMetrics", "apiVersion": GROUP_VERSION, "metadata": meta(pod),
                "timestamp": timestamp, "window": window, "containers": containers}))
}

fn meta(object: &Object) -> Value {
    let mut meta = json!({"name": object.key.name.as_str(),
        "creationTimestamp": time_of(Timestamp::now())});
    if !object.key.namespace.is_empty() {
        meta["namespace"] = object.key.namespace.as_str().into();
    }
    if let Some(labels) = &object.meta.labels {
        meta["labels"] = json!(labels);
    }
    meta
}

/// Whole units, as metrics-server tells them: `123n` of a core, `4Ki`.
fn usage(used: &Value) -> Option<Value> {
    let (cpu, memory) = (used["cpu"].as_u64()?, used["memory"].as_u64()?);
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory.div_ceil(1024))}))
}

/// The end of what was measured, and how long that was, as Go prints a duration below a minute.
fn time(used: &Value) -> Option<(String, String)> {
    let at = Timestamp::from_nanosecond(used["at"].as_i64()?.into()).ok()?;
    let millis = used["window"].as_u64()? / 1_000_000;
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    Some((time_of(at), format!("{text}s")))
}

/// To the second.
fn time_of(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_metrics_server() {
        let of = |of, namespace: &str, name: Option<&str>| {
            let (namespace, name) = (namespace.to_owned(), name.map(str::to_owned));
            Some(Path::Of { of, namespace, name })
        };
        let at = |path: &str| {
            let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            Path::of(&segments)
        };
        assert_eq!((at(""), at("v1beta1")), (Some(Path::Group), Some(Path::Version)));
        assert_eq!(at("v1beta1/nodes"), of(Of::Nodes, "", None));
        assert_eq!(at("v1beta1/nodes/n1"), of(Of::Nodes, "", Some("n1")));
        assert_eq!(at("v1beta1/pods"), of(Of::Pods, "", None));
        assert_eq!(at("v1beta1/namespaces/a/pods"), of(Of::Pods, "a", None));
        assert_eq!(at("v1beta1/namespaces/a/pods/b"), of(Of::Pods, "a", Some("b")));
        for nothing in
            ["v1", "v1beta1/pods/b", "v1beta1/namespaces/a/nodes", "v1beta1/pots", "v1beta1/a/b/c"]
        {
            assert_eq!(at(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_a_node_says_is_told_as_metrics_server_tells_it() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "x", "labels": {"app": "web"}},
            "spec": {"containers": []}});
        let pod = Object::from_json(pod).expect("a pod");
        let container = |name: &str, at: i64| {
            json!({"name": name, "at": at * 1_000_000_000, "window": 15_500_000_000_u64,
                   "cpu": 12_345, "memory": 2049})
        };
        let told = json!([container("c", 1_704_067_210), container("d", 1_704_067_209)]);
        let mut said = pod_metrics(&pod, &told).expect("metrics");
        assert!(said["metadata"]["creationTimestamp"].take().is_string());
        let used = json!({"cpu": "12345n", "memory": "3Ki"});
        assert_eq!(
            said,
            json!({"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "a", "namespace": "x", "labels": {"app": "web"},
                         "creationTimestamp": null},
            "timestamp": "2024-01-01T00:00:09Z", "window": "15.5s",
            "containers": [{"name": "c", "usage": used}, {"name": "d", "usage": used}]})
        );
        let window = |nanos: u64| time(&json!({"at": 0, "window": nanos})).expect("a time").1;
        assert_eq!(window(20_048_999_999), "20.048s");
        assert_eq!((window(10_000_000_000), window(1_000_000)), ("10s".into(), "0.001s".into()));
        assert_eq!(pod_metrics(&pod, &json!([])), None, "nothing was measured");
        assert_eq!(pod_metrics(&pod, &json!([{"name": "c"}])), None, "nothing that is read");
    }
}
