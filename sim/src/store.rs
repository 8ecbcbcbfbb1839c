//! The modelled store: the one in memory, with etcd's semantics. The world decides how long a
//! request and its answer travel and whether one of them is lost; see there what a crash leaves.

pub use kubesim_actors::apiserver::memory_store::Store;
