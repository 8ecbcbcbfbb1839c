//! Requests for certificates: whose each is, who may approve it, and who may put a certificate into
//! it (kubernetes `pkg/registry/certificates/certificates/strategy.go`,
//! `pkg/apis/certificates/validation/validation.go`, `plugin/pkg/admission/certificates`).

use super::Inner;
use super::auth::{Attributes, MASTERS, Objects, User};
use super::resources::Sub;
use super::status::Failure;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::objects::{Body, Kind, Object, Plain};
use kubesim_runtime::Wall;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

const GROUP: &str = "certificates.k8s.io";
/// Whose certificates are a user's.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// What is decided by who may approve, and what by who signs; none of it is taken back.
const DECIDED: [&str; 2] = ["Approved", "Denied"];
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];

/// Notes in a new request whose it is, whatever it says itself, and sees that it is one.
pub fn create(user: &User, object: &mut Object) -> Result<(), Failure> {
    let name = object.key.name.to_string();
    let Some(plain) = requested(object) else { return Ok(()) };
    let spec = Arc::make_mut(&mut plain.fields).0.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else { return Ok(()) };
    let info = user.info();
    for field in ["username", "uid", "groups", "extra"] {
        match info.get(field) {
            Some(value) => spec.insert(field.to_owned(), value.clone()),
            None => spec.remove(field),
        };
    }
    let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default();
    let request = text("request");
    if request.is_empty() {
        // The rules of its kind say so.
        return Ok(());
    }
    let groups = groups(request).map_err(|why| {
        invalid(&name, &[format!("spec.request: Invalid value: {request:?}: {why}")])
    })?;
    if text("signerName") == CLIENT && groups.iter().any(|group| group == MASTERS) {
        let why = format!("use of {CLIENT} signer with {MASTERS} group is not allowed");
        return Err(forbidden(&name, &why));
    }
    Ok(())
}

/// What a write may change: the metadata; by `approval`, what is decided; by `status`, the rest.
pub fn update(
    inner: &Inner,
    user: &User,
    sub: Option<Sub>,
    old: &Object,
    new: &mut Object,
) -> Result<(), Failure> {
    let name = old.key.name.to_string();
    let (Some(old), Some(new)) = (old.plain(), requested(new)) else { return Ok(()) };
    new.fields = Arc::clone(&old.fields);
    let signer = old.fields.text("spec.signerName");
    let mut status = (*new.status).clone();
    match sub {
        Some(Sub::Approval) => {
            if !may(inner, user, "approve", signer)? {
                let why =
                    format!("user not permitted to approve requests with signerName {signer:?}");
                return Err(forbidden(&name, &why));
            }
            let conditions = status["conditions"].take();
            status = (*old.status).clone();
            status["conditions"] = conditions;
        }
        Some(Sub::Status) => {
            preserve(&old.status, &mut status);
            let differs = |field: &str| old.status[field] != status[field];
            if (differs("certificate") || differs("conditions"))
                && !may(inner, user, "sign", signer)?
            {
                let why = format!("user not permitted to sign requests with signerName {signer:?}");
                return Err(forbidden(&name, &why));
            }
        }
        _ => {
            new.status = Arc::clone(&old.status);
            return Ok(());
        }
    }
    stamp(&old.status, &mut status, inner.now());
    let causes = wrong(&old.status, &status, sub == Some(Sub::Approval));
    if !causes.is_empty() {
        return Err(invalid(&name, &causes));
    }
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    new.status = Arc::new(status);
    Ok(())
}

fn requested(object: &mut Object) -> Option<&mut Plain> {
    match &mut object.body {
        Body::Plain(plain) if plain.kind == Kind::CertificateSigningRequest => Some(plain),
        _ => None,
    }
}

/// The groups that a request, PEM in base64, asks to be in; or why it is none.
fn groups(request: &str) -> Result<Vec<String>, String> {
    let no_pem = |_| "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let pem = BASE64_STANDARD.decode(request).unwrap_or_default();
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).map_err(no_pem)?;
    let (_, read) = X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    read.verify_signature().map_err(|error| error.to_string())?;
    let subject = &read.certification_request_info.subject;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    Ok(groups.map(str::to_owned).collect())
}

/// For this signer, or for all of its domain (`pkg/apis/certificates/authorization`).
fn may(inner: &Inner, user: &User, verb: &str, signer: &str) -> Result<bool, Failure> {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let (group, resource) = (GROUP.to_owned(), "signers".to_owned());
        let signer = Objects { group, resource, name, ..Objects::default() };
        if inner.decide(user, &Attributes::objects(verb, signer))?.allowed {
            return Ok(true);
        }
    }
    Ok(false)
}

fn conditions<'a>(status: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = status["conditions"].as_array().into_iter().flatten();
    all.filter(move |one| one["type"] == kind)
}

/// What was decided stays as it was, if the write has as much of it.
fn preserve(old: &Value, new: &mut Value) {
    for kind in DECIDED {
        let was: Vec<Value> = conditions(old, kind).cloned().collect();
        let all = new["conditions"].as_array_mut().into_iter().flatten();
        let is: Vec<&mut Value> = all.filter(|one| one["type"] == kind).collect();
        if was.len() == is.len() {
            is.into_iter().zip(was).for_each(|(is, was)| *is = was);
        }
    }
}

/// Times that were left out.
fn stamp(old: &Value, new: &mut Value, now: Wall) {
    let now = Timestamp::from_second(now.unix_secs()).map(|now| now.to_string());
    let now = Value::from(now.unwrap_or_default());
    for one in new["conditions"].as_array_mut().into_iter().flatten() {
        let Some(one) = one.as_object_mut() else { continue };
        let unset = |one: &Map<String, Value>, field: &str| {
            one.get(field).and_then(Value::as_str).is_none_or(str::is_empty)
        };
        if unset(one, "lastUpdateTime") {
            one.insert("lastUpdateTime".to_owned(), now.clone());
        }
        if unset(one, "lastTransitionTime") {
            let kind = one.get("type").and_then(Value::as_str).unwrap_or_default();
            let same = conditions(old, kind).find(|was| was.get("status") == one.get("status"));
            let since = same.map(|was| was["lastTransitionTime"].clone());
            let since = since.filter(Value::is_string).unwrap_or_else(|| now.clone());
            one.insert("lastTransitionTime".to_owned(), since);
        }
    }
}

/// What a status may not become.
fn wrong(old: &Value, new: &Value, approves: bool) -> Vec<String> {
    let mut causes = Vec::new();
    let (mut seen, mut decided) = (Vec::new(), None);
    for (index, one) in new["conditions"].as_array().into_iter().flatten().enumerate() {
        let at = |field: &str| format!("status.conditions[{index}].{field}");
        let kind = one["type"].as_str().unwrap_or_default();
        let status = one["status"].as_str().unwrap_or_default();
        if kind.is_empty() {
            causes.push(format!("{}: Required value", at("type")));
        }
        let allowed: &[&str] =
            if LASTING.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            causes.push(format!("{}: Required value", at("status")));
        } else if !allowed.contains(&status) {
            let list: Vec<String> = allowed.iter().map(|one| format!("{one:?}")).collect();
            let (at, list) = (at("status"), list.join(", "));
            causes.push(format!("{at}: Unsupported value: {status:?}: supported values: {list}"));
        }
        if DECIDED.contains(&kind) {
            if decided.is_some_and(|other| other != kind) {
                let why = "Approved and Denied conditions are mutually exclusive";
                causes.push(format!("{}: Invalid value: {kind:?}: {why}", at("type")));
            }
            decided = Some(kind);
        }
        if seen.contains(&kind) {
            causes.push(format!("{}: Duplicate value: {kind:?}", at("type")));
        }
        seen.push(kind);
    }
    for kind in LASTING {
        let (was, is) = (conditions(old, kind).count(), conditions(new, kind).count());
        let what = if is < was {
            "remove"
        } else if is > was && !approves && DECIDED.contains(&kind) {
            "add"
        } else {
            continue;
        };
        let why = format!("updates may not {what} a condition of type {kind:?}");
        causes.push(format!("status.conditions: Forbidden: {why}"));
    }
    let held = old["certificate"].as_str().unwrap_or_default();
    if !held.is_empty() && old["certificate"] != new["certificate"] {
        let why = "updates may not modify existing certificate content";
        causes.push(format!("status.certificate: Forbidden: {why}"));
    }
    causes
}

fn forbidden(name: &str, why: &str) -> Failure {
    Failure::forbidden(Kind::CertificateSigningRequest, name, why)
}

fn invalid(name: &str, causes: &[String]) -> Failure {
    let list = match causes {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    let message = format!("CertificateSigningRequest.{GROUP} {name:?} is invalid: {list}");
    let failure = Failure::new(422, "Invalid", message);
    failure.about(Kind::CertificateSigningRequest, name).with_causes()
}
