//! The scenario language: a TOML file in, plain data out, or messages that say where and why not.
//!
//! The reference is `docs/scenario-language.md`. [`Scenario::load`] reads files,
//! [`Scenario::parse`] is pure: overrides are laid over the tree of the file ([`set`]), then every
//! part is read by typed getters that know where each value stands ([`fields`]); profiles and a
//! `[lab]` that nobody asked for are tried as well ([`variants`]).

mod diagnostic;
mod fields;
mod keys;
mod load;
mod manifest;
mod model;
mod places;
mod read;
mod set;
mod tree;
mod value;
mod variants;

pub use diagnostic::{Diagnostic, Diagnostics, suggest};
pub use keys::{Key, SECTIONS, Section};
pub use load::Stage;
pub use model::*;
pub use read::Files;
pub use value::parse_duration;
