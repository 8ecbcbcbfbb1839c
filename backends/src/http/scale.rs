//! The `scale` subresource, `autoscaling/v1`: how many replicas there are and shall be.

use super::Inner;
use super::apply::Write;
use super::body::{Answer, JSON};
use super::patch::Patch;
use super::route::Target;
use super::status::Failure;
use super::versions::Served;
use super::write::{again, call};
use super::writing::Writing;
use kubesim_actors::objects::definition::Scaled;
use kubesim_actors::objects::kinds::texts;
use kubesim_actors::objects::{Body, Kind, LabelSelector, Object, Plain, Uid};
use kubesim_actors::ports::api::Request;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The Scale of what has replicas.
pub fn of(served: &Served, object: &Object) -> Value {
    let (wanted, there, selector) = match &object.body {
        Body::Deployment { spec, status } => {
            let there = status.replicas.unwrap_or(0);
            (spec.replicas.unwrap_or(0), there, texts::requirements(&spec.selector))
        }
        Body::ReplicaSet { spec, status } => {
            (spec.replicas.unwrap_or(0), status.replicas, texts::requirements(&spec.selector))
        }
        Body::Plain(plain) => match served.scaled() {
            Some(paths) => of_declared(plain, paths),
            None => of_plain(plain),
        },
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

/// By the paths that its definition declares.
fn of_declared(plain: &Plain, paths: &Scaled) -> (i32, i32, String) {
    let at = |path: &str| {
        let mut whole = (*plain.fields).clone();
        whole.0.insert("status".to_owned(), (*plain.status).clone());
        whole.at(path.trim_start_matches('.')).cloned().unwrap_or_default()
    };
    let number = |path: &str| at(path).as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    let selector = at(&paths.label_selector_path).as_str().unwrap_or_default().to_owned();
    (number(&paths.spec_replicas_path), number(&paths.status_replicas_path), selector)
}

/// The Scale of an object; one that does not say how many replicas it wants has none.
pub fn read(served: &Served, object: &Object) -> Result<Value, Failure> {
    if let (Some(paths), Some(plain)) = (served.scaled(), object.plain()) {
        let path = &paths.spec_replicas_path;
        if plain.fields.number(path.trim_start_matches('.')).is_none() {
            let why =
                format!("Internal error occurred: the spec replicas field {path:?} does not exist");
            return Err(Failure::new(500, "InternalError", why));
        }
    }
    Ok(of(served, object))
}

/// A Scale as Go writes it.
pub fn answer(scale: &Value) -> Answer {
    let mut text = Vec::new();
    let of = ("autoscaling", "v1", "Scale");
    Writing::Go.rewrite(of, scale.to_string().as_bytes(), &mut text);
    Answer::bytes(JSON, text)
}

pub async fn update(
    inner: &Inner,
    target: &Target,
    scale: &Value,
    write: Write<'_>,
    dry_run: bool,
) -> Result<Answer, Failure> {
    // Whether it is still this version is for the client to ask.
    let text = |field: &str| scale["metadata"][field].as_str().unwrap_or_default();
    let version: u64 = text("resourceVersion").parse().unwrap_or(0);
    let updated = again(version != 0, async || {
        let live = inner.object(target)?;
        let mut object = (*live).clone();
        if version != 0 {
            object.version = version;
        }
        object.uid = Uid::parse(text("uid")).unwrap_or_default();
        set_replicas(&target.served, &mut object, scale)?;
        write.track(Some(&live), &mut object);
        put(inner, target, object, dry_run).await
    });
    let updated = updated.await?;
    Ok(answer(&of(&target.served, &updated)))
}

fn set_replicas(served: &Served, object: &mut Object, scale: &Value) -> Result<(), Failure> {
    let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let wrong = || {
        let why = format!("spec.replicas: Invalid value: {wanted}: must be a count of 32 bits");
        Failure::new(422, "Invalid", why)
    };
    let wanted = i32::try_from(wanted).map_err(|_| wrong())?;
    let replicas = Some(wanted);
    match &mut object.body {
        Body::Deployment { spec, .. } => Arc::make_mut(spec).replicas = replicas,
        Body::ReplicaSet { spec, .. } => Arc::make_mut(spec).replicas = replicas,
        Body::Plain(plain) => {
            let path = served.scaled().map(|paths| &*paths.spec_replicas_path);
            let path = path.unwrap_or("spec.replicas").trim_start_matches('.');
            Arc::make_mut(&mut plain.fields).set(path, wanted);
        }
        _ => return Err(Failure::no_such_resource()),
    }
    Ok(())
}

async fn put(
    inner: &Inner,
    target: &Target,
    object: Object,
    dry_run: bool,
) -> Result<Arc<Object>, Failure> {
    target.served.check(&object, inner.object(target).ok().as_deref(), false)?;
    let request = Request::Update { object: Arc::new(object) };
    let updated = call(inner, target.kind(), &target.key().name, request, dry_run).await?;
    // The history is to know how much clients write.
    inner.state.borrow().history.text(&updated, Writing::Go);
    Ok(updated)
}

pub async fn patch(
    inner: &Inner,
    target: &Target,
    patch: &Patch,
    write: Write<'_>,
    dry_run: bool,
) -> Result<Answer, Failure> {
    again(false, async || {
        let mut scale = of(&target.served, &*inner.object(target)?);
        patch.apply(&target.served, &mut scale)?;
        update(inner, target, &scale, write, dry_run).await
    })
    .await
}

/// A Scale is applied: to the one field of the object that is its.
pub async fn apply(
    inner: &Inner,
    target: &Target,
    scale: &Value,
    write: Write<'_>,
    force: bool,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let mut config = json!({"metadata": {}});
    for (part, field) in
        [("spec", "replicas"), ("metadata", "resourceVersion"), ("metadata", "uid")]
    {
        if let Some(said) = scale[part].get(field) {
            config[part][field] = said.clone();
        }
    }
    let conditional = config["metadata"].get("resourceVersion").is_some();
    let applied = again(conditional, async || {
        let live = inner.object(target)?;
        let value = write.apply(Some(&live), &config, force)?;
        let (object, _) = target.served.read(&value);
        let mut object = object.map_err(|(_, why)| Failure::bad_request(why.to_string()))?;
        Write::settle(&live, &mut object);
        put(inner, target, object, dry_run).await
    });
    let applied = applied.await?;
    Ok(answer(&of(&target.served, &applied)))
}
