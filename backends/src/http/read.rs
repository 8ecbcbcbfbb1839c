//! Get and list: pure functions of a version of the cache.

use super::State;
use super::accept::Form;
use super::history::History;
use super::pieces::Pieces;
use super::route::{Query, Target};
use super::selector::Selector;
use super::status::Failure;
use super::table::{self, Include};
use super::versions::Served;
use super::writing::Writing;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Key, Object};
use kubesim_runtime::Wall;
use serde_json::{Value, json};
use std::sync::Arc;

/// How objects are shown.
#[derive(Clone, Debug)]
pub struct Show {
    pub served: Served,
    pub form: Form,
    pub include: Include,
    /// What ages are counted from.
    pub now: Wall,
}

impl Show {
    /// How they are written, if they are shown in the version in which they are held: so that one
    /// text is for all who ask so.
    pub fn held(&self) -> Option<Writing> {
        match self.form {
            Form::Plain(writing) if self.served.is_held() => Some(writing),
            _ => None,
        }
    }
}

/// One object as a client wants it, as text.
pub fn text(object: &Arc<Object>, show: &Show, state: &mut State) -> Bytes {
    match show.held() {
        Some(writing) => state.text(object, writing),
        None => shown(object, show),
    }
}

/// The same of one that is no longer held, or not yet.
pub fn shown(object: &Arc<Object>, show: &Show) -> Bytes {
    match show.form {
        Form::Plain(writing) => show.served.text(object, writing),
        Form::Metadata => table::metadata(object).to_string().into(),
        Form::Table => {
            let meta = json!({"resourceVersion": object.version.to_string()});
            let one = std::slice::from_ref(object);
            table::table(object.kind(), one, meta, show, true).to_string().into()
        }
    }
}

pub fn get(cache: &Cache, target: &Target) -> Result<Arc<Object>, Failure> {
    let (kind, key) = (target.kind(), target.key());
    let found = cache.object(kind, &key).cloned();
    found.ok_or_else(|| Failure::not_found(kind, &key.name))
}

/// How old an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Any,
    NotOlderThan(u64),
    Exact(u64),
}

/// `resourceVersion` and `resourceVersionMatch`
/// (apimachinery `pkg/apis/meta/internalversion/validation`).
pub fn age(query: &Query) -> Result<Age, Failure> {
    let version = query.number("resourceVersion")?;
    let forbidden = |why: &str| Failure::bad_request(format!("resourceVersionMatch: {why}"));
    match (query.text("resourceVersionMatch"), version) {
        ("", None | Some(0)) => Ok(Age::Any),
        ("", Some(version)) => Ok(Age::NotOlderThan(version)),
        (_, None) if !query.flag("sendInitialEvents") => Err(forbidden(
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        ("NotOlderThan", version) => Ok(Age::NotOlderThan(version.unwrap_or(0))),
        ("Exact", Some(0)) => Err(forbidden(
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        ("Exact", Some(version)) => Ok(Age::Exact(version)),
        (other, _) => Err(forbidden(&format!(
            "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
        ))),
    }
}

/// A list, or a page of one.
pub struct Page {
    pub revision: u64,
    pub objects: Vec<Arc<Object>>,
    /// Where the next page begins, and how many more there are if that is known.
    pub next: Option<(Key, Option<u64>)>,
}

pub fn list(
    history: &mut History,
    target: &Target,
    query: &Query,
    selector: &Selector,
) -> Result<Page, Failure> {
    let limit = query.number("limit")?.unwrap_or(0);
    let (revision, from) = match query.text("continue") {
        "" => match age(query)? {
            Age::Exact(revision) => (Some(revision), None),
            _ => (None, None),
        },
        _ if query.number("resourceVersion")?.is_some_and(|version| version > 0) => {
            let message = "specifying resource version is not allowed when using continue";
            return Err(Failure::bad_request(message));
        }
        token => {
            let (revision, from) = parse_continue(token)?;
            (Some(revision), Some(from))
        }
    };
    let cache = match revision {
        None => history.cache().ok_or_else(initializing)?,
        Some(revision) => history.at(revision).ok_or_else(|| gone(from.is_some()))?,
    };
    let page = page(cache, target, selector, from, limit);
    // What another page may be asked of is kept, if it is not yet.
    let newest = history.cache().is_some_and(|cache| cache.revision == page.revision);
    if page.next.is_some() && newest {
        history.keep();
    }
    Ok(page)
}

fn gone(continued: bool) -> Failure {
    Failure::expired(if continued {
        "The provided continue parameter is too old to display a consistent list result. You must \
         start a new list without the continue parameter."
    } else {
        "The resourceVersion for the provided list is too old."
    })
}

pub fn initializing() -> Failure {
    Failure::too_many("storage is (re)initializing")
}

fn page(
    cache: &Cache,
    target: &Target,
    selector: &Selector,
    from: Option<Key>,
    limit: u64,
) -> Page {
    let first = from.unwrap_or_else(|| Key::new(target.namespace.clone(), ""));
    let all = &target.namespace;
    let mut page = Page { revision: cache.revision, objects: Vec::new(), next: None };
    let Some(view) = cache.views.get(&target.kind()) else { return page };
    let mut entries = view
        .iter_from(&first)
        .take_while(|(key, _)| all.is_empty() || key.namespace == *all)
        .filter(|(_, object)| selector.matches(object));
    while let Some((key, object)) = entries.next() {
        if limit > 0 && page.objects.len() as u64 == limit {
            // With a selector, upstream does not count what is left.
            let rest = selector.is_empty().then(|| entries.count() as u64 + 1);
            page.next = Some((key.clone(), rest));
            break;
        }
        page.objects.push(object.clone());
    }
    page
}

/// All that a selector chooses.
pub fn list_all(cache: &Cache, target: &Target, selector: &Selector) -> Vec<Arc<Object>> {
    let named =
        |object: &Arc<Object>| target.name.as_ref().is_none_or(|name| object.key.name == *name);
    let mut objects = page(cache, target, selector, None, 0).objects;
    objects.retain(named);
    objects
}

fn continue_token(revision: u64, next: &Key) -> String {
    let start = [next.namespace.as_str(), next.name.as_str()];
    BASE64.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string())
}

fn parse_continue(token: &str) -> Result<(u64, Key), Failure> {
    let read = || {
        let bytes = BASE64.decode(token).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let part = |index: usize| value["start"][index].as_str();
        Some((value["rv"].as_u64()?, Key::new(part(0)?, part(1)?)))
    };
    let wrong = || Failure::bad_request(format!("continue key is not valid: {token:?}"));
    read().ok_or_else(wrong)
}

/// The list's text.
pub fn render(target: &Target, page: &Page, show: &Show, state: &mut State) -> Pieces {
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some((next, rest)) = &page.next {
        meta["continue"] = continue_token(page.revision, next).into();
        if let Some(rest) = rest {
            meta["remainingItemCount"] = (*rest).into();
        }
    }
    let list = show.served.list_kind();
    let (api_version, name, list) = match show.form {
        Form::Table => {
            let table = table::table(target.kind(), &page.objects, meta, show, true);
            return vec![Bytes::from(table.to_string())].into();
        }
        Form::Metadata => {
            let name = "PartialObjectMetadata";
            ("meta.k8s.io/v1", name, format!("{name}List"))
        }
        Form::Plain(_) => (show.served.api_version(), target.kind().name(), list),
    };
    let head = json!({"apiVersion": api_version, "kind": list, "metadata": meta});
    let mut head = head.to_string();
    head.pop();
    head += ",\"items\":[";
    // In a list of its kind, an item does not say its kind, if Go has a type for it (as
    // upstream's).
    let typed = format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{name}\",");
    let bare = matches!(show.form, Form::Plain(_)) && !show.served.is_declared();
    let mut parts = Vec::with_capacity(2 * page.objects.len() + 2);
    parts.push(Bytes::from(head));
    for (index, object) in page.objects.iter().enumerate() {
        let item = text(object, show, state);
        let begins = bare && item.starts_with(typed.as_bytes());
        let (before, skipped) = match (begins, index) {
            (true, 0) => ("{", typed.len()),
            (true, _) => (",{", typed.len()),
            (false, 0) => ("", 0),
            (false, _) => (",", 0),
        };
        parts.extend([Bytes::from_static(before.as_bytes()), item.slice(skipped..)]);
    }
    parts.push(Bytes::from_static(b"]}"));
    parts.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_old_a_list_may_be() {
        let cases = [
            ("", Ok(Age::Any)),
            ("resourceVersion=0", Ok(Age::Any)),
            ("resourceVersion=7", Ok(Age::NotOlderThan(7))),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan", Ok(Age::NotOlderThan(7))),
            ("resourceVersion=7&resourceVersionMatch=Exact", Ok(Age::Exact(7))),
        ];
        for (text, expected) in cases {
            assert_eq!(age(&Query::parse(text)), expected, "{text}");
        }
        for wrong in [
            "resourceVersion=x",
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersion=1&resourceVersionMatch=Newest",
        ] {
            assert_eq!(age(&Query::parse(wrong)).expect_err(wrong).code, 400, "{wrong}");
        }
    }

    #[test]
    fn a_page_says_where_the_next_begins() {
        let key = Key::new("ns", "name");
        assert_eq!(parse_continue(&continue_token(7, &key)), Ok((7, key)));
        for wrong in ["x", "e30", "eyJydiI6MX0"] {
            assert_eq!(parse_continue(wrong).expect_err(wrong).code, 400);
        }
    }
}
