//! What the proxy says of itself when a person asks.

use super::Proxy;
use kubesim_runtime::Account;

pub fn of(proxy: &Proxy) -> Account {
    let mut account = Account::default();
    let Account { sees, wants } = &mut account;
    let lists = [("Services", &proxy.services), ("EndpointSlices", &proxy.slices)];
    for (what, view) in lists {
        match view {
            Some(view) => {
                sees.push(format!("{} {what}, of version {}", view.len(), view.version()))
            }
            None => wants.push(format!("the API to show it {what}")),
        }
    }
    if let Some(applied) = &proxy.applied {
        let compiled = &applied.compiled;
        let (services, endpoints) = (compiled.services(), compiled.endpoints());
        sees.push(format!("rules for {services} Services with {endpoints} endpoints stand"));
    }
    if proxy.in_flight.is_some() {
        wants.push("the kernel to take newer rules".to_owned());
    } else if proxy.dirty {
        wants.push("to set newer rules, when it is their turn".to_owned());
    }
    if proxy.failures > 0 {
        wants.push(format!("rules that the kernel has refused {} times", proxy.failures));
    }
    account
}
