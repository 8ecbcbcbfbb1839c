//! Who holds the card's address: nobody for a static one, else a DHCP client.

use super::dhcp;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::Plan;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Proto, Route};
use kubesim_backends::network::admin::Admin;
use std::rc::Rc;
use tokio::sync::watch;
use tokio::task::spawn_local;

/// A client that lives as long as the carrier is told of.
pub fn ask_dhcp(plan: &Rc<Plan>, mail: &Mail, card: u32, carrier: watch::Receiver<bool>) {
    let (plan, broken) = (Rc::clone(plan), mail.clone());
    let client = dhcp::Client::new(plan, mail.clone(), card);
    spawn_local(async move {
        match client {
            Ok(client) => client.run(carrier).await,
            Err(error) => broken.send(News::Broken(format!("its DHCP client: {error}"))),
        }
    });
}

pub fn hold(
    plan: &Rc<Plan>,
    mail: &Mail,
    admin: &mut Admin,
    card: u32,
    carrier: watch::Receiver<bool>,
) {
    let Some(address) = plan.card.address else { return ask_dhcp(plan, mail, card, carrier) };
    let mut ways = vec![(Ipv4Net::default(), plan.gateway, 100)];
    ways.extend(plan.routes.iter().map(|(to, via)| (*to, Some(*via), 0)));
    let mut done = admin.add_address(card, address);
    for (to, via, metric) in ways {
        let dev = plan.card.name.clone();
        let route = Route { to, via, dev, onlink: false, metric };
        done = done.and_then(|()| admin.add_route(card, &route, Proto::STATIC));
    }
    if let Err(errno) = done {
        mail.send(News::Broken(format!("{address} on {}: {errno}", plan.card.name)));
    }
}
