//! kube's watcher and what it keeps, until the last object is there.

use super::judge::{At, Entry};
use super::load::{END, Log, at};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{reflector, watcher};
use kube::{Api, Client, ResourceExt};
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;

/// What the store of kube's reflector has in the end. The maps that the cluster makes itself are
/// not looked at.
pub async fn follow(client: Client, log: Log) -> Vec<At> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let (store, writer) = reflector::store();
    let mut events = pin!(reflector(writer, watcher(maps, Config::default())));
    let mut ends = false;
    loop {
        match events.next().await.expect("a watcher has no end") {
            Ok(event) => {
                ends |= is_end(&event);
                let whole = !matches!(event, Event::InitApply(_));
                log.note(entry(&event));
                if ends && whole {
                    return store.state().iter().map(|map| at(map)).collect();
                }
            }
            // It tries again when it is asked again.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

fn is_end(event: &Event<ConfigMap>) -> bool {
    matches!(event, Event::Apply(map) | Event::InitApply(map) if map.name_any() == END)
}

fn entry(event: &Event<ConfigMap>) -> Entry {
    match event {
        Event::Init => Entry::Began,
        Event::InitApply(map) => Entry::Listed(at(map)),
        Event::InitDone => Entry::Whole,
        Event::Apply(map) => Entry::Applied(at(map)),
        Event::Delete(map) => Entry::Deleted(at(map)),
    }
}
