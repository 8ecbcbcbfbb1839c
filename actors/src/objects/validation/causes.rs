//! Errors of fields in upstream's words (apimachinery `pkg/util/validation/field`).

use std::fmt;

/// What is wrong with which fields of one object, in the order found.
#[derive(Debug, Default)]
pub struct Causes(Vec<String>);

impl Causes {
    /// What is told of a field, in words of its own.
    pub(in crate::objects) fn push(&mut self, field: impl fmt::Display, body: impl fmt::Display) {
        self.0.push(format!("{field}: {body}"));
    }
    /// One that names its field itself.
    pub(in crate::objects) fn push_whole(&mut self, cause: String) {
        self.0.push(cause);
    }
    pub fn required(&mut self, field: impl fmt::Display, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        self.0.push(format!("{field}: Required value{colon}{why}"));
    }
    /// The value as it is to be printed: strings quoted, structures as Go has them.
    pub fn invalid(
        &mut self,
        field: impl fmt::Display,
        value: impl fmt::Display,
        why: impl fmt::Display,
    ) {
        self.0.push(format!("{field}: Invalid value: {value}: {why}"));
    }
    pub fn forbidden(&mut self, field: impl fmt::Display, why: impl fmt::Display) {
        self.0.push(format!("{field}: Forbidden: {why}"));
    }
    /// Of something that may be this long, in bytes.
    pub fn too_long(&mut self, field: impl fmt::Display, longest: usize) {
        self.0.push(format!("{field}: Too long: may not be more than {longest} bytes"));
    }
    pub fn duplicate(&mut self, field: impl fmt::Display, value: impl fmt::Display) {
        self.0.push(format!("{field}: Duplicate value: {value}"));
    }
    pub fn not_found(&mut self, field: impl fmt::Display, value: &str) {
        self.0.push(format!("{field}: Not found: {value:?}"));
    }
    pub fn unsupported(&mut self, field: impl fmt::Display, value: &str, supported: &[&str]) {
        let list: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
        let list = list.join(", ");
        self.0.push(format!("{field}: Unsupported value: {value:?}: supported values: {list}"));
    }

    /// Adds those of `new` that `old` does not have.
    pub fn add_new(&mut self, new: Causes, old: &Causes) {
        self.0.extend(new.0.into_iter().filter(|cause| !old.0.contains(cause)));
    }

    /// Each with the path of its field, as they were found.
    pub fn into_list(self) -> Vec<String> {
        self.0
    }
}
