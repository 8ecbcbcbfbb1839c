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

pub fn hold(
    plan: &Rc<Plan>,
    mail: &Mail,
    admin: &mut Admin,
    card: u32,
    carrier: watch::Receiver<bool>,
) {
    let Some(address) = plan.card.address else {
        let (plan, broken) = (Rc::clone(plan), mail.clone());
        let client = dhcp::Client::new(plan, mail.clone(), card);
        spawn_local(async move {
            match client {
                Ok(client) => client.run(carrier).await,
                Err(error) => broken.send(News::Broken(format!("its DHCP client: {error}"))),
            }
        });
        return;
    };
    let route = Route {
        to: Ipv4Net::default(),
        via: plan.gateway,
        dev: plan.card.name.clone(),
        onlink: false,
        metric: 100,
    };
    let done = admin
        .add_address(card, address)
        .and_then(|()| admin.add_route(card, &route, Proto::STATIC));
    match done {
        Ok(()) => mail.send(News::AddressTaken(address.addr())),
        Err(errno) => {
            mail.send(News::Broken(format!("{address} on {}: {errno}", plan.card.name)));
        }
    }
}
