//! Sessions that are written down (`transcript`), with a server on which nothing happens by itself.

use super::ANY;
use super::plane::until;
use super::stores::by_turns;
use super::transcript::play;
use super::world::{ALONE, Place, Server, clients};
use nix::sys::signal::Signal;
use std::net::TcpStream;

#[test]
fn everything_is_shown_in_every_form_with_upstreams_columns() {
    on_each_store("forms.txt");
}

#[test]
fn mistakes_are_told_in_upstreams_words() {
    on_each_store("mistakes.txt");
}

#[test]
fn what_holds_nothing_is_told_as_go_tells_it() {
    on_each_store("empty.txt");
}

/// kubectl's own words: staging/src/k8s.io/kubectl/pkg/cmd/util/helpers.go.
#[test]
fn who_asks_a_server_that_is_not_there_is_told_where_it_was_looked_for() {
    for client in clients() {
        let place = Place::new();
        let server = Server::start(&place, ANY, &client);
        let at = server.at();
        server.signal(Signal::SIGTERM);
        until("it is gone", || TcpStream::connect(at).is_err());
        let said = server.fails("get pods");
        let told = format!(
            "The connection to the server {at} was refused - did you specify the right host or port?"
        );
        assert_eq!(said.lines().last(), Some(told.as_str()), "{said}");
    }
}

/// Where the Service `kubernetes` leads, whatever addresses this machine has.
const ADVERTISED: &str = "--advertise-address=192.0.2.9";

fn on_each_store(session: &str) {
    for (store, client) in by_turns(&clients()) {
        println!("on {} with {}", store.name, client.display());
        let place = Place::new();
        let [alone, unasked] = ALONE;
        let server = store.serve(&place, ANY, client, &[alone, unasked, ADVERTISED]);
        play(session, &place, &server);
        assert_eq!(server.end(), Some(0), "SIGTERM ends it cleanly");
    }
}
