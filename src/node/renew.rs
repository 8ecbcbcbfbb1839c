//! What a node is known by, renewed before its time is over: by another request, as the node that
//! it is. Connections that are there go on.

use super::Hosts;
use super::join::{Joined, Joining};
use crate::server::renew::{now, until};
use std::time::Duration;

/// What was asked in vain is asked again after so long: a server may be away for a while.
const AGAIN: Duration = Duration::from_secs(10);
/// Not more often than that, whatever times certificates say.
const PAUSE: Duration = Duration::from_secs(1);

/// For as long as it is polled; the server is where the node's own connection to it is.
pub async fn run(joining: &Joining, joined: &Joined, hosts: &Hosts) {
    let mut due = joining.due();
    loop {
        until(due).await;
        let server = hosts.server().unwrap_or(joining.server);
        let mut tell = |text: &str| eprintln!("certificates: {text}");
        let renewed = joining.renew(server, joined, &mut tell).await;
        due = match renewed {
            Ok(()) => joining.due().max(now() + PAUSE),
            Err(why) => {
                eprintln!("certificates: renewing the node's: {why}");
                now() + AGAIN
            }
        };
    }
}
