use super::*;
use crate::objects::{Body, PodBody, PodSpec};
use kubesim_runtime::Snapshot;

fn pod(name: &str, node: Option<&str>, version: u64) -> Arc<Object> {
    let spec = PodSpec { node_name: node.map(str::to_owned), ..PodSpec::default() };
    let body = Body::Pod(PodBody::new(Arc::new(spec), Arc::default()));
    let mut object = Object::new(Key::new("n", name), body);
    object.version = version;
    Arc::new(object)
}

/// The cache after one more write.
fn with(cache: &Cache, object: &Arc<Object>, gone: bool) -> Cache {
    let mut next = cache.clone();
    next.revision += 1;
    let (kind, key) = (object.kind(), object.key.clone());
    let view = next.views.entry(kind).or_insert_with(|| Snapshot::empty(7));
    let old = if gone {
        view.remove(&key, next.revision)
    } else {
        view.insert(key.clone(), object.clone(), next.revision)
    };
    let new = (!gone).then(|| object.clone());
    next.last = Some(crate::apiserver::LastWrite { kind, key, old, new });
    next
}

fn empty() -> Cache {
    let mut cache = Cache { revision: 10, ..Cache::default() };
    for kind in Kind::ALL {
        let mut view = Snapshot::empty(7);
        view.advance(10);
        cache.views.insert(*kind, view);
    }
    cache
}

fn names(news: Option<News>) -> Vec<String> {
    match news {
        Some(News::View { view, .. }) => view.values().map(|o| o.key.name.to_string()).collect(),
        _ => vec!["no news".to_owned()],
    }
}

#[test]
fn only_the_nodes_a_pod_leaves_or_joins_hear_of_it() {
    let mut hub = Hub::<u32>::new();
    let mut cache = empty();
    hub.publish(cache.clone());
    for (watcher, node) in [(1, "a"), (2, "b"), (3, "c")] {
        hub.open(watcher, Kind::Pod, Scope::Node(node.into()), None).unwrap();
    }
    hub.open(4, Kind::Pod, Scope::All, None).unwrap();
    assert_eq!(hub.take_ready(), [1, 2, 3, 4]);
    for watcher in 1..=4 {
        assert_eq!(names(hub.take(watcher)), [""; 0]);
    }
    cache = with(&cache, &pod("p", Some("a"), 11), false);
    hub.publish(cache.clone());
    assert_eq!(hub.take_ready(), [4, 1]);
    assert_eq!((hub.bytes(1), hub.bytes(2)), (2048, 0));
    assert_eq!(names(hub.take(1)), ["p"]);
    cache = with(&cache, &pod("p", Some("b"), 12), false);
    hub.publish(cache.clone());
    // 4 has not taken its first news yet and is not told twice.
    assert_eq!(hub.take_ready(), [1, 2]);
    assert_eq!(hub.bytes(4), 2 * 2048);
    assert_eq!((names(hub.take(1)), names(hub.take(2))), (vec![], vec!["p".to_owned()]));
    cache = with(&cache, &pod("p", Some("b"), 13), true);
    hub.publish(cache);
    assert_eq!(hub.take_ready(), [2]);
    assert_eq!(names(hub.take(3)), ["no news"]);
}

#[test]
fn a_cache_that_skips_versions_is_compared() {
    let mut hub = Hub::<u32>::new();
    let first = empty();
    hub.publish(first.clone());
    hub.open(1, Kind::Pod, Scope::Node("a".into()), Some(10)).unwrap();
    hub.open(2, Kind::Node, Scope::All, Some(10)).unwrap();
    assert!(hub.take_ready().is_empty());
    let second = with(&first, &pod("p", Some("a"), 11), false);
    let third = with(&second, &pod("q", Some("a"), 12), false);
    hub.publish(third);
    assert_eq!(hub.take_ready(), [1]);
    assert_eq!(names(hub.take(1)), ["p", "q"]);
}

#[test]
fn a_watch_from_before_the_compaction_is_expired() {
    let mut hub = Hub::<u32>::new();
    hub.publish(Cache { compacted: 5, ..empty() });
    assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(4)), Err(Expired));
    assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(10)), Ok(()));
    assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(5)), Ok(()));
    assert_eq!(hub.take_ready(), [1]);
    assert_eq!(hub.open(1, Kind::Pod, Scope::All, None), Ok(()));
    hub.close(1);
    assert!(hub.take_ready().is_empty());
    assert!(hub.take(1).is_none());
}

/// Of several servers of one store, one may be behind what another has told.
#[test]
fn a_watch_from_a_version_to_come_waits_for_what_follows_it() {
    let mut hub = Hub::<u32>::new();
    let first = with(&empty(), &pod("p", None, 11), false);
    hub.publish(first.clone());
    assert_eq!(hub.open(1, Kind::Pod, Scope::All, Some(13)), Ok(()));
    assert!(hub.take_ready().is_empty());
    let second = with(&first, &pod("q", None, 12), false);
    hub.publish(second.clone());
    assert_eq!((hub.take_ready(), hub.take(1).is_none()), (vec![1], true), "it would go back");
    let third = with(&second, &pod("r", None, 13), false);
    hub.publish(third.clone());
    assert_eq!((hub.take_ready(), hub.take(1).is_none()), (vec![1], true), "it knows this");
    hub.publish(with(&third, &pod("s", None, 14), false));
    assert_eq!(hub.take_ready(), [1]);
    assert_eq!(names(hub.take(1)), ["p", "q", "r", "s"]);
}

#[test]
fn a_watch_that_waits_for_a_store_that_is_lost_is_told_the_one_that_is_there() {
    let mut hub = Hub::<u32>::new();
    let namespace = |uid, version| {
        let mut object = Object::new(
            Key::cluster("kube-system"),
            Body::Namespace { spec: Arc::default(), status: Arc::default() },
        );
        (object.uid, object.version) = (crate::objects::Uid(uid), version);
        Arc::new(object)
    };
    hub.publish(with(&empty(), &namespace(1, 11), false));
    assert_eq!(hub.open(1, Kind::Namespace, Scope::All, Some(50)), Ok(()));
    assert!(hub.take_ready().is_empty());
    let mut other = empty();
    other.views = BTreeMap::from([(Kind::Namespace, Snapshot::empty(8))]);
    hub.publish(with(&other, &namespace(2, 11), false));
    assert_eq!(hub.take_ready(), [1]);
    assert_eq!(names(hub.take(1)), ["kube-system"]);
}
