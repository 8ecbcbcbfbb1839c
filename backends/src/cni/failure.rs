//! Why something is refused, as the specification has it (SPEC.md, "Error").

use serde_json::json;

/// Numbers below 100 are the specification's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion = 1,
    /// Of the environment; the message names the variables.
    InvalidVariables = 4,
    Io = 5,
    Undecodable = 6,
    InvalidConfiguration = 7,
    /// It should clear up.
    TryAgain = 11,
    /// The kernel refused something.
    Refused = 100,
    /// A pod's network is not as it was made.
    Damaged = 101,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// For the runtime, in the version that it speaks.
    pub fn text(&self, version: &str) -> String {
        let Failure { code, message } = self;
        json!({ "cniVersion": version, "code": *code as u32, "msg": message }).to_string()
    }
}
