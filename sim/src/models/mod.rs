//! Models of the ports that are neither the kernel nor the wire: a node's files and volumes, its
//! container runtime, its DNS over TCP, tokens, and what pods use. Pure bookkeeping: a model says
//! what has to happen, the world makes it happen.

pub mod connections;
pub mod files;
pub mod tokens;
pub mod usage;
pub mod volumes;
pub use kubesim_actors::containers as runtime;
