//! The scenario language: a TOML file in, plain data out, or messages that say where and why not.

mod model;

pub use model::*;
