//! The ports: what actors may ask of the world, and what it answers, as plain data.
//!
//! A port's requests and replies are values. A model in the simulator and a driver in production
//! stand behind the same port, and neither decides: each does what it is asked and reports.
//! Every reply names its subject, so a component needs no table of what it asked for.

pub mod api;
pub mod container;
pub mod files;
pub mod metrics;
pub mod network;
pub mod packets;
pub mod probe;
pub mod rules;
pub mod store;
pub mod volumes;
