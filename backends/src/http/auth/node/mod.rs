//! Nodes: what a kubelet may do is what it needs for the pods that are bound to its node
//! (kubernetes `plugin/pkg/auth/authorizer/node/node_authorizer.go`).
//!
//! - `related`: which objects a node's pods refer to
//! - `restriction`: what it may write

mod related;
mod restriction;

pub use restriction::{Change, is_others};

use self::related::related;
use super::attributes::{Attributes, Objects, Of};
use super::policy;
use super::rules;
use super::user::User;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::Kind;

const GROUP: &str = "system:nodes";
const USER: &str = "system:node:";
/// The group of those who keep the nodes' networks, and what their names begin with: the user
/// `system:kubesim-netd:n1` keeps the Subnet of the node n1.
const NETD: &str = "system:kubesim-netd";
/// The group of those who are that and a node's proxy and DNS in one, by the same names.
const NODE_NETWORK: &str = "system:kubesim-node-network";
/// The role whose rules hold for what is not looked at more closely.
const ROLE: &str = "system:node";
const LEASES: &str = "kube-node-lease";

/// Which node a user is (`pkg/auth/nodeidentifier/default.go`).
pub fn of(user: &User) -> Option<&str> {
    user.name.strip_prefix(USER).filter(|_| user.is_in(GROUP))
}

/// Whether a user may answer for a node: it may for itself alone, whatever its roles say.
pub fn serves(user: &User, node: &str) -> Result<(), String> {
    match of(user) {
        Some(own) if own == node && !node.is_empty() => Ok(()),
        Some(own) => Err(format!("node '{own}' cannot serve '{node}', only itself")),
        None => Err("only a node serves itself".to_owned()),
    }
}

/// Whose netd a user is: ours, beside the kubelet, and as little to be trusted with other nodes.
fn netd_of(user: &User) -> Option<&str> {
    let named = user.name.strip_prefix(NETD).and_then(|rest| rest.strip_prefix(':'));
    let is_one = user.is_in(NETD) || user.is_in(NODE_NETWORK);
    is_one.then(|| named.unwrap_or_default())
}

/// Whether a node may, or why it may not; a role may let it all the same.
pub fn decide(cache: &Cache, user: &User, attributes: &Attributes) -> Result<(), String> {
    let Some(node) = of(user) else { return Err(String::new()) };
    if node.is_empty() {
        return Err(format!("unknown node for user {:?}", user.name));
    }
    let Of::Objects(objects) = &attributes.of else { return by_rules(attributes) };
    let node = Node { cache, name: node, verb: &attributes.verb, objects };
    match (objects.group.as_str(), objects.resource.as_str()) {
        ("", "secrets") => node.read(Kind::Secret),
        ("", "configmaps") => node.read(Kind::ConfigMap),
        ("", "persistentvolumeclaims") if objects.subresource == "status" => {
            node.only(&["update", "patch"], "can only get/update/patch this type")?;
            node.related(Kind::PersistentVolumeClaim)
        }
        ("", "persistentvolumeclaims") => node.get(Kind::PersistentVolumeClaim),
        ("", "persistentvolumes") => node.get(Kind::PersistentVolume),
        ("storage.k8s.io", "volumeattachments") => node.get(Kind::VolumeAttachment),
        ("", "serviceaccounts") => node.token(),
        ("coordination.k8s.io", "leases") => node.lease(),
        ("storage.k8s.io", "csinodes") => node.csi_node(),
        ("", "nodes") => node.node(),
        ("", "pods") => node.pod(),
        _ => by_rules(attributes),
    }
}

fn by_rules(attributes: &Attributes) -> Result<(), String> {
    let allows = policy::rules_of(ROLE).iter().any(|rule| rules::allows(rule, attributes));
    if allows { Ok(()) } else { Err(String::new()) }
}

/// What a node asks for.
struct Node<'a> {
    cache: &'a Cache,
    name: &'a str,
    verb: &'a str,
    objects: &'a Objects,
}

impl Node<'_> {
    fn only(&self, verbs: &[&str], why: &str) -> Result<(), String> {
        if verbs.contains(&self.verb) { Ok(()) } else { Err(why.to_owned()) }
    }

    fn without_sub(&self, why: &str) -> Result<(), String> {
        if self.objects.subresource.is_empty() { Ok(()) } else { Err(why.to_owned()) }
    }

    fn get(&self, kind: Kind) -> Result<(), String> {
        self.only(&["get"], "can only get individual resources of this type")?;
        self.without_sub("cannot get subresource")?;
        self.related(kind)
    }

    fn read(&self, kind: Kind) -> Result<(), String> {
        self.only(&["get", "list", "watch"], "can only read resources of this type")?;
        self.without_sub("cannot read subresource")?;
        if self.objects.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        self.related(kind)
    }

    fn related(&self, kind: Kind) -> Result<(), String> {
        let Objects { namespace, name, .. } = self.objects;
        if name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        if related(self.cache, self.name, kind, namespace, name) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{}' and this object", self.name))
    }

    fn token(&self) -> Result<(), String> {
        if self.verb != "create" || self.objects.name.is_empty() {
            return Err("can only create tokens for individual service accounts".to_owned());
        }
        if self.objects.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".to_owned());
        }
        self.related(Kind::ServiceAccount)
    }

    /// One that is being made has no name here: its restriction looks at it.
    fn own(&self, why: &str) -> Result<(), String> {
        let own = self.verb == "create" || self.objects.name == self.name;
        if own { Ok(()) } else { Err(why.to_owned()) }
    }

    fn lease(&self) -> Result<(), String> {
        let why = "can only get, create, update, patch, or delete a node lease";
        self.only(&["get", "create", "update", "patch", "delete"], why)?;
        if self.objects.namespace != LEASES {
            return Err(format!("can only access leases in the {LEASES:?} system namespace"));
        }
        self.own("can only access node lease with the same name as the requesting node")
    }

    fn csi_node(&self) -> Result<(), String> {
        let why = "can only get, create, update, patch, or delete a CSINode";
        self.only(&["get", "create", "update", "patch", "delete"], why)?;
        self.without_sub("cannot authorize CSINode subresources")?;
        self.own("can only access CSINode with the same name as the requesting node")
    }

    /// Whose node is written, its restriction looks at (KEP-4601 for what it reads).
    fn node(&self) -> Result<(), String> {
        let (node, name) = (self.name, &self.objects.name);
        match (self.objects.subresource.as_str(), self.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") if name == node => Ok(()),
            ("", "get" | "list" | "watch") if name.is_empty() => {
                Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            ("", "get" | "list" | "watch") => {
                Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
            }
            _ => Err(String::new()),
        }
    }

    fn pod(&self) -> Result<(), String> {
        match (self.objects.subresource.as_str(), self.verb) {
            ("", "get") => self.related(Kind::Pod),
            ("", "list" | "watch") => {
                if self.objects.selects("spec.nodeName", self.name) {
                    return Ok(());
                }
                if !self.objects.name.is_empty() {
                    return self.related(Kind::Pod);
                }
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => Err(String::new()),
        }
    }
}
