//! What DNS says of itself when a person asks.

use super::Dns;
use super::upstream::State;
use kubesim_runtime::Account;

pub fn of(dns: &Dns) -> Account {
    let mut account = Account::default();
    let Account { sees, wants } = &mut account;
    let (listen, domain) = (dns.config.listen, &dns.config.cluster_domain);
    sees.push(format!("it answers at {listen}, of {domain} itself"));
    match &dns.services {
        Some(view) => {
            sees.push(format!("{} Services, of version {}", view.len(), view.version()));
        }
        None => wants.push("the API to show it Services".to_owned()),
    }
    if dns.forwarder.servers.is_empty() {
        wants.push("a server for the names of others".to_owned());
    }
    for server in dns.forwarder.servers.iter() {
        let address = server.address;
        match server.state {
            State::Up => sees.push(format!("names of others are asked for at {address}")),
            State::Down => wants.push(format!("{address} to answer again")),
            State::Looping => wants.push(format!("{address}, which leads back here, elsewhere")),
        }
    }
    for way in &dns.deaf {
        wants.push(format!("its port for {way:?}, which is another program's"));
    }
    account
}
