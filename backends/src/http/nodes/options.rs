//! What is said of a log or a stream, as it stands in a path (`v1.PodLogOptions`,
//! `v1.PodExecOptions` and others): a name may be there several times.

use crate::http::status::Failure;
use form_urlencoded::Serializer;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Options(BTreeMap<String, Vec<String>>);

impl Options {
    pub fn parse(query: &str) -> Options {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            all.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Options(all)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Empty if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.all(name).first().map(String::as_str).unwrap_or_default()
    }

    /// As apimachinery reads a boolean from a query.
    pub fn flag(&self, name: &str) -> bool {
        let said = self.all(name).first();
        said.is_some_and(|text| !["false", "0"].contains(&text.to_lowercase().as_str()))
    }

    pub fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        let text = self.text(name);
        let read = (!text.is_empty()).then(|| text.parse());
        read.transpose().map_err(|_| {
            Failure::bad_request(format!("{name}: Invalid value: {text:?}: must be a whole number"))
        })
    }
}

/// A path with a query, for a node.
pub struct Query {
    path: &'static str,
    query: Serializer<'static, String>,
}

impl Query {
    pub fn to(path: &'static str) -> Query {
        Query { path, query: Serializer::new(String::new()) }
    }

    pub fn with(mut self, name: &str, value: &str) -> Query {
        self.query.append_pair(name, value);
        self
    }

    pub fn flag(self, name: &str, value: bool) -> Query {
        if value { self.with(name, "true") } else { self }
    }

    pub fn text(mut self) -> String {
        format!("{}?{}", self.path, self.query.finish())
    }
}
