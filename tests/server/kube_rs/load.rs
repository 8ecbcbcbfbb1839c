//! Clients that write, each to objects of its own, and note what is known of them. Who got no
//! answer looks when a server answers again: with its process ended whatever that had under way, so
//! what is there then is what is known.

use super::connect;
use super::judge::{At, Entry};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Error, ResourceExt};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::sleep;

const WRITERS: u64 = 3;
const OBJECTS: usize = 4;
/// The last object that is made.
pub const END: &str = "the-end";

#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<Entry>>>);

impl Log {
    pub fn note(&self, entry: Entry) {
        self.0.borrow_mut().push(entry);
    }

    pub fn take(&self) -> Vec<Entry> {
        self.0.take()
    }
}

pub fn at(map: &ConfigMap) -> At {
    let version = map.resource_version().and_then(|text| text.parse().ok());
    At {
        name: map.name_any(),
        uid: map.uid().expect("a uid"),
        version: version.expect("a version"),
    }
}

/// Until it is over, and then once more, to say so.
pub async fn write(kubeconfig: &Path, log: &Log, over: &AtomicBool) {
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(Writer {
            maps: Api::default_namespaced(connect(kubeconfig).await),
            number,
            dice: number + 1,
            there: BTreeMap::new(),
            made: 0,
            log: log.clone(),
        });
    }
    let done = Rc::new(RefCell::new(false));
    let running: Vec<_> =
        writers.into_iter().map(|w| spawn_local(w.run(Rc::clone(&done)))).collect();
    while !over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20)).await;
    }
    done.replace(true);
    for writer in running {
        writer.await.expect("a writer to its end");
    }
    let maps: Api<ConfigMap> = Api::default_namespaced(connect(kubeconfig).await);
    let end = maps.create(&PostParams::default(), &map(END, 0)).await.expect("the last object");
    log.note(Entry::There(at(&end)));
}

struct Writer {
    maps: Api<ConfigMap>,
    number: u64,
    dice: u64,
    there: BTreeMap<String, At>,
    made: usize,
    log: Log,
}

impl Writer {
    async fn run(mut self, done: Rc<RefCell<bool>>) {
        while !*done.borrow() {
            self.change_something().await;
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Numerical Recipes' generator will do.
    fn roll(&mut self, sides: usize) -> usize {
        self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.dice >> 16) as usize % sides
    }

    async fn change_something(&mut self) {
        let (index, how) = (self.roll(OBJECTS), self.roll(6));
        let old = self.there.keys().nth(index).cloned();
        let name = old.clone().unwrap_or_else(|| {
            self.made += 1;
            format!("w{}-{}", self.number, self.made)
        });
        let written = match old {
            None => self.maps.create(&PostParams::default(), &self.next(&name)).await.map(Some),
            Some(_) if how == 0 => {
                let deleted = self.maps.delete(&name, &DeleteParams::default()).await;
                deleted.map(|_| None)
            }
            Some(_) => self.change(&name, how).await.map(Some),
        };
        match written {
            Ok(found) => self.known(&name, found.as_ref()),
            Err(Error::Api(status)) if status.code == 429 => {}
            Err(Error::Api(status)) if status.code < 500 => panic!("{name}: {status:?}"),
            Err(_) => self.look(&name).await,
        }
    }

    /// In each of the ways that there are.
    async fn change(&mut self, name: &str, how: usize) -> Result<ConfigMap, Error> {
        let value = self.roll(1 << 20).to_string();
        let data = json!({ "data": { "n": value } });
        let with = PatchParams::default();
        match how {
            1 => self.maps.patch(name, &with, &Patch::Merge(data)).await,
            2 => self.maps.patch(name, &with, &Patch::Strategic(data)).await,
            3 => {
                let operations: Value =
                    json!([{ "op": "replace", "path": "/data/n", "value": value }]);
                let patch = serde_json::from_value(operations).expect("a JSON patch");
                self.maps.patch(name, &with, &Patch::Json::<()>(patch)).await
            }
            4 => {
                let whole =
                    json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": data["data"] });
                let with = PatchParams::apply("load").force();
                self.maps.patch(name, &with, &Patch::Apply(whole)).await
            }
            _ => self.maps.replace(name, &PostParams::default(), &self.next(name)).await,
        }
    }

    fn next(&self, name: &str) -> ConfigMap {
        map(name, self.dice)
    }

    async fn look(&mut self, name: &str) {
        loop {
            match self.maps.get_opt(name).await {
                Ok(found) => return self.known(name, found.as_ref()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn known(&mut self, name: &str, found: Option<&ConfigMap>) {
        let new = found.map(at);
        let old = match &new {
            Some(new) => self.there.insert(name.to_owned(), new.clone()),
            None => self.there.remove(name),
        };
        match (old, new) {
            (old, new) if old == new => {}
            (_, Some(new)) => self.log.note(Entry::There(new)),
            (old, None) => self.log.note(Entry::Gone(old.expect("one that was there").uid)),
        }
    }
}

fn map(name: &str, number: u64) -> ConfigMap {
    let data = [("n".to_owned(), number.to_string())].into();
    let metadata = kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
    ConfigMap { metadata, data: Some(data), ..Default::default() }
}
