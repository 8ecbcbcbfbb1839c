//! What the kubelet hears of its machine: files and addresses.

use super::{Kubelet, ipam};
use crate::ports::network;
use kubesim_runtime::Context;
use smol_str::SmolStr;
use std::sync::Arc;

impl Kubelet {
    pub(super) fn on_file(
        &mut self,
        path: &SmolStr,
        content: Option<Arc<str>>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        if *path == self.local.config.subnet_env {
            let subnet = content.as_deref().and_then(ipam::PodSubnet::parse);
            if subnet != self.local.subnet {
                self.local.subnet = subnet;
                self.sync_node(ctx);
                self.sync_all(ctx);
            }
        } else if *path == self.local.config.resolv_conf {
            self.local.resolv_conf = content.unwrap_or_default();
        } else if path.starts_with(self.local.config.manifests.as_str())
            && *path != self.local.config.manifests
        {
            self.on_manifest(path, content.as_deref(), ctx);
        }
    }

    pub(super) fn on_network(&mut self, state: &network::State, ctx: &mut Context<'_, Kubelet>) {
        let interface = &self.local.config.interface;
        let link = state.links.iter().find(|link| link.name == *interface);
        let Some(address) = link.and_then(|link| link.addresses.first()) else {
            return;
        };
        if self.local.address != Some(address.addr()) {
            self.local.address = Some(address.addr());
            self.sync_node(ctx);
            self.sync_all(ctx);
        }
    }
}
