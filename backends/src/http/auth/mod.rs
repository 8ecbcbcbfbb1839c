//! Who asks and what they may: authentication, then impersonation, then RBAC, as upstream's
//! handlers go through them (apiserver `pkg/server/config.go`, `DefaultBuildHandlerChain`).

mod account_token;
mod attributes;
mod authenticate;
mod bootstrap_token;
mod escalation;
mod impersonate;
mod index;
mod jwt;
mod node;
mod policy;
mod reviews;
mod rules;
mod user;

pub use account_token::{Audiences, Bound, Claims, ISSUER, Named};
pub use attributes::{Attributes, Objects};
pub use authenticate::unauthorized;
#[cfg(test)]
pub use jwt::KNOWN;
pub use node::is_others as is_others_label;
pub use node::{Change, serves};
pub use policy::roles;
pub use reviews::expect_type;
pub use user::{MASTERS, User, account_name};

use self::attributes::Of;
use self::index::Index;
use super::Inner;
use super::read::initializing;
use super::status::Failure;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

/// What is kept between requests.
#[derive(Debug, Default)]
pub struct Auth {
    index: RefCell<Option<(index::Version, Rc<Index>)>>,
    issuer: RefCell<Option<Rc<Issuer>>>,
}

/// Who issues tokens of service accounts.
#[derive(Debug)]
pub struct Issuer {
    pub keys: jwt::Keys,
    /// Where the server is, `https://10.0.0.1:6443`: there others find the key to check tokens by.
    url: String,
}

impl Auth {
    /// From now on; tokens of keys that are no more among these are good no more.
    pub fn issue(&self, keys: &[u8], url: &str) -> Result<(), String> {
        let keys = jwt::Keys::from_pem(keys)?;
        *self.issuer.borrow_mut() = Some(Rc::new(Issuer { keys, url: url.to_owned() }));
        Ok(())
    }

    /// None if tokens are not issued.
    pub fn issuer(&self) -> Option<Rc<Issuer>> {
        self.issuer.borrow().clone()
    }
}

impl Issuer {
    /// The public keys (`/openid/v1/jwks`).
    pub fn public_keys(&self) -> Value {
        self.keys.set()
    }

    /// `/.well-known/openid-configuration` (OpenID Connect Discovery 1.0, 3; kubernetes
    /// `pkg/serviceaccount/openidmetadata.go`).
    pub fn configuration(&self) -> Value {
        json!({
            "issuer": ISSUER, "jwks_uri": format!("{}/openid/v1/jwks", self.url),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// Whether something may be done, and why; or why it was not found that it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

impl Inner {
    /// Who was granted what, now.
    pub fn granted(&self) -> Result<Rc<Index>, Failure> {
        let state = self.state.borrow();
        let cache = state.history.cache().ok_or_else(initializing)?;
        let version = index::version(cache);
        let mut kept = self.auth.index.borrow_mut();
        match &*kept {
            Some((of, index)) if *of == version => Ok(Rc::clone(index)),
            _ => {
                let index = Rc::new(Index::new(cache));
                *kept = Some((version, Rc::clone(&index)));
                Ok(index)
            }
        }
    }

    /// As upstream's authorizers decide: whoever is a master, then what nodes may, then RBAC.
    pub fn decide(&self, user: &User, attributes: &Attributes) -> Result<Decision, Failure> {
        let allowed = || Ok(Decision { allowed: true, reason: String::new() });
        if user.is_in(MASTERS) {
            return allowed();
        }
        let of_node = {
            let state = self.state.borrow();
            node::decide(state.history.cache().ok_or_else(initializing)?, user, attributes)
        };
        let Err(of_node) = of_node else { return allowed() };
        let index = self.granted()?;
        let namespace = match &attributes.of {
            Of::Objects(objects) => objects.namespace.as_str(),
            Of::Path(_) => "",
        };
        let mut wrong = Vec::new();
        for grant in index.of(user, namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rules::allows(rule, attributes)) => {
                    let reason = format!("RBAC: allowed by {}", grant.described(user));
                    return Ok(Decision { allowed: true, reason });
                }
                Ok(_) => {}
                Err(why) if wrong.contains(why) => {}
                Err(why) => wrong.push(why.clone()),
            }
        }
        let of_rules = match &wrong[..] {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            all => format!("RBAC: [{}]", all.join(", ")),
        };
        // `pkg/authorization/union` of apiserver.
        let reasons: Vec<String> =
            [of_node, of_rules].into_iter().filter(|reason| !reason.is_empty()).collect();
        let reason = reasons.join("\n");
        Ok(Decision { allowed: false, reason })
    }

    /// The refusal, if a user may not.
    pub fn admit(&self, user: &User, attributes: &Attributes) -> Result<(), Failure> {
        let decision = self.decide(user, attributes)?;
        if decision.allowed { Ok(()) } else { Err(forbidden(user, attributes, &decision.reason)) }
    }
}

/// apiserver `pkg/endpoints/handlers/responsewriters/errors.go`, apimachinery's `NewForbidden`.
pub fn forbidden(user: &User, attributes: &Attributes, reason: &str) -> Failure {
    let (name, verb) = (&user.name, &attributes.verb);
    let mut why = format!("User {name:?} cannot {verb} ");
    let (subject, details) = match &attributes.of {
        Of::Path(path) => {
            why += &format!("path {path:?}");
            (String::new(), json!({}))
        }
        Of::Objects(objects) => {
            let (resource, group) = (objects.combined(), &objects.group);
            why += &format!("resource {resource:?} in API group {group:?}");
            why += &match objects.namespace.as_str() {
                "" => " at the cluster scope".to_owned(),
                namespace => format!(" in the namespace {namespace:?}"),
            };
            about(objects)
        }
    };
    // Nothing in it is to look like HTML.
    let why = why.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let colon = if reason.is_empty() { "" } else { ": " };
    let message = match subject.as_str() {
        "" => format!("forbidden: {why}{colon}{reason}"),
        subject => format!("{subject} is forbidden: {why}{colon}{reason}"),
    };
    Failure { details: Some(details), ..Failure::new(403, "Forbidden", message) }
}

/// How refused objects are called, `pods "a"`, and the details of the refusal.
fn about(objects: &Objects) -> (String, Value) {
    let mut subject = objects.resource.clone();
    let mut details = json!({"kind": objects.resource});
    if !objects.group.is_empty() {
        subject += &format!(".{}", objects.group);
        details["group"] = objects.group.as_str().into();
    }
    if !objects.name.is_empty() {
        subject += &format!(" {:?}", objects.name);
        details["name"] = objects.name.as_str().into();
    }
    (subject, details)
}
