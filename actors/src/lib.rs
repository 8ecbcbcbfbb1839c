//! The components of a cluster as sans-IO actors.
//!
//! An actor decides and never does: what it may ask is its `Effect`, what can happen to it its
//! `Event`. Nothing in this crate reads a clock, starts a thread, does I/O or iterates in hash
//! order; `clippy.toml` beside the manifest and `tests/rooms.rs` hold that line.
//!
//! Every component's folder has one shape: `mod.rs` (Config, Event, Effect, Timer and the Actor
//! impl: read this first), then a file per decision, then its tests.

#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::iter_over_hash_type)]
// Golden files are read from disk.
#![cfg_attr(test, allow(clippy::disallowed_types, clippy::disallowed_methods))]

pub mod advertiser;
pub mod apiserver;
pub mod containers;
pub mod controllers;
pub mod dns;
pub mod elector;
pub mod kubelet;
pub mod netd;
pub mod objects;
pub mod ports;
pub mod proxy;
pub mod recorder;
pub mod scheduler;
pub mod storage;
