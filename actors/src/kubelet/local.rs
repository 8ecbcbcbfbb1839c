//! What all pods of a node share: its settings, address and subnet, the services, the address
//! pool, and the calls to the API that are under way.

use super::admit::Demand;
use super::discard::Discards;
use super::host_ports::HostPorts;
use super::ipam::{Ipam, PodSubnet};
use super::supplies::Objects;
use super::{Config, Effect, Kubelet};
use crate::objects::{Key, Kind, Object, Uid, View};
use crate::ports::api;
use crate::recorder::Recorder;
use kubesim_runtime::Context;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Local {
    pub config: Arc<Config>,
    /// The runtime has said what runs. Nothing is started before.
    pub listed: bool,
    /// Why the runtime does not answer, while it does not.
    pub down: Option<SmolStr>,
    /// Which Node is this one, once the API has it.
    pub node_uid: Option<Uid>,
    /// The interface's first address; the last one it had while it has none.
    pub address: Option<Ipv4Addr>,
    pub subnet: Option<PodSubnet>,
    /// The node's own resolv.conf.
    pub resolv_conf: Arc<str>,
    pub services: Option<View>,
    pub ipam: Ipam,
    pub host_ports: HostPorts,
    /// What the pods use of the API's ConfigMaps and Secrets.
    pub objects: Objects,
    /// Volumes that are to be removed.
    pub discards: Discards,
    /// What the admitted pods ask for.
    pub used: Demand,
    pub recorder: Recorder,
    calls: BTreeMap<u64, Call>,
    next_tag: u64,
}

/// What a call to the API is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Lease,
    Node,
    Status(Uid),
    Delete(Uid),
    /// The mirror of a static pod is being made.
    Mirror(Uid),
    /// It is being taken away.
    Unmirror(Uid),
    /// A mirror pod of no static pod of ours is being taken away.
    Stray,
    /// A ConfigMap, a Secret, a claim or its volume.
    Object(Kind, Key),
    /// Which of a pod's tokens.
    Token(Uid, usize),
}

impl Local {
    pub fn new(config: &Config) -> Self {
        Local {
            config: Arc::new(config.clone()),
            listed: false,
            down: None,
            node_uid: None,
            address: None,
            subnet: None,
            resolv_conf: Arc::from(""),
            services: None,
            ipam: Ipam::default(),
            host_ports: HostPorts::default(),
            objects: Objects::default(),
            discards: Discards::default(),
            used: Demand::default(),
            recorder: match config.events {
                true => Recorder::counting(&config.node),
                false => Recorder::default(),
            },
            calls: BTreeMap::new(),
            next_tag: 1,
        }
    }

    pub fn call(&mut self, call: Call, request: api::Request, ctx: &mut Context<'_, Kubelet>) {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.calls.insert(tag, call);
        ctx.perform(Effect::Api(api::Effect::Call { tag, request: Arc::new(request) }));
    }

    /// Takes a pod away at once, if it still is this one.
    pub fn delete_pod(&mut self, call: Call, pod: &Object, ctx: &mut Context<'_, Kubelet>) {
        let grace = Some(std::time::Duration::ZERO);
        let uid = Some(pod.uid);
        let options = api::DeleteOptions { uid, grace, ..api::DeleteOptions::default() };
        let (kind, key) = (pod.kind(), pod.key.clone());
        self.call(call, api::Request::Delete { kind, key, options }, ctx);
    }

    /// What the answer with this tag is about; each tag is answered once.
    pub fn answered(&mut self, tag: u64) -> Option<Call> {
        self.calls.remove(&tag)
    }
}

/// Whether a call may succeed if it is only made again.
pub fn is_transient(error: &api::Error) -> bool {
    use api::Reason::{InternalError, TooManyRequests, Unknown, Unreachable};
    matches!(error.reason, InternalError | TooManyRequests | Unknown | Unreachable)
}
