//! Foreign programs of a node that change its network once when they start: docker and ufw.

use crate::kernel::NsId;
use crate::scenario::{Software, SoftwareKind};
use crate::world::external::Order;
use crate::world::{World, words};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::Mac;
use kubesim_actors::ports::rules::Table;
use std::net::Ipv4Addr;

pub const DOCKER_BRIDGE: &str = "docker0";
pub const DOCKER_NETWORK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 1), 16);
/// What dockerd sets FORWARD to.
pub const DROP: &str = "-P FORWARD DROP";

/// The rules of docker, as the commands that make them.
pub const DOCKER_RULES: [&str; 8] = [
    "-t nat -N DOCKER",
    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    "-t filter -N DOCKER",
    "-t filter -A FORWARD -o docker0 -j DOCKER",
    "-t filter -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-t filter -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-t filter -A FORWARD -i docker0 -o docker0 -j ACCEPT",
];

pub const UFW_CHAIN: &str = "ufw-before-forward";
/// The rules of ufw.
pub const UFW_RULES: [&str; 3] =
    [DROP, "-N ufw-before-forward", "-A FORWARD -j ufw-before-forward"];

/// Since 1.13, and only where dockerd itself turned ip_forward on (moby/moby#28257).
pub fn docker_drops(turned_on: bool, version: (u32, u32)) -> bool {
    turned_on && version >= (1, 13)
}

/// Why a program is not started: found, and what to try.
pub const RUNS: &str = "it runs already; let it be started once, by [[node]] or by a fault";

impl World {
    /// What the machine starts at its boot.
    pub(in crate::world) fn start_software(&mut self, machine: u32, software: &Software) {
        let whose = format!("the software of node `{}`", self.machines[machine as usize].name);
        let what = format!("starting {} at its boot", words::program(software.kind));
        self.attempt(&whose, &what, |world| world.begin_software(machine, software));
    }

    /// Starts a program, or says what was found.
    pub(in crate::world) fn begin_software(
        &mut self,
        machine: u32,
        software: &Software,
    ) -> Result<(), String> {
        if self.ordered(machine, || Order::StartSoftware(software.clone())) {
            return Ok(());
        }
        if self.runs(machine, software.kind) {
            return Err(RUNS.to_owned());
        }
        match software.kind {
            SoftwareKind::Docker { major, minor } => self.start_docker(machine, (major, minor)),
            SoftwareKind::Ufw => self.start_ufw(machine),
            // It is the DHCP client's way of writing resolv.conf: see `programs::dhcp`.
            SoftwareKind::NetworkManager => {}
        }
        Ok(())
    }

    /// Whether what the program makes when it starts is there.
    fn runs(&self, machine: u32, software: SoftwareKind) -> bool {
        let kernel = &self.machines[machine as usize].kernel;
        match software {
            SoftwareKind::Docker { .. } => kernel.mtu(NsId::HOST, DOCKER_BRIDGE).is_some(),
            SoftwareKind::Ufw => {
                let rules =
                    kernel.netfilter(NsId::HOST).map(|rules| rules.save(Some(Table::Filter)));
                rules.is_some_and(|rules| rules.contains(&format!(":{UFW_CHAIN} ")))
            }
            SoftwareKind::NetworkManager => false,
        }
    }

    /// docker0 on 172.17.0.1/16, ip_forward on, masquerading; since 1.13 FORWARD is set to DROP,
    /// but only where dockerd itself turned ip_forward on (moby/moby#28257).
    fn start_docker(&mut self, machine: u32, version: (u32, u32)) {
        let net = DOCKER_NETWORK;
        let turned_on = self.kernel(machine, |kernel, now, out| {
            let mac = Mac([0x02, 0x42, 0xa4, 0x56, 0xd7, 0x04]);
            let bridge = kernel.add_bridge(NsId::HOST, DOCKER_BRIDGE, mac, 1500);
            if let Ok(bridge) = bridge {
                let _ = kernel.add_address(now, NsId::HOST, bridge, net, out);
                let _ = kernel.set_up(now, NsId::HOST, bridge, true, out);
            }
            let was_on = kernel.sysctl(NsId::HOST, "net.ipv4.ip_forward").as_deref() == Some("1");
            if !was_on {
                let _ = kernel.set_sysctl(now, NsId::HOST, "net.ipv4.ip_forward", "1", out);
            }
            !was_on
        });
        let drops = docker_drops(turned_on, version);
        for rule in DOCKER_RULES {
            self.iptables_of_software(machine, rule);
        }
        if drops {
            self.iptables_of_software(machine, DROP);
        }
        let (major, minor) = version;
        let name = self.machines[machine as usize].name.clone();
        self.line(&format!("docker@{name}"), || {
            let did = if turned_on { "turned ip_forward on" } else { "found ip_forward on" };
            let policy =
                if drops { "FORWARD policy set to DROP" } else { "FORWARD policy left alone" };
            format!("{major}.{minor} started: docker0 is up, {did}, {policy}")
        });
    }

    fn start_ufw(&mut self, machine: u32) {
        for rule in UFW_RULES {
            self.iptables_of_software(machine, rule);
        }
        let name = self.machines[machine as usize].name.clone();
        self.line(&format!("ufw@{name}"), || "started: FORWARD policy set to DROP".to_owned());
    }

    /// One `iptables` command in its own words, or what iptables says against it.
    pub(in crate::world) fn iptables(&mut self, machine: u32, command: &str) -> Result<(), String> {
        if self.ordered(machine, || Order::Iptables(command.to_owned())) {
            return Ok(());
        }
        self.kernel(machine, |kernel, _, _| {
            let rules = kernel.netfilter_mut(NsId::HOST);
            rules.map_or(Ok(()), |rules| rules.command(command))
        })
    }

    /// The same by a program: what is refused is said in the run's lines (who has made docker's
    /// chains by hand, say).
    pub(in crate::world) fn iptables_of_software(&mut self, machine: u32, command: &str) {
        if let Err(why) = self.iptables(machine, command) {
            let name = self.machines[machine as usize].name.clone();
            self.line(&format!("iptables@{name}"), || format!("iptables {command}: {why}"));
        }
    }

    /// `iptables-save` of a machine, one table or all.
    pub fn iptables_save(&self, machine: u32, table: Option<Table>) -> String {
        let rules = self.machines[machine as usize].kernel.netfilter(NsId::HOST);
        rules.map(|rules| rules.save(table)).unwrap_or_default()
    }
}
