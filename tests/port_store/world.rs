//! A store, and somebody who asks through the store port.

use kubesim_actors::objects::{Body, ConfigMap, Key, Kind, Name, Object};
use kubesim_actors::ports::store::{Change, Op, Range, Reply, Request, StoreKey, Under};
use kubesim_backends::port::{Answer, Closed, Port};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// What has to happen does within this.
const SOON: Duration = Duration::from_secs(20);

pub type Driver = Rc<dyn Port<Request = Request, Reply = Reply>>;

pub struct World {
    // The store goes with its runtime, and what keeps it after that.
    local: LocalSet,
    pub driver: Driver,
    runtime: Runtime,
    _keeps: Box<dyn std::any::Any>,
}

/// A directory that goes with its owner.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-port-store-{}-{number}", std::process::id());
        Folder(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a watch was told; it ends when this is dropped.
pub struct Watching {
    pub told: Rc<RefCell<Vec<Reply>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watching {
    /// Up to which revision.
    pub fn reached(&self) -> u64 {
        let told = self.told.borrow();
        let last = told.iter().rev().find_map(|reply| match reply {
            Reply::Watched { revision, .. } => Some(*revision),
            _ => None,
        });
        last.unwrap_or_default()
    }
    pub fn ended(&self) -> bool {
        self.task.is_finished()
    }
    /// `default/a@3`, and `default/a ended@4`, in order.
    pub fn changes(&self) -> Vec<String> {
        let told = self.told.borrow();
        told.iter().flat_map(|reply| changes(reply).iter()).map(change).collect()
    }
}

fn changes(reply: &Reply) -> &[Change] {
    match reply {
        Reply::Watched { changes, .. } => changes,
        _ => &[],
    }
}

pub fn change(change: &Change) -> String {
    let (revision, (_, key)) = (change.revision(), change.key());
    match change {
        Change::Put(_) => format!("{key}@{revision}"),
        Change::Deleted { .. } => format!("{key} ended@{revision}"),
    }
}

impl World {
    /// `open` is called on the store's own runtime.
    pub fn new(keeps: impl std::any::Any, open: impl FnOnce() -> Driver) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, local) = (runtime.expect("a runtime"), LocalSet::new());
        let driver = local.block_on(&runtime, async { open() });
        World { local, driver, runtime, _keeps: Box::new(keeps) }
    }

    pub fn block_on<R>(&self, work: impl Future<Output = R>) -> R {
        self.local.block_on(&self.runtime, async { timeout(SOON, work).await.expect("soon") })
    }

    pub fn ask(&self, request: Request) -> Reply {
        self.block_on(ask(&self.driver, request))
    }

    pub fn begin(&self, request: Request) -> tokio::task::JoinHandle<Reply> {
        let driver = Rc::clone(&self.driver);
        self.local.spawn_local(async move { ask(&driver, request).await })
    }

    /// All of these beside each other, until one ends.
    pub fn begin_all(&self, work: Vec<impl Future<Output = ()> + 'static>) {
        let tasks: Vec<_> = work.into_iter().map(|work| self.local.spawn_local(work)).collect();
        self.local.block_on(&self.runtime, async {
            for task in tasks {
                task.await.expect("no panic");
            }
        });
    }

    pub fn watch(&self, id: u64, under: Under, from: u64) -> Watching {
        let told = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&told);
        let answer = Answer::new(move |reply| {
            kept.borrow_mut().push(reply);
            async { Ok(()) }
        });
        let stream = self.driver.perform(Request::Watch { id, under, from }, answer);
        let task = self.local.spawn_local(stream);
        Watching { told, task }
    }

    /// Waits for something that has to happen.
    #[track_caller]
    pub fn until(&self, what: &str, happened: impl Fn() -> bool) {
        let wait = async {
            while !happened() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let done = self.local.block_on(&self.runtime, async { timeout(SOON, wait).await });
        assert!(done.is_ok(), "in vain: {what}");
    }

    pub fn txn(&self, compare: &[(&str, u64)], then: Vec<Op>) -> Reply {
        let compare = compare.iter().map(|(name, revision)| (key(name), *revision)).collect();
        self.ask(Request::Txn { id: 1, compare, then })
    }

    /// Its revision.
    #[track_caller]
    pub fn commit(&self, then: Vec<Op>) -> u64 {
        match self.txn(&[], then) {
            Reply::Committed { revision, .. } => revision,
            other => panic!("{other:?}"),
        }
    }

    pub fn range(&self, range: Range) -> Reply {
        self.ask(Request::Range(range))
    }

    /// All of it at a revision: names with versions, in order.
    #[track_caller]
    pub fn at(&self, revision: u64) -> Vec<String> {
        names(&self.range(Range { revision, ..Range::default() }))
    }

    pub fn compact(&self, revision: u64) -> u64 {
        match self.ask(Request::Compact { revision }) {
            Reply::Compacted { revision } => revision,
            other => panic!("{other:?}"),
        }
    }
}

pub async fn ask(driver: &Driver, request: Request) -> Reply {
    let replies = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&replies);
    let answer = Answer::new(move |reply| {
        kept.borrow_mut().push(reply);
        async { Ok::<(), Closed>(()) }
    });
    driver.perform(request, answer).await;
    let mut replies = replies.take();
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

#[track_caller]
pub fn names(reply: &Reply) -> Vec<String> {
    let Reply::Range { objects, .. } = reply else { panic!("{reply:?}") };
    objects.iter().map(|object| format!("{}@{}", object.key, object.version)).collect()
}

/// `name` of namespace `default`, or `namespace/name`.
pub fn key(name: &str) -> StoreKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    (Kind::ConfigMap, Key { namespace: Name::from(namespace), name: name.into() })
}

pub fn put(name: &str) -> Op {
    put_text(name, "")
}

pub fn put_text(name: &str, text: &str) -> Op {
    let data = BTreeMap::from([("text".to_owned(), text.to_owned())]);
    let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    let value = Object::new(key(name).1, Body::ConfigMap(Arc::new(map)));
    Op::Put { key: key(name), value: Arc::new(value) }
}

pub fn text(object: &Object) -> &str {
    let data = object.config_map().and_then(|map| map.data.as_ref());
    data.and_then(|data| data.get("text")).map_or("", String::as_str)
}

pub fn delete(name: &str) -> Op {
    Op::Delete { key: key(name) }
}
