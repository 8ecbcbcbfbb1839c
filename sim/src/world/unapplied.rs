//! Faults of single machines, and what becomes of one that cannot be applied: it fails the run,
//! which would else be judged by what never happened.

use super::external::{Attempt, Order};
use super::operator::Refusal;
use super::{World, words};
use crate::kernel::NsId;
use crate::scenario::{FaultKind, WriteHow};
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::Errno;
use std::fmt::Display;

impl World {
    /// Writes down that something of the scenario could not be done: what was tried, on what and
    /// what was found. `whose` is "fault `x`" or "the sysctls of node `n1`".
    pub(super) fn unapplied(&mut self, whose: &str, what: String) {
        self.line("fault", || format!("{whose} could not be applied: {what}"));
        let text = format!("{whose} could not be applied at {}: {what}", self.now);
        self.unapplied.push(Refusal { at: self.now, text });
    }

    /// The first fault that could not be applied, and why.
    pub fn first_unapplied(&self) -> Option<&str> {
        self.unapplied.first().map(|refusal| refusal.text.as_str())
    }

    /// An external machine could not do what it was ordered; `attempt`: whose order it was, where
    /// it was the scenario's.
    pub fn disobeyed(&mut self, machine: u32, attempt: Option<Attempt>, why: &str) {
        match attempt {
            Some(Attempt { whose, what }) => self.unapplied(&whose, format!("{what}: {why}")),
            None => {
                let name = self.machines[machine as usize].name.clone();
                self.unapplied(&format!("what was ordered of {name}"), why.to_owned());
            }
        }
    }

    /// Does something that may be refused, here or by whoever plays the machine.
    pub(super) fn attempt(
        &mut self,
        whose: &str,
        what: &str,
        act: impl FnOnce(&mut World) -> Result<(), String>,
    ) {
        let before = self.orders.len();
        if let Err(why) = act(self) {
            self.unapplied(whose, format!("{what}: {why}"));
        }
        let attempt = Attempt { whose: whose.to_owned(), what: what.to_owned() };
        let ordered = self.orders.split_off(before).into_iter();
        self.orders.extend(ordered.map(|(machine, order)| {
            (machine, Order::Attempt { attempt: attempt.clone(), order: Box::new(order) })
        }));
    }

    /// Does something on each of these machines that only a running one can have done to it.
    fn on_each(
        &mut self,
        fault: &Name,
        nodes: &[Name],
        what: &str,
        mut act: impl FnMut(&mut World, u32) -> Result<(), String>,
    ) {
        for node in nodes {
            let Some(machine) = self.machine_named(node) else { continue };
            let (whose, what) = (format!("fault `{fault}`"), format!("{what} on {node}"));
            self.attempt(&whose, &what, |world| match world.machines[machine as usize].on {
                true => act(world, machine),
                false => Err(OFF.to_owned()),
            });
        }
    }

    /// A fault of running machines; every other kind is nothing here.
    pub(super) fn strike_machines(&mut self, fault: &Name, kind: &FaultKind) {
        match kind {
            FaultKind::WriteFile { nodes, path, how, text } => {
                self.on_each(fault, nodes, &format!("writing {path}"), |world, machine| {
                    let refused = world.machines[machine as usize].files.refusal(path);
                    refused.map_or(Ok(()), |why| Err(why.to_string()))?;
                    world.write_file(machine, path, text, *how);
                    Ok(())
                });
            }
            FaultKind::Sysctl { nodes, key, value } => {
                let what = format!("sysctl {key}={value}");
                self.on_each(fault, nodes, &what, |world, machine| {
                    world.write_sysctl(machine, key, *value)
                });
            }
            FaultKind::Iptables { nodes, command } => {
                self.on_each(fault, nodes, &format!("iptables {command}"), |world, machine| {
                    world.iptables(machine, command)
                });
            }
            FaultKind::StartSoftware { nodes, software } => {
                let what = format!("starting {}", words::program(software.kind));
                self.on_each(fault, nodes, &what, |world, machine| {
                    world.begin_software(machine, software)
                });
            }
            _ => {}
        }
    }

    /// Writes a sysctl; the error says what was found.
    pub(super) fn write_sysctl(
        &mut self,
        machine: u32,
        key: &str,
        value: i64,
    ) -> Result<(), String> {
        let value = value.to_string();
        if self.ordered(machine, || Order::Sysctl { key: key.into(), value: value.clone() }) {
            return Ok(());
        }
        let set =
            self.kernel(machine, |k, now, out| k.set_sysctl(now, NsId::HOST, key, &value, out));
        set.map_err(|errno| {
            let state = self.machines[machine as usize].kernel.state();
            no_sysctl(errno, state.links.iter().map(|link| &link.name))
        })
    }

    pub(super) fn write_file(&mut self, machine: u32, path: &str, text: &str, how: WriteHow) {
        let order = || Order::WriteFile { path: path.into(), text: text.to_owned(), how };
        if self.ordered(machine, order) {
            return;
        }
        let files = &mut self.machines[machine as usize].files;
        let told = match how {
            WriteHow::Rename => files.rename_over(path, text.into()),
            WriteHow::Symlink => {
                let target = format!("{path}.{}", self.happened.len());
                files.rename_over(&target, text.into());
                files.symlink_to(path, &target)
            }
            WriteHow::InPlace => files.write_in_place(path, text.into()),
            WriteHow::Empty => files.truncate(path),
        };
        let name = self.machines[machine as usize].name.clone();
        self.line(&format!("files@{name}"), || {
            format!("{path} changed: {}", words::write_how(how))
        });
        for (watcher, reply) in told {
            if let Some(life) = super::Life::unpack(watcher) {
                self.tell_files(life, None, reply);
            }
        }
    }
}

/// Why a sysctl could not be written on a machine that has these links.
pub fn no_sysctl(errno: Errno, links: impl Iterator<Item = impl Display>) -> String {
    match errno {
        Errno::Enodev => {
            let links = words::list(links);
            format!("there is no such key; the machine's links are {links}")
        }
        errno => format!("the kernel refused the value ({errno})"),
    }
}

/// Found, and what to try.
const OFF: &str = "the machine is off; let the fault strike while it is on";

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Report, Trace};
    use crate::world::testing;

    fn play(more: &str) -> Report {
        testing::play(&testing::scenario("", more), Trace::default()).0
    }

    /// A worker that is off and one that is on, and a fault.
    fn fault(kind: &str, more: &str) -> Report {
        let node = |name: &str, last: u32, more: &str| {
            format!(
                "[[node]]\nname = \"{name}\"\nnetwork = \"lan\"\n\
                 address = \"192.168.1.{last}\"\n{more}\n"
            )
        };
        let nodes = node("w1", 12, "") + &node("w2", 13, "off = true");
        let fault = format!("[[fault]]\nname = \"it\"\nat = \"20s\"\nkind = \"{kind}\"\n{more}\n");
        play(&(nodes + &fault))
    }

    #[test]
    fn a_fault_that_cannot_be_applied_fails_the_run_and_says_what_was_tried() {
        let off = "the machine is off; let the fault strike while it is on";
        let rule = "nodes = \"w1\"\ncommand = \"-I FORWRD 1 -j DROP\"";
        let cases = [
            ("iptables", rule, "iptables -I FORWRD 1 -j DROP on w1: "),
            (
                "iptables",
                "nodes = \"w2\"\ncommand = \"-I FORWARD 1 -j DROP\"",
                &format!("iptables -I FORWARD 1 -j DROP on w2: {off}"),
            ),
            (
                "sysctl",
                "nodes = \"w1\"\nkey = \"net.ipv4.conf.eth7.forwarding\"\nvalue = 0",
                "sysctl net.ipv4.conf.eth7.forwarding=0 on w1: there is no such key; the machine's \
                 links are lo, eth0",
            ),
            (
                "write-file",
                "nodes = \"w1\"\npath = \"/run/flannel\"",
                "writing /run/flannel on w1: is a directory",
            ),
            (
                "start-software",
                "nodes = \"w1\"\nsoftware = \"docker\"\n[[fault]]\nname = \"again\"\n\
                 kind = \"start-software\"\nat = \"30s\"\nnodes = \"w1\"\nsoftware = \"docker\"",
                "starting docker 1.13 on w1: it runs already; ",
            ),
            (
                "start-software",
                "nodes = \"w1\"\nsoftware = \"ufw\"\n[[fault]]\nname = \"again\"\n\
                 kind = \"start-software\"\nat = \"30s\"\nnodes = \"w1\"\nsoftware = \"ufw\"",
                "starting ufw on w1: it runs already; ",
            ),
            ("delete", "object = \"Pod/none\"", "delete Pod default/none: there never was one"),
            ("node-delete", "nodes = \"w2\"", "delete Node w2: there never was one"),
            (
                "delete",
                "of-kind = \"Pod\"\nlabels = { a = \"b\" }",
                "every Pod with a=b: the API has none",
            ),
        ];
        for (kind, more, found) in cases {
            let report = fault(kind, more);
            let why = report.failure.unwrap_or_default();
            assert_eq!(report.outcome, Outcome::Failed, "{kind}");
            let begins = match more.contains("again") {
                true => "fault `again` could not be applied at 30.",
                false => "fault `it` could not be applied at 20.",
            };
            assert!(why.starts_with(begins), "{why}");
            assert!(why.contains(found), "{why}");
        }
    }

    #[test]
    fn what_linux_has_and_the_model_has_not_is_said_to_be_so() {
        let cases = [
            (
                "-A FORWARD -m multiport -j DROP",
                "reads no such rule: Couldn't load match `multiport'",
            ),
            ("-t nat -A OUTPUT -j REDIRECT --to-ports 80", "reads no such rule: unknown option"),
            ("-A FORWARD -j LOG", "has no target LOG"),
            ("-R FORWARD 1 -j DROP", "has -A, -D, -I, "),
        ];
        for (command, what) in cases {
            let report = fault("iptables", &format!("nodes = \"w1\"\ncommand = \"{command}\""));
            let why = report.failure.unwrap_or_default();
            let said =
                format!("iptables {command} on w1: the simulator's model of iptables {what}");
            assert!(why.contains(&said), "{why}");
        }
    }

    #[test]
    fn what_is_gone_already_is_as_good_as_deleted() {
        let again =
            "[[fault]]\nname = \"again\"\nkind = \"delete\"\nat = \"40s\"\nobject = \"Node/w1\"";
        let report = fault("node-delete", &format!("nodes = \"w1\"\n{again}"));
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
    }

    #[test]
    fn a_write_that_no_api_server_takes_fails_the_run() {
        let gone = "[[fault]]\nname = \"gone\"\nkind = \"stop\"\nat = \"10s\"\nactor = \"apiserver\"\n\
                    nodes = \"n1\"\n";
        let labels = format!("of-kind = \"Node\"\n{gone}");
        let why = fault("delete", &labels).failure.unwrap_or_default();
        assert!(why.contains("`it` could not be applied: it has waited since 20.000s"), "{why}");
        let why = fault("delete", &format!("object = \"Node/w1\"\n{gone}")).failure;
        let said = "fault `it`: delete Node w1, asked for at 20.000s, was not done: no API server";
        assert!(why.as_deref().is_some_and(|why| why.starts_with(said)), "{why:?}");
    }

    #[test]
    fn a_sysctl_that_is_refused_at_boot_fails_the_run() {
        let node = "[[node]]\nname = \"w\"\nnetwork = \"lan\"\naddress = \"192.168.1.12\"\n\
                    sysctls = { \"net.ipv4.conf.eth1.forwarding\" = 1 }\n";
        let why = play(node).failure.unwrap_or_default();
        let said = "the sysctls of node `w` could not be applied at 0.000s: sysctl net.ipv4.conf.eth1.forwarding=1 \
                    at its boot: there is no such key";
        assert!(why.starts_with(said), "{why}");
    }
}
