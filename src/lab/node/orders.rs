//! What is ordered of a node: faults, people's writes, tries of probes.

use super::{Node, address, below, put_file, refusal, software, streams, tries};
use crate::lab::mail::News;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Proto, Route};
use kubesim_backends::network::sysctl;
use kubesim_sim::scenario::WriteHow;
use kubesim_sim::world::external::Order;
use kubesim_sim::world::unapplied::no_sysctl;
use std::net::Ipv4Addr;
use tokio::sync::watch;
use tokio::task::spawn_local;

/// The links of this thread's network namespace.
pub(super) fn links() -> Vec<String> {
    // Two lines of heads, and then one for each link: `  eth0: 100 …` (net/core/net-procfs.c).
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

impl Node {
    pub(super) async fn obey(&mut self, order: Order) {
        let (attempt, order) = match order {
            Order::Attempt { attempt, order } => (Some(attempt), *order),
            order => (None, order),
        };
        if let Err(why) = self.carry_out(order).await {
            self.mail.send(News::Disobeyed(attempt, why));
        }
    }

    /// The error says why not; what was tried and on what, its attempt says.
    async fn carry_out(&mut self, order: Order) -> Result<(), String> {
        match order {
            Order::Carrier(up) => self.set_carrier(up),
            Order::Readdress { address, gateway } => self.readdress(address, gateway),
            Order::AskDhcp => self.ask_dhcp(),
            Order::Sysctl { key, value } => {
                let done = sysctl::set(&key, &value);
                done.map_err(|errno| no_sysctl(errno, links().iter()))
            }
            Order::Iptables(command) => software::iptables(&command).await,
            Order::WriteFile { path, text, how } => self.write_file(&path, &text, how),
            Order::Kill(kind) => {
                self.hosts.end(|cell| cell.kind == kind).await;
                Ok(())
            }
            Order::Start(kind) => {
                self.hosts.start_again(|cell| cell.kind == kind);
                Ok(())
            }
            Order::Operate { call, request } => {
                if let Some(person) = &self.person {
                    person.operate(call, request);
                }
                Ok(())
            }
            Order::Show(asked) => {
                self.shutter.press(asked);
                Ok(())
            }
            Order::Try(attempt) => {
                let (ports, mail) = (self.ports.clone(), self.mail.clone());
                let resolv_conf = self.plan.root.join("etc/resolv.conf");
                spawn_local(tries::make(attempt, ports, mail, resolv_conf));
                Ok(())
            }
            Order::OpenStream { slot, pod, to } => {
                let (ports, mail) = (&self.ports, &self.mail);
                self.streams.open(streams::Opening { slot, pod, to }, ports, mail);
                Ok(())
            }
            Order::SendStream { slot, seq } => {
                self.streams.send(slot, seq);
                Ok(())
            }
            Order::StartSoftware(software) => {
                let (name, mail) = (&self.plan.name, &self.mail);
                software::start(&software, &mut self.admin, name, mail).await
            }
            // The wire's and the lab's own.
            Order::Frame(_) | Order::PowerOn | Order::PowerOff(_) | Order::Attempt { .. } => Ok(()),
        }
    }

    fn set_carrier(&mut self, up: bool) -> Result<(), String> {
        let done = self.admin.set_carrier(self.card, up);
        self.carrier.send_replace(up);
        done.map_err(|errno| format!("the carrier of {}: {errno}", self.plan.card.name))
    }

    fn readdress(&mut self, address: Ipv4Net, gateway: Ipv4Addr) -> Result<(), String> {
        // A DHCP client that nobody tells of the carrier any more ends.
        let up = *self.carrier.borrow();
        self.carrier = watch::channel(up).0;
        self.drop_addresses()?;
        let refused = |errno| format!("{address} on {}: {errno}", self.plan.card.name);
        self.admin.add_address(self.card, address).map_err(refused)?;
        let route = Route {
            to: Ipv4Net::default(),
            via: Some(gateway),
            dev: self.plan.card.name.clone(),
            onlink: false,
            metric: 100,
        };
        self.admin.add_route(self.card, &route, Proto::STATIC).map_err(refused)?;
        self.mail.send(News::AddressTaken(address.addr()));
        Ok(())
    }

    fn ask_dhcp(&mut self) -> Result<(), String> {
        self.drop_addresses()?;
        let up = *self.carrier.borrow();
        let (carrier, carried) = watch::channel(up);
        self.carrier = carrier;
        address::ask_dhcp(&self.plan, &self.mail, self.card, carried);
        Ok(())
    }

    /// Takes every address off the card.
    fn drop_addresses(&mut self) -> Result<(), String> {
        let name = &self.plan.card.name;
        let state = self.ports.drivers.network.state();
        let state = state.map_err(|errno| format!("the addresses of {name}: {errno}"))?;
        let card = state.links.iter().find(|link| link.index == self.card);
        for old in card.into_iter().flat_map(|link| &link.addresses) {
            let gone = self.admin.del_address(self.card, *old);
            gone.map_err(|errno| format!("taking {old} off {name}: {errno}"))?;
        }
        Ok(())
    }

    /// As programs change files: by a rename, by a symlink that turns elsewhere, in place.
    fn write_file(&self, path: &str, text: &str, how: WriteHow) -> Result<(), String> {
        let root = &self.plan.root;
        let full = below(root, path);
        let failed = |error| refusal(&error);
        match how {
            WriteHow::InPlace => put_file(root, path, text),
            WriteHow::Empty => put_file(root, path, ""),
            WriteHow::Rename => {
                let beside = format!("{path}.new");
                put_file(root, &beside, text)?;
                std::fs::rename(below(root, &beside), &full).map_err(failed)
            }
            WriteHow::Symlink => {
                let at = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
                let beside = format!("{path}.{at}");
                put_file(root, &beside, text)?;
                let link = full.with_extension("link");
                // Relative: an absolute one would lead out of the node's root directory.
                let target = beside.rsplit('/').next().unwrap_or(&beside);
                let turned = std::os::unix::fs::symlink(target, &link)
                    .and_then(|()| std::fs::rename(&link, &full));
                turned.map_err(failed)
            }
        }
    }
}
