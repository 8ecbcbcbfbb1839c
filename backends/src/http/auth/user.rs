//! Who asks.

use kubesim_runtime::Wall;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use x509_parser::prelude::{FromDer, X509Certificate};

/// May do everything.
pub const MASTERS: &str = "system:masters";
pub const ANONYMOUS: &str = "system:anonymous";
/// Everybody is in one of these two groups.
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
const ACCOUNT: &str = "system:serviceaccount:";
const ACCOUNTS: &str = "system:serviceaccounts";
/// What somebody was known by.
pub const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Empty if who vouches for them gives none.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Of a certificate whose chain was verified: as upstream's `--client-ca-file` has it, the
    /// common name is the user, organisations are groups (apiserver
    /// `pkg/authentication/request/x509/x509.go`).
    pub fn of(certificate: &[u8]) -> Option<User> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let subject = read.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        let groups = groups.map(str::to_owned).collect();
        let mut print = "X509SHA256=".to_owned();
        for byte in Sha256::digest(certificate) {
            let _ = write!(print, "{byte:02x}");
        }
        let extra = BTreeMap::from([(CREDENTIAL.to_owned(), vec![print])]);
        Some(User { name, groups, extra, ..User::default() })
    }

    /// Until when a certificate is good.
    pub fn until(certificate: &[u8]) -> Option<Wall> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        Some(Wall::from_unix_secs(read.validity().not_after.timestamp()))
    }

    pub fn anonymous() -> User {
        let (name, groups) = (ANONYMOUS.to_owned(), vec![UNAUTHENTICATED.to_owned()]);
        User { name, groups, ..User::default() }
    }

    /// Who was recognised is one of all who were.
    pub fn recognised(mut self) -> User {
        let known = [AUTHENTICATED, UNAUTHENTICATED];
        if !self.groups.iter().any(|group| known.contains(&group.as_str())) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// `authentication.k8s.io/v1.UserInfo`.
    pub fn info(&self) -> Value {
        let mut info = Map::new();
        for (field, text) in [("username", &self.name), ("uid", &self.uid)] {
            if !text.is_empty() {
                info.insert(field.to_owned(), text.as_str().into());
            }
        }
        if !self.groups.is_empty() {
            info.insert("groups".to_owned(), json!(self.groups));
        }
        if !self.extra.is_empty() {
            info.insert("extra".to_owned(), json!(self.extra));
        }
        Value::Object(info)
    }
}

/// How a service account is called as a user.
pub fn account_name(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT}{namespace}:{name}")
}

/// The namespace and the name of a user that is a service account.
pub fn account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups that every service account of a namespace is in.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec![ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_recognised_or_not() {
        let jane = User { name: "jane".to_owned(), ..User::default() }.recognised();
        assert!(jane.is_in(AUTHENTICATED));
        assert_eq!(jane.clone().recognised(), jane);
        assert_eq!(User::anonymous().recognised(), User::anonymous());
        assert_eq!(User::of(b"no certificate"), None);
    }

    #[test]
    fn accounts_are_users_by_their_names() {
        assert_eq!(account_of(&account_name("a", "b")), Some(("a", "b")));
        for other in ["jane", "system:serviceaccount:a", "system:serviceaccount::b"] {
            assert_eq!(account_of(other), None, "{other}");
        }
    }
}
