//! Profiles: the documented behaviour of the tools whose users were hurt, under the contracts of
//! our own actors, so that a scenario can be shown to be red where it was red in the field.
//!
//! Written from documentation and public reports only.

pub mod flannel;
pub mod kube_dns;
