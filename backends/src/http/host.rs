//! The API server under the production host, behind its front and on a store.

use super::{Front, Inner, Limits};
use crate::port::{Answer, Closed, Port};
use kubesim_actors::apiserver::{ApiServer, Cache, Config, Effect, Event, RequestId};
use kubesim_actors::ports::api::{Error, Reason};
use kubesim_actors::ports::store;
use kubesim_runtime::Ticket;
use kubesim_runtime::host::{self, AnswerTo, Driver, Hosted, Seen, Settings, SystemClock};
use std::cell::RefCell;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::task::spawn_local;

/// What objects are kept in.
pub type Store = Rc<dyn Port<Request = store::Request, Reply = store::Reply>>;

/// What is heard of an API server.
#[derive(Clone, Debug)]
pub enum Heard<'a> {
    /// A remark for people.
    Note(String),
    /// What its front serves from now on.
    Published(&'a Cache),
    /// It starts again after this time. Its clients have lost their connections.
    Failed { cause: String, retry: Duration },
    /// It will not serve: its configuration does not fit what is stored.
    Refused(String),
}

/// An API server that runs; it ends when this value is dropped, or stopped.
pub struct Server {
    pub front: Front,
    hosted: Rc<Hosted<ApiServer>>,
}

impl Server {
    /// Starts one on the current thread. What its dice are drawn from (uids are) must be another
    /// one for each start on a store.
    ///
    /// # Panics
    /// Outside of a tokio `LocalSet`.
    pub fn start(
        config: Config,
        store: Store,
        limits: Limits,
        seed: u64,
        heard: impl Fn(Heard<'_>) + 'static,
    ) -> Server {
        let actor: Rc<RefCell<Weak<Hosted<ApiServer>>>> = Rc::default();
        let answers: Rc<RefCell<Weak<Inner>>> = Rc::default();
        let (writes, back) = (Rc::clone(&actor), Rc::clone(&answers));
        let front = Front::new(limits, move |id, request, dry_run| {
            let event = Event::Request { id, request, dry_run };
            let front = back.borrow().upgrade().map(Front);
            write(writes.borrow().upgrade(), front, id, event);
        });
        let (writes, back) = (Rc::clone(&actor), Rc::clone(&answers));
        front.take_leased(move |id, request, hold| {
            let event = Event::Leased { id, request, hold };
            let front = back.borrow().upgrade().map(Front);
            write(writes.borrow().upgrade(), front, id, event);
        });
        if config.shared {
            front.shares_its_store();
        }
        *answers.borrow_mut() = Rc::downgrade(&front.0);
        let heard = Rc::new(heard);
        let told = Rc::clone(&heard);
        let driver = ApiDriver { store, front: front.clone(), told };
        let served = front.clone();
        let observer = move |seen| match seen {
            Seen::Note { text, .. } => heard(Heard::Note(text)),
            Seen::Failed { cause, retry, .. } => {
                served.reset();
                heard(Heard::Failed { cause, retry });
            }
            Seen::Step { .. } => {}
        };
        let observer = Box::new(observer);
        let settings = Settings { seed, index: 0, steps: false, observer };
        let hosted = Rc::new(host::spawn(config, driver, SystemClock::new(), settings));
        *actor.borrow_mut() = Rc::downgrade(&hosted);
        Server { front, hosted }
    }

    /// Ends it for good.
    pub async fn stop(&self) {
        self.hosted.stop().await;
    }
}

fn write(actor: Option<Rc<Hosted<ApiServer>>>, front: Option<Front>, id: RequestId, event: Event) {
    spawn_local(async move {
        let sent = match actor {
            Some(actor) => actor.send(event).await.is_ok(),
            None => false,
        };
        if let Some(front) = front.filter(|_| !sent) {
            let why = "the API server starts again: nothing happened, ask again";
            front.respond(id, Err(Error::new(Reason::Unreachable, why)));
        }
    });
}

/// Carries out what the API server asks for.
struct ApiDriver<F> {
    store: Store,
    front: Front,
    told: Rc<F>,
}

impl<F: Fn(Heard<'_>) + 'static> Driver<ApiServer> for ApiDriver<F> {
    fn perform(
        &self,
        _: Ticket,
        effect: Effect,
        answer: AnswerTo<ApiServer>,
    ) -> impl Future<Output = ()> + 'static {
        let mut stored = None;
        match effect {
            Effect::Store(request) => {
                let answer = Rc::new(answer);
                let answer = Answer::new(move |reply| {
                    let answer = Rc::clone(&answer);
                    async move { answer.send(Event::Store(reply)).await.map_err(|_| Closed) }
                });
                stored = Some(self.store.perform(request, answer));
            }
            Effect::Publish(cache) => {
                (self.told)(Heard::Published(&cache));
                self.front.publish(cache);
            }
            Effect::Respond { id, result } => self.front.respond(id, result),
            Effect::Refuse { why } => (self.told)(Heard::Refused(why)),
        }
        async move {
            if let Some(stored) = stored {
                stored.await;
            }
        }
    }
}
