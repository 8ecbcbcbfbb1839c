//! This program as CNI plugins (containernetworking/cni, SPEC.md, versions 0.3.0 to 1.0.0): the
//! container runtime runs it for each pod, with parameters in the environment and a configuration
//! on its input, and reads JSON from its output. Which plugin it is, its file's name says.
//!
//! - `call`: what the runtime asks
//! - `failure`: why it is refused
//! - `bridge`: a pod is plugged into the node's bridge
//! - `loopback`: containerd has a pod's loopback set up by a plugin of that name

mod bridge;
mod call;
mod failure;
mod loopback;

use self::call::{Call, Request};
use self::failure::Failure;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

/// What forms of messages are understood. `loopback` is asked for in 0.3.1 by containerd
/// (WithLoNetwork, opts.go of containerd/go-cni).
pub const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];
/// The sandbox's annotation by which the kubelet says what network a pod has: a [`PodNetwork`].
pub const POD_NETWORK: &str = "kubesim/pod-network";
/// By which capability containerd hands annotations on (docs/cri/config.md of containerd, and
/// cniNamespaceOpts in its pkg/cri/server/sandbox_run.go).
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Which address the kubelet gives a pod, and how it is plugged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    pub bridge: String,
    pub address: Ipv4Net,
    pub gateway: Ipv4Addr,
    /// Bytes.
    pub mtu: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    Bridge,
    Loopback,
}

impl Plugin {
    pub const ALL: [Plugin; 2] = [Plugin::Bridge, Plugin::Loopback];

    /// The file's name, which is the `type` in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Plugin::Bridge => "kubesim-cni",
            Plugin::Loopback => "loopback",
        }
    }

    /// By the path under which a program was started.
    pub fn of(program: &OsStr) -> Option<Plugin> {
        let name = Path::new(program).file_name()?;
        Plugin::ALL.into_iter().find(|plugin| name == plugin.name())
    }

    /// Does what the runtime asks, in the calling thread's network namespace. `variable` reads the
    /// environment; one that is not there is empty. What to print: after `Err` the exit status is
    /// not 0.
    pub fn run(
        self,
        variable: impl Fn(&str) -> String,
        input: &mut dyn Read,
    ) -> Result<String, String> {
        let asked = Request::read(variable, input);
        let asked = asked.map_err(|(version, failure)| failure.text(&version))?;
        let Request { version, call } = asked;
        let done = self.answer(call).map_err(|failure| failure.text(&version))?;
        Ok(done.map_or_else(String::new, |mut answer| {
            answer["cniVersion"] = Value::from(version);
            answer.to_string()
        }))
    }

    fn answer(self, call: Call) -> Result<Option<Value>, Failure> {
        match (self, call) {
            (_, Call::Version) => Ok(Some(json!({ "supportedVersions": VERSIONS }))),
            (Plugin::Bridge, Call::Add(at)) => bridge::add(&at).map(Some),
            (Plugin::Bridge, Call::Check(at)) => bridge::check(&at).map(|()| None),
            (Plugin::Bridge, Call::Del(at)) => bridge::del(&at).map(|()| None),
            (Plugin::Loopback, Call::Add(at)) => loopback::add(&at).map(Some),
            (Plugin::Loopback, Call::Check(at)) => loopback::check(&at).map(|()| None),
            (Plugin::Loopback, Call::Del(at)) => {
                loopback::del(&at);
                Ok(None)
            }
        }
    }
}

/// How a runtime is told to use the plugin: a file in its folder of networks (`conf_dir`).
pub fn network_list() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "kubesim",
        "plugins": [{ "type": Plugin::Bridge.name(), "capabilities": { ANNOTATIONS: true } }],
    })
}
