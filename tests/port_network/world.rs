//! What the bodies of these tests act on: a machine with somebody who asks through the network
//! port, and somebody else who administers it by other means.

use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{
    Errno, FdbEntry, IfName, Link, Mac, Neighbour, Proto, Reply, Request, Route, RouteSet, State,
    Vxlan,
};
use std::net::Ipv4Addr;
use std::sync::Arc;

pub trait World {
    /// A request that owes one answer.
    fn ask(&mut self, request: Request) -> Reply;
    /// Waits until a state is told that is as it should be, and returns it.
    fn until(&mut self, what: &str, fits: impl Fn(&State) -> bool) -> Arc<State>;
    /// The newest state that was told, once nothing more comes.
    fn settled(&mut self) -> Arc<State>;
    /// Whoever asked is gone; somebody new asks, whose memory is empty.
    fn restart(&mut self);

    /// Two new links that are each other's ends, both up.
    fn add_veth(&mut self, a: &str, b: &str);
    fn del_link(&mut self, name: &str);
    fn set_up(&mut self, name: &str, up: bool);
    fn set_master(&mut self, port: &str, bridge: Option<&str>);
    fn set_mtu(&mut self, name: &str, mtu: u32);
    fn add_address(&mut self, link: &str, address: Ipv4Net) -> Result<(), Errno>;
    fn del_address(&mut self, link: &str, address: Ipv4Net) -> Result<(), Errno>;
    fn add_route(&mut self, route: &Route, proto: Proto) -> Result<(), Errno>;
    fn del_route(&mut self, route: &Route, proto: Proto) -> Result<(), Errno>;
    /// `sysctl -w`
    fn write_sysctl(&mut self, key: &str, value: &str);

    /// The main table.
    fn routes(&mut self) -> Vec<(Route, Proto)>;
    /// The permanent ones, by address.
    fn neighbours(&mut self, link: &str) -> Vec<Neighbour>;
    /// By MAC.
    fn fdb(&mut self, link: &str) -> Vec<FdbEntry>;
}

pub fn net(text: &str) -> Ipv4Net {
    text.parse().expect("a network")
}
pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}
pub fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

/// `10.244.1.0/24 via 192.168.0.2 dev eth0`, with `onlink` and `metric 5` where they are meant.
pub fn route(text: &str) -> Route {
    let mut words = text.split_whitespace();
    let to = net(words.next().expect("a destination"));
    let mut route = Route { to, via: None, dev: IfName::default(), onlink: false, metric: 0 };
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word {
            "via" => route.via = Some(ip(value())),
            "dev" => route.dev = value().into(),
            "metric" => route.metric = value().parse().expect("a number"),
            "onlink" => route.onlink = true,
            other => panic!("{other} in {text}"),
        }
    }
    route
}

pub fn text(route: &Route) -> String {
    let mut text = route.to.to_string();
    if let Some(via) = route.via {
        text += &format!(" via {via}");
    }
    text += &format!(" dev {}", route.dev);
    if route.onlink {
        text += " onlink";
    }
    if route.metric != 0 {
        text += &format!(" metric {}", route.metric);
    }
    text
}

pub fn link<'a>(state: &'a State, name: &str) -> &'a Link {
    state.links.iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no {name}"))
}

pub fn is(state: &State, name: &str, fits: impl Fn(&Link) -> bool) -> bool {
    state.links.iter().any(|link| link.name == name && fits(link))
}

pub fn has(state: &State, name: &str) -> bool {
    is(state, name, |_| true)
}

/// What one asks for in words.
pub trait Asking: World {
    fn done(&mut self, request: Request) -> Result<(), Errno> {
        match self.ask(request) {
            Reply::Done { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    fn bridge(&mut self, name: &str, address: &str, mtu: u32) -> Result<(), Errno> {
        self.done(Request::EnsureBridge { name: name.into(), address: net(address), mtu })
    }

    fn vxlan(&mut self, name: &str, spec: &Vxlan) -> Result<(), Errno> {
        self.done(Request::EnsureVxlan { name: name.into(), spec: spec.clone() })
    }

    fn set_routes(&mut self, routes: &[&str]) -> Vec<(Ipv4Net, Errno)> {
        self.set_routes_except(routes, None)
    }

    fn set_routes_except(
        &mut self,
        routes: &[&str],
        except: Option<&str>,
    ) -> Vec<(Ipv4Net, Errno)> {
        let shared: Arc<[Route]> = routes.iter().map(|text| route(text)).collect();
        self.set(RouteSet { shared, except: except.map(net) })
    }

    fn set(&mut self, routes: RouteSet) -> Vec<(Ipv4Net, Errno)> {
        match self.ask(Request::SetRoutes { proto: Proto::NETD, routes }) {
            Reply::RoutesSet { proto: Proto::NETD, refused } => refused,
            other => panic!("{other:?}"),
        }
    }

    fn set_neighbours(&mut self, dev: &str, entries: &[(&str, u8)]) -> Result<(), Errno> {
        let entry = |(at, last): &(&str, u8)| Neighbour { ip: ip(at), mac: mac(*last) };
        let entries = entries.iter().map(entry).collect();
        self.done(Request::SetNeighbours { dev: dev.into(), entries })
    }

    fn set_fdb(&mut self, dev: &str, entries: &[(u8, &str)]) -> Result<(), Errno> {
        let entry = |(last, at): &(u8, &str)| FdbEntry { mac: mac(*last), remote: ip(at) };
        let entries = entries.iter().map(entry).collect();
        self.done(Request::SetFdb { dev: dev.into(), entries })
    }

    fn set_sysctl(&mut self, key: &str, value: &str) -> Result<(), Errno> {
        self.done(Request::SetSysctl { key: key.into(), value: value.into() })
    }

    fn sysctl(&mut self, key: &str) -> Option<String> {
        match self.ask(Request::GetSysctl { key: key.into() }) {
            Reply::Sysctl { value, .. } => value.map(String::from),
            other => panic!("{other:?}"),
        }
    }

    /// The routes under our tag.
    fn ours(&mut self) -> Vec<String> {
        let of_netd =
            |(route, proto): &(Route, Proto)| (*proto == Proto::NETD).then(|| text(route));
        self.routes().iter().filter_map(of_netd).collect()
    }
}

impl<W: World> Asking for W {}
