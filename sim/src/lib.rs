//! The deterministic simulator: virtual time, a modelled kernel and wire, a model behind every
//! port, faults, oracles and the scenario language. One run is one thread and one seed.

pub mod body;
pub mod kernel;
pub mod report;
pub mod scenario;

pub use report::{Observer, Options, Outcome, Report};
