//! `kubectl --as`: a request that asks to be taken for somebody else's. For each thing that is
//! asked for, a user, a group, a uid, an extra value, who asks needs the verb `impersonate`
//! (apiserver `pkg/endpoints/filters/impersonation/impersonation.go`).

use super::attributes::{Attributes, Objects};
use super::user::{self, ANONYMOUS, UNAUTHENTICATED, User};
use crate::http::Inner;
use crate::http::status::Failure;
use hyper::header::HeaderMap;
use percent_encoding::percent_decode_str;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

impl Inner {
    /// Who is to be meant: who asks, if they ask for nobody else.
    pub fn impersonate(&self, asker: User, headers: &HeaderMap) -> Result<User, Failure> {
        let Some(wanted) = wanted(headers)? else { return Ok(asker) };
        let group = |name: &String| ("", "groups", String::new(), name.clone());
        let mut needs: Vec<(&str, &str, String, String)> =
            wanted.groups.iter().map(group).collect();
        let mut meant = wanted.clone();
        let mut namespace = String::new();
        match user::account_of(&wanted.name) {
            Some((of, name)) => {
                of.clone_into(&mut namespace);
                needs.insert(0, ("", "serviceaccounts", String::new(), name.to_owned()));
                if meant.groups.is_empty() {
                    meant.groups = user::account_groups(of);
                }
            }
            None => needs.insert(0, ("", "users", String::new(), wanted.name.clone())),
        }
        let theirs = "authentication.k8s.io";
        for (key, values) in &wanted.extra {
            let value = |value: &String| (theirs, "userextras", key.clone(), value.clone());
            needs.extend(values.iter().map(value));
        }
        if !wanted.uid.is_empty() {
            needs.push((theirs, "uids", String::new(), wanted.uid.clone()));
        }
        for (group, resource, subresource, name) in needs {
            let namespace =
                if resource == "serviceaccounts" { namespace.clone() } else { String::new() };
            let (group, resource) = (group.to_owned(), resource.to_owned());
            let objects =
                Objects { group, resource, subresource, namespace, name, ..Objects::default() };
            self.admit(&asker, &Attributes::objects("impersonate", objects))?;
        }
        if meant.name != ANONYMOUS {
            return Ok(meant.recognised());
        }
        if !meant.is_in(UNAUTHENTICATED) {
            meant.groups.push(UNAUTHENTICATED.to_owned());
        }
        Ok(meant)
    }
}

/// As the headers have it.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Failure> {
    let texts = |name: &str| {
        let values = headers.get_all(name).iter();
        let texts = values.filter_map(|value| value.to_str().ok()).map(str::to_owned);
        texts.collect::<Vec<_>>()
    };
    let one = |name: &str| texts(name).into_iter().next().unwrap_or_default();
    let mut wanted =
        User { name: one(USER), uid: one(UID), groups: texts(GROUP), ..User::default() };
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        wanted.extra.insert(key, texts(name.as_str()));
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == User::default() {
        return Ok(None);
    }
    Err(Failure::bad_request("requested a group, a uid or extra without impersonating a user"))
}
