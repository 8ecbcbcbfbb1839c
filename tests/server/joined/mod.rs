//! The lab's nodes in a server's cluster: a day with kubectl in which pods run. Whatever is said to
//! run does, on kernels of its own: the stories ask the pods, through the nodes' rules.
//!
//! - `lab`: the nodes
//! - `stories`: what is done with them
//! - `rights`: what each of their components may do
//! - `guests`: what they bring into the cluster, and take away

mod guests;
mod lab;
mod rights;
mod stories;

use super::ANY;
use crate::plane::until;
use crate::stores::{Store, embedded, etcd, memory};
use crate::transcript;
use crate::world::{Place, Server, clients};
use lab::{Lab, can_run, play};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A lab takes most of a machine: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn pods_run_on_nodes_that_joined_a_server_with_a_directory() {
    day(|| Some(embedded()));
}

#[test]
fn pods_run_on_nodes_that_joined_a_server_with_etcd() {
    day(etcd);
}

#[test]
fn pods_run_on_nodes_that_joined_a_server_in_memory() {
    day(|| Some(memory()));
}

/// One server and one lab, and every kubectl on them in turn.
fn day(store: impl Fn() -> Option<Store>) {
    let clients = clients();
    if clients.is_empty() || !can_run() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(store) = store() else { return };
    let place = Place::new();
    let mut server = store.serve(&place, ANY, &clients[0], &[]);
    let lab = Lab::join(&place);
    until("three nodes that are ready", || ready(&server) == 3);
    for client in &clients {
        println!("on {} with {}", store.name, client.display());
        server.client = client.clone();
        stories::a_deployment_and_its_service(&server, &lab);
        stories::a_drain_moves_pods(&server, &lab);
        stories::other_workloads(&server);
        // Last: its node has run the image before.
        transcript::play("joined.txt", &place, &server);
    }
    rights::of_each(&server);
    if store.lasts {
        server = survives(server, &store, &place, &lab);
    }
    lab.end();
    guests::are_gone(&server);
    assert_eq!(server.end(), Some(0));
}

/// What a scenario makes, breaks and expects is the same, whoever's the API server is: here its
/// machine, by which the nodes reach the one they joined, changes networks twice.
#[test]
fn a_scenario_holds_in_a_cluster_that_was_joined() {
    if !can_run() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (store, place) = (memory(), Place::new());
    // The scenario's network of Services.
    let more = ["--service-network=10.96.0.0/16"];
    let server = store.serve(&place, ANY, Path::new("kubectl"), &more);
    let passed = play(&place, "scenarios/laptop-ip-change.toml");
    passed.unwrap_or_else(|said| panic!("no run passes: {said}"));
    assert_eq!(server.end(), Some(0));
}

fn ready(server: &Server) -> usize {
    server.kubectl("get nodes --no-headers").matches(" Ready ").count()
}

/// The nodes go on without a server, and with the next one.
fn survives(server: Server, store: &Store, place: &Place, lab: &Lab) -> Server {
    stories::make_web(&server, 3);
    let listen = server.at().to_string();
    let client = server.client.clone();
    server.kill();
    for _ in 0..10 {
        assert_eq!(lab.ask("n2", stories::WEB).as_deref(), Ok("one"), "no server, and it answers");
    }
    let server = store.serve(place, &listen, &client, &[]);
    server.kubectl("scale deployment web --replicas=5");
    server.kubectl("rollout status deploy/web --timeout=60s");
    assert_eq!(server.kubectl("get pods --no-headers").matches(" Running ").count(), 5);
    until("three nodes that are ready", || ready(&server) == 3);
    server
}
