//! Signs the certificates that are asked for, and approves those that kubelets ask for (kubernetes
//! `pkg/controller/certificates`: its signers and `approver/sarapprove.go`). It is a client of the
//! API server's like the controllers, but not among them: it holds the authority's key, and reads
//! X.509.
//!
//! - `request`: what is asked for, and what each signer signs

mod request;

use self::request::{Asked, KUBELET_CLIENT};
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

/// A certificate is good for so long (`--cluster-signing-duration`), unless it is asked for a
/// shorter one; and at least for so long.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
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

/// Signs for as long as it is polled.
pub async fn run(client: Client, authority: Arc<Authority>, note: impl Fn(String)) {
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
                Some(object) => handle(&client, &authority, object).await,
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

async fn handle(client: &Client, authority: &Authority, object: &Object) -> Result<(), String> {
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
        true => sign(client, authority, value, &asked).await,
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
    authority: &Authority,
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
            let (from, to) = validity(request["spec"]["expirationSeconds"].as_i64(), unix);
            let (subject, key) = (asked.subject.clone(), asked.key.clone());
            let names = asked.names.clone();
            let certificate = authority.issue(Leaf { subject, key, usages, names, from, to })?;
            request["status"]["certificate"] = BASE64.encode(certificate).into();
        }
    }
    put(client, &request, "status").await
}

/// From when to when a certificate is good, if so many seconds are asked for; since 1970.
fn validity(asked: Option<i64>, now: Duration) -> (Duration, Duration) {
    let seconds = asked.map(|seconds| u64::try_from(seconds).unwrap_or_default());
    let lasts = seconds.map_or(LONGEST, |s| Duration::from_secs(s).clamp(SHORTEST, LONGEST));
    let from = now.saturating_sub(BACKDATE);
    (from, if lasts < SHORT { now + lasts } else { from + lasts })
}

/// A kubelet's request for a client certificate is approved if who asks may have one.
async fn approve(client: &Client, mut request: Value, asked: &Asked) -> Result<(), String> {
    let of_kubelet = request["spec"]["signerName"] == KUBELET_CLIENT
        && asked.checked(KUBELET_CLIENT, &usages(&request)) == Some(Ok(()));
    if !of_kubelet {
        return Ok(());
    }
    let itself = request["spec"]["username"] == asked.common_name();
    let sorts = APPROVED.iter().filter(|(sort, _)| itself || *sort != "selfnodeclient");
    for (sort, message) in sorts {
        if may(client, &request, sort).await? {
            let approved = json!({"type": "Approved", "status": "True", "reason": "AutoApproved",
                                  "message": message});
            add_condition(&mut request, approved);
            return put(client, &request, "approval").await;
        }
    }
    Err("it is a kubelet's, who may not have one approved".to_owned())
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
        let now = LONGEST * 50;
        let lasts = |asked| {
            let (from, to) = validity(asked, now);
            assert_eq!(now - from, BACKDATE);
            to - now
        };
        assert_eq!(lasts(None), LONGEST - BACKDATE);
        assert_eq!(lasts(Some(i64::MAX)), LONGEST - BACKDATE);
        assert_eq!(lasts(Some(3600)), Duration::from_secs(3600));
        assert_eq!(lasts(Some(86_400)), Duration::from_secs(86_400) - BACKDATE);
        assert_eq!(lasts(Some(1)), SHORTEST);
        assert_eq!(lasts(Some(-1)), SHORTEST);
    }
}
