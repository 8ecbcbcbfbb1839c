//! A request's path and query: what it is about.

use super::apply::Write;
use super::nodes::{What, usage};
use super::resources::{self, Review, Sub};
use super::status::Failure;
use super::versions::Served;
use kubesim_actors::objects::{Definitions, Key, Kind, Name};
use kubesim_runtime::Wall;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;

/// What a path names.
#[derive(Debug)]
pub enum Route {
    Version,
    Health(String),
    Metrics,
    /// `/api`, or `/apis`.
    Groups {
        core: bool,
    },
    /// `/apis/apps`.
    Group(String),
    /// `/api/v1`, `/apis/apps/v1`.
    GroupVersion(String, String),
    /// `/openapi/v3`, and what is below it.
    OpenApi(String),
    OpenApiV2,
    /// Who issues tokens: its keys, or where they are.
    OpenId {
        keys: bool,
    },
    Object(Target),
    /// What is asked of the pod's node.
    Node(Target, What),
    /// Where the node of this name dials.
    Tunnel(String),
    /// What nodes and pods use.
    Usage(usage::Path),
    /// And the namespace, if it is in one.
    Review(&'static Review, String),
}

/// Objects of a resource.
#[derive(Clone, Debug)]
pub struct Target {
    pub served: Served,
    /// Empty in the path of all namespaces, and of what is in none.
    pub namespace: Name,
    /// Of one object.
    pub name: Option<Name>,
    pub sub: Option<Sub>,
}

impl Target {
    pub fn kind(&self) -> Kind {
        self.served.kind
    }
    /// A write there.
    pub fn write<'a>(&'a self, manager: &'a str, now: Wall) -> Write<'a> {
        Write { served: &self.served, sub: self.sub, manager, now }
    }
    pub fn key(&self) -> Key {
        Key { namespace: self.namespace.clone(), name: self.name.clone().unwrap_or_default() }
    }
}

/// What the path is about, or that it is about nothing.
pub fn route(path: &str, definitions: &Definitions) -> Result<Route, Failure> {
    let decode = |segment: &str| {
        let decoded = percent_decode_str(segment).decode_utf8();
        decoded.map(|text| text.into_owned()).map_err(|_| {
            let message = format!("reading the path {path:?}: {segment:?} is no UTF-8");
            Failure::bad_request(message)
        })
    };
    let segments = path.trim_matches('/').split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    Ok(match segments[..] {
        ["version"] => Route::Version,
        [check @ ("healthz" | "livez" | "readyz"), ..] => Route::Health(check.to_owned()),
        ["tunnel", "nodes", node] => Route::Tunnel(node.to_owned()),
        ["metrics"] => Route::Metrics,
        ["api"] => Route::Groups { core: true },
        ["apis"] => Route::Groups { core: false },
        [".well-known", "openid-configuration"] => Route::OpenId { keys: false },
        ["openid", "v1", "jwks"] => Route::OpenId { keys: true },
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3", ..] => Route::OpenApi(segments[2..].join("/")),
        ["apis", usage::GROUP, ref rest @ ..] => {
            Route::Usage(usage::Path::of(rest).ok_or_else(Failure::no_such_resource)?)
        }
        ["apis", group] => {
            if !resources::groups(definitions).iter().any(|known| known.name == group) {
                return Err(Failure::no_such_resource());
            }
            Route::Group(group.to_owned())
        }
        ["api", version, ref rest @ ..] => below("", version, rest, definitions)?,
        ["apis", group, version, ref rest @ ..] => below(group, version, rest, definitions)?,
        _ => return Err(Failure::no_such_resource()),
    })
}

fn below(
    group: &str,
    version: &str,
    rest: &[&str],
    definitions: &Definitions,
) -> Result<Route, Failure> {
    let reviews = resources::reviews(group, version);
    let mut served = resources::in_version(group, version, definitions);
    if served.next().is_none() && reviews.count() == 0 {
        return Err(Failure::no_such_resource());
    }
    let (namespace, rest) = match rest {
        [] => return Ok(Route::GroupVersion(group.to_owned(), version.to_owned())),
        // A namespace itself, and its status.
        ["namespaces", _, "status"] | ["namespaces"] | ["namespaces", _] if group.is_empty() => {
            (None, rest)
        }
        ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let (plural, name, sub) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(name), None),
        [plural, name, sub] => (plural, Some(name), Some(*sub)),
        _ => return Err(Failure::no_such_resource()),
    };
    let missing = Failure::no_such_resource;
    if let Some(review) = resources::reviews(group, version).find(|one| one.plural == *plural) {
        if name.is_some() || namespace.is_some() != review.namespaced {
            return Err(missing());
        }
        return Ok(Route::Review(review, namespace.unwrap_or_default().to_owned()));
    }
    let served = resources::find(group, version, plural, definitions).ok_or_else(missing)?;
    let namespaced = served.kind.namespaced();
    if namespace.is_some() != namespaced && (name.is_some() || !namespaced) {
        return Err(missing());
    }
    let of_node = |word: &str| What::ALL.into_iter().find(|what| what.name() == word);
    let asked = sub.filter(|_| served.kind == Kind::Pod).and_then(of_node);
    let sub = match sub.filter(|_| asked.is_none()) {
        None => None,
        Some(word) => {
            let mut subs = served.subresources().iter().copied();
            let found = subs.find(|sub| sub.name() == word);
            Some(found.ok_or_else(missing)?)
        }
    };
    let target = Target {
        served,
        namespace: Name::from(namespace.unwrap_or_default()),
        name: name.map(|name| Name::from(*name)),
        sub,
    };
    Ok(match asked {
        Some(what) => Route::Node(target, what),
        None => Route::Object(target),
    })
}

/// A query's parameters; of one that is there twice, the first counts.
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let mut query = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            query.entry(name.into_owned()).or_insert(value.into_owned());
        }
        Query(query)
    }

    /// Empty if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A boolean as apimachinery reads it from a query: anything but these two says yes.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|text| !["false", "0"].contains(&text.to_lowercase().as_str()))
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = |_| {
            let message = format!("{name}: Invalid value: {text:?}: must be a whole number");
            Failure::bad_request(message)
        };
        text.parse().map(Some).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before anything is declared.
    fn at(path: &str) -> Result<Route, Failure> {
        route(path, &Definitions::default())
    }

    fn object(path: &str) -> Option<(Kind, String, Option<Sub>)> {
        match at(path) {
            Ok(Route::Object(target)) => {
                Some((target.kind(), target.key().to_string(), target.sub))
            }
            Ok(_) => panic!("{path} is no object's"),
            Err(failure) => {
                assert_eq!(failure.code, 404, "{path}");
                None
            }
        }
    }

    #[test]
    fn paths_are_read_as_upstream_lays_them_out() {
        let cases = [
            ("/api/v1/namespaces", Kind::Namespace, "", None),
            ("/api/v1/namespaces/a", Kind::Namespace, "a", None),
            ("/api/v1/namespaces/a/status", Kind::Namespace, "a", Some(Sub::Status)),
            ("/api/v1/pods", Kind::Pod, "", None),
            ("/api/v1/namespaces/a/pods", Kind::Pod, "a/", None),
            ("/api/v1/namespaces/a/pods/b", Kind::Pod, "a/b", None),
            ("/api/v1/namespaces/a/pods/b/binding", Kind::Pod, "a/b", Some(Sub::Binding)),
            ("/api/v1/nodes/n%2e1", Kind::Node, "n.1", None),
            (
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                Kind::Deployment,
                "a/b",
                Some(Sub::Scale),
            ),
            ("/apis/net.kubesim.dev/v1/subnets/x", Kind::Subnet, "x", None),
        ];
        for (path, kind, key, sub) in cases {
            assert_eq!(object(path), Some((kind, key.to_owned(), sub)), "{path}");
        }
    }

    #[test]
    fn what_is_nowhere_is_not_found() {
        for path in [
            "/api/v1/pods/b",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/b/c/d",
            "/api/v1/namespaces/a/pods/b/scale",
            "/apis/apps/v2/deployments",
            "/apis/apps/v1/pods",
            "/api/v1/pots",
        ] {
            assert_eq!(object(path), None, "{path}");
        }
        assert!(matches!(at("/nothing"), Err(Failure { code: 404, .. })));
        assert!(matches!(at("/apis/none"), Err(Failure { code: 404, .. })));
        assert!(matches!(at("/api/v1/pods/%ff"), Err(Failure { code: 400, .. })));
    }

    #[test]
    fn what_a_node_is_asked_is_about_a_pod() {
        for what in What::ALL {
            let path = format!("/api/v1/namespaces/a/pods/b/{}", what.name());
            let Ok(Route::Node(target, found)) = at(&path) else { panic!("{path}") };
            assert_eq!((target.key().to_string(), found), ("a/b".to_owned(), what));
        }
        assert!(matches!(at("/api/v1/nodes/b/log"), Err(Failure { code: 404, .. })));
        assert!(matches!(at("/api/v1/namespaces/a/pods/b/proxy"), Err(Failure { code: 404, .. })));
        assert!(matches!(at("/tunnel/nodes/n1"), Ok(Route::Tunnel(node)) if node == "n1"));
    }

    #[test]
    fn a_query_is_read_as_go_reads_it() {
        let query = Query::parse("watch=1&limit=5&a=&labelSelector=a%3Db%2Cc");
        assert!(query.flag("watch") && !query.flag("b") && query.is_set("a"));
        assert_eq!(query.number("limit"), Ok(Some(5)));
        assert_eq!(query.text("labelSelector"), "a=b,c");
        assert!(Query::parse("limit=-1").number("limit").is_err());
        assert!(!Query::parse("watch=false").flag("watch"));
    }
}
