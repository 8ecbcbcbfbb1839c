//! What the machine's kernel should have: the bridge, the vxlan device, the routes under our tag
//! with their neighbours and FDB entries, forwarding, and the file that tells the kubelet.

use super::conf::{Backend, NetConf, VXLAN_OVERHEAD, WIREGUARD_OVERHEAD};
use super::plan::{self, LeftOut, Params, Plan};
use super::wireguard;
use super::{Effect, Netd};
use crate::ports::files;
use crate::ports::network::{
    Errno, IfName, Link, LinkKind, Mac, Proto, Reply, Request, RouteSet, State, Vxlan, Wireguard,
};
use ipnet::Ipv4Net;
use kubesim_runtime::Context;
use smallvec::SmallVec;
use smol_str::{SmolStr, format_smolstr};
use std::net::Ipv4Addr;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    /// `None` until the kernel was first observed.
    seen: Option<Seen>,
    /// Peers are known well enough to plan without the API.
    pub peers_known: bool,
    pub(super) plan: Option<Arc<Plan>>,
    bridge_asked: Option<(Ipv4Net, u32)>,
    vxlan_asked: Option<Vxlan>,
    wireguard_asked: Option<Wireguard>,
    /// The hash of the plan whose neighbours and FDB entries were set.
    overlay_set: Option<u64>,
    routes_set: Option<(u64, Option<Ipv4Net>)>,
    /// Routes under our tag there should be.
    routes_expected: usize,
    pub(super) refused: Vec<(Ipv4Net, Errno)>,
    /// Sysctls that were asked to be 1.
    sysctls_asked: SmallVec<[SmolStr; 4]>,
    /// subnet.env as the file system has it; `None` until told.
    env: Option<Option<Arc<str>>>,
    env_asked: Option<Arc<str>>,
    pub(super) left_out: Vec<LeftOut>,
    vxlan_idle: bool,
}

/// What of the kernel's state is ours to care for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    uplink: Option<LinkSeen>,
    bridge: Option<LinkSeen>,
    /// The vxlan or WireGuard device.
    overlay: Option<LinkSeen>,
    netd_routes: usize,
    ip_forward: bool,
    bridge_nf: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct LinkSeen {
    index: u32,
    kind: LinkKind,
    mtu: u32,
    up: bool,
    addresses: SmallVec<[Ipv4Net; 1]>,
    forwarding: bool,
    mac: Mac,
}

impl LinkSeen {
    fn of(link: &Link) -> LinkSeen {
        LinkSeen {
            index: link.index,
            kind: link.kind,
            mtu: link.mtu,
            up: link.up,
            addresses: link.addresses.iter().copied().collect(),
            forwarding: link.forwarding,
            // A bridge takes the lowest MAC of its ports: no news for us.
            mac: if link.kind == LinkKind::Bridge { Mac::default() } else { link.mac },
        }
    }
}

impl Kernel {
    /// Whether the overlay's device is as it was asked for.
    fn stands(&self, link: &LinkSeen) -> bool {
        let vxlan = self.vxlan_asked.as_ref();
        let wireguard = self.wireguard_asked.as_ref();
        link.up
            && vxlan.is_none_or(|asked| link.mtu == asked.mtu && link.mac == asked.mac)
            && wireguard.is_none_or(|asked| link.mtu == asked.mtu)
    }

    /// The locator there is: the uplink's first global address.
    pub fn address(&self) -> Option<Ipv4Net> {
        let uplink = self.seen.as_ref()?.uplink.as_ref()?;
        let global = |net: &&Ipv4Net| !net.addr().is_loopback() && !net.addr().is_link_local();
        uplink.addresses.iter().find(global).copied()
    }

    pub fn on_env(&mut self, content: Option<Arc<str>>) {
        self.env_asked = None;
        self.env = Some(content);
    }
}

/// The subnet's first address, which the bridge has: `10.244.1.1/24`.
pub fn gateway(subnet: Ipv4Net) -> Option<Ipv4Net> {
    let first = u32::from(subnet.network()).checked_add(1)?;
    Ipv4Net::new(Ipv4Addr::from(first), subnet.prefix_len()).ok()
}

impl Netd {
    pub(super) fn on_network(&mut self, reply: Reply, ctx: &mut Context<'_, Self>) {
        match reply {
            Reply::State(state) => self.on_state(&state, ctx),
            Reply::Done { subject, result } => {
                self.kernel.sysctls_asked.retain(|key| *key != subject);
                let Err(why) = result else { return };
                if Some(&subject) == self.conf.map(|conf| conf.overlay_name()).as_ref() {
                    self.kernel.overlay_set = None;
                }
                let lacks = why == Errno::Eopnotsupp
                    && matches!(
                        self.conf,
                        Some(NetConf { backend: Backend::Wireguard { .. }, .. })
                    );
                let advice = match lacks {
                    true => "; it has no WireGuard: load its module, or use another backend",
                    false => "",
                };
                ctx.note(|| format!("{subject}: the kernel refused ({why}){advice}"));
            }
            Reply::RoutesSet { refused, .. } => {
                if self.kernel.refused != refused {
                    for (net, why) in refused.iter().take(3) {
                        ctx.note(|| format!("route to {net}: the kernel refused it ({why})"));
                    }
                }
                self.kernel.refused = refused;
            }
            Reply::Sysctl { .. } => {}
        }
    }

    fn on_state(&mut self, state: &State, ctx: &mut Context<'_, Self>) {
        let overlay = self.conf.map(|conf| conf.overlay_name());
        let link = |name: &IfName| state.links.iter().find(|l| l.name == *name).map(LinkSeen::of);
        let seen = Seen {
            uplink: link(&self.config.interface),
            bridge: link(&self.config.bridge),
            overlay: overlay.as_ref().and_then(link),
            netd_routes: state.netd_routes,
            ip_forward: state.ip_forward,
            bridge_nf: state.bridge_nf,
        };
        let kernel = &mut self.kernel;
        let old = kernel.seen.replace(seen.clone()).unwrap_or_default();
        if old == seen && kernel.routes_set.is_some() {
            return;
        }
        let index = |link: &Option<LinkSeen>| link.as_ref().map(|l| (l.index, l.up));
        if index(&old.overlay) != index(&seen.overlay) {
            kernel.overlay_set = None;
        }
        // What somebody else changes is undone at once.
        let altered = old.overlay.as_ref().zip(seen.overlay.as_ref());
        let altered = altered.is_some_and(|(was, is)| kernel.stands(was) && !kernel.stands(is));
        if seen.overlay.is_none() || altered {
            kernel.vxlan_asked = None;
            kernel.wireguard_asked = None;
        }
        let addresses = |link: &Option<LinkSeen>| link.as_ref().map(|l| l.addresses.clone());
        // A flush that ends at the same number of routes shows as a change of a link only.
        let moved = addresses(&old.uplink) != addresses(&seen.uplink)
            || index(&old.uplink) != index(&seen.uplink)
            || index(&old.overlay) != index(&seen.overlay);
        let flushed = old.netd_routes != seen.netd_routes
            && seen.netd_routes + kernel.refused.len() != kernel.routes_expected;
        if moved || flushed {
            kernel.routes_set = None;
        }
        self.sync(ctx);
    }

    pub(super) fn sync_kernel(&mut self, ctx: &mut Context<'_, Self>) {
        let Some(seen) = self.kernel.seen.clone() else {
            return;
        };
        self.sync_bridge(&seen, ctx);
        self.sync_overlay_and_routes(&seen, ctx);
        self.sync_forwarding(&seen, ctx);
        self.sync_env(&seen, ctx);
    }

    fn wanted_bridge(&self, seen: &Seen) -> Option<(Ipv4Net, u32)> {
        let mtu = seen.uplink.as_ref()?.mtu;
        Some((gateway(self.lease.cidr?)?, self.conf?.pod_mtu(mtu)))
    }

    fn bridge_stands(seen: &Seen, (address, mtu): (Ipv4Net, u32)) -> bool {
        seen.bridge.as_ref().is_some_and(|link| {
            link.kind == LinkKind::Bridge
                && link.up
                && link.mtu == mtu
                && link.addresses.as_slice() == [address]
        })
    }

    fn sync_bridge(&mut self, seen: &Seen, ctx: &mut Context<'_, Self>) {
        let Some(wanted) = self.wanted_bridge(seen) else {
            return;
        };
        if Self::bridge_stands(seen, wanted) {
            self.kernel.bridge_asked = None;
        } else if self.kernel.bridge_asked != Some(wanted) {
            self.kernel.bridge_asked = Some(wanted);
            let (name, (address, mtu)) = (self.config.bridge.clone(), wanted);
            ctx.perform(Effect::Network(Request::EnsureBridge { name, address, mtu }));
        }
    }

    /// The plan for this machine now; `None` as long as peers or our own address are unknown, and
    /// then the kernel keeps what an earlier life set.
    fn current_plan(&self) -> Option<Arc<Plan>> {
        let conf = self.conf?;
        let params = Params {
            backend: conf.backend,
            onlink: self.kernel.address()?.trunc(),
            uplink: self.config.interface.clone(),
            overlay: conf.overlay_name(),
        };
        let own = self.lease.cidr;
        let told = &self.told.places;
        let Some(view) = &self.subnets else {
            if !self.kernel.peers_known {
                return None;
            }
            let own = own.map(|net| (&self.config.node, net));
            return Some(Arc::new(plan::compile(&self.remembered_peers(), told, &params, own)));
        };
        let shared = plan::shared(view, told, &params);
        let Some(own) = own else { return Some(shared) };
        let of_mine = |out: &LeftOut| match &out.why {
            plan::Why::Overlaps { subnet, .. } => {
                own.contains(subnet) || subnet.contains(&own) || own.contains(&out.subnet)
            }
            _ => false,
        };
        if !shared.left_out.iter().any(of_mine) {
            return Some(shared);
        }
        // Somebody's lease overlaps ours: what is on our bridge is ours, whoever leased later.
        let own = Some((&self.config.node, own));
        Some(Arc::new(plan::compile(&plan::peers_of(view), told, &params, own)))
    }

    fn sync_overlay_and_routes(&mut self, seen: &Seen, ctx: &mut Context<'_, Self>) {
        let Some(plan) = self.current_plan() else {
            return;
        };
        let Some(conf) = self.conf else { return };
        let wants_overlay = plan.needs_overlay() || conf.backend != Backend::HostGw;
        if wants_overlay {
            self.kernel.vxlan_idle = false;
            match conf.backend {
                Backend::Wireguard { port } => self.sync_wireguard(&conf, port, &plan, seen, ctx),
                _ => self.sync_vxlan(&conf, &plan, seen, ctx),
            }
        }
        let set = (plan.hash, self.lease.cidr);
        // The device is asked for once our own subnet is known: no route into it can stand before.
        let waits = plan.needs_overlay() && self.lease.cidr.is_none() && seen.overlay.is_none();
        if self.kernel.routes_set != Some(set) && !waits {
            self.kernel.routes_set = Some(set);
            let own = self.lease.cidr.filter(|own| plan.has_route_to(*own));
            self.kernel.routes_expected = plan.routes.len() - usize::from(own.is_some());
            let routes = RouteSet { shared: plan.routes.clone(), except: self.lease.cidr };
            ctx.perform(Effect::Network(Request::SetRoutes { proto: Proto::NETD, routes }));
        }
        self.kernel.plan = Some(plan);
    }

    fn sync_vxlan(
        &mut self,
        conf: &NetConf,
        plan: &Plan,
        seen: &Seen,
        ctx: &mut Context<'_, Self>,
    ) {
        let (Some(locator), Some(subnet)) = (self.kernel.address(), self.lease.cidr) else {
            return;
        };
        let Some(uplink) = &seen.uplink else { return };
        let Ok(address) = Ipv4Net::new(subnet.network(), 32) else {
            return;
        };
        let ((vni, port), name) = (conf.vxlan(), conf.overlay_name());
        let mtu = uplink.mtu.saturating_sub(VXLAN_OVERHEAD);
        let spec = Vxlan { vni, port, mac: self.vtep_mac, mtu, local: locator.addr(), address };
        if self.kernel.vxlan_asked.as_ref() != Some(&spec) {
            self.kernel.vxlan_asked = Some(spec.clone());
            // Where Linux cannot change the device it is made anew, and its tables are empty.
            self.kernel.overlay_set = None;
            self.kernel.routes_set = None;
            ctx.perform(Effect::Network(Request::EnsureVxlan { name: name.clone(), spec }));
        }
        if self.kernel.overlay_set != Some(plan.hash) {
            self.kernel.overlay_set = Some(plan.hash);
            let (dev, entries) = (name.clone(), plan.neighbours.clone());
            ctx.perform(Effect::Network(Request::SetNeighbours { dev, entries }));
            let (dev, entries) = (name, plan.fdb.clone());
            ctx.perform(Effect::Network(Request::SetFdb { dev, entries }));
        }
    }

    /// A move of a peer is one endpoint that differs, and no route: what pods have open stays.
    fn sync_wireguard(
        &mut self,
        conf: &NetConf,
        port: u16,
        plan: &Plan,
        seen: &Seen,
        ctx: &mut Context<'_, Self>,
    ) {
        let (Some(uplink), Some(subnet)) = (&seen.uplink, self.lease.cidr) else { return };
        let Ok(address) = Ipv4Net::new(subnet.network(), 32) else { return };
        let (private_key, name) = (wireguard::private_key(&self.key), conf.overlay_name());
        let mtu = uplink.mtu.saturating_sub(WIREGUARD_OVERHEAD);
        let spec = Wireguard { private_key, port, mtu, address };
        if self.kernel.wireguard_asked.as_ref() != Some(&spec) {
            self.kernel.wireguard_asked = Some(spec.clone());
            self.kernel.overlay_set = None;
            self.kernel.routes_set = None;
            ctx.perform(Effect::Network(Request::EnsureWireguard { name: name.clone(), spec }));
        }
        if self.kernel.overlay_set != Some(plan.hash) {
            self.kernel.overlay_set = Some(plan.hash);
            let (dev, peers) = (name, plan.wireguard.clone());
            ctx.perform(Effect::Network(Request::SetWireguardPeers { dev, peers }));
        }
    }

    /// Each interface is set by its own key: `conf.all.forwarding` reaches no interface that was
    /// reset since if it is 1 already (net/ipv4/devinet.c: devinet_sysctl_forward acts on a
    /// change only).
    fn sync_forwarding(&mut self, seen: &Seen, ctx: &mut Context<'_, Self>) {
        if !seen.ip_forward {
            self.set_to_one(SmolStr::new_static("net.ipv4.ip_forward"), ctx);
        }
        if !seen.bridge_nf {
            self.set_to_one(SmolStr::new_static("net.bridge.bridge-nf-call-iptables"), ctx);
        }
        let Some(conf) = self.conf else { return };
        let links = [
            (&self.config.interface, &seen.uplink),
            (&self.config.bridge, &seen.bridge),
            (&conf.overlay_name(), &seen.overlay),
        ];
        let off =
            links.into_iter().filter(|(_, link)| link.as_ref().is_some_and(|l| !l.forwarding));
        let keys: SmallVec<[SmolStr; 3]> =
            off.map(|(name, _)| format_smolstr!("net.ipv4.conf.{name}.forwarding")).collect();
        for key in keys {
            self.set_to_one(key, ctx);
        }
    }

    fn set_to_one(&mut self, key: SmolStr, ctx: &mut Context<'_, Self>) {
        if self.kernel.sysctls_asked.contains(&key) {
            return;
        }
        self.kernel.sysctls_asked.push(key.clone());
        ctx.note(|| format!("{key} was 0, set to 1"));
        let value = SmolStr::new_static("1");
        ctx.perform(Effect::Network(Request::SetSysctl { key, value }));
    }

    /// subnet.env in flannel's shape, once the bridge it speaks of is there.
    fn sync_env(&mut self, seen: &Seen, ctx: &mut Context<'_, Self>) {
        let Some(wanted) = self.wanted_bridge(seen) else {
            return;
        };
        let (Some(conf), Some(found)) = (self.conf, &self.kernel.env) else {
            return;
        };
        if !Self::bridge_stands(seen, wanted) {
            return;
        }
        let content = subnet_env(conf.network, wanted.0, wanted.1);
        let there = found.as_deref() == Some(content.as_str());
        if there || self.kernel.env_asked.as_deref() == Some(content.as_str()) {
            return;
        }
        let content: Arc<str> = content.into();
        self.kernel.env_asked = Some(content.clone());
        let path = self.config.subnet_env.clone();
        ctx.perform(Effect::Files(files::Request::Write { path, content }));
    }

    /// Forgets what was asked for and is not seen to stand; a thorough resync also sets again
    /// what the kernel does not show.
    pub(super) fn resync_kernel(&mut self, thorough: bool, ctx: &mut Context<'_, Self>) {
        let kernel = &mut self.kernel;
        kernel.bridge_asked = None;
        kernel.env_asked = None;
        kernel.sysctls_asked.clear();
        if thorough || !kernel.refused.is_empty() {
            kernel.routes_set = None;
        }
        if thorough {
            kernel.vxlan_asked = None;
            kernel.wireguard_asked = None;
        }
        self.report_left_out(ctx);
        self.drop_idle_vxlan(ctx);
    }

    fn report_left_out(&mut self, ctx: &mut Context<'_, Self>) {
        let Some(plan) = self.kernel.plan.clone() else {
            return;
        };
        if plan.left_out == self.kernel.left_out {
            return;
        }
        let known = std::mem::take(&mut self.kernel.left_out);
        let mine = &self.config.node;
        let news = plan.left_out.iter().filter(|out| out.node != *mine && !known.contains(out));
        for out in news.take(3) {
            ctx.note(|| out.to_string());
        }
        self.kernel.left_out = plan.left_out.clone();
    }

    /// Under another configuration another device takes its place.
    pub(super) fn drop_former_overlay(
        &mut self,
        former: Option<NetConf>,
        ctx: &mut Context<'_, Self>,
    ) {
        let Some(name) = former.map(|conf| conf.overlay_name()) else { return };
        if self.conf.is_some_and(|conf| conf.overlay_name() == name) {
            return;
        }
        let kernel = &mut self.kernel;
        (kernel.vxlan_asked, kernel.wireguard_asked) = (None, None);
        (kernel.overlay_set, kernel.routes_set) = (None, None);
        if kernel.seen.as_mut().is_some_and(|seen| seen.overlay.take().is_some()) {
            ctx.perform(Effect::Network(Request::DeleteLink { name }));
        }
    }

    /// With host-gw the vxlan is there for peers elsewhere only; it goes after it was without
    /// need for a whole resync period, so that a peer that sees us move later loses nothing.
    fn drop_idle_vxlan(&mut self, ctx: &mut Context<'_, Self>) {
        let (Some(conf), Some(plan)) = (self.conf, &self.kernel.plan) else {
            return;
        };
        let there = self.kernel.seen.as_ref().is_some_and(|seen| seen.overlay.is_some());
        let idle = there && !plan.needs_overlay() && conf.backend == Backend::HostGw;
        if idle && self.kernel.vxlan_idle {
            self.kernel.vxlan_asked = None;
            ctx.perform(Effect::Network(Request::DeleteLink { name: conf.overlay_name() }));
        }
        self.kernel.vxlan_idle = idle;
    }
}

/// As flannel writes it (pkg/subnet: WriteSubnetFile): `subnet` is the bridge's address.
pub fn subnet_env(network: Ipv4Net, subnet: Ipv4Net, mtu: u32) -> String {
    format!(
        "FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU={mtu}\n\
         FLANNEL_IPMASQ=true\n"
    )
}
