//! What has to be written: from what stands to what is wanted.

use super::message::{Change, Device, Standing};
use kubesim_actors::ports::network::{PublicKey, WireguardPeer};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

/// `REJECT_AFTER_TIME` (the paper's section 6.1): a peer that shook hands within this time may have
/// a session, and then its endpoint is where it really spoke from.
pub const SESSION: Duration = Duration::from_secs(180);

pub type Wanted = BTreeMap<PublicKey, WireguardPeer>;
/// The endpoints that were wanted before.
pub type Before = BTreeMap<PublicKey, SocketAddrV4>;

/// Each key once: of equal ones the first counts. The device's own is no peer's: the kernel passes
/// it over as well (set_peer, drivers/net/wireguard/netlink.c).
pub fn wanted(peers: &[WireguardPeer], own: Option<PublicKey>) -> Wanted {
    let mut wanted = Wanted::new();
    for peer in peers.iter().filter(|peer| Some(peer.public_key) != own) {
        wanted.entry(peer.public_key).or_insert(*peer);
    }
    wanted
}

/// What makes the one the other, at a time since the epoch. What goes comes first.
pub fn difference(found: &Device, wanted: &Wanted, before: &Before, now: Duration) -> Vec<Change> {
    let gone = found.peers.keys().filter(|key| !wanted.contains_key(*key));
    let mut changes: Vec<Change> = gone.map(|key| Change::Remove(*key)).collect();
    for (key, peer) in wanted {
        let WireguardPeer { endpoint, allowed, .. } = *peer;
        let Some(standing) = found.peers.get(key) else {
            changes.push(Change::Peer { key: *key, endpoint, allowed });
            continue;
        };
        let only = standing.allowed.len() == 1 && standing.allowed.contains(&allowed);
        if !only || standing.embellished {
            changes.push(Change::Allowed { key: *key, allowed });
        }
        let moved = before.get(key).is_some_and(|known| *known != endpoint);
        if standing.endpoint != Some(endpoint) && (moved || !standing.speaks(now)) {
            changes.push(Change::Endpoint { key: *key, endpoint });
        }
    }
    changes
}

impl Standing {
    fn speaks(&self, now: Duration) -> bool {
        !self.handshake.is_zero() && now.saturating_sub(self.handshake) < SESSION
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::Ipv4Net;
    use std::collections::BTreeSet;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn peer(number: u8, at: [u8; 4]) -> WireguardPeer {
        let allowed = Ipv4Net::new_assert([10, 244, number, 0].into(), 24);
        let endpoint = SocketAddrV4::new(at.into(), 51_820);
        WireguardPeer { public_key: PublicKey([number; 32]), endpoint, allowed }
    }

    fn standing(peers: &[WireguardPeer], handshake: Duration) -> Device {
        let one = |peer: &WireguardPeer| Standing {
            endpoint: Some(peer.endpoint),
            allowed: BTreeSet::from([peer.allowed]),
            handshake,
            ..Standing::default()
        };
        let peers = peers.iter().map(|peer| (peer.public_key, one(peer))).collect();
        Device { peers, ..Device::default() }
    }

    fn known(peers: &[WireguardPeer]) -> Before {
        peers.iter().map(|peer| (peer.public_key, peer.endpoint)).collect()
    }

    #[test]
    fn only_what_differs_is_written() {
        let both = [peer(1, [192, 168, 0, 1]), peer(2, [192, 168, 0, 2])];
        let (found, want) = (standing(&both, NOW), wanted(&both, None));
        assert_eq!(difference(&found, &want, &known(&both), NOW), []);
        assert_eq!(difference(&Device::default(), &want, &Before::new(), NOW).len(), 2);

        let other = wanted(&both[1..], None);
        let gone = difference(&found, &other, &known(&both), NOW);
        assert_eq!(gone, [Change::Remove(both[0].public_key)]);

        let mut crooked = found.clone();
        let first = crooked.peers.get_mut(&both[0].public_key).expect("a peer");
        first.allowed.insert(Ipv4Net::default());
        let second = crooked.peers.get_mut(&both[1].public_key).expect("a peer");
        second.embellished = true;
        let allowed = |p: WireguardPeer| Change::Allowed { key: p.public_key, allowed: p.allowed };
        assert_eq!(difference(&crooked, &want, &known(&both), NOW), both.map(allowed));
    }

    #[test]
    fn a_move_writes_the_endpoint_and_nothing_else() {
        let (here, there) = ([peer(1, [192, 168, 0, 1])], [peer(1, [10, 20, 0, 7])]);
        let (found, want) = (standing(&here, NOW), wanted(&there, None));
        let key = here[0].public_key;
        let change = [Change::Endpoint { key, endpoint: there[0].endpoint }];
        assert_eq!(difference(&found, &want, &known(&here), NOW), change);
    }

    /// The peer has left and said so by speaking; the word of it has not arrived yet.
    #[test]
    fn where_a_peer_speaks_from_it_is_left() {
        let (told, real) = ([peer(1, [192, 168, 0, 1])], [peer(1, [10, 20, 0, 7])]);
        let want = wanted(&told, None);
        let key = told[0].public_key;
        let back = [Change::Endpoint { key, endpoint: told[0].endpoint }];
        for before in [known(&told), Before::new()] {
            let found = standing(&real, NOW - Duration::from_secs(100));
            assert_eq!(difference(&found, &want, &before, NOW), []);
            for silent in [Duration::ZERO, NOW - SESSION] {
                assert_eq!(difference(&standing(&real, silent), &want, &before, NOW), back);
            }
        }
    }

    #[test]
    fn nobody_is_a_peer_of_itself_and_each_is_one_once() {
        let all = [peer(1, [192, 168, 0, 1]), peer(2, [192, 168, 0, 2]), peer(2, [10, 0, 0, 9])];
        let found = wanted(&all, Some(all[0].public_key));
        assert_eq!(found.into_values().collect::<Vec<_>>(), [all[1]]);
    }
}
