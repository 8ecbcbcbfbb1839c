//! The deterministic simulator: virtual time, a modelled kernel and wire, a model behind every
//! port, faults, oracles and the scenario language. One run is one thread and one seed.

#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod backlog;
pub mod body;
pub mod dhcp;
pub mod judge;
pub mod kernel;
pub mod models;
pub mod oracles;
pub mod profiles;
pub mod queue;
pub mod report;
pub mod run;
pub mod scenario;
mod settled;
mod sorted;
pub mod store;
pub mod visits;
pub mod wire;
pub mod world;

pub use report::{Observer, Options, Outcome, Report};
pub use run::run;
