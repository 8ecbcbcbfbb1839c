//! The store port: in memory, in a directory of this machine, and in etcd. `tests/port_store` runs
//! one body on all three, and random histories on which they must agree.

pub mod embedded;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod memory;
mod watching;

/// What paths in a store begin with, as upstream's `--etcd-prefix`.
pub const ROOT: &str = "/registry";
