//! Where objects live: paths as upstream's API server has them in etcd.

use super::{Op, StoreKey, Under};
use crate::objects::kinds::{Interner, Names};
use crate::objects::{Key, Kind};
use serde::Deserialize;
use smol_str::{SmolStr, format_smolstr};
use std::cmp::Ordering;

/// Below the store's root (`/registry`). Upstream has a resource below its plural, with a few old
/// exceptions (`SpecialDefaultResourcePrefixes`,
/// pkg/kubeapiserver/default_storage_factory_builder.go) and custom resources below their group.
fn directory(kind: Kind) -> &'static str {
    match kind {
        Kind::Node => "minions",
        Kind::Service => "services/specs",
        Kind::Subnet => "net.kubesim.dev/subnets",
        Kind::Custom(custom) => custom.directory(),
        _ => kind.plural(),
    }
}

/// `pods/default/web-0`, `minions/desk1`: without the store's root.
pub fn path((kind, key): &StoreKey) -> String {
    match kind.namespaced() {
        true => format!("{}/{}/{}", directory(*kind), key.namespace, key.name),
        false => format!("{}/{}", directory(*kind), key.name),
    }
}

/// What has the path, and is stored there as `value`, or was there; `None` for what no kind of ours
/// has. A kind that a definition declares is made of what the path and the value say, so that the
/// order of reading does not matter. What is deleted without its kind ever having been seen is
/// nobody's.
pub fn key_of(path: &str, value: Option<&[u8]>, kinds: &mut Interner) -> Option<StoreKey> {
    parse(path).or_else(|| custom(path, value, kinds))
}

/// What has the path, of the kinds that are there from the start.
pub fn parse(path: &str) -> Option<StoreKey> {
    Kind::ALL.iter().find_map(|kind| {
        let rest = path.strip_prefix(directory(*kind))?.strip_prefix('/')?;
        let key = match kind.namespaced() {
            true => rest.split_once('/').map(|(namespace, name)| Key::new(namespace, name))?,
            false => Key::cluster(rest),
        };
        let key = (*kind, key);
        bad_name(&key).is_none().then_some(key)
    })
}

/// `example.com/widgets/default/a`; groups of definitions have a dot.
fn custom(path: &str, value: Option<&[u8]>, kinds: &mut Interner) -> Option<StoreKey> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said<'a> {
        api_version: &'a str,
        kind: &'a str,
    }
    let segments: Vec<&str> = path.split('/').collect();
    let (group, plural, key) = match segments[..] {
        [group, plural, name] => (group, plural, Key::cluster(name)),
        [group, plural, namespace, name] => (group, plural, Key::new(namespace, name)),
        _ => return None,
    };
    if !group.contains('.') {
        return None;
    }
    let namespaced = segments.len() == 4;
    let kind = match value {
        None => kinds.at(&format!("{group}/{plural}"), namespaced)?,
        Some(value) => {
            let Said { api_version, kind } = serde_json::from_slice(value).ok()?;
            let (said, version) = api_version.split_once('/')?;
            let names = Names { group, plural, kind, namespaced };
            (said == group).then(|| kinds.kind(names, version))?
        }
    };
    let key = (kind, key);
    bad_name(&key).is_none().then_some(key)
}

/// What all paths of these begin with; empty for everything.
pub fn below(under: &Under) -> String {
    match under {
        Under::All => String::new(),
        Under::Kind(kind) => format!("{}/", directory(*kind)),
        Under::Namespace(kind, namespace) if kind.namespaced() => {
            format!("{}/{namespace}/", directory(*kind))
        }
        // Nothing is there.
        Under::Namespace(kind, namespace) => format!("{}//{namespace}/", directory(*kind)),
    }
}

/// The order of paths as bytes, which is etcd's. Namespace `a-b` comes before `a` in it.
pub fn order(a: &StoreKey, b: &StoreKey) -> Ordering {
    fn bytes((kind, key): &StoreKey) -> impl Iterator<Item = u8> {
        let slash = if kind.namespaced() { "/" } else { "" };
        let parts = [directory(*kind), "/", &key.namespace, slash, &key.name];
        parts.into_iter().flat_map(str::bytes)
    }
    bytes(a).cmp(bytes(b))
}

/// Why no store takes this transaction.
pub fn refusal(compare: &[(StoreKey, u64)], then: &[Op]) -> Option<SmolStr> {
    let keys = compare.iter().map(|(key, _)| key).chain(then.iter().map(Op::key));
    if let Some((key, why)) = keys.filter_map(|key| Some((key, bad_name(key)?))).next() {
        return Some(format_smolstr!("{} {:?}: {why}", key.0, key.1));
    }
    // etcd: "duplicate key given in txn request".
    let twice = |at: usize| then[..at].iter().any(|op| op.key() == then[at].key());
    let at = (1..then.len()).find(|at| twice(*at))?;
    let (kind, key) = then[at].key();
    Some(format_smolstr!("{kind} {key} is written twice in one transaction"))
}

/// Two keys would have one path, or none could be read back.
fn bad_name((kind, key): &StoreKey) -> Option<&'static str> {
    let breaks = |name: &str| name.bytes().any(|byte| byte == b'/' || byte == 0);
    if key.name.is_empty() {
        Some("its name is empty")
    } else if key.namespace.is_empty() == kind.namespaced() {
        Some("a namespace is there where none belongs, or the other way round")
    } else if breaks(&key.name) || breaks(&key.namespace) {
        Some("its name has a character that no name has")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams_and_are_read_back() {
        let of = |kind: Kind| {
            let namespace = if kind.namespaced() { "default" } else { "" };
            (kind, Key::new(namespace, "a"))
        };
        for (kind, expected) in [
            (Kind::Pod, "pods/default/a"),
            (Kind::Node, "minions/a"),
            (Kind::Service, "services/specs/default/a"),
            (Kind::Lease, "leases/default/a"),
            (Kind::EndpointSlice, "endpointslices/default/a"),
            (Kind::Subnet, "net.kubesim.dev/subnets/a"),
        ] {
            assert_eq!(path(&of(kind)), expected);
        }
        for kind in Kind::ALL {
            let key = of(*kind);
            assert_eq!(parse(&path(&key)), Some(key.clone()));
            let under = Under::Kind(*kind);
            assert!(path(&key).starts_with(&below(&under)) && under.holds(&key));
        }
        let strange = ["", "pods", "pods/", "pods/a", "pods//a", "pods/a/b/c", "poods/a/b"];
        assert!(strange.into_iter().all(|path| parse(path).is_none()));
    }

    #[test]
    fn a_declared_kind_is_known_by_path_and_value() {
        let value = br#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"}}"#;
        let mut kinds = Interner::default();
        let path = "example.com/widgets/default/a";
        assert_eq!(key_of(path, None, &mut kinds), None, "not seen yet");
        let key = key_of(path, Some(value), &mut kinds).expect("a key");
        assert_eq!((key.0.name(), &key.1), ("Widget", &Key::new("default", "a")));
        assert_eq!(super::path(&key), path);
        assert_eq!(key_of(path, None, &mut kinds), Some(key.clone()));
        assert_eq!(key_of(path, Some(value), &mut Interner::default()), Some(key));
        let other = key_of("example.com/widgets/a", Some(value), &mut kinds).expect("a key");
        assert!(!other.0.namespaced());
        for strange in ["example.org/widgets/default/a", "widgets/default/a/b", "example.com/a"] {
            assert_eq!(key_of(strange, Some(value), &mut kinds), None, "{strange}");
        }
        assert_eq!(key_of(path, Some(b"{}"), &mut kinds), None);
        let ours = key_of("net.kubesim.dev/subnets/a", None, &mut kinds).expect("a key");
        assert_eq!(ours.0, Kind::Subnet);
    }

    #[test]
    fn the_order_is_that_of_paths() {
        let mut keys = Vec::new();
        for kind in Kind::ALL {
            for namespace in ["a", "a-b", "ab"] {
                let namespace = if kind.namespaced() { namespace } else { "" };
                keys.extend(["x", "x-y", "x.y"].map(|name| (*kind, Key::new(namespace, name))));
            }
        }
        for a in &keys {
            for b in &keys {
                assert_eq!(order(a, b), path(a).cmp(&path(b)), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn what_no_store_takes_is_named() {
        let delete = |name: &str| Op::Delete { key: (Kind::Pod, Key::new("default", name)) };
        assert_eq!(refusal(&[], &[delete("a"), delete("b")]), None);
        let why = refusal(&[], &[delete("a"), delete("b"), delete("a")]).expect("a reason");
        assert!(why.contains("Pod default/a is written twice"), "{why}");
        assert!(refusal(&[((Kind::Pod, Key::cluster("a")), 0)], &[]).is_some());
        assert!(refusal(&[], &[delete("a/b")]).is_some());
        assert!(refusal(&[], &[delete("")]).is_some());
    }
}
