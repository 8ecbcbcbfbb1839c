//! The `scale` subresource, `autoscaling/v1`: how many replicas there are and shall be.

use super::Inner;
use super::body::Answer;
use super::patch::Patch;
use super::route::Target;
use super::status::Failure;
use super::write::call;
use kubesim_actors::objects::kinds::texts;
use kubesim_actors::objects::{Body, Kind, LabelSelector, Object, Plain, Uid};
use kubesim_actors::ports::api::Request;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The Scale of what has replicas.
pub fn of(object: &Object) -> Value {
    let (wanted, there, selector) = match &object.body {
        Body::Deployment { spec, status } => {
            let there = status.replicas.unwrap_or(0);
            (spec.replicas.unwrap_or(0), there, texts::requirements(&spec.selector))
        }
        Body::ReplicaSet { spec, status } => {
            (spec.replicas.unwrap_or(0), status.replicas, texts::requirements(&spec.selector))
        }
        Body::Plain(plain) => of_plain(plain),
        _ => return Value::Null,
    };
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {
            "name": object.key.name, "namespace": object.key.namespace,
            "uid": object.uid.to_string(), "resourceVersion": object.version.to_string(),
            "creationTimestamp": object.meta.creation_timestamp,
        },
        "spec": {"replicas": wanted},
        "status": {"replicas": there, "selector": selector},
    })
}

fn of_plain(plain: &Plain) -> (i32, i32, String) {
    let number = |value: Option<i64>| value.and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    let selector = match plain.kind {
        // Its selector is one of labels alone.
        Kind::ReplicationController => {
            let labels: BTreeMap<String, String> = plain.fields.part("spec.selector");
            texts::requirements(&LabelSelector { match_labels: Some(labels), ..Default::default() })
        }
        _ => texts::requirements(&plain.fields.part("spec.selector")),
    };
    let there = plain.status.get("replicas").and_then(Value::as_i64);
    (number(plain.fields.number("spec.replicas")), number(there), selector)
}

pub async fn update(
    inner: &Inner,
    target: &Target,
    scale: &Value,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let mut object = (*inner.object(target)?).clone();
    let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let wrong = || {
        let why = format!("spec.replicas: Invalid value: {wanted}: must be a count of 32 bits");
        Failure::new(422, "Invalid", why)
    };
    let wanted = i32::try_from(wanted).map_err(|_| wrong())?;
    let replicas = Some(wanted);
    // Whether it is still this version is for the client to ask.
    let text = |field: &str| scale["metadata"][field].as_str().unwrap_or_default();
    object.version = text("resourceVersion").parse().unwrap_or(0);
    object.uid = Uid::parse(text("uid")).unwrap_or_default();
    match &mut object.body {
        Body::Deployment { spec, .. } => Arc::make_mut(spec).replicas = replicas,
        Body::ReplicaSet { spec, .. } => Arc::make_mut(spec).replicas = replicas,
        Body::Plain(plain) => Arc::make_mut(&mut plain.fields).set("spec.replicas", wanted),
        _ => return Err(Failure::no_such_resource()),
    }
    let name = object.key.name.clone();
    let request = Request::Update { object: Arc::new(object) };
    let updated = call(inner, target.kind(), &name, request, dry_run).await?;
    Ok(Answer::json(&of(&updated)))
}

pub async fn patch(
    inner: &Inner,
    target: &Target,
    patch: &Patch,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut scale = of(&*inner.object(target)?);
        patch.apply(target.kind(), &mut scale)?;
        match update(inner, target, &scale, dry_run).await {
            Err(failure) if failure.reason == "Conflict" && tries < 5 => {}
            outcome => return outcome,
        }
    }
}
