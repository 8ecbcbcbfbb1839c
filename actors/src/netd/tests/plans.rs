//! The plan, against a model that looks at every pair.

use super::world::net;
use crate::netd::conf::Backend;
use crate::netd::plan::{Params, Peer, Place, Plan, Why, compile, shared};
use crate::objects::{Body, Key, Object, SubnetSpec, SubnetStatus, View};
use crate::ports::network::Mac;
use ipnet::Ipv4Net;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn params(backend: Backend) -> Params {
    Params { backend, onlink: net("192.168.1.0/24"), uplink: "eth0".into(), overlay: "v".into() }
}

fn peer(node: usize, subnet: Ipv4Net, created: i64, at: Option<u8>, mac: bool) -> Peer {
    let locator = at.map(|at| std::net::Ipv4Addr::from([192, 168, at % 2, at]));
    let vtep_mac = mac.then_some(Mac([2, 0, 0, 0, 0, node as u8]));
    let place = Place { locator, prefix_length: 24, generation: 1, vtep_mac };
    let key = ed25519_dalek::SigningKey::from_bytes(&[node as u8 + 1; 32]);
    let public_key = crate::netd::peer::key_text(&key).into();
    Peer { node: format!("n{node}").into(), subnet, created, public_key, place }
}

fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let one = (0u32..8, 22u8..26, 0i64..3, prop::option::of(1u8..250), any::<bool>());
    prop::collection::vec(one, 0..12).prop_map(|drawn| {
        let peers = drawn.into_iter().enumerate().map(|(node, (third, len, created, at, mac))| {
            let subnet = Ipv4Net::new([10, 244, third as u8, 0].into(), len).unwrap().trunc();
            peer(node, subnet, created, at, mac)
        });
        peers.collect()
    })
}

fn overlap(a: &Peer, b: &Peer) -> bool {
    a.subnet.contains(&b.subnet) || b.subnet.contains(&a.subnet)
}

/// Destination to gateway and device, pair by pair.
fn model(peers: &[Peer], params: &Params) -> BTreeMap<Ipv4Net, (String, String)> {
    let beaten = |peer: &Peer| {
        peers.iter().any(|other| {
            other.node != peer.node
                && overlap(other, peer)
                && (other.created, &other.node) > (peer.created, &peer.node)
        })
    };
    let direct = !matches!(params.backend, Backend::Vxlan { direct: false, .. });
    let route = |peer: &Peer| {
        let locator = peer.place.locator.filter(|_| !beaten(peer))?;
        let near = direct && params.onlink.contains(&locator);
        let via = if near { locator } else { peer.subnet.network() };
        let dev = if near { "eth0" } else { "v" };
        (near || peer.place.vtep_mac.is_some())
            .then(|| (peer.subnet, (via.to_string(), dev.to_owned())))
    };
    peers.iter().filter_map(route).collect()
}

fn table(plan: &Plan) -> BTreeMap<Ipv4Net, (String, String)> {
    let routes = plan.routes.iter();
    routes.map(|r| (r.to, (r.via.unwrap().to_string(), r.dev.to_string()))).collect()
}

proptest! {
    #[test]
    fn a_plan_is_the_models_set_and_names_who_is_left_out(peers in peers(), pick in 0u8..3) {
        let backend = match pick {
            0 => Backend::HostGw,
            1 => Backend::Vxlan { direct: false, vni: 1, port: 8472 },
            _ => Backend::Vxlan { direct: true, vni: 1, port: 8472 },
        };
        let params = params(backend);
        let plan = compile(&peers, &BTreeMap::new(), &params, None);
        prop_assert_eq!(table(&plan), model(&peers, &params));
        prop_assert_eq!(plan.routes.len() + plan.left_out.len(), peers.len());
        prop_assert!(plan.routes.windows(2).all(|pair| pair[0].to < pair[1].to));
        prop_assert_eq!(plan.neighbours.len(), plan.fdb.len());
    }

    #[test]
    fn nobody_takes_ones_own_subnet(peers in peers()) {
        let Some(me) = peers.first() else { return Ok(()) };
        let own = Some((&me.node, me.subnet));
        let plan = compile(&peers, &BTreeMap::new(), &params(Backend::HostGw), own);
        for route in plan.routes.iter().filter(|route| route.to != me.subnet) {
            prop_assert!(!route.to.contains(&me.subnet) && !me.subnet.contains(&route.to));
        }
    }
}

fn view() -> View {
    let mut view = View::empty(9);
    for index in 0..3u8 {
        let cidr = format!("10.244.{index}.0/24");
        let spec = SubnetSpec { cidr, ..SubnetSpec::default() };
        let locator = Some([192, 168, 1, index + 1].into());
        let vtep_mac = Mac([2, 0, 0, 0, 0, index]).to_string();
        let status = SubnetStatus { locator, prefix_length: 24, generation: 1, vtep_mac };
        let body = Body::Subnet { spec: Arc::new(spec), status: Arc::new(status) };
        let object = Object::new(Key::cluster(format!("n{index}")), body);
        view.insert(object.key.clone(), Arc::new(object), u64::from(index) + 1);
    }
    view
}

#[test]
fn machines_on_one_network_share_a_plan_and_what_is_told_later_does_not_leak() {
    let (view, here) = (view(), params(Backend::HostGw));
    let told = BTreeMap::new();
    let (a, b) = (shared(&view, &told, &here), shared(&view.clone(), &told, &here));
    assert!(Arc::ptr_eq(&a, &b));
    let away = Params { onlink: net("10.20.0.0/24"), ..here.clone() };
    assert!(shared(&view, &told, &away).needs_overlay());
    let locator = Some([10, 20, 0, 7].into());
    let vtep_mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    let moved = Place { locator, prefix_length: 24, generation: 2, vtep_mac };
    let told = BTreeMap::from([("n1".into(), moved.clone())]);
    let later = shared(&view, &told, &here);
    assert_eq!(later.fdb.len(), 1);
    assert!(Arc::ptr_eq(&a, &shared(&view, &BTreeMap::new(), &here)));
    let stale = BTreeMap::from([("n1".into(), Place { generation: 1, ..moved })]);
    assert_eq!(shared(&view, &stale, &here).hash, a.hash, "the API is as new");
}

#[test]
fn both_ends_judge_alike_whether_they_are_on_link() {
    let mut far = peer(1, net("10.244.1.0/24"), 0, Some(11), true);
    far.place.prefix_length = 25;
    let plan = compile(&[far], &BTreeMap::new(), &params(Backend::HostGw), None);
    assert_eq!(plan.routes[0].dev, "v", "it sees another network than we do");
}

#[test]
fn the_left_out_are_named_with_whom_they_collide() {
    let peers = [
        peer(1, net("10.244.1.0/24"), 5, Some(11), true),
        peer(2, net("10.244.0.0/22"), 4, Some(13), true),
    ];
    let plan = compile(&peers, &BTreeMap::new(), &params(Backend::HostGw), None);
    let why = Why::Overlaps { node: "n1".into(), subnet: net("10.244.1.0/24") };
    assert_eq!(plan.left_out[0].why, why);
    let words = plan.left_out[0].to_string();
    assert!(words.contains("10.244.0.0/22 of n2") && words.contains("10.244.1.0/24 of n1"));
}

#[test]
fn wireguard_knows_peers_by_their_leases_keys() {
    let mut peers: Vec<Peer> = (0..4_u8)
        .map(|n| peer(usize::from(n), net(&format!("10.244.{n}.0/24")), 0, Some(10 + n), false))
        .collect();
    peers[2].public_key = peers[1].public_key.clone();
    peers[3].public_key = "none".into();
    let plan =
        compile(&peers, &BTreeMap::new(), &params(Backend::Wireguard { port: 51_820 }), None);
    assert!(plan.needs_overlay() && plan.neighbours.is_empty() && plan.fdb.is_empty());
    assert!(plan.routes.iter().all(|route| route.via.is_none() && route.dev == "v"));
    let ends: Vec<_> = plan.wireguard.iter().map(|p| (p.allowed, p.endpoint.to_string())).collect();
    assert_eq!(
        ends,
        [
            (net("10.244.0.0/24"), "192.168.0.10:51820".to_owned()),
            (net("10.244.1.0/24"), "192.168.1.11:51820".to_owned()),
        ]
    );
    let why: Vec<_> = plan.left_out.iter().map(|out| out.why.clone()).collect();
    assert_eq!(why, [Why::SharesKey { node: "n1".into() }, Why::NoKey]);
}
