use super::kinds::Fields;
use super::*;
use serde_json::Value;
use std::fmt;

/// One object, in shared parts. Cloning costs a few pointers.
///
/// `meta` never holds the name, namespace, uid or resource version: they stand here, so that a
/// status write shares its metadata with the version before. Everything else of metadata is there.
///
/// Equality is identity: the same uid at the same version.
#[derive(Clone)]
pub struct Object {
    pub key: Key,
    /// [`Uid::NONE`] until the API has stored it.
    pub uid: Uid,
    /// The resource version: the store revision of the last write; 0 until stored.
    pub version: u64,
    /// But for `managed_fields`, which is never here.
    pub meta: Arc<ObjectMeta>,
    pub managed: Managed,
    pub body: Body,
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid && self.version == other.version && self.key == other.key
    }
}
impl Eq for Object {}

/// What an object says beyond its metadata. Kinds without spec and status are held whole, with
/// empty metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Namespace { spec: Arc<NamespaceSpec>, status: Arc<NamespaceStatus> },
    Node { spec: Arc<NodeSpec>, status: Arc<NodeStatus> },
    Pod(PodBody),
    Service { spec: Arc<ServiceSpec>, status: Arc<ServiceStatus> },
    ConfigMap(Arc<ConfigMap>),
    Event(Arc<Event>),
    Deployment { spec: Arc<DeploymentSpec>, status: Arc<DeploymentStatus> },
    ReplicaSet { spec: Arc<ReplicaSetSpec>, status: Arc<ReplicaSetStatus> },
    EndpointSlice(Arc<EndpointSlice>),
    Lease { spec: Arc<LeaseSpec> },
    Subnet { spec: Arc<SubnetSpec>, status: Arc<SubnetStatus> },
    Plain(Plain),
}

/// What an object of a kind says that no component works with: its fields as they are in JSON,
/// checked and completed by the kind's rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain {
    pub kind: Kind,
    /// Without metadata and status.
    pub fields: Arc<Fields>,
    /// Null if there is none.
    pub status: Arc<Value>,
}

impl Body {
    pub fn kind(&self) -> Kind {
        match self {
            Body::Namespace { .. } => Kind::Namespace,
            Body::Node { .. } => Kind::Node,
            Body::Pod(_) => Kind::Pod,
            Body::Service { .. } => Kind::Service,
            Body::ConfigMap(_) => Kind::ConfigMap,
            Body::Event(_) => Kind::Event,
            Body::Deployment { .. } => Kind::Deployment,
            Body::ReplicaSet { .. } => Kind::ReplicaSet,
            Body::EndpointSlice(_) => Kind::EndpointSlice,
            Body::Lease { .. } => Kind::Lease,
            Body::Subnet { .. } => Kind::Subnet,
            Body::Plain(plain) => plain.kind,
        }
    }
}

macro_rules! parts {
    ($($accessor:ident, $variant:ident, $spec:ty, $status:ty;)*) => {
        impl Object {
            $(
                /// Spec and status, if the object is of this kind.
                pub fn $accessor(&self) -> Option<(&Arc<$spec>, &Arc<$status>)> {
                    match &self.body {
                        Body::$variant { spec, status } => Some((spec, status)),
                        _ => None,
                    }
                }
            )*
        }
    };
}

parts! {
    namespace, Namespace, NamespaceSpec, NamespaceStatus;
    node, Node, NodeSpec, NodeStatus;
    service, Service, ServiceSpec, ServiceStatus;
    deployment, Deployment, DeploymentSpec, DeploymentStatus;
    replica_set, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus;
    subnet, Subnet, SubnetSpec, SubnetStatus;
}

impl Object {
    /// A new object, not stored yet.
    pub fn new(key: Key, body: Body) -> Self {
        let (meta, managed) = (Arc::default(), Managed::default());
        Object { key, uid: Uid::NONE, version: 0, meta, managed, body }
    }
    pub fn with_meta(mut self, meta: ObjectMeta) -> Self {
        self.meta = Arc::new(meta);
        self
    }
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }
    /// Spec and status of a pod.
    pub fn pod(&self) -> Option<(&Arc<PodSpec>, &Arc<PodStatus>)> {
        self.pod_body().map(|pod| (pod.spec(), pod.status()))
    }
    pub fn pod_body(&self) -> Option<&PodBody> {
        match &self.body {
            Body::Pod(pod) => Some(pod),
            _ => None,
        }
    }
    /// What is asked of a pod most, at hand.
    pub fn pod_facts(&self) -> Option<&PodFacts> {
        self.pod_body().map(PodBody::facts)
    }
    pub fn endpoint_slice(&self) -> Option<&Arc<EndpointSlice>> {
        match &self.body {
            Body::EndpointSlice(slice) => Some(slice),
            _ => None,
        }
    }
    pub fn lease(&self) -> Option<&Arc<LeaseSpec>> {
        match &self.body {
            Body::Lease { spec } => Some(spec),
            _ => None,
        }
    }
    pub fn config_map(&self) -> Option<&Arc<ConfigMap>> {
        match &self.body {
            Body::ConfigMap(map) => Some(map),
            _ => None,
        }
    }
    pub fn event(&self) -> Option<&Arc<Event>> {
        match &self.body {
            Body::Event(event) => Some(event),
            _ => None,
        }
    }
    /// Of a kind without types of its own.
    pub fn plain(&self) -> Option<&Plain> {
        match &self.body {
            Body::Plain(plain) => Some(plain),
            _ => None,
        }
    }
    pub fn label(&self, name: &str) -> Option<&str> {
        self.meta.labels.as_ref()?.get(name).map(String::as_str)
    }
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.meta.annotations.as_ref()?.get(name).map(String::as_str)
    }
    /// Being deleted: a deletion timestamp is set.
    pub fn deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }
    /// The uid of the owner that controls it.
    pub fn controller(&self) -> Option<(&OwnerReference, Uid)> {
        let owners = self.meta.owner_references.as_ref()?;
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        Some((owner, Uid::parse(&owner.uid)?))
    }
    /// A reference by which another object names this one as the owner that controls it.
    pub fn as_controller(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.kind().api_version().to_owned(),
            kind: self.kind().name().to_owned(),
            name: self.key.name.to_string(),
            uid: self.uid.to_string(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} @{}", self.kind(), self.key, self.version)
    }
}
