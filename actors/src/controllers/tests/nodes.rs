use super::fake::object;
use super::*;
use crate::objects::{Body, Key};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn renew(world: &mut World<Controllers>, name: &str, second: u32) {
    world.put(object(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name,
                 "renewTime": format!("2001-01-01T{:02}:{:02}:{:02}.000000Z",
                     second / 3600, second / 60 % 60, second % 60)},
    })));
}

fn taints(world: &World<Controllers>, name: &str) -> BTreeSet<(String, String)> {
    let node = world.get(Kind::Node, &Key::cluster(name)).unwrap();
    let taints = node.node().unwrap().0.taints.clone().unwrap_or_default();
    let short = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    taints.iter().map(|taint| (short(&taint.key), taint.effect.clone())).collect()
}

fn pod_on(node: &str, name: &str, seconds: i64) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c"}], "tolerations": [
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists",
             "effect": "NoExecute", "tolerationSeconds": seconds}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

/// Lets the seconds pass; the nodes renew every 10 s but for the silent ones.
fn pass(world: &mut World<Controllers>, nodes: &[&str], silent: &[&str], from: u32, to: u32) {
    for second in from..to {
        if second % 10 == 0 {
            for name in nodes.iter().filter(|name| !silent.contains(name)) {
                renew(world, name, second);
            }
        }
        world.run(Duration::from_secs(1));
    }
}

#[test]
fn a_silent_node_is_tainted_its_pods_leave_in_time_and_it_recovers() {
    let mut world = world(1, calm());
    let nodes = ["a", "b", "c"];
    nodes.iter().for_each(|name| world.put(node(name, "z")));
    world.put(pod_on("a", "stays", 10_000));
    world.put(pod_on("a", "goes", 30));
    pass(&mut world, &nodes, &[], 0, 100);
    assert!(taints(&world, "a").is_empty(), "a lease of 2001 is as good as any that moves");
    // Its last renewal was at 90 s.
    pass(&mut world, &nodes, &["a"], 100, 138);
    assert!(taints(&world, "a").is_empty());
    pass(&mut world, &nodes, &["a"], 138, 158);
    let unreachable = |effect: &str| ("unreachable".to_owned(), effect.to_owned());
    assert_eq!(
        taints(&world, "a"),
        BTreeSet::from([unreachable("NoExecute"), unreachable("NoSchedule")])
    );
    let stays = world.get(Kind::Pod, &Key::new("default", "stays")).unwrap();
    assert!(!super::super::pods::is_ready(&stays));
    assert!(!world.get(Kind::Pod, &Key::new("default", "goes")).unwrap().deleting());
    pass(&mut world, &nodes, &["a"], 158, 200);
    assert!(world.get(Kind::Pod, &Key::new("default", "goes")).unwrap().deleting());
    assert!(!world.get(Kind::Pod, &Key::new("default", "stays")).unwrap().deleting());
    // The kubelet is back and says so itself.
    let mut back = (*world.get(Kind::Node, &Key::cluster("a")).unwrap()).clone();
    if let Body::Node { status, .. } = &mut back.body {
        for condition in Arc::make_mut(status).conditions.iter_mut().flatten() {
            condition.status = if condition.type_ == "Ready" { "True" } else { "False" }.to_owned();
        }
    }
    world.put(back);
    pass(&mut world, &nodes, &[], 200, 260);
    assert!(taints(&world, "a").is_empty(), "{:?}", taints(&world, "a"));
}

#[test]
fn when_all_are_silent_nobody_is_evicted() {
    let mut world = world(2, calm());
    let nodes = ["a", "b", "c", "d"];
    nodes.iter().for_each(|name| world.put(node(name, "z")));
    nodes.iter().for_each(|name| world.put(pod_on(name, &format!("p-{name}"), 0)));
    pass(&mut world, &nodes, &[], 0, 60);
    pass(&mut world, &nodes, &nodes, 60, 700);
    for name in nodes {
        assert_eq!(
            taints(&world, name),
            BTreeSet::from([("unreachable".to_owned(), "NoSchedule".to_owned())])
        );
    }
    assert!(world.all(Kind::Pod).iter().all(|pod| !pod.deleting()));
}

#[test]
fn nodes_of_a_healthy_cluster_are_emptied_ten_seconds_apart() {
    let mut world = world(3, calm());
    let names: Vec<String> = (0..20).map(|n| format!("n{n:02}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.iter().for_each(|name| world.put(node(name, "z")));
    pass(&mut world, &nodes, &[], 0, 60);
    pass(&mut world, &nodes, &nodes[..4], 60, 104);
    let evicting = |world: &World<Controllers>| {
        let no_execute = |name: &&&str| taints(world, name).iter().any(|t| t.1 == "NoExecute");
        nodes.iter().filter(no_execute).count()
    };
    let mut seen = Vec::new();
    for from in (104..154).step_by(10) {
        pass(&mut world, &nodes, &nodes[..4], from, from + 10);
        seen.push(evicting(&world));
    }
    assert!(seen.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{seen:?}");
    assert_eq!(seen.last(), Some(&4));
}

#[test]
fn pods_of_a_node_that_is_no_more_are_removed() {
    let mut world = world(4, calm());
    world.put(node("a", "z"));
    world.put(pod_on("a", "p", 10_000));
    world.run(Duration::from_secs(5));
    world.remove(Kind::Node, &Key::cluster("a"));
    world.run(Duration::from_secs(35));
    assert_eq!(world.all(Kind::Pod).len(), 1, "it may come back");
    world.run(Duration::from_secs(20));
    assert!(world.all(Kind::Pod).is_empty());
}

fn shares(world: &World<Controllers>) -> Vec<String> {
    let share = |node: &Arc<Object>| node.node()?.0.pod_cidr.clone();
    world.all(Kind::Node).iter().filter_map(share).collect()
}

#[test]
fn shares_are_the_lowest_free_and_come_back() {
    let mut world = world(5, calm());
    world.put(node("a", "z"));
    world.run(Duration::from_secs(2));
    world.put(node("b", "z"));
    world.run(Duration::from_secs(2));
    assert_eq!(shares(&world), ["10.244.0.0/24", "10.244.1.0/24"]);
    world.remove(Kind::Node, &Key::cluster("a"));
    world.put(node("c", "z"));
    world.run(Duration::from_secs(2));
    assert_eq!(shares(&world), ["10.244.1.0/24", "10.244.0.0/24"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_two_nodes_ever_have_one_share(
        seed in any::<u64>(),
        lost in 0.0..0.4f64,
        script in prop::collection::vec((0u8..4, 0u8..12), 10..60),
    ) {
        let bad = Weather {
            max_delay_ms: 300, lost_requests: lost, lost_answers: lost, view_delay_ms: 300,
        };
        let mut world = world(seed, bad);
        for (what, which) in script {
            let name = format!("n{which}");
            let there = world.get(Kind::Node, &Key::cluster(name.as_str())).is_some();
            match what {
                0 | 1 if !there => world.put(node(&name, "z")),
                2 if there => world.remove(Kind::Node, &Key::cluster(name.as_str())),
                3 if which < 4 => world.restart(),
                _ => {}
            }
            world.run(Duration::from_millis(100));
            let all = shares(&world);
            let distinct: BTreeSet<_> = all.iter().collect();
            prop_assert_eq!(distinct.len(), all.len(), "{:?}", all);
        }
        world.weather = calm();
        world.run(Duration::from_secs(120));
        prop_assert_eq!(shares(&world).len(), world.all(Kind::Node).len());
    }
}
