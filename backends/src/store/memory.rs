//! The store in memory: the model that the simulator has, behind the port. For tests and for a
//! cluster that need not outlive its process.

use super::watching::{PROGRESS, Source, follow};
use crate::port::{Answer, Local, Port};
use kubesim_actors::apiserver::memory_store::Store;
use kubesim_actors::ports::store::{Reply, Request, Under};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

/// The driver. Clones share one store.
#[derive(Clone, Debug)]
pub struct Memory(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    store: RefCell<Store>,
    revision: watch::Sender<u64>,
    progress: Duration,
}

impl Memory {
    pub fn new() -> Memory {
        Memory::with_progress(PROGRESS)
    }

    /// `progress`: how long a watch that nothing happens to is told none.
    pub fn with_progress(progress: Duration) -> Memory {
        let store = Store::with_history();
        let revision = watch::Sender::new(store.revision());
        Memory(Rc::new(Shared { store: RefCell::new(store), revision, progress }))
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new()
    }
}

impl Source for Shared {
    fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    async fn changes(&self, id: u64, under: &Under, from: u64) -> Reply {
        self.store.borrow().changes(id, under, from)
    }
}

impl Port for Memory {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let shared = Rc::clone(&self.0);
        if let Request::Watch { id, under, from } = request {
            let (progress, source) = (shared.progress, Rc::downgrade(&shared));
            return Box::pin(async move {
                let _ = follow(source, (id, under, from), progress, answer).await;
            });
        }
        let mut store = shared.store.borrow_mut();
        let reply = store.request(&request);
        let revision = store.revision();
        shared.revision.send_if_modified(|told| std::mem::replace(told, revision) != revision);
        Box::pin(async move {
            // Nobody waits any more: it is done all the same.
            let _ = answer.send(reply).await;
        })
    }
}
