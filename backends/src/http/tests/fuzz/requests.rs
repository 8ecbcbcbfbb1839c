//! Requests: of those that clients send, with parts of them exchanged.

use super::bodies;
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt;

#[derive(Clone, Debug)]
pub struct Sent {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.method, self.target)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", String::from_utf8_lossy(value))?;
        }
        let shown = &self.body[..self.body.len().min(2000)];
        write!(f, "({} bytes) {}", self.body.len(), String::from_utf8_lossy(shown))
    }
}

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"];

const PATHS: &[&str] = &[
    "/api",
    "/apis",
    "/api/v1",
    "/apis/apps/v1",
    "/version",
    "/healthz/ping",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3/api/v1",
    "/.well-known/openid-configuration",
    "/api/v1/namespaces",
    "/api/v1/namespaces/default",
    "/api/v1/namespaces/default/finalize",
    "/api/v1/nodes",
    "/api/v1/configmaps",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/a",
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/pods/a",
    "/api/v1/namespaces/default/pods/a/status",
    "/api/v1/namespaces/default/pods/a/binding",
    "/api/v1/namespaces/default/pods/a/eviction",
    "/api/v1/namespaces/default/pods/a/log",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/events",
    "/api/v1/namespaces/default/resourcequotas",
    "/api/v1/namespaces/default/limitranges",
    "/api/v1/namespaces/default/serviceaccounts/default/token",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/deployments/a",
    "/apis/apps/v1/namespaces/default/deployments/a/scale",
    "/apis/apps/v1/namespaces/default/statefulsets",
    "/apis/batch/v1/namespaces/default/jobs",
    "/apis/batch/v1/namespaces/default/cronjobs",
    "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
    "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
    "/apis/coordination.k8s.io/v1/namespaces/default/leases",
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    "/apis/events.k8s.io/v1/namespaces/default/events",
    "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
    "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
    "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    "/apis/authentication.k8s.io/v1/tokenreviews",
];

/// Of a path, in place of one of its segments.
const SEGMENTS: &[&str] = &[
    "",
    "..",
    ".",
    "%2e%2e",
    "%2F",
    "%00",
    "%ff%fe",
    "%",
    "%zz",
    "a%20b",
    "kube-system",
    "b",
    "*",
    "watch",
    "proxy",
    "status",
    "scale",
    "~",
    "v1beta1",
    "A",
];

const PARAMETERS: &[&str] = &[
    "watch",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "allowWatchBookmarks",
    "timeoutSeconds",
    "labelSelector",
    "fieldSelector",
    "dryRun",
    "fieldManager",
    "force",
    "fieldValidation",
    "gracePeriodSeconds",
    "propagationPolicy",
    "orphanDependents",
    "includeObject",
    "hash",
    "pretty",
];

const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "true",
    "false",
    "-1",
    "18446744073709551616",
    "99999999999999999999999999",
    "x",
    "All",
    "Exact",
    "NotOlderThan",
    "Background",
    "Strict",
    "Ignore",
    "Warn",
    "Object",
    "None",
    "a%3Db",
    "a%20in%20(b,c),!d",
    "a%20in%20(",
    "!",
    "metadata.name%3Da",
    "spec.nodeName!%3Db",
    "status.phase%3DRunning",
    "no.such%3Da",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOlsiIiwiIl19",
    "%ff",
    "%",
    "curl",
];

const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/json; charset=utf-8",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
    "",
    "; =",
];

const ACCEPTS: &[&str] = &[
    "application/json",
    "*/*",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=Nothing;v=v1",
    "application/vnd.kubernetes.protobuf",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "text/html",
    ",;,=",
];

/// Others, of which each request has few.
const HEADERS: &[(&str, &[u8])] = &[
    ("accept-encoding", b"gzip"),
    ("content-encoding", b"gzip"),
    ("authorization", b"Bearer x"),
    ("authorization", b"Bearer abcdef.0123456789abcdef"),
    ("authorization", b"Basic \xff\xfe"),
    ("impersonate-user", b"somebody"),
    ("impersonate-user", b"system:serviceaccount:default:default"),
    ("impersonate-group", b"system:masters"),
    ("impersonate-uid", b"x"),
    ("impersonate-extra-%zz", b"\xff"),
    ("if-none-match", b"\"0\""),
    ("kubesim-lease", b"kube-system/kube-scheduler a"),
    ("kubesim-lease", b"x"),
    ("user-agent", b"\xf0\x9f\x92\xa5"),
    ("content-length", b"1"),
];

fn path() -> impl Strategy<Value = String> {
    let exchanged = (select(PATHS), any::<prop::sample::Index>(), select(SEGMENTS)).prop_map(
        |(path, at, with)| {
            let mut segments: Vec<&str> = path.split('/').collect();
            let at = at.index(segments.len());
            segments[at] = with;
            format!("/{}", segments.join("/").trim_start_matches('/'))
        },
    );
    let longer =
        (select(PATHS), select(SEGMENTS)).prop_map(|(path, with)| format!("{path}/{with}"));
    prop_oneof![6 => select(PATHS).prop_map(str::to_owned), 1 => exchanged, 1 => longer]
}

fn query() -> impl Strategy<Value = String> {
    let pair = (select(PARAMETERS), select(VALUES)).prop_map(|(name, value)| {
        // A watch without an end is one that the test need not wait for.
        format!("{name}={value}")
    });
    prop_oneof![3 => Just(String::new()), 3 => prop::collection::vec(pair, 1..4).prop_map(|pairs| {
        format!("?{}", pairs.join("&"))
    })]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let more = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::collection::vec(select(HEADERS), 1..3),
    ];
    (select(CONTENT_TYPES), select(ACCEPTS), more).prop_map(|(content_type, accept, more)| {
        let mut headers = vec![
            ("content-type", content_type.as_bytes().to_vec()),
            ("accept", accept.as_bytes().to_vec()),
        ];
        headers.extend(more.into_iter().map(|(name, value)| (name, value.to_vec())));
        headers
    })
}

/// One that a client might send: what is written is JSON, mostly.
fn likely() -> impl Strategy<Value = Sent> {
    let writes = (select(&["POST", "PUT", "PATCH", "DELETE"][..]), path(), bodies::body());
    (writes, query(), select(CONTENT_TYPES)).prop_map(|((method, path, body), query, patch)| {
        let content_type = if method == "PATCH" { patch } else { "application/json" };
        let headers = vec![("content-type", content_type.as_bytes().to_vec())];
        Sent { method: method.to_owned(), target: format!("{path}{query}"), headers, body }
    })
}

pub fn request() -> impl Strategy<Value = Sent> {
    let any = (select(METHODS), path(), query(), headers(), bodies::body()).prop_map(
        |(method, path, query, headers, body)| Sent {
            method: method.to_owned(),
            target: format!("{path}{query}"),
            headers,
            body,
        },
    );
    prop_oneof![1 => any, 2 => likely()]
}
