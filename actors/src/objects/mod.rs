//! The objects the components speak of: Kubernetes' own types, held in shared parts.
//!
//! A 4.6 KB pod is 35 KB of heap as one k8s-openapi value. Here metadata, spec and status sit
//! behind an `Arc` each, so a ReplicaSet's pods share one spec and a status write copies a status.

mod bytes;
pub mod definition;
mod digest;
pub mod ephemeral;
mod json;
mod key;
pub mod kinds;
mod managed;
pub mod names;
mod object;
mod pod;
pub mod pod_resources;
pub mod pod_spec;
pub mod quantity;
pub mod schedule;
pub mod schema;
mod strict;
mod subnet;
mod time;
pub mod validation;

pub use definition::{Definition, Definitions};
pub use digest::digest_of;
pub use json::ParseError;
pub use key::{Key, Name, Uid};
pub use kinds::Kind;
pub use managed::Managed;
pub use object::{Body, Object, Plain};
pub use pod::{MIRROR, Phase, PodBody, PodFacts};
pub use strict::{Path, Step, UnknownField, retyped, typed};
pub use subnet::{Subnet, SubnetSpec, SubnetStatus};
pub use time::{micro_time, time, wall};

pub use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
};
pub use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
pub use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, NamespaceSpec, NamespaceStatus, Node, NodeSpec, NodeStatus, Pod,
    PodSpec, PodStatus, Service, ServiceSpec, ServiceStatus,
};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference,
};

use kubesim_runtime::Snapshot;
use std::sync::Arc;

/// All objects of one kind (or those a selector chose) at one version.
pub type View = Snapshot<Key, Arc<Object>>;
