//! Questions about who may what: they are created, answered in their status, and not kept
//! (kubernetes `pkg/registry/authorization`, `pkg/registry/authentication`). `kubectl auth` asks
//! them.

use super::account_token::ISSUER;
use super::attributes::{Attributes, Objects, Of};
use super::node;
use super::rules::list;
use super::user::User;
use crate::http::Inner;
use crate::http::body::Answer;
use crate::http::resources::Review;
use crate::http::status::Failure;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Inner {
    /// The review with its answer. `namespace` is the path's.
    pub fn review(
        &self,
        asker: &User,
        review: &Review,
        namespace: &str,
        mut whole: Value,
    ) -> Result<Answer, Failure> {
        expect_type(&mut whole, &review.api_version(), review.kind)?;
        let spec = &whole["spec"];
        let status = match review.kind {
            "SelfSubjectReview" => json!({"userInfo": asker.info()}),
            "TokenReview" => self.token_review(spec)?,
            "SelfSubjectRulesReview" => self.rules_review(asker, spec)?,
            "SelfSubjectAccessReview" => self.access_review(asker, review, spec)?,
            "LocalSubjectAccessReview" => {
                let meant = text(spec, "/resourceAttributes/namespace");
                if meant != namespace {
                    let message = format!(
                        "spec.resourceAttributes.namespace must match namespace: {namespace}"
                    );
                    return Err(Failure::bad_request(message));
                }
                self.access_review(&subject(review, spec)?, review, spec)?
            }
            _ => self.access_review(&subject(review, spec)?, review, spec)?,
        };
        whole["status"] = status;
        if !whole["metadata"].is_object() {
            whole["metadata"] = json!({"creationTimestamp": null});
        }
        Ok(Answer::json(&whole).created())
    }

    fn access_review(&self, user: &User, review: &Review, spec: &Value) -> Result<Value, Failure> {
        let attributes = attributes(review, spec)?;
        let decision = self.decide(user, &attributes)?;
        let mut status = json!({"allowed": decision.allowed});
        if !decision.reason.is_empty() {
            status["reason"] = decision.reason.into();
        }
        Ok(status)
    }

    fn token_review(&self, spec: &Value) -> Result<Value, Failure> {
        let token = text(spec, "/token");
        if token.is_empty() {
            let message = "token is required for TokenReview in authentication";
            return Err(Failure::bad_request(message));
        }
        let mut audiences: Vec<String> = read(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        Ok(match self.bearer_of(token, &audiences)? {
            Ok((user, audiences)) => {
                json!({"authenticated": true, "user": user.info(), "audiences": audiences})
            }
            Err(why) => json!({"user": {}, "error": why}),
        })
    }

    fn rules_review(&self, user: &User, spec: &Value) -> Result<Value, Failure> {
        let namespace = text(spec, "/namespace");
        if namespace.is_empty() {
            return Err(Failure::bad_request("no namespace on request"));
        }
        let index = self.granted()?;
        let (mut objects, mut paths, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for grant in index.of(user, namespace) {
            let rules = match &grant.rules {
                Ok(rules) => rules,
                Err(why) => {
                    wrong.push(why.as_str());
                    continue;
                }
            };
            for rule in rules.iter() {
                if !list(&rule.resources).is_empty() {
                    let without = PolicyRule { non_resource_urls: None, ..rule.clone() };
                    objects.push(json!(without));
                }
                if let Some(urls) = &rule.non_resource_urls {
                    paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": urls}));
                }
            }
        }
        let of_node = node::of(user).is_some();
        if of_node {
            wrong.insert(0, "node authorizer does not support user rule resolution");
        }
        let mut status =
            json!({"resourceRules": objects, "nonResourceRules": paths, "incomplete": of_node});
        if !wrong.is_empty() {
            status["evaluationError"] = wrong.join(", ").into();
        }
        Ok(status)
    }
}

/// A body that says its type says this one; and if it does not, it does from here on.
pub fn expect_type(whole: &mut Value, api_version: &str, kind: &str) -> Result<(), Failure> {
    for (field, ours) in [("apiVersion", api_version), ("kind", kind)] {
        let theirs = whole[field].as_str().unwrap_or_default();
        if !["", ours].contains(&theirs) {
            let message = format!(
                "the {field} in the data ({theirs}) does not match the expected {field} ({ours})"
            );
            return Err(Failure::bad_request(message));
        }
        whole[field] = ours.into();
    }
    Ok(())
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn invalid(review: &Review, cause: &str) -> Failure {
    let (kind, group) = (review.kind, review.group);
    let message = format!("{kind}.{group} \"\" is invalid: {cause}");
    let details = json!({"kind": kind, "group": group});
    Failure { details: Some(details), ..Failure::new(422, "Invalid", message) }
}

/// Whom a review is about.
fn subject(review: &Review, spec: &Value) -> Result<User, Failure> {
    let groups: Vec<String> = read(&spec["groups"]);
    let name = text(spec, "/user").to_owned();
    if name.is_empty() && groups.is_empty() {
        let cause = "spec.user: Invalid value: \"\": at least one of user or group must be \
                     specified";
        return Err(invalid(review, cause));
    }
    let extra: BTreeMap<String, Vec<String>> = read(&spec["extra"]);
    Ok(User { name, groups, uid: text(spec, "/uid").to_owned(), extra })
}

fn read<T: for<'a> Deserialize<'a> + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}

/// What a review asks about.
fn attributes(review: &Review, spec: &Value) -> Result<Attributes, Failure> {
    let said = |field: &str| spec[field].as_object().cloned();
    match (said("resourceAttributes"), said("nonResourceAttributes")) {
        (Some(objects), None) => {
            let text = |field: &str| of(&objects, field);
            let verb = text("verb");
            let objects = Objects {
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                ..Objects::default()
            };
            Ok(Attributes::objects(&verb, objects))
        }
        (None, Some(path)) => {
            Ok(Attributes { verb: of(&path, "verb"), of: Of::Path(of(&path, "path")) })
        }
        (objects, _) => {
            let (field, why) = match objects {
                None => (
                    "spec.resourceAttributes",
                    "exactly one of nonResourceAttributes or \
                                                     resourceAttributes must be specified",
                ),
                Some(_) => (
                    "spec.nonResourceAttributes",
                    "cannot be specified in combination \
                                                           with resourceAttributes",
                ),
            };
            Err(invalid(review, &format!("{field}: Invalid value: null: {why}")))
        }
    }
}

fn of(fields: &Map<String, Value>, name: &str) -> String {
    fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
