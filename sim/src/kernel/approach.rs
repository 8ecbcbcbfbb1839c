//! Asks for the memory of a machine before packets walk through it (see `kubesim_runtime::near`).
//! What one pass has asked for, the next reads.

use super::route::Fib;
use super::timers::TimerKey;
use super::{Kernel, Namespace, NsId, SocketId, link};
use kubesim_runtime::near;

impl Kernel {
    /// A connection from the host to a pod is to be walked soon.
    pub fn approach(&self, pod: NsId, pass: usize) {
        let host = self.spaces.get(NsId::HOST);
        let spaces = [host, self.spaces.get(pod)];
        match pass {
            0 => {
                near::value(&self.spaces);
                near::value(&self.core.rng);
                near::value(&self.core.timers);
                near::value(&self.core.sockets);
                near::value(&self.core.work);
                near::value(&self.core.hasher);
            }
            1 => {
                near::slice(&self.spaces.0, 1);
                self.spaces.0.get(pod.0 as usize).into_iter().for_each(near::value);
                self.core.work.approach();
                self.core.sockets.approach(0);
            }
            2 => {
                spaces.into_iter().flatten().for_each(|ns| ns.approach(0));
                self.core.sockets.approach(1);
            }
            3 => {
                spaces.into_iter().flatten().for_each(|ns| ns.approach(1));
                if let Some(pod) = spaces[1] {
                    pod.neighbours.approach_all();
                }
            }
            _ => {
                let Some(host) = host else { return };
                host.netfilter.approach(pass - 3);
                if let Some(pod) = spaces[1] {
                    host.approach_port(pod, pass - 4);
                }
            }
        }
    }

    /// Something for this socket, or its alarm, comes up soon.
    pub fn approach_socket(&self, id: SocketId, pass: usize) {
        self.core.sockets.approach_socket(id, pass);
    }

    /// Its first timer comes up soon.
    pub fn approach_timer(&self, pass: usize) {
        let first = || self.core.timers.first().map(|(_, key)| key);
        match pass {
            0 => self.approach(NsId::HOST, 0),
            1 => self.core.timers.approach(),
            _ => {
                if let Some(TimerKey::Socket(id)) = first() {
                    self.core.sockets.approach_socket(id, pass - 2);
                }
            }
        }
    }
}

impl Namespace {
    fn approach(&self, pass: usize) {
        match pass {
            0 => {
                near::value(&self.id);
                near::value(&self.links);
                near::value(&self.neighbours);
                near::value(&self.netfilter);
                near::value(&self.sysctls);
                self.fib.approach(0);
            }
            _ => {
                self.links.approach();
                self.neighbours.approach();
                self.fib.approach(1);
                self.netfilter.approach(0);
            }
        }
    }

    /// The way to a pod through its bridge.
    fn approach_port(&self, pod: &Namespace, pass: usize) {
        let Some(own) = pod.links.iter().nth(1) else { return };
        let link::Kind::Veth { peer, .. } = own.kind else { return };
        let port = self.links.get(peer);
        match pass {
            0 => {
                if let Some(port) = port {
                    near::value(&port.index);
                    near::value(&port.kind);
                    near::value(&port.master);
                }
                near::slice(&own.addresses, 1);
            }
            _ => {
                let Some(bridge) = port.and_then(|port| port.master) else { return };
                if let Some(address) = own.addresses.first() {
                    self.neighbours.approach_one(bridge, address.ip());
                }
                if let Some(link) = self.links.get(bridge)
                    && let link::Kind::Bridge(bridge) = &link.kind
                {
                    if pass == 1 {
                        near::value(&**bridge);
                    } else {
                        bridge.approach();
                    }
                }
            }
        }
    }
}

impl Fib {
    fn approach(&self, pass: usize) {
        if pass == 0 {
            near::value(&self.local);
            near::value(&self.main);
            near::slice(&self.memo, 4);
            near::value(&self.generation);
        } else {
            for table in [&self.local, &self.main] {
                near::slice(&table.keys, 2);
                near::slice(&table.entries, 6);
            }
        }
    }
}
