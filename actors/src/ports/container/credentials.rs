//! With what a registry is asked for an image.

use smol_str::SmolStr;
use std::fmt;

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub username: SmolStr,
    pub password: SmolStr,
}

/// Nobody prints a password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the password of {:?}", self.username)
    }
}
