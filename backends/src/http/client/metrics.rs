//! The port for metrics over HTTPS: the resource metrics API (`metrics.k8s.io/v1beta1`), where the
//! server has one. `kubesim server` has none: then the answer is the one that clients of a cluster
//! without metrics-server know.

use super::Client;
use crate::port::{Answer, Local, Port};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kubesim_actors::objects::quantity::thousandths;
use kubesim_actors::objects::{LabelSelector, Name};
use kubesim_actors::ports::metrics::{Reply, Request, Usage};
use kubesim_runtime::Wall;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const PODS: &str = "pods.metrics.k8s.io";

/// What a client hears of pods' usage.
#[derive(Clone)]
pub struct Metrics(pub Client);

impl Port for Metrics {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let client = self.0.clone();
        Box::pin(async move {
            let Request { subject, namespace, selector } = request;
            let result = match client.get(&path(&namespace, &selector)).await {
                Ok(list) => Ok(Arc::new(usage(&list))),
                Err((404, _)) => {
                    Err(format!("the server could not find the requested resource (get {PODS})"))
                }
                Err((_, why)) => Err(why),
            };
            let _ = answer.send(Reply { subject, result }).await;
        })
    }
}

fn path(namespace: &str, selector: &LabelSelector) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("labelSelector", &text(selector));
    let query = query.finish();
    format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?{query}")
}

/// As in a query (`LabelSelectorAsSelector`).
fn text(selector: &LabelSelector) -> String {
    let pairs = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let terms = selector.match_expressions.iter().flatten().map(|term| {
        let (key, values) = (&term.key, term.values.as_deref().unwrap_or_default().join(","));
        match term.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        }
    });
    pairs.chain(terms).collect::<Vec<String>>().join(",")
}

/// What a `PodMetricsList` says; a pod of which it is unclear is left out.
fn usage(list: &Value) -> BTreeMap<Name, Usage> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| Some((Name::from(item["metadata"]["name"].as_str()?), one(item)?)))
        .collect()
}

fn one(item: &Value) -> Option<Usage> {
    let at: Timestamp = item["timestamp"].as_str()?.parse().ok()?;
    let window: SignedDuration = item["window"].as_str()?.parse().ok()?;
    let containers = item["containers"].as_array()?.iter().map(|container| {
        let usage = container["usage"].as_object()?.iter();
        let amounts = usage
            .map(|(name, amount)| Some((Name::from(name), amount.as_str().and_then(thousandths)?)));
        Some((Name::from(container["name"].as_str()?), amounts.collect::<Option<_>>()?))
    });
    Some(Usage {
        at: Wall::from_unix_nanos(at.as_nanosecond()),
        window: Duration::try_from(window).ok()?,
        containers: containers.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_metrics_server_says_is_read() {
        let list = json!({"kind": "PodMetricsList", "items": [
            {"metadata": {"name": "a"}, "timestamp": "2024-01-01T00:00:10Z", "window": "15.5s",
             "containers": [{"name": "c", "usage": {"cpu": "12345678n", "memory": "2Ki"}}]},
            {"metadata": {"name": "b"}, "timestamp": "yesterday", "window": "1m0s",
             "containers": []},
        ]});
        let usage = usage(&list);
        assert_eq!(usage.len(), 1, "{usage:?}");
        let one = &usage["a"];
        assert_eq!(
            (one.at.unix_secs(), one.window),
            (1_704_067_210, Duration::from_millis(15_500))
        );
        let amounts: Vec<_> = one.containers["c"].values().copied().collect();
        assert_eq!(amounts, [13, 2_048_000]);
    }

    #[test]
    fn labels_are_asked_for_as_in_a_query() {
        let selector = serde_json::from_value(json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "t", "operator": "In", "values": ["a", "b"]},
                {"key": "u", "operator": "NotIn", "values": ["c"]},
                {"key": "v", "operator": "Exists"}, {"key": "w", "operator": "DoesNotExist"}]}));
        let selector = selector.expect("a selector");
        assert_eq!(text(&selector), "app=web,t in (a,b),u notin (c),v,!w");
        let asked = path("x", &selector);
        assert!(
            asked.starts_with("/apis/metrics.k8s.io/v1beta1/namespaces/x/pods?labelSelector=app")
        );
    }
}
