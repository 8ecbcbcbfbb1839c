//! The network port on rtnetlink and /proc/sys, for the network namespace of the thread that opens
//! it. Its model is `sim/src/kernel/port.rs`; `tests/port_network.rs` proves both alike.
//!
//! Requests are carried out within [`Port::perform`], one after the other: see `socket.rs` for why
//! nothing is won by waiting. What the kernel has is listed once and then followed through its
//! news (`monitor.rs`), so that a request writes differences only and lists nothing.

pub mod admin;
pub mod errno;
mod links;
mod message;
mod mirror;
mod monitor;
mod neighbours;
mod nexthops;
mod node;
mod observe;
pub mod pod;
mod routes;
mod socket;
pub mod sysctl;
pub mod wireguard;

pub(crate) use self::errno::from_io as errno_of;
use self::node::Node;
use crate::port::{Answer, Local, Port};
use kubesim_actors::ports::network::{Errno, Reply, Request, State};
use smol_str::SmolStr;
use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

/// The driver. Needs `CAP_NET_ADMIN` in the network namespace.
#[derive(Clone, Debug)]
pub struct Network(Rc<RefCell<Node>>);

impl Network {
    /// Of the calling thread's network namespace.
    pub fn open() -> io::Result<Network> {
        Network::with_room(socket::RECEIVE_BUFFER)
    }

    /// With so many bytes of room for news, after whose overflow everything is listed again.
    pub fn with_room(bytes: usize) -> io::Result<Network> {
        Ok(Network(Rc::new(RefCell::new(Node::open(bytes)?))))
    }
}

impl Network {
    /// What the kernel has now.
    pub fn state(&self) -> Result<Arc<State>, Errno> {
        self.0.borrow_mut().state()
    }
}

/// Puts an address that no link has on the loopback, so that it is this machine's.
pub(crate) fn adopt(address: Ipv4Addr) -> Result<(), Errno> {
    let mut socket = socket::Socket::open().map_err(|error| errno_of(&error))?;
    links::adopt(&mut socket, address)
}

impl Port for Network {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let reply = match request {
            Request::Observe => return Box::pin(observe::run(Rc::clone(&self.0), answer)),
            request => self.0.borrow_mut().carry_out(&request),
        };
        Box::pin(async move {
            // Nobody waits any more: it is done all the same.
            let _ = answer.send(reply).await;
        })
    }
}

impl Node {
    fn carry_out(&mut self, request: &Request) -> Reply {
        let (subject, result) = match request {
            Request::Observe => return Reply::State(self.state().unwrap_or_default()),
            Request::EnsureBridge { name, address, mtu } => {
                (name, self.ensure_bridge(name, *address, *mtu))
            }
            Request::EnsureVxlan { name, spec } => (name, self.ensure_vxlan(name, spec)),
            Request::EnsureWireguard { name, spec } => (name, self.ensure_wireguard(name, spec)),
            Request::SetWireguardPeers { dev, peers } => {
                (dev, self.set_wireguard_peers(dev, peers))
            }
            Request::DeleteLink { name } => (name, self.delete_link(name)),
            Request::SetRoutes { proto, routes } => {
                return Reply::RoutesSet {
                    proto: *proto,
                    refused: self.set_routes(*proto, routes),
                };
            }
            Request::SetNeighbours { dev, entries } => (dev, self.set_neighbours(dev, entries)),
            Request::SetFdb { dev, entries } => (dev, self.set_fdb(dev, entries)),
            Request::SetSysctl { key, value } => (key, sysctl::set(key, value)),
            Request::GetSysctl { key } => {
                return Reply::Sysctl { key: key.clone(), value: sysctl::get(key) };
            }
        };
        Reply::Done { subject: SmolStr::clone(subject), result }
    }
}
