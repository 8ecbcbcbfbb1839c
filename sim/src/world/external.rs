//! Machines that are played elsewhere: the lab's nodes, which are network namespaces of a real
//! kernel with real processes in them.
//!
//! The world keeps the wire, the routers, faults, probes and expectations; nodes and clients are
//! external. Of an external machine
//! it has the place on the wire and a picture, so that oracles and the judge see what they see of
//! any other. What is to happen there goes out as an [`Order`]; what happened there comes in by the
//! methods here. No clock and no I/O: whoever plays the machines calls [`World::run_until`] with
//! the present instant, then says what came in, then takes the orders.

use super::draw::draw;
use super::{Cell, Dropped, Kind, Role, World};
use crate::body::Body;
use crate::kernel::packet::{Frame, Payload};
use crate::kernel::{Kernel, NsId};
use crate::scenario::{self, ProbeFrom, ProbeKind, WriteHow};
use ipnet::Ipv4Net;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Name, Uid};
use kubesim_actors::ports::api::{Error, Reply, Request};
use kubesim_actors::ports::network::{
    FdbEntry, Mac, Neighbour, Proto, Route, State, WireguardPeer,
};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};
use kubesim_runtime::{Loss, Time};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// What the scenario has tried on a machine, in the words in which a refusal is told.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// "fault `x`", "the sysctls of node `n1`"
    pub whose: String,
    /// "iptables -D FORWARD 1 on n1"
    pub what: String,
}

/// Something that is to happen on an external machine.
#[derive(Clone, Debug)]
pub enum Order {
    /// A frame arrives at its card.
    Frame(Frame),
    /// The card's cable has a signal, or none any more.
    Carrier(bool),
    /// Another static address, and the way out of the network it is in.
    Readdress {
        address: Ipv4Net,
        gateway: Ipv4Addr,
    },
    /// The static address that it was given goes, and DHCP is asked again once there is a carrier.
    AskDhcp,
    PowerOn,
    PowerOff(Loss),
    Sysctl {
        key: Name,
        value: String,
    },
    /// One `iptables` command in its own words.
    Iptables(String),
    WriteFile {
        path: Name,
        text: String,
        how: WriteHow,
    },
    /// An actor's process ends, and stays so until the order to start it.
    Kill(Kind),
    Start(Kind),
    StartSoftware(scenario::Software),
    /// One that fails the run where it cannot be carried out, as [`World::disobeyed`] tells.
    Attempt {
        attempt: Attempt,
        order: Box<Order>,
    },
    /// A person's write at the machine of the API server; answered by [`World::operated`].
    Operate {
        call: u64,
        request: Arc<Request>,
    },
    /// What it has now, whether changed or not: answered by [`World::pictured`].
    Show(Time),
    /// Answered by [`World::tried`].
    Try(Try),
    /// A stream's connection; answered by [`World::stream_opened`] or [`World::stream_broke`].
    OpenStream {
        slot: usize,
        pod: Option<Uid>,
        to: SocketAddrV4,
    },
    /// One message of a stream; its echo is told by [`World::stream_echoed`].
    SendStream {
        slot: usize,
        seq: u64,
    },
}

/// One try of a probe.
#[derive(Clone, Debug)]
pub struct Try {
    pub slot: usize,
    pub number: u32,
    /// In this pod's namespace; `None`: in the machine's own.
    pub pod: Option<Uid>,
    pub kind: ProbeKind,
    pub to: Destination,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Address(SocketAddrV4),
    /// The API server, who speaks TLS.
    Api(SocketAddrV4),
    /// To be looked up there first.
    Host(Name, u16),
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// An answer to a ping.
    Answered,
    Http {
        status: u16,
        text: SmolStr,
    },
    /// A dig's addresses, sorted, and whether the answer says that there are more.
    Records {
        answer: Vec<Ipv4Addr>,
        cut: bool,
    },
    Failed(SmolStr),
}

/// What an external machine's kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub state: Arc<State>,
    /// Of the main table.
    pub routes: Vec<(Route, Proto)>,
    /// Permanent ones, by device.
    pub neighbours: Vec<(Name, Neighbour)>,
    pub fdb: Vec<(Name, FdbEntry)>,
    /// WireGuard's, by device: one that sends from several networks comes once for each, and one
    /// without an endpoint not at all.
    pub wireguard_peers: Vec<(Name, WireguardPeer)>,
    /// `iptables-save`.
    pub rules: String,
    /// The proxy's table in nftables mode, in the order of its keys.
    pub elements: Arc<[(FlatKey, FlatValue)]>,
    /// Those that an expectation is about and that the state does not have.
    pub sysctls: Vec<(Name, String)>,
    /// Addresses that live sandboxes hold, and the MTU of their cards.
    pub sandboxes: Vec<(Ipv4Addr, u32)>,
}

/// A machine's network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkCard {
    pub name: Name,
    pub mac: Mac,
    pub mtu: u32,
    /// `None`: by DHCP.
    pub address: Option<Ipv4Net>,
}

impl World {
    pub fn is_external(&self, machine: u32) -> bool {
        let role = self.machines[machine as usize].role;
        self.knobs.external && matches!(role, Role::Node(_) | Role::Client(_))
    }

    /// The orders since the last call, oldest first, with the machine that each is for.
    pub fn take_orders(&mut self) -> Vec<(u32, Order)> {
        std::mem::take(&mut self.orders)
    }

    /// The order goes out if the machine is external; else the caller does it.
    pub(super) fn ordered(&mut self, machine: u32, order: impl FnOnce() -> Order) -> bool {
        let external = self.is_external(machine);
        if external {
            self.orders.push((machine, order()));
        }
        external
    }

    /// The machine's first card, as the scenario has it.
    pub fn card_of(&self, machine: u32) -> Option<NetworkCard> {
        let card = self.places.first_card(machine)?;
        Some(NetworkCard { name: card.name, mac: card.mac, mtu: card.mtu, address: card.address })
    }

    /// The actors of a machine, in the order in which they start.
    pub fn cells_on(&self, machine: u32) -> &[Cell] {
        &self.machines[machine as usize].cells
    }

    // What comes in.

    /// The machine's card sends a frame.
    pub fn frame_from(&mut self, machine: u32, frame: Frame) {
        self.note_query(machine, &frame);
        let host = &self.machines[machine as usize];
        if let Some((link, _)) = host.first_port().filter(|_| host.on) {
            self.transmit(machine, link, frame);
        }
    }

    /// What of a cluster DNS' questions is seen here: those that leave the machine.
    fn note_query(&mut self, machine: u32, frame: &Frame) {
        let Payload::Ip(packet) = &frame.payload else { return };
        let Body::Dns(message) = &packet.body else { return };
        let dns = |kind| self.cell_of(machine, kind);
        if !message.response
            && let Some(cell) = dns(Kind::Dns).or_else(|| dns(Kind::KubeDns))
        {
            self.query_forwarded(cell, packet.dst);
        }
    }

    pub fn address_taken(&mut self, machine: u32, address: Ipv4Addr) {
        self.address_acquired(machine, address);
    }

    pub fn address_dropped(&mut self, machine: u32, address: Ipv4Addr, why: Dropped) {
        self.address_lost(machine, address, why);
    }

    /// A remark of an actor.
    pub fn noted(&mut self, cell: Cell, text: String) {
        self.note(cell, text);
    }

    /// An actor's life ended, as its host says.
    pub fn failed(&mut self, cell: Cell, cause: &str) {
        let who = self.who(cell);
        self.line(&who, || format!("failed: {cause}"));
    }

    /// A remark about a machine.
    pub fn remark(&mut self, who: &str, text: String) {
        self.line(who, || text);
    }

    /// The API server refused to run.
    pub fn refused_to_run(&mut self, cell: Cell, why: String) {
        self.refused(cell, why);
    }

    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// What the API server has published.
    pub fn published(&mut self, cache: Cache) {
        self.front.show(cache);
        self.note_doomed();
    }

    pub fn operated(&mut self, call: u64, result: Result<Reply, Error>) {
        self.operator_answered(call, result);
    }

    /// A file's content on the machine now.
    pub fn file_seen(&mut self, machine: u32, path: &str, content: Option<Arc<str>>) {
        let files = &mut self.machines[machine as usize].files;
        match content {
            Some(content) => files.rename_over(path, content),
            None => files.remove(path),
        };
    }

    pub fn tried(&mut self, slot: usize, number: u32, outcome: Tried) {
        let result = match outcome {
            Tried::Answered => Ok(()),
            Tried::Failed(why) => Err(why),
            Tried::Http { status, text } => self.judge_status(slot, status, &text),
            Tried::Records { answer, cut } => {
                let none = answer.is_empty();
                if let Some(attempt) = self.probes[slot].tries.get_mut(number as usize) {
                    (attempt.answer, attempt.cut) = (answer, cut);
                }
                if none { Err("no records".into()) } else { Ok(()) }
            }
        };
        self.probe_done(slot, number, result);
    }

    pub fn stream_opened(&mut self, slot: usize) {
        self.stream_is_up(slot);
    }

    pub fn stream_broke(&mut self, slot: usize) {
        self.stream_is_down(slot);
    }

    pub fn stream_echoed(&mut self, seq: u64) {
        self.stream_read(seq);
    }

    /// Shows what the machine's kernel has now; with the order that it answers, if it does one.
    pub fn pictured(&mut self, machine: u32, picture: &Picture, asked: Option<Time>) {
        if let Some(asked) = asked {
            self.shown_since(machine, asked);
        }
        let boots = self.machines[machine as usize].boots;
        let rng = super::machine::kernel_rng(self.knobs.seed, machine, boots);
        let mut kernel = Kernel::sharing(rng, self.shared.clone());
        let left_out = draw(&mut kernel, self.now, picture);
        self.leave_out(machine, left_out);
        let card = self.places.first_card(machine).map(|card| card.name);
        let link = card.and_then(|name| kernel.link(NsId::HOST, &name).map(|link| link.index));
        let host = &mut self.machines[machine as usize];
        host.kernel = kernel;
        host.sandboxes = Some(picture.sandboxes.clone());
        host.told = Some(Arc::clone(&picture.state));
        if let (Some(link), Some(first)) = (link, host.ports.first_mut()) {
            first.0 = link;
            let port = first.1;
            self.wire.rename_link(port, link);
        }
    }

    /// Says once what no picture of the machine can have.
    fn leave_out(&mut self, machine: u32, what: BTreeSet<String>) {
        let host = &mut self.machines[machine as usize];
        let before = std::mem::replace(&mut host.left_out, what);
        let who = format!("kernel@{}", host.name);
        let news: Vec<String> = host.left_out.difference(&before).cloned().collect();
        for what in news {
            self.line(&who, || format!("has what the model has no word for: {what}"));
        }
    }

    // For the world's own parts.

    /// Power-on of an external machine: its card is on the wire, the rest is the player's.
    pub(super) fn boot_external(&mut self, machine: u32) {
        let cards = self.places.first_card(machine);
        let ports = std::mem::take(&mut self.machines[machine as usize].parked);
        let host = &mut self.machines[machine as usize];
        for (card, port) in cards.iter().zip(ports) {
            // Names are a scenario's and checked to differ.
            let Ok(link) = host.kernel.add_uplink(&card.name, card.mac, card.mtu) else { continue };
            self.wire.rename_link(port, link);
            host.ports.push((link, port));
        }
        self.machines[machine as usize].shown = None;
        self.orders.push((machine, Order::PowerOn));
        self.orders.push((machine, Order::Show(self.now)));
        self.held_down(machine);
        if let Role::Node(node) = self.machines[machine as usize].role {
            // What is there from the start is the player's, before any actor.
            self.plan_software(machine, node, |software| !software.start.is_zero());
        }
    }

    /// What faults hold down on a machine that boots.
    fn held_down(&mut self, machine: u32) {
        if self.is_unplugged(machine) {
            self.orders.push((machine, Order::Carrier(false)));
        }
        for cell in self.machines[machine as usize].cells.clone() {
            if self.stopped.is_held(cell) {
                self.orders.push((machine, Order::Kill(cell.kind)));
            }
        }
    }

    /// The external machine from which a probe is made, and the pod's namespace there.
    pub(super) fn external_place(
        &self,
        from: &ProbeFrom,
    ) -> Result<Option<(u32, Option<Uid>)>, SmolStr> {
        if !self.knobs.external {
            return Ok(None);
        }
        let (name, pod) = match from {
            ProbeFrom::Client(name) | ProbeFrom::Node(name) => (Some(name.clone()), None),
            ProbeFrom::Pod(pods) => {
                let pod = self.find_pod(pods).ok_or("no ready pod to probe from")?;
                let node = pod.pod().and_then(|(spec, _)| spec.node_name.clone());
                (node.map(Name::from), Some(pod.uid))
            }
        };
        let machine = name.as_ref().and_then(|name| self.machine_named(name));
        let machine = machine.ok_or("no such machine")?;
        if !self.machines[machine as usize].on {
            return Err(format_smolstr!("{} is off", self.machines[machine as usize].name));
        }
        Ok(Some((machine, pod)))
    }

    /// The API server's machine, if it is external.
    pub(super) fn external_server(&self) -> Option<u32> {
        self.is_external(self.front.machine).then_some(self.front.machine)
    }

    /// Where an actor's remarks are from.
    pub fn cell_of(&self, machine: u32, kind: Kind) -> Option<Cell> {
        self.cells_on(machine).iter().copied().find(|cell| cell.kind == kind)
    }
}
