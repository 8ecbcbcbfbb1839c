//! What a request asks for, in the words of rules: read off its method, path and query alone, as
//! apiserver's `pkg/endpoints/request/requestinfo.go` does, whether anything is there or not.

use crate::http::route::Query;
use percent_encoding::percent_decode_str;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    pub of: Of,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// `/version`, `/apis`.
    Path(String),
    Objects(Objects),
}

/// Objects of the API. What is not said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The field selector of a list or a watch, as it came.
    pub fields: String,
}

impl Objects {
    /// `pods/status`.
    pub fn combined(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// Whether only those are asked for whose field is this.
    pub fn selects(&self, field: &str, value: &str) -> bool {
        terms(&self.fields).any(|(one, of)| one == field && of == value)
    }
}

impl Attributes {
    pub fn objects(verb: &str, objects: Objects) -> Attributes {
        Attributes { verb: verb.to_owned(), of: Of::Objects(objects) }
    }

    /// Of a request.
    pub fn read(method: &str, path: &str, query: &Query) -> Attributes {
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, rest) = match parts[..] {
            ["api", _, ref rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _, ref rest @ ..] if !rest.is_empty() => (group, rest),
            _ => {
                let (verb, of) = (method.to_lowercase(), Of::Path(path.to_owned()));
                return Attributes { verb, of };
            }
        };
        objects(group, method, rest, query)
    }
}

/// `namespaces/default/pods/a/status`.
fn objects(group: &str, method: &str, rest: &[&str], query: &Query) -> Attributes {
    let mut verb = match method {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let (rest, special) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (rest, Some("watch")),
        ["proxy", rest @ ..] if !rest.is_empty() => (rest, Some("proxy")),
        rest => (rest, None),
    };
    verb = special.unwrap_or(verb);
    let (namespace, rest) = match rest {
        ["namespaces", namespace] => (*namespace, rest),
        // These are a namespace's own.
        ["namespaces", namespace, "status" | "finalize", ..] => (*namespace, rest),
        ["namespaces", namespace, below @ ..] => (*namespace, below),
        rest => ("", rest),
    };
    let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
    let mut objects = Objects {
        group: group.to_owned(),
        resource: part(0),
        subresource: if special == Some("proxy") { String::new() } else { part(2) },
        namespace: namespace.to_owned(),
        name: part(1),
        fields: String::new(),
    };
    if objects.name.is_empty() {
        match verb {
            "get" | "watch" => {
                let watches = verb == "watch" || query.flag("watch");
                verb = if watches { "watch" } else { "list" };
                // One that chooses one object by its name is about that object.
                query.text("fieldSelector").clone_into(&mut objects.fields);
                objects.name = chosen_name(&objects.fields);
            }
            "delete" => verb = "deletecollection",
            _ => {}
        }
    }
    Attributes::objects(verb, objects)
}

fn chosen_name(selector: &str) -> String {
    let names = terms(selector).filter(|(field, _)| *field == "metadata.name");
    names.map(|(_, name)| name).last().unwrap_or_default().to_owned()
}

/// Which fields are to be what: `a=b`, `a==b`. Others (`a!=b`) choose by a field of no name.
fn terms(selector: &str) -> impl Iterator<Item = (&str, &str)> {
    let terms = selector.split(',').filter_map(|term| term.split_once('='));
    terms.map(|(field, value)| (field, value.trim_start_matches('=')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(method: &str, path: &str) -> String {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let read = Attributes::read(method, path, &Query::parse(query));
        match read.of {
            Of::Path(path) => format!("{} {path}", read.verb),
            Of::Objects(of) => {
                format!("{} {}.{} {}/{}", read.verb, of.combined(), of.group, of.namespace, of.name)
            }
        }
    }

    #[test]
    fn requests_are_read_as_upstream_reads_them() {
        for (method, path, expected) in [
            ("GET", "/version", "get /version"),
            ("POST", "/api/v1", "post /api/v1"),
            ("GET", "/apis/apps/v1/", "get /apis/apps/v1/"),
            ("GET", "/api/v1/pods", "list pods. /"),
            ("GET", "/api/v1/pods?watch=1", "watch pods. /"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch pods. a/"),
            ("GET", "/api/v1/namespaces/a/pods/b", "get pods. a/b"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db", "list pods. a/b"),
            ("PUT", "/api/v1/namespaces/a/pods/b/status", "update pods/status. a/b"),
            ("GET", "/api/v1/namespaces/a", "get namespaces. a/a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update namespaces/finalize. a/a"),
            ("GET", "/api/v1/namespaces", "list namespaces. /"),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection deployments.apps a/",
            ),
            ("DELETE", "/api/v1/nodes/n%2e1", "delete nodes. /n.1"),
            ("PATCH", "/apis/none/v9/things/x", "patch things.none /x"),
            ("OPTIONS", "/api/v1/pods", " pods. /"),
        ] {
            assert_eq!(words(method, path), expected, "{method} {path}");
        }
    }
}
