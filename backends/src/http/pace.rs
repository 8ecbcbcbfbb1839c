//! Clients that are slow, on purpose or not: what they have not sent or taken yet is bounded in
//! bytes, and each of them in time.
//!
//! - Who does not send a request's head is left after `Limits::head`, without an answer (Go's
//!   `ReadHeaderTimeout`, which apiserver's `pkg/server/secure_serving.go` sets).
//! - Who does not send its body gets 408 after `Limits::request`.
//! - Who does not take an answer is left after `Limits::request` (a handler of apiserver's that has
//!   begun to answer is ended so, `pkg/server/filters/timeout.go`).
//! - Who asks nothing is left after `Limits::idle` ([`IDLE`], Go's `IdleTimeout`), and before that
//!   if there are `Limits::connections` and another one comes.

use super::Inner;
use super::body::{Body, PIECE};
use super::pieces::Pieces;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

/// A connection on which nothing is asked for so long is ended.
pub const IDLE: Duration = Duration::from_secs(90);

/// What goes on on a connection.
pub struct Activity {
    under_way: Cell<usize>,
    /// When the last one ended, or the connection began.
    since: Cell<Instant>,
    /// Rung when its client does not take what it asked for, or others need the room.
    stalled: Notify,
}

impl Activity {
    fn new() -> Activity {
        let (under_way, since) = (Cell::new(0), Cell::new(Instant::now()));
        Activity { under_way, since, stalled: Notify::new() }
    }

    /// When nothing was asked for the time that is given.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let due = match self.under_way.get() {
                0 => self.since.get() + limit,
                _ => Instant::now() + limit,
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    pub async fn stalled(&self) {
        self.stalled.notified().await;
    }
}

/// The connections that there are, in the order in which they came.
#[derive(Default)]
pub struct Connections(RefCell<BTreeMap<u64, Rc<Activity>>>);

impl Connections {
    /// Room for one more of so many: if there is none, that of the one on which nothing was asked
    /// for longest is taken. So who opens many connections and asks nothing keeps out nobody else.
    pub fn make_room(&self, limit: usize) -> bool {
        let mut all = self.0.borrow_mut();
        if all.len() < limit {
            return true;
        }
        let idle = all.iter().filter(|(_, one)| one.under_way.get() == 0);
        let Some((&id, _)) = idle.min_by_key(|(_, one)| one.since.get()) else { return false };
        if let Some(idlest) = all.remove(&id) {
            idlest.stalled.notify_one();
        }
        true
    }

    pub fn begin(&self) -> (u64, Rc<Activity>) {
        let mut all = self.0.borrow_mut();
        let id = all.last_key_value().map_or(0, |(last, _)| last + 1);
        let activity = Rc::new(Activity::new());
        all.insert(id, Rc::clone(&activity));
        (id, activity)
    }

    pub fn end(&self, id: u64, activity: &Rc<Activity>) {
        let mut all = self.0.borrow_mut();
        // Its number may be another one's, if its room was taken.
        if all.get(&id).is_some_and(|one| Rc::ptr_eq(one, activity)) {
            all.remove(&id);
        }
    }
}

/// A request, from its head to the last byte of its answer.
pub struct UnderWay(Rc<Activity>);

impl UnderWay {
    pub fn new(activity: &Rc<Activity>) -> UnderWay {
        activity.under_way.set(activity.under_way.get() + 1);
        UnderWay(Rc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
        self.0.since.set(Instant::now());
    }
}

/// Bytes that are held for clients, for as long as this is.
pub struct Held {
    inner: Rc<Inner>,
    of: fn(&Inner) -> &Cell<usize>,
    count: usize,
}

impl Held {
    pub fn none(inner: &Rc<Inner>, of: fn(&Inner) -> &Cell<usize>) -> Held {
        Held { inner: Rc::clone(inner), of, count: 0 }
    }

    /// So many more; false, and none, if all clients together would have more than the limit.
    pub fn more(&mut self, count: usize, limit: usize) -> bool {
        let cell = (self.of)(&self.inner);
        let room = cell.get() + count <= limit;
        if room {
            cell.set(cell.get() + count);
            self.count += count;
        }
        room
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let cell = (self.of)(&self.inner);
        cell.set(cell.get().saturating_sub(self.count));
    }
}

/// An answer on its way.
pub struct Paced {
    body: Body,
    _under_way: UnderWay,
    /// Of one that has more than a piece: how much of it there is, and what ends its watchdog.
    _held: Option<(Held, oneshot::Sender<Infallible>)>,
}

impl Paced {
    pub fn new(body: Body, under_way: UnderWay, inner: &Rc<Inner>) -> Paced {
        // A stream says nothing of how long it is.
        let large = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let large = large.filter(|length| *length > PIECE);
        let held = large.map(|length| {
            let mut held = Held::none(inner, |inner| &inner.metrics.answers);
            // It is there; what is too much is known before it is made.
            held.more(length, usize::MAX);
            (held, watchdog(&under_way.0, inner.limits.request))
        });
        Paced { body, _under_way: under_way, _held: held }
    }
}

/// Ends the connection after this time, unless what is returned is dropped before.
fn watchdog(activity: &Rc<Activity>, limit: Duration) -> oneshot::Sender<Infallible> {
    let (taken, is_taken) = oneshot::channel::<Infallible>();
    let activity = Rc::clone(activity);
    spawn_local(async move {
        if timeout(limit, is_taken).await.is_err() {
            activity.stalled.notify_one();
        }
    });
    taken
}

impl HttpBody for Paced {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
