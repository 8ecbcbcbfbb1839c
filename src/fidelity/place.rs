//! Where cases about rules take place, in either family: who is there, and what a step is called.

use super::dice::Dice;
use super::linux::Told;
use super::six;
use super::step::{Answer, SOCKETS, Step};
use kubesim_actors::ports::rules::{AddrType, Address, Rule, Table};
use kubesim_sim::kernel::family::{Family, V4, V6};
use kubesim_sim::kernel::netfilter::Filter;
use kubesim_sim::kernel::netfilter::family::Filtered;
use kubesim_sim::kernel::packet::{Icmp6Error, IcmpError, Packet};
use kubesim_sim::kernel::{Kernel, NsId};
use smol_str::SmolStr;

type Net<F> = <<F as Family>::Addr as Address>::Net;

pub trait Place: Filtered + Told {
    /// Hosts on the legs and behind the default gateway, and the leg they are behind.
    const HOSTS: [(&'static str, usize); 7];
    /// The router's own addresses by leg, one nobody has, and one of many.
    const OTHERS: [&'static str; 5];
    const NETS: [&'static str; 7];
    /// What sources become: at POSTROUTING, and in other chains.
    const OUTSIDE: [&'static str; 3];
    const INSIDE: [&'static str; 2];
    const ERRORS: [Self::Error; 4];
    const TYPES: [AddrType; 3];
    /// What a leg's MTU may be lowered to.
    const MTUS: [u32; 2];

    fn append(table: Table, chain: SmolStr, rule: Rule<Self::Addr>) -> Step;
    fn attempt(table: Table, chain: SmolStr, rule: Rule<Self::Addr>) -> Step;
    fn packet(leg: usize, packet: Packet<Self>) -> Step;
    fn answer(which: usize, answer: Answer<Self>) -> Step;
    /// A process of the router sends something, where there is one.
    fn send(dice: &mut Dice, to: Self::Addr, port: u16) -> Option<Step>;

    fn rules(kernel: &Kernel) -> Option<&Filter<Self>>;
    fn rules_mut(kernel: &mut Kernel) -> Option<&mut Filter<Self>>;

    fn ip(text: &str) -> Self::Addr {
        text.parse().unwrap_or(Self::UNSPECIFIED)
    }
    fn net(text: &str) -> Net<Self> {
        Self::Addr::read_net(text).unwrap_or_default()
    }
}

impl Place for V4 {
    const HOSTS: [(&'static str, usize); 7] = [
        ("10.0.0.10", 0),
        ("10.0.0.11", 0),
        ("10.1.0.10", 1),
        ("10.1.0.11", 1),
        ("10.2.0.10", 2),
        ("10.2.0.11", 2),
        ("172.16.0.7", 0),
    ];
    const OTHERS: [&'static str; 5] =
        ["10.0.0.1", "10.1.0.1", "10.2.0.1", "10.96.0.10", "10.1.255.255"];
    const NETS: [&'static str; 7] = [
        "10.0.0.0/16",
        "10.1.0.0/16",
        "10.0.0.0/8",
        "10.96.0.10/32",
        "10.1.0.10/32",
        "10.0.0.11/32",
        "172.16.0.0/12",
    ];
    const OUTSIDE: [&'static str; 3] = ["10.0.0.1", "10.2.0.1", "10.0.0.50"];
    const INSIDE: [&'static str; 2] = ["10.0.0.50", "10.1.0.50"];
    const ERRORS: [IcmpError; 4] = [
        IcmpError::PortUnreachable,
        IcmpError::HostUnreachable,
        IcmpError::TtlExceeded,
        IcmpError::FragmentationNeeded { mtu: 1400 },
    ];
    const TYPES: [AddrType; 3] = [AddrType::Local, AddrType::Unicast, AddrType::Broadcast];
    const MTUS: [u32; 2] = [576, 1400];

    fn append(table: Table, chain: SmolStr, rule: Rule) -> Step {
        Step::Append(table, chain, rule)
    }
    fn attempt(table: Table, chain: SmolStr, rule: Rule) -> Step {
        Step::Try(table, chain, rule)
    }
    fn packet(leg: usize, packet: Packet) -> Step {
        Step::Packet(leg, Box::new(packet))
    }
    fn answer(which: usize, answer: Answer) -> Step {
        Step::Answer(which, answer)
    }
    fn send(dice: &mut Dice, to: Self::Addr, port: u16) -> Option<Step> {
        Some(Step::Send(dice.one(&SOCKETS), to, port, 0))
    }
    fn rules(kernel: &Kernel) -> Option<&Filter<V4>> {
        kernel.netfilter(NsId::HOST)
    }
    fn rules_mut(kernel: &mut Kernel) -> Option<&mut Filter<V4>> {
        kernel.netfilter_mut(NsId::HOST)
    }
}

impl Place for V6 {
    const HOSTS: [(&'static str, usize); 7] = [
        ("fd00:1::10", 0),
        ("fd00:1::11", 0),
        ("fd00:2::10", 1),
        ("fd00:2::11", 1),
        ("fd00:3::10", 2),
        ("fd00:3::11", 2),
        ("fd00:10::7", 0),
    ];
    const OTHERS: [&'static str; 5] =
        ["fd00:1::1", "fd00:2::1", "fd00:3::1", "fd00:96::10", "fd00:97::10"];
    const NETS: [&'static str; 7] = [
        "fd00:1::/64",
        "fd00:2::/64",
        "fd00::/16",
        "fd00:96::10/128",
        "fd00:2::10/128",
        "fd00:1::11/128",
        "fd00:10::/32",
    ];
    const OUTSIDE: [&'static str; 3] = ["fd00:1::1", "fd00:3::1", "fd00:1::50"];
    const INSIDE: [&'static str; 2] = ["fd00:1::50", "fd00:2::50"];
    const ERRORS: [Icmp6Error; 4] = [
        Icmp6Error::PortUnreachable,
        Icmp6Error::AddressUnreachable,
        Icmp6Error::HopLimitExceeded,
        // No path gets narrower by it, which the model does not keep of IPv6's.
        Icmp6Error::PacketTooBig { mtu: 1500 },
    ];
    const TYPES: [AddrType; 3] = [AddrType::Local, AddrType::Unicast, AddrType::Multicast];
    const MTUS: [u32; 2] = [1280, 1400];

    fn append(table: Table, chain: SmolStr, rule: Rule<Self::Addr>) -> Step {
        Step::Six(six::Act::Append(table, chain, rule))
    }
    fn attempt(table: Table, chain: SmolStr, rule: Rule<Self::Addr>) -> Step {
        Step::Six(six::Act::Try(table, chain, rule))
    }
    fn packet(leg: usize, packet: Packet<V6>) -> Step {
        Step::Six(six::Act::Packet(leg, Box::new(packet)))
    }
    fn answer(which: usize, answer: Answer<V6>) -> Step {
        Step::Six(six::Act::Answer(which, answer))
    }
    /// What is said to a group one hears oneself, which the model does not.
    fn send(dice: &mut Dice, to: Self::Addr, port: u16) -> Option<Step> {
        let send = six::Act::Send(dice.one(&SOCKETS), to, port);
        (!to.is_multicast()).then_some(Step::Six(send))
    }
    fn rules(kernel: &Kernel) -> Option<&Filter<V6>> {
        kernel.netfilter6(NsId::HOST)
    }
    fn rules_mut(kernel: &mut Kernel) -> Option<&mut Filter<V6>> {
        kernel.netfilter6_mut(NsId::HOST)
    }
}
