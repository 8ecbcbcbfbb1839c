//! Who asks: the subject of the certificate that the connection was made with. As upstream's
//! `--client-ca-file` has it, the common name is the user, organisations are groups.

use super::status::Failure;
use x509_parser::prelude::{FromDer, X509Certificate};

/// May do everything.
pub const MASTERS: &str = "system:masters";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// Of a certificate whose chain was verified.
    pub fn of(certificate: &[u8]) -> Option<User> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        Some(User { name, groups: groups.map(str::to_owned).collect() })
    }
}

/// Whether who asks may; until there is RBAC, that are the masters.
pub fn admit(user: Option<&User>, path: &str) -> Result<(), Failure> {
    let Some(user) = user else {
        return Err(Failure::new(401, "Unauthorized", "Unauthorized"));
    };
    if user.groups.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    let message = format!(
        "forbidden: User {:?} cannot get path {path:?}: this server lets in the group {MASTERS} \
         only",
        user.name
    );
    Err(Failure::new(403, "Forbidden", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_masters_are_let_in() {
        let user = |group: &str| User { name: "a".to_owned(), groups: vec![group.to_owned()] };
        assert_eq!(admit(Some(&user(MASTERS)), "/api"), Ok(()));
        assert_eq!(admit(Some(&user("system:nodes")), "/api").expect_err("refused").code, 403);
        assert_eq!(admit(None, "/api").expect_err("refused").code, 401);
        assert_eq!(User::of(b"no certificate"), None);
    }
}
