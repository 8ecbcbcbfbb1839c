//! Watch: what happens to objects, one JSON text after the other.
//!
//! A watch holds a place in the history and asks there for what follows, so a slow client costs
//! its connection's buffers and nothing else: one that falls behind all that is remembered gets
//! 410 and lists again.
//!
//! To look, to encrypt and to ask the kernel to send costs the same for one change as for several.
//! So where there are many watches, each of them waits a little before it looks again ([`pause`]),
//! and tells at once what has happened meanwhile.

use super::Inner;
use super::accept::Form;
use super::event::Event;
use super::history::{Happened, History, Place};
use super::pieces::Pieces;
use super::read::{self, Show, initializing};
use super::route::{Query, Target};
use super::selector::Selector;
use super::status::Failure;
use super::table;
use super::writing::Writing;
use bytes::{Buf, Bytes};
use kubesim_actors::objects::{Object, ObjectMeta};
use serde_json::{Value, json};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// A watch that does not say how long it lasts ends after so long and up to twice that, as
/// upstream's (`--min-request-timeout`).
const SHORTEST: u64 = 1800;
/// How often a watch that wants bookmarks gets one (apiserver's cacher: about a minute).
const BOOKMARKS: Duration = Duration::from_secs(60);
/// So many watches look as soon as there are news, each for itself.
const FEW: usize = 100;
/// With each more of them, all wait for so much longer from one look to the next. To look and tell
/// costs some 25 µs: of a thousand, so often, a quarter of a core.
const LOOK: Duration = Duration::from_micros(100);
/// However many there are, none waits for longer.
const LONGEST: Duration = Duration::from_millis(100);
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
        let (mut ends, mut bookmark) = (pin!(sleep_until(self.ends)), pin!(sleep(BOOKMARKS)));
        self.show.now = inner.now();
        if self.begin(&inner, &send).await.is_err() {
            return;
        }
        loop {
            news.borrow_and_update();
            // Ages are of when they are told.
            self.show.now = inner.now();
            let (lines, more) = self.gather(&inner);
            if lines.len > 0 && send.send(lines.joined()).await.is_err() {
                return;
            }
            match more {
                More::Now => continue,
                More::Never => return,
                More::Later => {}
            }
            let looked = Instant::now();
            let heard = async {
                let heard = news.changed().await;
                match pause(inner.metrics.watches.get()) {
                    Duration::ZERO => {}
                    pause => sleep_until(looked + pause).await,
                }
                heard
            };
            tokio::select! {
                heard = heard => if heard.is_err() { return },
                () = ends.as_mut() => return,
                () = bookmark.as_mut(), if self.bookmarks => {
                    bookmark.as_mut().reset(Instant::now() + BOOKMARKS);
                    if send.send(self.bookmark(false)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn begin(
        &mut self,
        inner: &Inner,
        send: &mpsc::Sender<Bytes>,
    ) -> Result<(), mpsc::error::SendError<Bytes>> {
        let mut lines = Lines::default();
        for object in std::mem::take(&mut self.initial) {
            let text =
                |writing| Event::new("ADDED", &inner.state.borrow_mut().text(&object, writing));
            lines.push(self.told("ADDED", &object, text));
            if lines.len > GATHER {
                send.send(std::mem::take(&mut lines).joined()).await?;
            }
        }
        if self.marks_the_end {
            lines.push(self.bookmark(true));
        }
        if lines.len == 0 { Ok(()) } else { send.send(lines.joined()).await }
    }

    /// What happened since, up to some length.
    fn gather(&mut self, inner: &Inner) -> (Lines, More) {
        let state = inner.state.borrow();
        let mut lines = Lines::default();
        while lines.len < GATHER {
            let next = match &self.place {
                Ok(place) => state.history.next(*place),
                Err(failure) => {
                    let status = failure.status().to_string();
                    lines.push(Event::new("ERROR", status.as_bytes()).into_line());
                    return (lines, More::Never);
                }
            };
            match next {
                Ok(Some((change, next))) => {
                    self.place = Ok(next);
                    if let Some(line) = self.change(&state.history, change) {
                        lines.push(line);
                    }
                    self.revision = self.revision.max(change.revision);
                }
                Ok(None) if state.ending => return (lines, More::Never),
                Ok(None) => {
                    let newest = state.history.cache().map_or(0, |cache| cache.revision);
                    self.revision = self.revision.max(newest);
                    return (lines, More::Later);
                }
                Err(_) => {
                    let message = format!("too old resource version: {}", self.revision);
                    self.place = Err(Failure::expired(message));
                }
            }
        }
        (lines, More::Now)
    }

    /// What a change is to this watch, if it is anything.
    fn change(&mut self, history: &History, change: &Happened) -> Option<Bytes> {
        let target = &self.target;
        let here = change.kind == target.kind()
            && (target.namespace.is_empty() || change.key.namespace == target.namespace)
            && target.name.as_ref().is_none_or(|name| change.key.name == *name);
        if !here {
            return None;
        }
        let chosen = |object: &Option<Arc<Object>>| {
            object.clone().filter(|object| self.selector.matches(object))
        };
        let (what, object) = match (chosen(&change.old), chosen(&change.new)) {
            (None, None) => return None,
            (None, Some(new)) => ("ADDED", new),
            (Some(_), Some(new)) => ("MODIFIED", new),
            (Some(_), None) => ("DELETED", Arc::new(change.gone()?)),
        };
        let held = |writing: Writing| match (what, &change.new) {
            // It is there still, and not for this watch.
            ("DELETED", Some(_)) => Event::new(what, &writing.text(&object)),
            _ => history.event(change, writing).told_as(what),
        };
        Some(self.told(what, &object, held))
    }

    /// A line of the stream; `held` is the event as it is told to those who want objects as they
    /// are held.
    fn told(
        &mut self,
        what: &'static str,
        object: &Arc<Object>,
        held: impl FnOnce(Writing) -> Event,
    ) -> Bytes {
        if let Some(writing) = self.show.held() {
            return held(writing).into_line();
        }
        let shown = match self.show.form {
            Form::Table => {
                let meta = json!({"resourceVersion": object.version.to_string()});
                let columns = !std::mem::replace(&mut self.columns_told, true);
                let one = std::slice::from_ref(object);
                table::table(object.kind(), one, meta, &self.show, columns).to_string().into()
            }
            Form::Plain(_) | Form::Metadata => read::shown(object, &self.show),
        };
        Event::new(what, &shown).into_line()
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
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
            Form::Plain(_) => {
                json!({"apiVersion": self.show.served.api_version(), "kind": kind.name()})
            }
        };
        object["metadata"] = serde_json::to_value(meta).unwrap_or_default();
        let bare = object.to_string();
        let writing = match self.show.form {
            Form::Plain(writing) => writing,
            Form::Table | Form::Metadata => Writing::Bare,
        };
        let of = self.show.served.type_of(None);
        let write = |line: &mut Vec<u8>| writing.rewrite(of, bare.as_bytes(), line);
        Event::with("BOOKMARK", bare.len(), write).into_line()
    }
}

/// How long one of so many watches waits from one look to the next.
fn pause(watches: usize) -> Duration {
    let more = u32::try_from(watches.saturating_sub(FEW)).unwrap_or(u32::MAX);
    LOOK.saturating_mul(more).min(LONGEST)
}

enum More {
    Now,
    Later,
    Never,
}

/// Lines that are sent together.
#[derive(Default)]
struct Lines {
    all: Vec<Bytes>,
    len: usize,
}

impl Lines {
    fn push(&mut self, line: Bytes) {
        self.len += line.len();
        self.all.push(line);
    }

    /// One alone is not copied: all who watch share it.
    fn joined(self) -> Bytes {
        Pieces::from(self.all).copy_to_bytes(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_among_few_waits_for_nothing_and_among_many_not_for_long() {
        let pauses = [0, 1, 100, 110, 1000, 2500, usize::MAX].map(|count| pause(count).as_millis());
        assert_eq!(pauses, [0, 0, 0, 1, 90, 100, 100]);
    }
}
