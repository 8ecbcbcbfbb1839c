//! Fan-out: one write of a Service, told to everyone who watches Services.

#[path = "common/allocator.rs"]
mod allocator;
#[path = "common/cluster.rs"]
mod cluster;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kubesim_actors::apiserver::hub::Hub;
use kubesim_actors::apiserver::{Cache, LastWrite};
use kubesim_actors::objects::{Key, Kind, Object, View};
use kubesim_actors::ports::api::{News, Scope};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

/// So few, that 10,000 maps of them fit a small machine.
const SLICES: u32 = 100;
const KIND: Kind = Kind::EndpointSlice;

/// A store of slices, written one at a time.
struct Store {
    cache: Cache,
}

impl Store {
    fn new() -> Store {
        let (_, slices) = cluster::views(SLICES);
        let revision = slices.version();
        let views = BTreeMap::from([(KIND, slices)]);
        Store { cache: Cache { views, revision, ..Cache::default() } }
    }

    fn slices(&self) -> &View {
        &self.cache.views[&KIND]
    }

    /// The next slice in turn is written once more.
    fn write(&mut self) -> (Key, Arc<Object>) {
        let revision = self.cache.revision + 1;
        let key = Key::new("default", format!("web-{}", revision % u64::from(SLICES)));
        let old = self.slices().get(&key).cloned().expect("all slices are there");
        let mut new = (*old).clone();
        new.version = revision;
        let new = Arc::new(new);
        let view = self.cache.views.get_mut(&KIND).expect("the view is there");
        view.insert(key.clone(), new.clone(), revision);
        self.cache.revision = revision;
        let (old, new_too) = (Some(old), Some(new.clone()));
        self.cache.last = Some(LastWrite { kind: KIND, key: key.clone(), old, new: new_too });
        (key, new)
    }
}

/// The hub with watchers that hold the view they were told last.
struct Told {
    store: Store,
    hub: Hub<u32>,
    views: Vec<View>,
}

impl Told {
    fn new(watchers: u32) -> Told {
        let store = Store::new();
        let mut hub = Hub::new();
        hub.publish(store.cache.clone());
        for watcher in 0..watchers {
            hub.open(watcher, KIND, Scope::All, Some(store.cache.revision)).expect("not expired");
        }
        let views = vec![store.slices().clone(); watchers as usize];
        Told { store, hub, views }
    }

    /// Returns how many changes the watchers saw: each of them one, if it looks.
    fn write(&mut self, looks: bool) -> usize {
        self.store.write();
        self.hub.publish(self.store.cache.clone());
        let mut seen = 0;
        for watcher in self.hub.take_ready() {
            let Some(News::View { view, .. }) = self.hub.take(watcher) else { continue };
            let held = &mut self.views[watcher as usize];
            if looks {
                seen += held.diff(&view).count();
            }
            *held = view;
        }
        seen
    }
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one write, all watchers");
    for watchers in [2_000, 10_000] {
        group.throughput(Throughput::Elements(u64::from(watchers)));
        let mut told = Told::new(watchers);
        group.bench_function(BenchmarkId::new("Hub, shared snapshot", watchers), |bencher| {
            bencher.iter(|| told.write(false));
        });
        assert_eq!(told.write(true), watchers as usize, "everyone sees every write");
        group.bench_function(BenchmarkId::new("Hub, and each compares", watchers), |bencher| {
            bencher.iter(|| told.write(true));
        });
        drop(told);
        let mut store = Store::new();
        let own: BTreeMap<Key, Arc<Object>> =
            store.slices().iter().map(|(key, object)| (key.clone(), object.clone())).collect();
        let mut maps = vec![own; watchers as usize];
        group.bench_function(BenchmarkId::new("a map per node", watchers), |bencher| {
            bencher.iter(|| {
                let (key, object) = store.write();
                for map in &mut maps {
                    map.insert(key.clone(), object.clone());
                }
                black_box(&maps);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
