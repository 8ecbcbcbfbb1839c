//! Models of the ports that are neither the kernel nor the wire: a node's files and its container
//! runtime. Pure bookkeeping: a model says what has to happen, the world makes it happen.

pub mod files;
pub use kubesim_actors::containers as runtime;
