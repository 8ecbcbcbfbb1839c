//! What happened, for watches that come back: the newest changes, and the versions that lists which
//! are read in pages go on in. Both are bounded: who stayed away for longer starts anew (410).

use super::event::Event;
use super::status::Failure;
use super::writing::Writing;
use bytes::Bytes;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Key, Kind, Object};
use kubesim_runtime::Change;
use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Changes that are usually remembered, and how large their objects are together at most, as they
/// are stored.
pub const CHANGES: usize = 10_000;
const BYTES: usize = 64 << 20;
/// Versions that are kept for pages, and for how long (upstream's API server compacts etcd every
/// 5 minutes). What they share with the newest one costs nothing.
const VERSIONS: usize = 16;
const KEPT: Duration = Duration::from_secs(300);

/// One object, before and after one write. One of them is there.
#[derive(Clone, Debug)]
pub struct Happened {
    pub revision: u64,
    pub kind: Kind,
    pub key: Key,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
    /// See [`History::event`]: one of each writing.
    events: [OnceCell<Event>; 2],
}

impl Happened {
    fn told(&self, writing: Writing) -> Event {
        let gone = match self.new {
            Some(_) => None,
            None => self.gone(),
        };
        let (what, object) = match (&self.new, &self.old) {
            (Some(new), Some(_)) => ("MODIFIED", Some(&**new)),
            (Some(new), None) => ("ADDED", Some(&**new)),
            (None, _) => ("DELETED", gone.as_ref()),
        };
        let write = |line: &mut Vec<u8>| object.iter().for_each(|one| writing.write(one, line));
        Event::with(what, 0, write)
    }

    /// Bytes of the events that were written.
    fn written(&self) -> usize {
        self.events.iter().filter_map(OnceCell::get).map(|event| event.line().len()).sum()
    }

    /// The object as it was last, at the revision at which it went.
    pub fn gone(&self) -> Option<Object> {
        let old = self.old.as_ref()?;
        Some(Object { version: self.revision, ..(**old).clone() })
    }
}

/// A place between two changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// What followed is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten;

#[derive(Debug)]
pub struct History {
    cache: Option<Cache>,
    changes: VecDeque<Happened>,
    /// The place before the first one of them.
    first: u64,
    /// All that happened after this revision is among them.
    since: u64,
    /// Of all the events that were written.
    bytes: Cell<usize>,
    /// Somebody has asked for something.
    remembers: bool,
    kept: BTreeMap<u64, (Instant, Cache)>,
    /// How many changes are remembered and how many bytes of them: a test remembers fewer.
    limits: (usize, usize),
}

impl Default for History {
    fn default() -> Self {
        History {
            cache: None,
            changes: VecDeque::new(),
            first: 0,
            since: 0,
            bytes: Cell::new(0),
            remembers: false,
            kept: BTreeMap::new(),
            limits: (CHANGES, BYTES),
        }
    }
}

impl History {
    /// Remembers so many changes.
    pub fn of(changes: usize) -> History {
        History { limits: (changes, BYTES), ..History::default() }
    }

    /// The newest version; none until the API server has read its store.
    pub fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// As of this revision, if it is the newest one or one that is kept.
    pub fn at(&self, revision: u64) -> Option<&Cache> {
        let newest = self.cache.as_ref().filter(|cache| cache.revision == revision);
        newest.or_else(|| self.kept.get(&revision).map(|(_, cache)| cache))
    }

    /// Keeps the newest version for the pages that follow.
    pub fn keep(&mut self) {
        if let Some(cache) = &self.cache {
            self.kept.insert(cache.revision, (Instant::now(), cache.clone()));
        }
        while self.kept.len() > VERSIONS {
            self.kept.pop_first();
        }
    }

    /// The newest place.
    pub fn end(&self) -> Place {
        Place(self.first + self.changes.len() as u64)
    }

    /// Where a watch goes on that knows all up to this revision.
    pub fn after(&self, revision: u64) -> Result<Place, Failure> {
        if revision < self.since {
            let message = format!("too old resource version: {revision} ({})", self.since);
            return Err(Failure::expired(message));
        }
        let known = self.changes.partition_point(|change| change.revision <= revision);
        Ok(Place(self.first + known as u64))
    }

    /// A change as watches tell it: the new object, or the old one as it went. It is written when
    /// somebody first wants it so, once for all who watch, list and get it. Clients get what they
    /// wrote, so all that comes from outside is written, and counted; of what comes from inside,
    /// nothing need be, and a simulated cluster writes thousands of leases a second.
    pub fn event<'a>(&self, change: &'a Happened, writing: Writing) -> &'a Event {
        change.events[writing as usize].get_or_init(|| {
            let event = change.told(writing);
            self.bytes.set(self.bytes.get() + event.line().len());
            event
        })
    }

    /// The text of an object that was just written: of this very value, as what a dry run made says
    /// of itself that it is a version that it is not.
    pub fn text(&self, object: &Arc<Object>, writing: Writing) -> Option<Bytes> {
        let first = self.changes.partition_point(|change| change.revision < object.version);
        let is =
            |change: &&Happened| change.new.as_ref().is_some_and(|new| Arc::ptr_eq(new, object));
        let since = self.changes.range(first..);
        let mut written = since.take_while(|change| change.revision == object.version);
        written.find(is).map(|change| self.event(change, writing).object())
    }

    /// What happened at a place, and the place after it; none if nothing has yet.
    pub fn next(&self, place: Place) -> Result<Option<(&Happened, Place)>, Forgotten> {
        let index = place.0.checked_sub(self.first).ok_or(Forgotten)?;
        if index > self.changes.len() as u64 {
            return Err(Forgotten);
        }
        let change = self.changes.get(index as usize);
        Ok(change.map(|change| (change, Place(place.0 + 1))))
    }

    /// From now on somebody may come back to what there is now. Until then nothing is remembered:
    /// a simulation that is served and that nobody looks into costs what it costs without.
    pub fn remember(&mut self) {
        self.remembers = true;
    }

    pub fn publish(&mut self, cache: Cache) {
        let follows = |old: &Cache| old.revision <= cache.revision && cache.goes_on(old);
        if !self.remembers || !self.cache.as_ref().is_some_and(follows) {
            return self.begin(cache);
        }
        let mut changes = Vec::new();
        if let Some(old) = self.cache.replace(cache)
            && let Some(cache) = &self.cache
        {
            between(&old, cache, &mut changes);
        }
        changes.sort_by_key(|change| change.revision);
        self.changes.extend(changes);
        let (count, bytes) = self.limits;
        while self.changes.len() > count || self.bytes.get() > bytes {
            let Some(gone) = self.changes.pop_front() else { break };
            self.first += 1;
            self.since = gone.revision;
            self.bytes.set(self.bytes.get() - gone.written());
        }
        self.kept.retain(|_, (since, _)| since.elapsed() < KEPT);
    }

    /// Another history: what was before is not known to be the same, and watches start anew.
    fn begin(&mut self, cache: Cache) {
        self.first = self.end().0 + 1;
        self.forget();
        self.since = cache.revision;
        self.cache = Some(cache);
    }

    /// The API server ended: nothing is served until another publishes.
    pub fn reset(&mut self) {
        self.first = self.end().0 + 1;
        self.forget();
        self.cache = None;
    }

    fn forget(&mut self) {
        self.changes.clear();
        self.bytes.set(0);
        self.kept.clear();
    }
}

fn between(old: &Cache, new: &Cache, changes: &mut Vec<Happened>) {
    if let Some(write) = new.last.as_ref().filter(|_| new.revision == old.revision + 1) {
        let (kind, key) = (write.kind, write.key.clone());
        let (old, new_object) = (write.old.clone(), write.new.clone());
        push(changes, new.revision, kind, key, old, new_object);
        return;
    }
    for (kind, view) in &new.views {
        let Some(before) = old.views.get(kind) else { continue };
        for change in before.diff(view) {
            let (key, old, new_object) = match change {
                Change::Added(key, new) => (key, None, Some(new)),
                Change::Changed { key, old, new } => (key, Some(old), Some(new)),
                Change::Removed(key, old) => (key, Some(old), None),
            };
            // When it was removed is not said: at the latest, now.
            let revision = new_object.map_or(new.revision, |object| object.version);
            push(changes, revision, *kind, key.clone(), old.cloned(), new_object.cloned());
        }
    }
}

/// One that was made again under its name is another one.
fn push(
    changes: &mut Vec<Happened>,
    revision: u64,
    kind: Kind,
    key: Key,
    old: Option<Arc<Object>>,
    new: Option<Arc<Object>>,
) {
    let mut change = |revision, old: Option<Arc<Object>>, new: Option<Arc<Object>>| {
        if old.is_some() || new.is_some() {
            let (key, events) = (key.clone(), Default::default());
            changes.push(Happened { revision, kind, key, old, new, events });
        }
    };
    match (&old, &new) {
        (Some(before), Some(after)) if before.uid != after.uid => {
            change(revision.saturating_sub(1), old, None);
            change(revision, None, new);
        }
        _ => change(revision, old, new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Writing::{Bare, Go};
    use kubesim_actors::objects::{Body, ConfigMap, Uid, View};

    fn object(name: &str, uid: u128, version: u64) -> Arc<Object> {
        let body = Body::ConfigMap(Arc::new(ConfigMap::default()));
        let mut object = Object::new(Key::new("x", name), body);
        (object.uid, object.version) = (Uid(uid), version);
        Arc::new(object)
    }

    fn cache(revision: u64, objects: &[Arc<Object>]) -> Cache {
        let mut view = View::empty(1);
        for object in objects {
            view.insert(object.key.clone(), object.clone(), object.version);
        }
        view.advance(revision);
        let views = BTreeMap::from([(Kind::ConfigMap, view)]);
        Cache { views, revision, ..Cache::default() }
    }

    /// One that somebody has asked.
    fn asked(limits: (usize, usize)) -> History {
        History { limits, remembers: true, ..History::default() }
    }

    fn told(history: &History, mut place: Place) -> Vec<(u64, bool)> {
        let mut told = Vec::new();
        while let Some((change, next)) = history.next(place).expect("remembered") {
            told.push((change.revision, change.new.is_some()));
            place = next;
        }
        told
    }

    #[test]
    fn several_writes_at_once_are_told_in_their_order_and_a_new_object_as_one() {
        let mut history = asked((CHANGES, BYTES));
        history.publish(cache(10, &[object("a", 1, 5), object("b", 2, 6)]));
        let start = history.after(10).expect("now");
        history.publish(cache(14, &[object("c", 4, 11), object("a", 3, 14)]));
        assert_eq!(told(&history, start), [(11, true), (13, false), (14, true), (14, false)]);
        let later = history.after(13).expect("remembered");
        assert_eq!(told(&history, later), [(14, true), (14, false)]);
        assert!(told(&history, history.end()).is_empty());
    }

    #[test]
    fn what_is_too_old_is_expired() {
        let mut history = asked((2, BYTES));
        history.publish(cache(10, &[]));
        let start = history.after(10).expect("now");
        assert_eq!(history.after(9).expect_err("before the beginning").code, 410);
        for version in 11..=13 {
            history.publish(cache(version, &[object("a", 1, version)]));
        }
        assert_eq!(history.next(start).err(), Some(Forgotten));
        assert_eq!(history.after(10).expect_err("forgotten").code, 410);
        assert_eq!(
            told(&history, history.after(11).expect("remembered")),
            [(12, true), (13, true)]
        );
    }

    #[test]
    fn large_objects_are_remembered_for_less_long() {
        let size = Event::new("MODIFIED", &Go.text(&object("a", 1, 11))).line().len();
        let mut history = asked((CHANGES, 3 * size));
        history.publish(cache(10, &[]));
        for version in 11..=20 {
            let new = object("a", 1, version);
            history.publish(cache(version, &[Arc::clone(&new)]));
            assert!(history.text(&new, Go).is_some(), "as the client that wrote it gets it");
        }
        history.publish(cache(21, &[object("a", 1, 21)]));
        assert_eq!(history.after(16).expect_err("forgotten").code, 410);
        assert_eq!(told(&history, history.after(17).expect("remembered")).len(), 4);
        assert_eq!(history.bytes.get(), 3 * size);
    }

    #[test]
    fn an_event_is_written_when_somebody_wants_it_and_then_once() {
        let mut history = asked((CHANGES, BYTES));
        history.publish(cache(10, &[]));
        let (place, new) = (history.end(), object("a", 1, 11));
        history.publish(cache(11, &[Arc::clone(&new)]));
        assert_eq!(history.bytes.get(), 0, "nobody wants it");
        let (change, _) = history.next(place).expect("remembered").expect("a change");
        let line = history.event(change, Go).line().clone();
        let others = history.event(change, Go).line().as_ptr();
        assert_eq!((others, history.bytes.get()), (line.as_ptr(), line.len()));
        let text = history.text(&new, Go).expect("it was just written");
        assert_eq!(text, Go.text(&new));
        assert!(line.as_ptr_range().contains(&text.as_ptr()), "part of the same");
        let tried = object("a", 1, 11);
        let bare = history.text(&new, Bare).expect("it was just written");
        let both = history.event(change, Bare).line().len() + line.len();
        assert_eq!((&bare[..], history.bytes.get()), (&new.to_text()[..], both));
        assert_eq!(history.text(&tried, Go), None, "what was only tried says the same version");
    }

    #[test]
    fn nothing_is_remembered_for_nobody() {
        let mut history = History::default();
        for version in 10..=12 {
            history.publish(cache(version, &[object("a", 1, version)]));
        }
        assert_eq!(history.after(11).expect_err("nobody was told of it").code, 410);
        let place = history.after(12).expect("now");
        history.remember();
        history.publish(cache(13, &[object("a", 1, 13)]));
        assert_eq!(told(&history, place), [(13, true)]);
    }

    #[test]
    fn another_history_begins_anew() {
        let mut history = asked((CHANGES, BYTES));
        history.publish(cache(10, &[]));
        let place = history.end();
        history.reset();
        assert!(history.cache().is_none());
        history.publish(cache(10, &[]));
        assert_eq!(history.next(place).err(), Some(Forgotten));
        assert_eq!(history.after(10), Ok(history.end()));
    }

    #[test]
    fn versions_are_kept_for_the_pages_that_follow() {
        let mut history = asked((CHANGES, BYTES));
        history.publish(cache(10, &[object("a", 1, 5)]));
        history.keep();
        history.publish(cache(11, &[]));
        let len = |revision| history.at(revision).map(|cache| cache.views[&Kind::ConfigMap].len());
        assert_eq!((len(10), len(11), len(9)), (Some(1), Some(0), None));
    }
}
