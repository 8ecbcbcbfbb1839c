//! What every world shares: the [`Actor`] trait and its [`Context`], [`Time`], random streams,
//! [`Snapshot`]s, digests, supervision and the trace. Nothing here knows a word of Kubernetes,
//! and nothing here does I/O, reads a clock or starts a thread (the production host, behind the
//! `host` feature, is the one exception).

mod account;
mod actor;
mod digest;
#[cfg(feature = "host")]
pub mod host;
mod lookup;
pub mod near;
mod rng;
mod snapshot;
mod supervise;
mod time;
pub mod trace;

pub use account::{Account, Look, Remark};
pub use actor::{Actor, Answers, Clocks, Context, Effect, Outbox, Ticket, TimerOp};
pub use digest::{Digest, Hasher};
pub use lookup::Lookup;
pub use rng::{Rng, Stream};
pub use snapshot::{Change, Snapshot};
pub use supervise::{Backoff, Loss};
pub use time::{Time, Wall};
