//! Messages about images.

use super::{Int64Value, PodSandboxConfig};

#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageSpec {
    #[prost(string, tag = "1")]
    pub image: String,
    /// As the pod's spec has it, where `image` is an id.
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageStatusRequest {
    #[prost(message, tag = "1")]
    pub image: Option<ImageSpec>,
}

/// Without an image if there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageStatusResponse {
    #[prost(message, tag = "1")]
    pub image: Option<Image>,
}

/// It runs as `uid` if that is given, else as `username` if that is, else as root.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub id: String,
    /// In bytes.
    #[prost(uint64, tag = "4")]
    pub size: u64,
    #[prost(message, tag = "5")]
    pub uid: Option<Int64Value>,
    #[prost(string, tag = "6")]
    pub username: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PullImageRequest {
    #[prost(message, tag = "1")]
    pub image: Option<ImageSpec>,
    #[prost(message, tag = "2")]
    pub auth: Option<AuthConfig>,
    #[prost(message, tag = "3")]
    pub sandbox_config: Option<PodSandboxConfig>,
}

/// How one asks a registry. It is never printed.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct AuthConfig {
    #[prost(string, tag = "1")]
    pub username: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthConfig")
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PullImageResponse {
    #[prost(string, tag = "1")]
    pub image_ref: String,
}
