//! Signs the certificates that are asked for, and approves those that kubelets ask for (kubernetes
//! `pkg/controller/certificates`: its signers and `approver/sarapprove.go`). It is a client of the
//! API server's like the controllers, but not among them: it holds the authority's key, and reads
//! X.509.
//!
//! - `request`: what is asked for, and what each signer signs

mod request;

use self::request::{Asked, KUBELET_CLIENT, NODE, NODE_NETWORK, NODES};
use crate::certificate::{Authority, Leaf};
use crate::server::clients::views;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubesim_actors::objects::{Key, Kind, Object, View};
use kubesim_backends::http::client::Client;
use kubesim_runtime::Change;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep_until};

/// Nobody gets one that is good for less by asking for it.
const SHORTEST: Duration = Duration::from_secs(600);
/// It begins so long ago, for clocks that are behind; a short one does not end earlier for that.
const BACKDATE: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// What failed is tried again after this, doubled by each failure up to the other.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(1000);

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Which requests of kubelets are approved: the subresource that who asks must be allowed to
/// create, and what is said of it.
const APPROVED: [(&str, &str); 2] = [
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
];

/// What signs.
#[derive(Clone)]
pub struct Seal {
    pub authority: Arc<Authority>,
    /// A certificate is good for so long, unless a shorter time is asked for
    /// (`--cluster-signing-duration`).
    pub lasts: Duration,
}

/// Signs for as long as it is polled.
pub async fn run(client: Client, seal: Seal, note: impl Fn(String)) {
    let mut views = views(&client, Kind::CertificateSigningRequest);
    let mut known = View::empty(0);
    let mut due: BTreeMap<Key, Due> = BTreeMap::new();
    loop {
        let next = due.values().map(|due| due.at).min();
        let wait = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            view = views.recv() => {
                let Some(view) = view else { return };
                for change in known.diff(&view) {
                    match change {
                        Change::Added(key, _) | Change::Changed { key, .. } => {
                            due.insert(key.clone(), Due::now());
                        }
                        Change::Removed(key, _) => _ = due.remove(key),
                    }
                }
                known = view;
            }
            () = wait => {}
        }
        let now = Instant::now();
        let keys: Vec<Key> =
            due.iter().filter(|(_, d)| d.at <= now).map(|(k, _)| k.clone()).collect();
        for key in keys {
            let object = known.get(&key).filter(|object| !object.deleting());
            let handled = match object {
                Some(object) => handle(&client, &seal, object).await,
                None => Ok(()),
            };
            match (handled, due.get_mut(&key)) {
                (Ok(()), _) => _ = due.remove(&key),
                (Err(why), Some(due)) => {
                    if due.failures == 0 {
                        note(format!("the request for a certificate {}: {why}", key.name));
                    }
                    due.failed();
                }
                (Err(_), None) => {}
            }
        }
    }
}

/// When a request is looked at.
struct Due {
    at: Instant,
    failures: u32,
}

impl Due {
    fn now() -> Due {
        Due { at: Instant::now(), failures: 0 }
    }

    fn failed(&mut self) {
        self.at = Instant::now() + (RETRY * (1 << self.failures.min(16))).min(RETRY_MAX);
        self.failures += 1;
    }
}

async fn handle(client: &Client, seal: &Seal, object: &Object) -> Result<(), String> {
    let value = object.to_json();
    let is = |condition: &str| {
        let mut all = value["status"]["conditions"].as_array().into_iter().flatten();
        all.any(|one| {
            one["type"] == condition && (condition != "Failed" || one["status"] == "True")
        })
    };
    let issued = !value["status"]["certificate"].as_str().unwrap_or_default().is_empty();
    if issued || is("Denied") {
        return Ok(());
    }
    let asked = Asked::read(value["spec"]["request"].as_str().unwrap_or_default())?;
    match is("Approved") {
        false => approve(client, value, &asked).await,
        true if is("Failed") => Ok(()),
        true => sign(client, seal, value, &asked).await,
    }
}

fn usages(request: &Value) -> Vec<String> {
    let usages = request["spec"]["usages"].as_array().into_iter().flatten();
    usages.filter_map(|usage| usage.as_str().map(str::to_owned)).collect()
}

fn add_condition(request: &mut Value, condition: Value) {
    match &mut request["status"]["conditions"] {
        Value::Array(all) => all.push(condition),
        none => *none = json!([condition]),
    }
}

/// Where the request is, or a part of it.
fn path(request: &Value, sub: &str) -> String {
    let name = request["metadata"]["name"].as_str().unwrap_or_default();
    format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/{sub}")
}

async fn sign(
    client: &Client,
    seal: &Seal,
    mut request: Value,
    asked: &Asked,
) -> Result<(), String> {
    let usages = usages(&request);
    let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
    match asked.checked(signer, &usages) {
        // Another signs, or nobody.
        None => return Ok(()),
        Some(Err(why)) => add_condition(
            &mut request,
            json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                   "message": why}),
        ),
        Some(Ok(())) => {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let lasts = lasts(request["spec"]["expirationSeconds"].as_i64(), seal.lasts);
            let (from, to) = validity(lasts, unix);
            let (subject, key) = (asked.subject.clone(), asked.key.clone());
            let names = asked.names.clone();
            let certificate =
                seal.authority.issue(Leaf { subject, key, usages, names, from, to })?;
            request["status"]["certificate"] = BASE64.encode(certificate).into();
        }
    }
    put(client, &request, "status").await
}

/// How long a certificate is good, if so many seconds are asked for (`duration` in kubernetes
/// `pkg/controller/certificates/signer/signer.go`).
fn lasts(asked: Option<i64>, longest: Duration) -> Duration {
    let Some(seconds) = asked else { return longest };
    let asked = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    if asked > longest { longest } else { asked.max(SHORTEST) }
}

/// From when to when one is good that lasts so long; since 1970.
fn validity(lasts: Duration, now: Duration) -> (Duration, Duration) {
    let from = now.saturating_sub(BACKDATE);
    (from, if lasts < SHORT { now + lasts } else { from + lasts })
}

/// A kubelet's request for a client certificate is approved if who asks may have one, and one of a
/// node's network if the node asks.
async fn approve(client: &Client, mut request: Value, asked: &Asked) -> Result<(), String> {
    if is_of_its_network(&request, asked) {
        add_condition(&mut request, approved("Auto approving the node's own network."));
        return put(client, &request, "approval").await;
    }
    let of_kubelet = request["spec"]["signerName"] == KUBELET_CLIENT
        && asked.checked(KUBELET_CLIENT, &usages(&request)) == Some(Ok(()));
    if !of_kubelet {
        return Ok(());
    }
    let itself = request["spec"]["username"] == asked.common_name();
    let sorts = APPROVED.iter().filter(|(sort, _)| itself || *sort != "selfnodeclient");
    for (sort, message) in sorts {
        if may(client, &request, sort).await? {
            add_condition(&mut request, approved(message));
            return put(client, &request, "approval").await;
        }
    }
    Err("it is a kubelet's, who may not have one approved".to_owned())
}

fn approved(message: &str) -> Value {
    json!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message})
}

/// Who asks, the API server has written into the request.
fn is_of_its_network(request: &Value, asked: &Asked) -> bool {
    let spec = &request["spec"];
    let (user, node) = (spec["username"].as_str().unwrap_or_default(), asked.network_of());
    let mut groups = spec["groups"].as_array().into_iter().flatten();
    spec["signerName"] == NODE_NETWORK
        && asked.checked(NODE_NETWORK, &usages(request)) == Some(Ok(()))
        && groups.any(|group| group == NODES)
        && node.is_some_and(|node| user.strip_prefix(NODE) == Some(node))
}

async fn may(client: &Client, request: &Value, sort: &str) -> Result<bool, String> {
    let spec = &request["spec"];
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": spec["username"], "uid": spec["uid"], "groups": spec["groups"],
                 "extra": spec["extra"],
                 "resourceAttributes": {
                     "group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                     "verb": "create", "subresource": sort}},
    });
    let told = client.post(REVIEWS, &review).await.map_err(|error| error.to_string())?;
    Ok(told["status"]["allowed"] == true)
}

/// One that changed meanwhile is refused, and comes again as it is then.
async fn put(client: &Client, request: &Value, sub: &str) -> Result<(), String> {
    let written = client.put(&path(request, sub), request).await;
    written.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_lasts_as_it_is_asked_within_limits() {
        let year = Duration::from_secs(365 * 86_400);
        let now = year * 50;
        let of = |asked, longest| {
            let (from, to) = validity(super::lasts(asked, longest), now);
            assert_eq!(now - from, BACKDATE);
            to - now
        };
        let lasts = |asked| of(asked, year);
        assert_eq!(lasts(None), year - BACKDATE);
        assert_eq!(lasts(Some(i64::MAX)), year - BACKDATE);
        assert_eq!(lasts(Some(3600)), Duration::from_secs(3600));
        assert_eq!(lasts(Some(86_400)), Duration::from_secs(86_400) - BACKDATE);
        assert_eq!(lasts(Some(1)), SHORTEST);
        assert_eq!(lasts(Some(-1)), SHORTEST);
        let short = Duration::from_secs(15);
        assert_eq!((of(None, short), of(Some(600), short)), (short, short));
    }
}
