//! Where this server is, for pods: it keeps the Service `kubernetes` with the other servers of its
//! store, each for itself, whoever leads.

use super::clients::{Running, driver, settings, to};
use crate::networks::outward;
use kubesim_actors::advertiser::{Advertiser, Config, Effect, Event};
use kubesim_backends::http::client::{Client, Credentials};
use kubesim_backends::port::{Local, Port};
use kubesim_runtime::host::{self, AnswerTo, SystemClock};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// Upstream's `DefaultEndpointReconcilerInterval` and `DefaultEndpointReconcilerTTL`.
const PERIOD: Duration = Duration::from_secs(10);
const LASTS: Duration = Duration::from_secs(15);
/// How often it is looked where the machine is.
const LOOK: Duration = Duration::from_secs(2);

/// By which address pods reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    Fixed(Ipv4Addr),
    /// The one from which the machine reaches others, whichever that is at the time.
    Outward,
}

impl Address {
    /// What is said, or else where clients are served, if others come there.
    pub fn of(said: Option<Ipv4Addr>, listen: Ipv4Addr) -> Address {
        let listens = Some(listen).filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
        said.or(listens).map_or(Address::Outward, Address::Fixed)
    }

    fn now(self) -> Option<Ipv4Addr> {
        match self {
            Address::Fixed(address) => Some(address),
            Address::Outward => outward(),
        }
    }
}

/// Who advertises, and what.
#[derive(Clone)]
pub struct Advertised {
    pub address: Address,
    pub credentials: Credentials,
}

/// Until it is stopped. The lease runs out by itself.
pub fn start(address: Address, port: u16, client: Client) -> Running {
    let asks = client.clone();
    let works = spawn_local(async move {
        // A machine without a network has nothing to say.
        let mut known = loop {
            match address.now() {
                Some(known) => break known,
                None => sleep(LOOK).await,
            }
        };
        let config = Config { address: known, port, period: PERIOD, lasts: LASTS };
        let driver = driver::<Advertiser>(vec![asks], effect);
        let clock = SystemClock::new();
        let hosted = host::spawn::<Advertiser>(config, driver, clock, settings::<Advertiser>());
        loop {
            sleep(LOOK).await;
            if let Some(moved) = address.now().filter(|address| *address != known)
                && hosted.send(Event::Moved(moved)).await.is_ok()
            {
                known = moved;
            }
        }
    });
    Running::new(async {}, vec![spawn_local(client.run()), works])
}

fn effect(
    clients: &[Client],
    Effect::Api(effect): Effect,
    answer: AnswerTo<Advertiser>,
) -> Local<()> {
    clients[0].perform(effect, to(answer, Event::Api))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_others_reach_is_where_it_listens() {
        let [there, all, loopback] = ["10.0.0.1", "0.0.0.0", "127.0.0.1"].map(|ip| ip.parse());
        let (there, all) = (there.expect("an address"), all.expect("an address"));
        let said = Some("10.0.0.2".parse().expect("an address"));
        assert_eq!(Address::of(None, there), Address::Fixed(there));
        assert_eq!(Address::of(None, all), Address::Outward);
        assert_eq!(Address::of(None, loopback.expect("an address")), Address::Outward);
        assert_eq!(Address::of(said, there), Address::Fixed(Ipv4Addr::new(10, 0, 0, 2)));
    }
}
