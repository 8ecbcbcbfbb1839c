//! What the API server asks for: its store, its front, and the writes that go in.

use crate::lab::mail::{Mail, News};
use crate::lab::plan::Plan;
use kubesim_actors::apiserver::{ApiServer, Effect, Event, RequestId};
use kubesim_actors::ports::api::Request;
use kubesim_backends::api::Server;
use kubesim_runtime::Ticket;
use kubesim_runtime::host::{AnswerTo, Driver, Hosted};
use kubesim_sim::world::Cell;
use std::cell::{Cell as Slot, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::task::spawn_local;

/// The connection number of a person at the server itself.
const OPERATOR: u64 = u64::MAX;

/// The driver. Clones are the same one.
#[derive(Clone)]
pub struct ApiDriver(Rc<Inner>);

struct Inner {
    plan: Rc<Plan>,
    mail: Mail,
    server: RefCell<Option<Server>>,
    actor: RefCell<Weak<Hosted<ApiServer>>>,
    cell: Slot<Option<Cell>>,
    listens: Slot<bool>,
}

impl ApiDriver {
    pub fn new(plan: Rc<Plan>, mail: Mail) -> ApiDriver {
        let driver = ApiDriver(Rc::new(Inner {
            plan,
            mail,
            server: RefCell::default(),
            actor: RefCell::default(),
            cell: Slot::new(None),
            listens: Slot::new(false),
        }));
        let writes = Rc::downgrade(&driver.0);
        let server = Server::new(move |id, request| {
            if let Some(inner) = writes.upgrade() {
                inner.write(id, request);
            }
        });
        *driver.0.server.borrow_mut() = Some(server);
        driver
    }

    /// This one takes the writes from now on.
    pub fn serves(&self, cell: Cell, hosted: &Rc<Hosted<ApiServer>>) {
        self.0.cell.set(Some(cell));
        *self.0.actor.borrow_mut() = Rc::downgrade(hosted);
    }

    /// Its sockets go with the process.
    pub fn failed(&self, cell: Cell) {
        if self.0.cell.get() == Some(cell)
            && let Some(server) = &*self.0.server.borrow()
        {
            server.reset();
        }
    }

    /// A person's write.
    pub fn operate(&self, call: u64, request: Arc<Request>) {
        self.0.write(RequestId { connection: OPERATOR, call }, request);
    }
}

impl Inner {
    fn write(&self, id: RequestId, request: Arc<Request>) {
        if let Some(actor) = self.actor.borrow().upgrade() {
            // One that is down never got it: whoever asked hears so by the deadline.
            let event = Event::Request { id, request, dry_run: false };
            spawn_local(async move { actor.send(event).await });
        }
    }

    fn carry_out(&self, effect: Effect) -> Option<Event> {
        let server = self.server.borrow().clone()?;
        match effect {
            Effect::Store(request) => {
                let mut store = self.plan.store.lock().unwrap_or_else(|broken| broken.into_inner());
                return Some(Event::Store(store.request(&request)));
            }
            Effect::Publish(cache) => {
                self.mail.send(News::Published(cache.clone()));
                server.publish(cache);
                if !self.listens.replace(true) {
                    self.listen(server);
                }
            }
            Effect::Respond { id, result } if id.connection == OPERATOR => {
                self.mail.send(News::Operated(id.call, result));
            }
            Effect::Respond { id, result } => server.respond(id, &result),
            Effect::Refuse { why } => {
                if let Some(cell) = self.cell.get() {
                    self.mail.send(News::Refused(cell, why));
                }
            }
        }
        None
    }

    fn listen(&self, server: Server) {
        let mail = self.mail.clone();
        spawn_local(async move {
            if let Err(error) = server.listen().await {
                mail.send(News::Broken(format!("listening for the API's clients: {error}")));
            }
        });
    }
}

impl Driver<ApiServer> for ApiDriver {
    fn perform(
        &self,
        _: Ticket,
        effect: Effect,
        answer: AnswerTo<ApiServer>,
    ) -> impl Future<Output = ()> + 'static {
        let event = self.0.carry_out(effect);
        async move {
            if let Some(event) = event {
                let _ = answer.send(event).await;
            }
        }
    }
}
