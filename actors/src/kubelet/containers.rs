//! What a pod's containers are to be: those of its spec, and the ephemeral ones that were put there
//! since.

use super::container_state::{Ctr, Role};
use super::pod::Pod;
use super::supplies::Supplies;
use crate::objects::{Object, PodSpec, ephemeral};
use k8s_openapi::api::core::v1::Container;
use std::borrow::Cow;
use std::sync::Arc;

/// What a container is to be.
pub struct Wanted<'a> {
    pub container: Cow<'a, Container>,
    /// The container whose processes it is to see; empty: only its own.
    pub target: &'a str,
}

/// The specs in the order of [`Pod::containers`], but for ephemeral ones.
pub fn container_specs(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

impl Pod {
    /// Its object is another one.
    pub fn set_object(&mut self, object: Arc<Object>) {
        self.object = object;
        self.take_in_ephemerals();
    }

    /// The spec's may stand in any order; none goes away, and none changes.
    pub fn take_in_ephemerals(&mut self) {
        let Some((spec, _)) = self.object.pod() else { return };
        let before = self.containers.len();
        for one in spec.ephemeral_containers.iter().flatten() {
            if !self.containers.iter().any(|ctr| ctr.name == one.name) {
                self.containers.push(Ctr::new(&ephemeral::container(one), Role::Ephemeral));
            }
        }
        if self.containers.len() > before {
            Supplies::add(&mut self.supplies, spec, &self.object.key.namespace);
        }
    }

    /// The spec of a container, and of an ephemeral one the container that it looks at.
    pub fn wanted<'a>(&self, index: usize, spec: &'a PodSpec) -> Option<Wanted<'a>> {
        let ctr = self.containers.get(index)?;
        if ctr.role != Role::Ephemeral {
            let container = Cow::Borrowed(container_specs(spec).nth(index)?);
            return Some(Wanted { container, target: "" });
        }
        let mut all = spec.ephemeral_containers.iter().flatten();
        let one = all.find(|one| ctr.name == one.name)?;
        let target = one.target_container_name.as_deref().unwrap_or_default();
        Some(Wanted { container: Cow::Owned(ephemeral::container(one)), target })
    }
}
