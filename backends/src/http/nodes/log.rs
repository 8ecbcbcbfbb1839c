//! `pods/log` (kubernetes `pkg/registry/core/pod/rest/log.go`): which attempt of a container is
//! meant follows from what its node last said of it, as upstream's kubelet has it
//! (`validateContainerLogStatus` in `pkg/kubelet/kubelet_pods.go`).

use super::choose;
use super::flow::{Flow, next};
use super::link::{Answered, Refused};
use super::options::{Options, Query};
use crate::http::Inner;
use crate::http::body::{Answer, Stream};
use crate::http::metrics::One;
use crate::http::status::Failure;
use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use kubesim_actors::objects::Object;
use serde_json::json;
use std::rc::Rc;
use tokio::sync::mpsc;

pub async fn read(inner: &Rc<Inner>, pod: &Object, options: &Options) -> Result<Answer, Failure> {
    let name = &*pod.key.name;
    check(name, options)?;
    let (spec, status) = pod.pod().ok_or_else(Failure::no_such_resource)?;
    let container = choose::container(name, spec, options.text("container"))?;
    let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) else {
        // Nothing has run, so nothing was said.
        return Ok(Answer::bytes("text/plain", Bytes::new()));
    };
    let (which, attempt) = attempt(name, status, &container, options.flag("previous"))
        .map_err(Failure::bad_request)?;
    let mut query = Query::to("/log")
        .with("uid", &choose::uid(pod))
        .with("namespace", &pod.key.namespace)
        .with("pod", name)
        .with("container", &container)
        .with("which", which)
        .with("attempt", &attempt.to_string())
        .flag("follow", options.flag("follow"))
        .flag("timestamps", options.flag("timestamps"));
    for number in ["sinceSeconds", "tailLines", "limitBytes", "sinceTime"] {
        let text = options.text(number);
        if !text.is_empty() {
            query = query.with(number, text);
        }
    }
    let answered = inner.ask(node, query.text(), HeaderMap::new(), Flow::none()).await;
    match answered {
        Ok(answered) => Ok(told(inner, node, answered)),
        Err(Refused::Node(code, why)) => Err(match code {
            StatusCode::BAD_REQUEST => Failure::bad_request(why),
            code => Failure::new(code.as_u16(), "InternalError", why),
        }),
        Err(Refused::Unasked(failure)) => Err(failure),
    }
}

/// What the node tells, as it comes.
fn told(inner: &Rc<Inner>, node: &str, answered: Answered) -> Answer {
    let (send, pieces) = mpsc::channel(1);
    let (inner, node) = (Rc::clone(inner), node.to_owned());
    let source = async move {
        let _one = One::of(&inner.metrics.watches);
        let Answered { response, open: _open, at } = answered;
        let mut body = response.into_body();
        let mut closing = inner.closing.subscribe();
        let mut ended = inner.ended.subscribe();
        loop {
            let piece = tokio::select! {
                piece = next(&mut body) => piece,
                _ = closing.changed() => return,
                _ = ended.changed() => return,
            };
            let last = match piece {
                None => return,
                Some(Ok(bytes)) => {
                    if send.send(bytes).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Err(why)) => why,
            };
            // The answer has begun, so this is the one place left to say that it is not whole.
            let why =
                format!("kubesim: the connection to node {node:?} at {at} was lost: {last}\n");
            let _ = send.send(why.into()).await;
            return;
        }
    };
    Answer::text(Stream::new(Box::pin(source), pieces))
}

/// `ValidatePodLogOptions` of pkg/apis/core/validation.
fn check(pod: &str, options: &Options) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        if let Some(number) = options.number(name)?.filter(|number| *number < least) {
            let what = match least {
                0 => "must be greater than or equal to 0",
                _ => "must be greater than 0",
            };
            wrong.push(format!("{name}: Invalid value: {number}: {what}"));
        }
    }
    if !options.text("sinceSeconds").is_empty() && !options.text("sinceTime").is_empty() {
        wrong.push(
            "sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be \
                    specified"
                .to_owned(),
        );
    }
    let wrong = match &wrong[..] {
        [] => return Ok(()),
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    let failure =
        Failure::new(422, "Invalid", format!("PodLogOptions {pod:?} is invalid: {wrong}"));
    let details = Some(json!({"name": pod, "kind": "PodLogOptions"}));
    Err(Failure { details, ..failure }.with_causes())
}

/// Which of a container's attempts is meant, in the node's words, and which one that is if its
/// runtime has lost it.
fn attempt(
    pod: &str,
    status: &PodStatus,
    container: &str,
    previous: bool,
) -> Result<(&'static str, u32), String> {
    let named = format!("container {container:?} in pod {pod:?}");
    let found = choose::status(status, container);
    let ContainerStatus { last_state, state, restart_count, .. } =
        found.ok_or_else(|| format!("{named} is not available"))?;
    let count = u32::try_from(*restart_count).unwrap_or(0);
    let ended_before = last_state.as_ref().is_some_and(|last| last.terminated.is_some());
    let state = state.clone().unwrap_or_default();
    let runs_or_ran = state.running.is_some() || state.terminated.is_some();
    if previous {
        return match (ended_before, runs_or_ran) {
            (false, _) => Err(format!("previous terminated {named} not found")),
            (true, true) => Ok(("before", count.saturating_sub(1))),
            (true, false) => Ok(("ended", count)),
        };
    }
    if runs_or_ran {
        return Ok(("current", count));
    }
    if ended_before {
        return Ok(("ended", count));
    }
    let reason = state.waiting.and_then(|waiting| waiting.reason);
    Err(match reason.as_deref() {
        Some("ErrImagePull") => format!("{named} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => {
            format!("{named} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("{named} is waiting to start: {reason}"),
        None => format!("{named} is waiting to start - no logs yet"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn of(state: Value, last: Value, previous: bool) -> Result<(&'static str, u32), String> {
        let status = json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "",
            "ready": false, "restartCount": 2, "state": state, "lastState": last}]});
        let status: PodStatus = serde_json::from_value(status).expect("a status");
        attempt("p", &status, "c", previous)
    }

    #[test]
    fn which_attempt_is_meant_follows_from_the_states() {
        let (runs, ended) = (json!({"running": {}}), json!({"terminated": {"exitCode": 1}}));
        let waits = |reason: &str| json!({"waiting": {"reason": reason}});
        assert_eq!(of(runs.clone(), json!({}), false), Ok(("current", 2)));
        assert_eq!(of(ended.clone(), json!({}), false), Ok(("current", 2)));
        assert_eq!(of(runs.clone(), ended.clone(), true), Ok(("before", 1)));
        assert_eq!(of(waits("CrashLoopBackOff"), ended.clone(), false), Ok(("ended", 2)));
        assert_eq!(of(waits("CrashLoopBackOff"), ended, true), Ok(("ended", 2)));
        let none = "previous terminated container \"c\" in pod \"p\" not found";
        assert_eq!(of(runs, json!({}), true), Err(none.to_owned()));
        let waiting = |reason: &str| of(waits(reason), json!({}), false).expect_err("it waits");
        let says = "container \"c\" in pod \"p\" is waiting to start: ";
        assert_eq!(waiting("ContainerCreating"), format!("{says}ContainerCreating"));
        assert_eq!(waiting("ErrImagePull"), format!("{says}image can't be pulled"));
        let back_off = format!("{says}trying and failing to pull image");
        assert_eq!(waiting("ImagePullBackOff"), back_off);
        let unknown = attempt("p", &PodStatus::default(), "c", false);
        assert_eq!(unknown, Err("container \"c\" in pod \"p\" is not available".to_owned()));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let said = |query: &str| check("p", &Options::parse(query)).map_err(|f| f.message);
        assert_eq!(said("tailLines=0&limitBytes=1&sinceSeconds=1&follow=true"), Ok(()));
        let negative = "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be \
                        greater than or equal to 0";
        assert_eq!(said("tailLines=-1"), Err(negative.to_owned()));
        assert!(said("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z").is_err());
        assert!(said("limitBytes=x").is_err());
    }
}
