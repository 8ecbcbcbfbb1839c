//! What can be done, path by path: the operations of OpenAPI v3, in upstream's shape (apiserver
//! `pkg/endpoints/installer.go`, `pkg/endpoints/openapi/openapi.go`).

use super::declared;
use super::parameters::{self, DELETE, DELETE_COLLECTION, LIST, PATCH, WRITE};
use super::schemas::{self, GROUP_VERSION_KIND, meta, reference};
use crate::http::resources::{self, Review, Sub};
use crate::http::versions::Served;
use kubesim_actors::objects::Definitions;
use serde_json::{Map, Value, json};

/// In which an object is sent and answered.
const ENCODINGS: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// The operation at `/version`.
pub const VERSION: &str = "CodeVersion";
const STREAMS: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

type Paths = Map<String, Value>;

/// Of a group's version.
pub fn of_version(group: &str, version: &str, definitions: &Definitions) -> Paths {
    let prefix = resources::prefix(group, version);
    let mut paths = Paths::new();
    let name = meta("APIResourceList");
    let root = root(&prefix, "get available resources", "APIResources", &name);
    paths.insert(format!("{prefix}/"), root);
    for served in resources::in_version(group, version, definitions) {
        let place = Place { group, version, prefix: &prefix, served };
        place.collection(&mut paths);
        place.one(&mut paths);
        for sub in place.served.subresources() {
            place.sub(*sub, &mut paths);
        }
    }
    for of in resources::reviews(group, version) {
        review(of, &prefix, &mut paths);
    }
    paths
}

/// It can be created, and that is all.
fn review(of: &Review, prefix: &str, paths: &mut Paths) {
    let schema = schemas::all().of_kind(of.group, "v1", of.kind).map(str::to_owned);
    let (scope, place) = match of.namespaced {
        true => ("Namespaced", "/namespaces/{namespace}"),
        false => ("", ""),
    };
    let create = Operation {
        action: "post",
        begins: "create",
        name: format!("{scope}{}", of.kind),
        said: format!("create {}", article(of.kind)),
        query: &[],
        body: schema.clone().map(|schema| (schema, &["*/*"][..])),
        codes: &["200", "201", "202"],
        answer: schema,
        about: (of.group, "v1", of.kind),
    };
    let mut parameters = parameters::query(WRITE);
    if of.namespaced {
        parameters.push(parameters::namespace());
    }
    parameters.push(parameters::one("pretty"));
    let item = json!({"parameters": parameters, "post": create.value(prefix)});
    paths.insert(format!("{prefix}{place}/{}", of.plural), item);
}

/// A path that answers with one thing, `/apis`, `/version`.
pub fn root(path: &str, said: &str, operation: &str, schema: &str) -> Value {
    let (id, tag) = names(path, "get", operation);
    let media = if operation == VERSION { &ENCODINGS[..1] } else { ENCODINGS };
    json!({"get": {
        "description": said, "operationId": id, "tags": [tag],
        "responses": responses(&["200"], Some(schema), media),
    }})
}

/// A resource, and where it is.
struct Place<'a> {
    group: &'a str,
    version: &'a str,
    prefix: &'a str,
    served: Served,
}

/// One operation on it.
struct Operation<'a> {
    /// `x-kubernetes-action`; and how its name begins.
    action: &'a str,
    begins: &'a str,
    /// The rest of its name.
    name: String,
    said: String,
    query: &'a [&'a str],
    /// In the body: the schema's name, and its media types.
    body: Option<(String, &'a [&'a str])>,
    codes: &'a [&'a str],
    answer: Option<String>,
    /// Whose type it is about: group, version, kind.
    about: (&'a str, &'a str, &'a str),
}

impl Place<'_> {
    fn kind(&self) -> &'static str {
        self.served.kind.name()
    }

    fn schema(&self) -> Option<String> {
        if self.served.is_declared() {
            return Some(declared::name(&self.served, self.kind()));
        }
        schemas::all().of_kind(self.group, self.version, self.kind()).map(str::to_owned)
    }

    /// `NamespacedPod`.
    fn named(&self) -> String {
        let scope = if self.served.kind.namespaced() { "Namespaced" } else { "" };
        format!("{scope}{}", self.kind())
    }

    fn path(&self) -> String {
        let namespace = if self.served.kind.namespaced() { "/namespaces/{namespace}" } else { "" };
        format!("{}{namespace}/{}", self.prefix, self.served.kind.plural())
    }

    /// With the parameters that all operations of a path have.
    fn item(&self, named: Option<String>, mut operations: Vec<Operation<'_>>) -> Value {
        let mut parameters: Vec<Value> =
            named.into_iter().map(|said| parameters::path("name", &said)).collect();
        if let [alone] = &mut operations[..] {
            parameters.extend(parameters::query(std::mem::take(&mut alone.query)));
        }
        if self.served.kind.namespaced() {
            parameters.push(parameters::namespace());
        }
        parameters.push(parameters::one("pretty"));
        let mut item = Map::from_iter([("parameters".to_owned(), parameters.into())]);
        for operation in operations {
            let method = match operation.action {
                "list" => "get",
                "deletecollection" => "delete",
                action => action,
            };
            item.insert(method.to_owned(), operation.value(self.prefix));
        }
        item.into()
    }

    fn operation<'a>(&'a self, action: &'a str, begins: &'a str, said: String) -> Operation<'a> {
        Operation {
            action,
            begins,
            name: self.named(),
            said,
            query: &[],
            body: None,
            codes: &["200"],
            answer: self.schema(),
            about: (self.group, self.version, self.kind()),
        }
    }

    fn list(&self) -> Operation<'_> {
        let said = format!("list or watch objects of kind {}", self.kind());
        let answer = match self.served.is_declared() {
            true => Some(declared::name(&self.served, &self.served.list_kind())),
            false => schemas::all().of_list(self.group, self.version, self.kind()),
        };
        Operation { query: LIST, answer, ..self.operation("list", "list", said) }
    }

    fn collection(&self, paths: &mut Paths) {
        let kind = self.kind();
        let mut operations = vec![
            self.list(),
            Operation {
                query: WRITE,
                body: self.schema().map(|schema| (schema, &["*/*"][..])),
                codes: &["200", "201", "202"],
                ..self.operation("post", "create", format!("create {}", article(kind)))
            },
        ];
        if self.served.verbs().contains(&"deletecollection") {
            let said = format!("delete collection of {kind}");
            operations.push(Operation {
                name: format!("Collection{}", self.named()),
                query: DELETE_COLLECTION,
                body: Some((meta("DeleteOptions"), &["*/*"])),
                answer: Some(meta("Status")),
                ..self.operation("deletecollection", "delete", said)
            });
        }
        paths.insert(self.path(), self.item(None, operations));
        if self.served.kind.namespaced() {
            let everywhere =
                Operation { name: format!("{kind}ForAllNamespaces"), query: &[], ..self.list() };
            let mut names = [LIST, &["pretty"]].concat();
            names.sort_unstable();
            let mut item = json!({"parameters": parameters::query(&names)});
            item["get"] = everywhere.value(self.prefix);
            paths.insert(format!("{}/{}", self.prefix, self.served.kind.plural()), item);
        }
    }

    fn one(&self, paths: &mut Paths) {
        let kind = self.kind();
        let mut operations = self.reads_and_writes("", "the specified", self.schema());
        operations.push(Operation {
            query: DELETE,
            body: Some((meta("DeleteOptions"), &["*/*"])),
            codes: &["200", "202"],
            answer: if returned(kind) { self.schema() } else { Some(meta("Status")) },
            ..self.operation("delete", "delete", format!("delete {}", article(kind)))
        });
        let item = self.item(Some(format!("name of the {kind}")), operations);
        paths.insert(format!("{}/{{name}}", self.path()), item);
    }

    /// `read … the specified`, `read … status of the specified`.
    fn reads_and_writes(
        &self,
        suffix: &str,
        what: &str,
        schema: Option<String>,
    ) -> Vec<Operation<'_>> {
        let kind = self.kind();
        // The last one, the strategic, is of Go's types.
        let patches = if self.served.is_declared() { &PATCHES[..3] } else { PATCHES };
        let of = |action, begins, says: &str| Operation {
            name: format!("{}{suffix}", self.named()),
            answer: schema.clone(),
            ..self.operation(action, begins, format!("{says} {what} {kind}"))
        };
        vec![
            of("get", "read", "read"),
            Operation {
                query: WRITE,
                body: schema.clone().map(|schema| (schema, &["*/*"][..])),
                codes: &["200", "201"],
                ..of("put", "replace", "replace")
            },
            Operation {
                query: PATCH,
                body: Some((meta("Patch"), patches)),
                codes: &["200", "201"],
                ..of("patch", "patch", "partially update")
            },
        ]
    }

    fn sub(&self, sub: Sub, paths: &mut Paths) {
        let about = self.served.type_of(Some(sub));
        let (group, version, kind) = about;
        let schema = match sub {
            Sub::Status | Sub::EphemeralContainers => self.schema(),
            _ => schemas::all().of_kind(group, version, kind).map(str::to_owned),
        };
        let suffix = upper(sub.name());
        let mut operations = if sub.verbs().contains(&"create") {
            vec![Operation {
                name: format!("{}{suffix}", self.named()),
                query: WRITE,
                body: schema.clone().map(|schema| (schema, &["*/*"][..])),
                codes: &["200", "201", "202"],
                answer: schema.clone(),
                ..self.operation(
                    "post",
                    "create",
                    format!("create {} of {}", sub.name(), article(self.kind())),
                )
            }]
        } else {
            let what = format!("{} of the specified", sub.name());
            self.reads_and_writes(&suffix, &what, schema)
        };
        for operation in &mut operations {
            operation.about = about;
        }
        let item = self.item(Some(format!("name of the {kind}")), operations);
        paths.insert(format!("{}/{{name}}/{}", self.path(), sub.name()), item);
    }
}

impl Operation<'_> {
    fn value(&self, prefix: &str) -> Value {
        let (group, version, kind) = self.about;
        let (id, tag) = names(prefix, self.begins, &self.name);
        let media = match self.action {
            "list" => [ENCODINGS, STREAMS].concat(),
            _ => ENCODINGS.to_vec(),
        };
        let mut value = json!({
            "description": self.said, "operationId": id, "tags": [tag],
            "responses": responses(self.codes, self.answer.as_deref(), &media),
            "x-kubernetes-action": self.action,
            GROUP_VERSION_KIND: {"group": group, "version": version, "kind": kind},
        });
        if !self.query.is_empty() {
            value["parameters"] = parameters::query(self.query).into();
        }
        if let Some((schema, media)) = &self.body {
            value["requestBody"] = json!({"content": content(schema, media)});
            // A DELETE says what it wants in its query as well.
            if *schema != meta("DeleteOptions") {
                value["requestBody"]["required"] = true.into();
            }
        }
        value
    }
}

fn content(schema: &str, media: &[&str]) -> Value {
    let each = media.iter().map(|kind| ((*kind).to_owned(), json!({"schema": reference(schema)})));
    Value::Object(each.collect())
}

fn responses(codes: &[&str], schema: Option<&str>, media: &[&str]) -> Value {
    let mut responses = json!({"401": {"description": "Unauthorized"}});
    for code in codes {
        let said = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        responses[*code] = json!({"description": said});
        if let Some(schema) = schema {
            responses[*code]["content"] = content(schema, media);
        }
    }
    responses
}

/// The name of an operation, `listAppsV1NamespacedDeployment`, and its tag, `apps_v1`
/// (`GetOperationIDAndTags`).
fn names(path: &str, begins: &str, rest: &str) -> (String, String) {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let in_group = match parts[..] {
        ["api", ..] => {
            parts[0] = "core";
            true
        }
        ["apis", _, ..] => {
            parts.remove(0);
            true
        }
        _ => false,
    };
    let words = |text: &str| {
        let text = text.strip_suffix(".k8s.io").unwrap_or(text);
        text.split(['.', '-']).map(upper).collect::<String>()
    };
    let id: String = parts.iter().filter(|_| in_group).map(|part| words(part)).collect();
    let tag: Vec<String> = parts
        .iter()
        .map(|part| {
            let words = words(part);
            format!("{}{}", words[..1].to_lowercase(), &words[1..])
        })
        .collect();
    (format!("{begins}{id}{rest}"), tag.join("_"))
}

fn upper(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// `a Pod`, `an Event`, `Endpoints` (apiserver `pkg/endpoints/installer.go`, `GetArticleForNoun`).
fn article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return kind.to_owned();
    }
    let vowel = kind.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// Kinds whose deletion is answered with the object (the registries' `ReturnDeletedObject`).
fn returned(kind: &str) -> bool {
    [
        "CSIDriver",
        "CSINode",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ResourceQuota",
        "Service",
        "ServiceAccount",
        "StorageClass",
        "VolumeAttachment",
    ]
    .contains(&kind)
}
