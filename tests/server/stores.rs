//! What a server may be started on: the stores of `kubesim server --store`.

#[cfg(feature = "etcd")]
use crate::etcd;
#[cfg(feature = "etcd")]
use crate::several::{pairs, possible};
use crate::world::{Place, Server};
use std::path::{Path, PathBuf};

/// It lasts as long as this value, whatever becomes of its servers.
pub struct Store {
    pub name: &'static str,
    /// Beyond a server.
    pub lasts: bool,
    option: String,
    #[cfg(feature = "etcd")]
    _etcd: Option<etcd::Server>,
}

/// Those that outlive a server: the embedded one, and etcd where this machine has it.
pub fn lasting() -> Vec<Store> {
    [Some(embedded()), etcd()].into_iter().flatten().collect()
}

pub fn embedded() -> Store {
    here("embedded", true)
}

pub fn memory() -> Store {
    here("memory", false)
}

#[cfg(feature = "etcd")]
pub fn etcd() -> Option<Store> {
    let etcd = possible().then(|| etcd::Server::start(pairs(1)[0]))?;
    let endpoint = etcd.endpoint().replace("http://", "");
    let option = format!("--store=etcd://{endpoint}");
    Some(Store { name: "etcd", lasts: true, option, _etcd: Some(etcd) })
}

#[cfg(not(feature = "etcd"))]
pub fn etcd() -> Option<Store> {
    None
}

/// Each store and each of these kubectls, in pairs.
pub fn by_turns(clients: &[PathBuf]) -> impl Iterator<Item = (Store, &PathBuf)> {
    let stores: [fn() -> Option<Store>; 3] = [|| Some(embedded()), etcd, || Some(memory())];
    let turns = if clients.is_empty() { 0 } else { clients.len().max(stores.len()) };
    let turn = move |turn: usize| {
        let store = stores[turn % stores.len()]();
        store.map(|store| (store, &clients[turn % clients.len()]))
    };
    (0..turns).filter_map(turn)
}

fn here(name: &'static str, lasts: bool) -> Store {
    Store {
        name,
        lasts,
        option: format!("--store={name}"),
        #[cfg(feature = "etcd")]
        _etcd: None,
    }
}

impl Store {
    /// A server on it, with more words on its command line.
    pub fn serve(&self, place: &Place, listen: &str, client: &Path, more: &[&str]) -> Server {
        let words: Vec<&str> = [self.option.as_str()].iter().chain(more).copied().collect();
        Server::start_with(place, listen, client, &words)
    }
}
