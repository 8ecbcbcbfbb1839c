//! A machine on a network, and two of its programs that speak UDP through the packets port.

use kubesim_actors::dns::message::{Message, Type};
use kubesim_actors::ports::network::Errno;
use kubesim_actors::ports::packets::{Body, Reply, Request};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Server,
    Client,
}
pub use Who::{Client, Server};

/// `eth0` has these two, and nobody else is on its network.
pub const ADDRESSES: [&str; 2] = ["192.168.0.5/24", "192.168.0.6/24"];

pub trait World {
    fn ask(&mut self, who: Who, request: Request);
    /// What a program was told since this was asked last, once nothing more comes.
    fn news(&mut self, who: Who) -> Vec<Reply>;
    /// The program crashed; it will ask anew.
    fn crash(&mut self, who: Who);
    fn pass(&mut self, time: Duration);
}

pub fn at(text: &str) -> SocketAddrV4 {
    text.parse().expect("an address and a port")
}

pub fn query(id: u16) -> Message {
    Message::query(id, "web.default.svc.cluster.local".into(), Type::A)
}

pub trait Asking: World {
    fn bind(&mut self, who: Who, at: &str) {
        let at = self::at(at);
        self.ask(who, Request::Bind { address: *at.ip(), port: at.port() });
    }

    fn send(&mut self, who: Who, from: Option<&str>, from_port: u16, to: &str, id: u16) {
        let from = from.map(|from| from.parse::<Ipv4Addr>().expect("an address"));
        let body = Body::Dns(Arc::new(query(id)));
        self.ask(who, Request::Send { from, from_port, to: at(to), body });
    }

    /// Each datagram: the address that was asked, who asked, and the message's id.
    fn datagrams(&mut self, who: Who) -> Vec<(String, String, u16)> {
        let told = self.news(who);
        let datagram = |reply: &Reply| match reply {
            Reply::Datagram { local, from, body: Body::Dns(message) } => {
                assert_eq!(**message, query(message.id));
                (local.to_string(), from.to_string(), message.id)
            }
            other => panic!("{other:?} among {told:?}"),
        };
        told.iter().map(datagram).collect()
    }

    fn is_unreachable(&mut self, who: Who, to: &str) {
        assert_eq!(self.news(who), [Reply::Unreachable { to: at(to) }]);
    }

    fn bind_fails(&mut self, who: Who, at: &str, why: Errno) {
        self.bind(who, at);
        let port = self::at(at).port();
        assert_eq!(self.news(who), [Reply::BindFailed { port, why }], "{at}");
    }
}

impl<W: World> Asking for W {}
