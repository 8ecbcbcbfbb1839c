//! Watch: what happens to objects, one JSON text after the other.
//!
//! A watch holds a place in the history and asks there for what follows, so a slow client costs
//! its connection's buffers and nothing else: one that falls behind all that is remembered gets
//! 410 and lists again.

use super::Inner;
use super::accept::Form;
use super::history::{Happened, Place};
use super::read::{self, Show, initializing};
use super::route::{Query, Target};
use super::selector::Selector;
use super::status::Failure;
use super::table;
use bytes::Bytes;
use kubesim_actors::objects::{Object, ObjectMeta};
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A watch that does not say how long it lasts ends after so long and up to twice that, as
/// upstream's (`--min-request-timeout`).
const SHORTEST: u64 = 1800;
/// How often a watch that wants bookmarks gets one (apiserver's cacher: about a minute).
const BOOKMARKS: Duration = Duration::from_secs(60);
/// Texts are gathered up to about so many bytes before they are sent.
const GATHER: usize = 64 << 10;

pub struct Watch {
    target: Target,
    selector: Selector,
    show: Show,
    /// What is there at the beginning, to be told as added.
    initial: Vec<Arc<Object>>,
    /// Or why it cannot go on from where it was: told in the stream, as upstream's cacher does.
    place: Result<Place, Failure>,
    /// All up to this revision is told, or does not concern this watch.
    revision: u64,
    /// Says when what was there at the beginning is told.
    marks_the_end: bool,
    bookmarks: bool,
    ends: Instant,
    columns_told: bool,
}

/// Where a watch begins.
pub fn open(
    inner: &Inner,
    target: Target,
    query: &Query,
    selector: Selector,
    show: Show,
) -> Result<Watch, Failure> {
    let from = query.number("resourceVersion")?.unwrap_or(0);
    let bookmarks = query.flag("allowWatchBookmarks");
    let asked = query.is_set("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
    let matching = query.text("resourceVersionMatch");
    if asked.is_some() != (matching == "NotOlderThan") || (asked.is_none() && !matching.is_empty())
    {
        let message = "sendInitialEvents: Forbidden: it goes with \
            resourceVersionMatch=NotOlderThan in a watch, and that with it";
        return Err(Failure::new(422, "Invalid", message));
    }
    let state = inner.state.borrow();
    let cache = state.history.cache().ok_or_else(initializing)?;
    // Without a version, upstream tells what is there ("Get State and Start at Any/Most Recent").
    let tells = asked.unwrap_or(from == 0);
    let (place, revision) = match (tells, from) {
        (false, 1..) => (state.history.after(from), from),
        _ => (Ok(state.history.end()), cache.revision),
    };
    let initial = match tells {
        true => read::list_all(cache, &target, &selector),
        false => Vec::new(),
    };
    let seconds = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let seconds = seconds.unwrap_or(SHORTEST + state.next_call % SHORTEST).min(86_400);
    Ok(Watch {
        target,
        selector,
        show,
        initial,
        place,
        revision,
        marks_the_end: asked == Some(true) && bookmarks,
        bookmarks,
        ends: Instant::now() + Duration::from_secs(seconds),
        columns_told: false,
    })
}

impl Watch {
    /// Tells until the time is over or nobody listens.
    pub async fn run(mut self, inner: Rc<Inner>, send: mpsc::Sender<Bytes>) {
        let mut news = inner.news.subscribe();
        let mut bookmark = Instant::now() + BOOKMARKS;
        self.show.now = inner.now();
        if self.begin(&send).await.is_err() {
            return;
        }
        loop {
            news.borrow_and_update();
            // Ages are of when they are told.
            self.show.now = inner.now();
            let (text, more) = self.gather(&inner);
            if !text.is_empty() && send.send(Bytes::from(text)).await.is_err() {
                return;
            }
            match more {
                More::Now => continue,
                More::Never => return,
                More::Later => {}
            }
            tokio::select! {
                heard = news.changed() => if heard.is_err() { return },
                () = sleep_until(self.ends) => return,
                () = send.closed() => return,
                () = sleep_until(bookmark), if self.bookmarks => {
                    bookmark = Instant::now() + BOOKMARKS;
                    let text = self.bookmark(false);
                    if send.send(Bytes::from(text)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn begin(
        &mut self,
        send: &mpsc::Sender<Bytes>,
    ) -> Result<(), mpsc::error::SendError<Bytes>> {
        let mut text = Vec::new();
        for object in std::mem::take(&mut self.initial) {
            self.event("ADDED", &object, None, &mut text);
            if text.len() > GATHER {
                send.send(Bytes::from(std::mem::take(&mut text))).await?;
            }
        }
        if self.marks_the_end {
            text.extend(self.bookmark(true));
        }
        if text.is_empty() { Ok(()) } else { send.send(Bytes::from(text)).await }
    }

    /// What happened since, up to some length.
    fn gather(&mut self, inner: &Inner) -> (Vec<u8>, More) {
        let state = inner.state.borrow();
        let mut text = Vec::new();
        while text.len() < GATHER {
            let next = match &self.place {
                Ok(place) => state.history.next(*place),
                Err(failure) => {
                    line("ERROR", failure.status().to_string().as_bytes(), &mut text);
                    return (text, More::Never);
                }
            };
            match next {
                Ok(Some((change, next))) => {
                    self.place = Ok(next);
                    self.change(change, &mut text);
                    self.revision = self.revision.max(change.revision);
                }
                Ok(None) if state.ending => return (text, More::Never),
                Ok(None) => {
                    let newest = state.history.cache().map_or(0, |cache| cache.revision);
                    self.revision = self.revision.max(newest);
                    return (text, More::Later);
                }
                Err(_) => {
                    let message = format!("too old resource version: {}", self.revision);
                    self.place = Err(Failure::expired(message));
                }
            }
        }
        (text, More::Now)
    }

    fn change(&mut self, change: &Happened, text: &mut Vec<u8>) {
        let target = &self.target;
        let here = change.kind == target.kind()
            && (target.namespace.is_empty() || change.key.namespace == target.namespace)
            && target.name.as_ref().is_none_or(|name| change.key.name == *name);
        if !here {
            return;
        }
        let chosen = |object: &Option<Arc<Object>>| {
            object.clone().filter(|object| self.selector.matches(object))
        };
        match (chosen(&change.old), chosen(&change.new)) {
            (None, None) => {}
            (None, Some(new)) => self.event("ADDED", &new, Some(&change.text), text),
            (Some(_), Some(new)) => self.event("MODIFIED", &new, Some(&change.text), text),
            (Some(old), None) => {
                // As it was last, at the revision at which it went.
                let gone = Object { version: change.revision, ..(*old).clone() };
                let written = Some(&change.text).filter(|_| change.new.is_none());
                self.event("DELETED", &Arc::new(gone), written, text);
            }
        }
    }

    /// `written` is the object as text, if somebody wrote it.
    fn event(
        &mut self,
        what: &str,
        object: &Arc<Object>,
        written: Option<&Bytes>,
        text: &mut Vec<u8>,
    ) {
        let shown = match self.show.form {
            Form::Plain if self.show.served.is_held() => {
                return match written {
                    Some(written) => line(what, written, text),
                    None => line(what, &object.to_text(), text),
                };
            }
            Form::Table => {
                let meta = json!({"resourceVersion": object.version.to_string()});
                let columns = !std::mem::replace(&mut self.columns_told, true);
                let one = std::slice::from_ref(object);
                table::table(object.kind(), one, meta, &self.show, columns)
            }
            Form::Plain | Form::Metadata => read::shown(object, &self.show),
        };
        line(what, shown.to_string().as_bytes(), text);
    }

    fn bookmark(&self, initial_end: bool) -> Vec<u8> {
        let kind = self.target.kind();
        let meta = ObjectMeta {
            resource_version: Some(self.revision.to_string()),
            annotations: initial_end
                .then(|| [("k8s.io/initial-events-end".to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let mut object = match self.show.form {
            Form::Table => table::table(kind, &[], Value::Null, &self.show, false),
            Form::Metadata => {
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"})
            }
            Form::Plain => {
                json!({"apiVersion": self.show.served.api_version(), "kind": kind.name()})
            }
        };
        object["metadata"] = serde_json::to_value(meta).unwrap_or_default();
        let mut text = Vec::new();
        line("BOOKMARK", object.to_string().as_bytes(), &mut text);
        text
    }
}

enum More {
    Now,
    Later,
    Never,
}

fn line(what: &str, object: &[u8], text: &mut Vec<u8>) {
    text.extend_from_slice(b"{\"type\":\"");
    text.extend_from_slice(what.as_bytes());
    text.extend_from_slice(b"\",\"object\":");
    text.extend_from_slice(object);
    text.extend_from_slice(b"}\n");
}
