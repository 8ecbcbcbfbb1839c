//! kube-rs, which controllers in Rust are written with, as its authors made it: what its users do
//! with it, and its watcher beside a server that is killed again and again.
//!
//! - `typed`: list, watch, patch, apply, and what belongs to these
//! - `load`: who writes, and what they know of it
//! - `follow`: the watcher
//! - `judge`: whether the watcher told what the writers know

mod follow;
mod judge;
mod load;
mod typed;

use crate::stores::{Store, lasting};
use crate::world::{Place, Server};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use load::Log;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Nobody else writes what the stories are about.
const ALONE: [&str; 2] =
    ["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];
const ANY: &str = "127.0.0.1:0";
const KILLS: usize = 5;
/// Some hundred writes lie between two kills.
const LIFE: Duration = Duration::from_millis(1200);

async fn connect(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("what a client needs")).expect("a client")
}

/// The client is on one thread, so what it learns has an order.
fn on_one_thread<T>(story: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, story)
}

fn kubeconfig(place: &Place) -> PathBuf {
    place.0.join("data/admin.conf")
}

fn serve(store: &Store, place: &Place, listen: &str) -> Server {
    store.serve(place, listen, Path::new("kubectl"), &ALONE)
}

#[test]
fn kube_rs_lists_watches_patches_and_applies() {
    for store in lasting() {
        println!("on {}", store.name);
        let place = Place::new();
        let server = serve(&store, &place, ANY);
        on_one_thread(async { typed::tour(connect(&kubeconfig(&place)).await).await });
        assert_eq!(server.end(), Some(0));
    }
}

#[test]
fn its_watcher_misses_and_repeats_nothing_while_the_server_is_killed() {
    for store in lasting() {
        let place = Place::new();
        let mut server = serve(&store, &place, ANY);
        let listen = server.at().to_string();
        let over = Arc::new(AtomicBool::new(false));
        let (told, config) = (Arc::clone(&over), kubeconfig(&place));
        let client = spawn(move || on_one_thread(async { survive(&config, &told).await }));
        for _ in 0..KILLS {
            sleep(LIFE);
            server.kill();
            server = serve(&store, &place, &listen);
        }
        sleep(LIFE);
        over.store(true, Ordering::Relaxed);
        let log = client.join().expect("a client to its end");
        let judged = judge::judge(&log);
        let told = judged.unwrap_or_else(|why| panic!("on {}: {why}", store.name));
        println!("on {}: {told}", store.name);
        assert!(told.writes > 30, "a load: {told}");
        assert_eq!(server.end(), Some(0));
    }
}

/// Writes and watches until it is over; what was known and told, in the order of that.
async fn survive(kubeconfig: &Path, over: &AtomicBool) -> Vec<judge::Entry> {
    let log = Log::default();
    // A connection each, as of programs that know nothing of each other.
    let watching = follow::follow(connect(kubeconfig).await, log.clone());
    let watching = tokio::task::spawn_local(watching);
    load::write(kubeconfig, &log, over).await;
    let held = watching.await.expect("a watcher to its end");
    let log = log.take();
    judge::same_in_the_end(&log, &held).unwrap_or_else(|why| panic!("{why}"));
    log
}
