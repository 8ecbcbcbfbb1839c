//! The CRI's messages, with the fields that are used here. What others say besides is skipped, as
//! protobuf has it.
//!
//! Names and numbers are those of k8s.io/cri-api, pkg/apis/runtime/v1/api.proto; written down as
//! structs, so that no compiler of proto files is needed to build.

mod container;
mod image;
mod sandbox;
mod streaming;
mod usage;

pub use self::container::*;
pub use self::image::*;
pub use self::sandbox::*;
pub use self::streaming::*;
pub use self::usage::*;

use std::collections::BTreeMap;

/// Labels, annotations and selectors.
pub type Map = BTreeMap<String, String>;

/// A call: its name, and what answers it.
pub trait Call: prost::Message + Default + 'static {
    const METHOD: &'static str;
    type Answer: prost::Message + Default + 'static;
}

/// `method => request, answer` for each call of a service.
macro_rules! calls {
    ($service:literal: $($method:ident => $request:ty, $answer:ty;)*) => {
        $(impl Call for $request {
            const METHOD: &'static str =
                concat!("/runtime.v1.", $service, "/", stringify!($method));
            type Answer = $answer;
        })*
    };
}

calls! { "RuntimeService":
    Status => StatusRequest, StatusResponse;
    RunPodSandbox => RunPodSandboxRequest, RunPodSandboxResponse;
    StopPodSandbox => StopPodSandboxRequest, Nothing;
    RemovePodSandbox => RemovePodSandboxRequest, Nothing;
    PodSandboxStatus => PodSandboxStatusRequest, PodSandboxStatusResponse;
    ListPodSandbox => ListPodSandboxRequest, ListPodSandboxResponse;
    CreateContainer => CreateContainerRequest, CreateContainerResponse;
    StartContainer => StartContainerRequest, Nothing;
    StopContainer => StopContainerRequest, Nothing;
    RemoveContainer => RemoveContainerRequest, Nothing;
    ListContainers => ListContainersRequest, ListContainersResponse;
    ContainerStatus => ContainerStatusRequest, ContainerStatusResponse;
    ListContainerStats => ListContainerStatsRequest, ListContainerStatsResponse;
    ExecSync => ExecSyncRequest, ExecSyncResponse;
    Exec => ExecRequest, Url;
    Attach => AttachRequest, Url;
    PortForward => PortForwardRequest, Url;
}

calls! { "ImageService":
    ImageStatus => ImageStatusRequest, ImageStatusResponse;
    PullImage => PullImageRequest, PullImageResponse;
}

/// An answer without content.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusRequest {
    /// With what a runtime says of itself.
    #[prost(bool, tag = "1")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    #[prost(message, tag = "1")]
    pub status: Option<RuntimeStatus>,
    /// Each in words of the runtime's own.
    #[prost(btree_map = "string, string", tag = "2")]
    pub info: Map,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    pub conditions: Vec<RuntimeCondition>,
}

/// `RuntimeReady` and `NetworkReady` are required of every runtime.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeCondition {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub status: bool,
    #[prost(string, tag = "3")]
    pub reason: String,
    #[prost(string, tag = "4")]
    pub message: String,
}

/// A number that may be missing.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Int64Value {
    #[prost(int64, tag = "1")]
    pub value: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SecurityProfile {
    #[prost(enumeration = "ProfileType", tag = "1")]
    pub profile_type: i32,
    #[prost(string, tag = "2")]
    pub localhost_ref: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ProfileType {
    RuntimeDefault = 0,
    Unconfined = 1,
    Localhost = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespaceOption {
    #[prost(enumeration = "NamespaceMode", tag = "1")]
    pub network: i32,
    #[prost(enumeration = "NamespaceMode", tag = "2")]
    pub pid: i32,
    #[prost(enumeration = "NamespaceMode", tag = "3")]
    pub ipc: i32,
    /// The container of [`NamespaceMode::Target`].
    #[prost(string, tag = "4")]
    pub target_id: String,
}

/// Whose namespace: of all containers of the pod, of the container, of the machine, of another
/// container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    Pod = 0,
    Container = 1,
    Node = 2,
    Target = 3,
}
