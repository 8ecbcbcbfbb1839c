//! The API as a node's components have it: each has a connection and a certificate of its own.

use crate::drive;
use crate::lab::identity::Known;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::Plan;
use crate::seed::seed;
use kubesim_actors::ports::api::{Effect, Event};
use kubesim_backends::http::client::{Client, Metrics, Options};
use kubesim_backends::port::{Answer, Local, Port};
use kubesim_sim::world::Kind;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;

/// Where the API server listens.
pub const PORT: u16 = 6443;

/// A node's clients, by component. Clones are the same ones.
#[derive(Clone)]
pub struct Clients(Rc<BTreeMap<Kind, Vec<Client>>>);

impl Clients {
    /// Of a node's components; they dial as long as its thread lives.
    pub fn new(plan: &Plan, mail: &Mail) -> Clients {
        let of = |(kind, known): (&Kind, &Vec<Known>)| {
            let clients = known.iter().map(|known| client(known, &plan.dial, mail));
            (*kind, clients.collect())
        };
        Clients(Rc::new(plan.clients.iter().map(of).collect()))
    }

    /// The API as this component has it.
    pub fn of(&self, kind: Kind) -> Option<Api> {
        let mut own = self.0.get(&kind)?.iter().cloned();
        Some(Api { own: own.next()?, other: own.next(), all: self.clone() })
    }

    /// The machine has these addresses now.
    pub fn addresses_changed(&self, has: impl Fn(IpAddr) -> bool) {
        self.0.values().flatten().for_each(|client| client.addresses_changed(&has));
    }
}

/// One that looks for the server at these addresses first, and keeps its connection.
pub fn client(known: &Known, addresses: &[Ipv4Addr], mail: &Mail) -> Client {
    let Known { who, credentials } = known.clone();
    let mail = mail.clone();
    let notes = Box::new(move |note| mail.send(News::Remark(who.clone(), note)));
    let addresses = addresses.to_vec();
    let client = Client::new(Options { addresses, port: PORT, credentials, seed: seed(), notes });
    spawn_local(client.clone().run());
    client
}

/// One component's API.
#[derive(Clone)]
pub struct Api {
    own: Client,
    other: Option<Client>,
    all: Clients,
}

impl Api {
    /// Whether its connection came up or was lost, from now on.
    pub fn listen(&self) -> UnboundedReceiver<bool> {
        self.own.listen()
    }

    /// What pods use, as the component is told.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.own.clone())
    }

    /// The API as the component has it when it asks as somebody else.
    pub fn as_other(&self) -> Api {
        Api { own: self.other.clone().unwrap_or_else(|| self.own.clone()), ..self.clone() }
    }
}

impl Port for Api {
    type Request = Effect;
    type Reply = Event;

    fn perform(&self, effect: Effect, answer: Answer<Event>) -> Local<()> {
        if let Effect::Dial { .. } = effect {
            // Who knows where the server is (netd) knows it for the whole node.
            return drive::dial(self.all.0.values().flatten(), &effect);
        }
        self.own.perform(effect, answer)
    }
}
