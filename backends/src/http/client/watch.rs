//! One informer: it lists once and then follows, for all actors that asked for the same.

use super::answer;
use super::connection::{Line, Sent, Store};
use super::inbox::Inbox;
use super::view::{self, Heard};
use super::{Inner, News, PATIENCE, View, request};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use kubesim_actors::apiserver::SYSTEM;
use kubesim_actors::objects::{Key, Kind, Uid};
use kubesim_actors::ports::api::{Error, Reason, Scope};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A list, or the beginning of a watch, may take so long.
const ANSWER: Duration = Duration::from_secs(60);
/// A watch that ends sooner than that is opened again with the patience for one that failed.
const SHORT: Duration = Duration::from_secs(1);

pub struct Stream {
    pub kind: Kind,
    pub scope: Scope,
    subscribers: RefCell<Vec<Subscriber>>,
    /// What was told last; none before the first list and after a store was lost.
    view: RefCell<Option<View>>,
    /// All that is known is too old to go on from.
    expired: Cell<bool>,
    /// It follows: since then, no `Closed` was told.
    open: Cell<bool>,
    /// What was noted last, so that it is noted once.
    noted: RefCell<String>,
}

struct Subscriber {
    inbox: Weak<Inbox>,
    /// It was told of a view.
    told: bool,
}

impl Stream {
    pub fn new(kind: Kind, scope: Scope) -> Stream {
        Stream {
            kind,
            scope,
            subscribers: RefCell::default(),
            view: RefCell::default(),
            expired: Cell::new(false),
            open: Cell::new(false),
            noted: RefCell::default(),
        }
    }

    /// One that follows shows what it has at once.
    pub fn subscribe(&self, inbox: &Rc<Inbox>) {
        let view = self.view().filter(|_| self.open.get());
        let told = view.is_some();
        if let Some(view) = view {
            inbox.put(self.news(view));
        }
        self.subscribers.borrow_mut().push(Subscriber { inbox: Rc::downgrade(inbox), told });
    }

    pub fn view(&self) -> Option<View> {
        self.view.borrow().clone()
    }

    /// What is shown is of a store that is no more.
    pub fn forget(&self) {
        *self.view.borrow_mut() = None;
    }

    fn news(&self, view: View) -> News {
        News::View { kind: self.kind, scope: self.scope.clone(), view }
    }

    /// Tells those subscribers that `whom` chooses, and forgets the ones that are gone.
    fn tell(&self, news: &News, whom: impl Fn(&Subscriber) -> bool) {
        let view = matches!(news, News::View { .. });
        self.subscribers.borrow_mut().retain_mut(|subscriber| {
            let Some(inbox) = subscriber.inbox.upgrade() else { return false };
            if whom(subscriber) {
                inbox.put(news.clone());
                subscriber.told |= view;
            }
            true
        });
    }

    /// `new`: it shows something that the view before did not.
    fn moves_to(&self, view: View, new: bool) {
        *self.view.borrow_mut() = Some(view.clone());
        self.tell(&self.news(view), |subscriber| new || !subscriber.told);
    }

    fn follows(&self) {
        self.open.set(true);
        self.noted.borrow_mut().clear();
        if let Some(view) = self.view() {
            self.tell(&self.news(view), |subscriber| !subscriber.told);
        }
    }

    fn closes(&self) {
        if self.open.replace(false) {
            let closed = News::Closed { kind: self.kind, scope: self.scope.clone() };
            self.tell(&closed, |_| true);
        }
    }

    /// Told once, not at each attempt.
    fn note(&self, inner: &Inner, why: String) {
        if *self.noted.borrow() != why {
            (inner.notes)(format!("watching {}: {why}", self.kind.plural()));
            *self.noted.borrow_mut() = why;
        }
    }

    fn is_wanted(&self) -> bool {
        self.subscribers.borrow().iter().any(|one| one.inbox.strong_count() > 0)
    }
}

/// Why a stream does not go on.
enum Stopped {
    /// The server closed it: all was told.
    Over,
    Broken(String),
    /// It was refused; people should know.
    Refused(String),
}

/// Keeps the informer going for as long as somebody wants it.
pub async fn follow(inner: Rc<Inner>, stream: Rc<Stream>) {
    let mut failures = 0;
    while stream.is_wanted() {
        let line = inner.connected().await;
        let begun = Instant::now();
        let stopped = attempt(&inner, &stream, &line).await;
        let lasted = begun.elapsed() > SHORT && stream.open.get();
        failures = if lasted { 0 } else { failures + 1 };
        match stopped {
            Stopped::Over if lasted => continue,
            Stopped::Over => {}
            Stopped::Broken(why) => {
                stream.closes();
                if failures == PATIENCE {
                    stream.note(&inner, why);
                }
            }
            Stopped::Refused(why) => {
                stream.closes();
                stream.note(&inner, why);
            }
        }
        // All that is too old is listed anew at once.
        if stream.expired.get() && lasted {
            continue;
        }
        tokio::select! {
            () = sleep(inner.pause(failures)) => {}
            () = inner.up.notified() => {}
        }
    }
    inner.state.borrow_mut().streams.retain(|one| !Rc::ptr_eq(one, &stream));
}

async fn attempt(inner: &Rc<Inner>, stream: &Stream, line: &Line) -> Stopped {
    match opened(inner, stream, line).await {
        Ok(response) => {
            stream.follows();
            read(stream, response).await
        }
        Err(stopped) => stopped,
    }
}

/// Lists, if it has to, and opens the watch.
async fn opened(
    inner: &Rc<Inner>,
    stream: &Stream,
    line: &Line,
) -> Result<Response<Incoming>, Stopped> {
    if !line.told.get() {
        let told = ask_store(line).await.map_err(Stopped::Broken)?;
        if told == Store::Untold {
            return Err(Stopped::Broken("the server does not know its store yet".to_owned()));
        }
        inner.meets(line, told);
    }
    let version = match stream.view().filter(|_| !stream.expired.get()) {
        Some(view) => view.version(),
        None => list(inner, stream, line).await?,
    };
    let watch = request::watch(stream.kind, &stream.scope, version).map_err(Stopped::Refused)?;
    let response = ask(line, watch).await?;
    if response.status() == 200 {
        return Ok(response);
    }
    Err(refused(stream, response).await)
}

/// Everything in scope; its version.
async fn list(inner: &Rc<Inner>, stream: &Stream, line: &Line) -> Result<u64, Stopped> {
    let before = stream.view();
    let known = before.as_ref().map(View::version);
    let list = request::list(stream.kind, &stream.scope, known).map_err(Stopped::Refused)?;
    let response = ask(line, list).await?;
    if response.status() != 200 {
        return Err(refused(stream, response).await);
    }
    let (_, bytes) = answer::body(response).await.map_err(Stopped::Broken)?;
    let list: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Stopped::Refused(format!("the list is no JSON: {error}")))?;
    let view = view::listed(stream.kind, &stream.scope, list, before.as_ref(), inner.new_history());
    let view = view.map_err(Stopped::Refused)?;
    let version = view.version();
    stream.expired.set(false);
    stream.open.set(true);
    // At the same version of a store, all is as it was.
    stream.moves_to(view, known != Some(version));
    Ok(version)
}

async fn refused(stream: &Stream, response: Response<Incoming>) -> Stopped {
    let Ok((code, bytes)) = answer::body(response).await else {
        return Stopped::Broken("the connection was lost".to_owned());
    };
    let Error { reason, message } = answer::refusal(code, &bytes);
    match reason {
        Reason::Expired => {
            stream.expired.set(true);
            Stopped::Broken(message)
        }
        // It will do another time.
        Reason::TooManyRequests | Reason::Unreachable | Reason::Unknown => Stopped::Broken(message),
        _ => Stopped::Refused(message),
    }
}

async fn ask(
    line: &Line,
    request: Request<http_body_util::Full<Bytes>>,
) -> Result<Response<Incoming>, Stopped> {
    match timeout(ANSWER, line.send(request)).await {
        Ok(Sent::Answered(response)) => Ok(response),
        Ok(Sent::Unsent) => Err(Stopped::Broken("the connection was lost".to_owned())),
        Ok(Sent::Lost(why)) => Err(Stopped::Broken(why)),
        Err(_) => Err(Stopped::Broken("no answer within 60 s".to_owned())),
    }
}

/// Reads events to the stream's end. Those that came together are told as one view.
async fn read(stream: &Stream, response: Response<Incoming>) -> Stopped {
    let mut body = response.into_body();
    let mut text = Vec::new();
    loop {
        let mut next = body.frame().await;
        let mut view = match stream.view() {
            Some(view) => view,
            // Its store was lost under it.
            None => return Stopped::Broken("the server has another store".to_owned()),
        };
        let (mut ends, mut new) = (None, false);
        while ends.is_none() {
            match next {
                None => ends = Some(Stopped::Over),
                Some(Err(error)) => ends = Some(Stopped::Broken(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        text.extend_from_slice(&data);
                    }
                    let (stopped, more) = lines(stream, &mut text, &mut view);
                    (ends, new) = (stopped, new || more);
                }
            }
            match body.frame().now_or_never() {
                Some(more) if ends.is_none() => next = more,
                _ => break,
            }
        }
        stream.moves_to(view, new);
        if let Some(stopped) = ends {
            return stopped;
        }
    }
}

/// Takes whole lines off the text, each an event: whether the stream ends, and whether something
/// is new.
fn lines(stream: &Stream, text: &mut Vec<u8>, view: &mut View) -> (Option<Stopped>, bool) {
    let (mut read, mut ends, mut new) = (0, None, false);
    while let Some(end) = text[read..].iter().position(|byte| *byte == b'\n') {
        let line = &text[read..read + end];
        read += end + 1;
        if line.is_empty() {
            continue;
        }
        match view::event(stream.kind, &stream.scope, line, view) {
            Ok(Heard::News) => new = true,
            Ok(Heard::Nothing) => {}
            Ok(Heard::Expired) => {
                stream.expired.set(true);
                ends = Some(Stopped::Broken("what is known is too old".to_owned()));
            }
            Ok(Heard::Refused(why)) => ends = Some(Stopped::Broken(why)),
            Err(why) => {
                // What it cannot read it reads no better from there.
                stream.expired.set(true);
                ends = Some(Stopped::Refused(why));
            }
        }
        if ends.is_some() {
            break;
        }
    }
    text.drain(..read);
    (ends, new)
}

/// Whose store the connection's server has: which uid its namespace `kube-system` has. A server
/// that is not ready cannot say.
pub async fn ask_store(line: &Line) -> Result<Store<Uid>, String> {
    let request = request::get(Kind::Namespace, &Key::cluster(SYSTEM))?;
    let response = match line.send(request).await {
        Sent::Answered(response) => response,
        Sent::Unsent => return Err("the connection was lost".to_owned()),
        Sent::Lost(why) => return Err(why),
    };
    let (code, bytes) = answer::body(response).await?;
    Ok(match code {
        200 => {
            let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let uid = value["metadata"]["uid"].as_str().and_then(Uid::parse);
            uid.map_or(Store::Any, Store::Is)
        }
        429 | 500.. => Store::Untold,
        _ => Store::Any,
    })
}
