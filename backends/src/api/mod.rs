//! The API port over real sockets, until HTTP comes: length-delimited frames of JSON over TCP,
//! objects as Kubernetes writes them.
//!
//! - `message`: what travels, and its bytes
//! - `client`: a node's one connection, shared by its actors; its model is
//!   `sim/src/world/api/client.rs`
//! - `server`: the front of the API server: reads, watches, and writes on to the actor; its model
//!   is `sim/src/world/api/front.rs`

mod client;
pub mod message;
mod server;

pub use client::Client;
pub use server::Server;

/// Where the API server listens.
pub const PORT: u16 = 6443;
