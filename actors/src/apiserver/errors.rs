//! Failures in upstream's words (apimachinery `pkg/api/errors`, `pkg/util/validation/field`).

use crate::objects::validation::Causes;
use crate::objects::{Kind, Uid};
use crate::ports::api::{Error, Reason};
use std::fmt;

/// The group and resource as errors name it: `pods`, `deployments.apps`.
struct Resource(Kind);

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.group() {
            "" => f.write_str(self.0.plural()),
            group => write!(f, "{}.{group}", self.0.plural()),
        }
    }
}

pub(super) fn not_found(kind: Kind, name: &str) -> Error {
    Error::new(Reason::NotFound, format!("{} {name:?} not found", Resource(kind)))
}

pub(super) fn already_exists(kind: Kind, name: &str) -> Error {
    Error::new(Reason::AlreadyExists, format!("{} {name:?} already exists", Resource(kind)))
}

pub(super) fn conflict(kind: Kind, name: &str, why: impl fmt::Display) -> Error {
    let text = format!("Operation cannot be fulfilled on {} {name:?}: {why}", Resource(kind));
    Error::new(Reason::Conflict, text)
}

pub(super) fn modified(kind: Kind, name: &str) -> Error {
    conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try \
         again",
    )
}

pub(super) fn other_uid(kind: Kind, name: &str, asked: Uid, stored: Uid) -> Error {
    conflict(
        kind,
        name,
        format_args!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {stored}"
        ),
    )
}

/// A deletion's `preconditions.resourceVersion` (apiserver's `rest.BeforeDelete`, which names the
/// kind where others name the resource).
pub(super) fn other_version(kind: Kind, name: &str, asked: u64, stored: u64) -> Error {
    let dot = if kind.group().is_empty() { "" } else { "." };
    let text = format!(
        "Operation cannot be fulfilled on {}{dot}{} {name:?}: the ResourceVersion in the \
         precondition ({asked}) does not match the ResourceVersion in record ({stored}). The \
         object might have been modified",
        kind.name(),
        kind.group()
    );
    Error::new(Reason::Conflict, text)
}

pub(super) fn forbidden(kind: Kind, name: &str, why: impl fmt::Display) -> Error {
    Error::new(Reason::Forbidden, format!("{} {name:?} is forbidden: {why}", Resource(kind)))
}

pub(super) fn bad_request(why: impl Into<String>) -> Error {
    Error::new(Reason::BadRequest, why)
}

pub(super) fn internal(why: impl fmt::Display) -> Error {
    Error::new(Reason::InternalError, format!("Internal error occurred: {why}"))
}

/// `Deployment.apps "a" is invalid: …`, if anything is.
pub(super) fn unless_valid(causes: Causes, kind: Kind, name: &str) -> Result<(), Error> {
    let causes = match &causes.into_list()[..] {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let group = kind.group();
    let dot = if group.is_empty() { "" } else { "." };
    let text = format!("{}{dot}{group} {name:?} is invalid: {causes}", kind.name());
    Err(Error::new(Reason::Invalid, text))
}
